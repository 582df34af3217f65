"""The verb `plan`: whether a run fits a device, what it takes, and the least change that makes it fit."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from lit_fm.data.base import ObjectiveData
from lit_fm.data.batches import Batches
from lit_fm.data.order import Deal
from lit_fm.plan.devices import DEVICES, Device, this_cpu
from lit_fm.plan.ledger import ACTIVATIONS, KINDS
from lit_fm.plan.memory import Plan, plan
from lit_fm.plan.quantity import short, size
from lit_fm.plan.ranks import Ranks
from lit_fm.plan.rule_of_thumb import PARTS, TRAINED

UTILISATION = 0.4
"""The share of a device's peak that training reaches; PaLM reached 0.46, large runs since then 0.35 to 0.5."""
_CHECKPOINTED = {"model.init_args.activation_checkpointing": True}
_EIGHT_BITS = {"model.init_args.optimizer": {"class_path": "bitsandbytes.optim.AdamW8bit", "init_args": {"lr": 1e-4}}}
_FOUR_BITS = {
    "model.init_args.adaptation": {
        "class_path": "lit_fm.LoRA",
        "init_args": {"rank": 16, "alpha": 32, "bits": 4},
    },
    "model.init_args.dtype": "bfloat16",
}
_HALF = {"trainer.precision": "bf16-mixed"}
_SHARDED = {"trainer.strategy": {"class_path": "lit_fm.Sharded"}}
MOST_RANKS = 1024
CHANGES: tuple[tuple[str, dict[str, Any], bool, bool], ...] = (
    ("smaller micro-batches, and more of them in a step", {}, False, True),
    ("activations computed again in the backward pass", _CHECKPOINTED, True, False),
    ("both of these", _CHECKPOINTED, False, True),
    ("products in 16 bits", {**_CHECKPOINTED, **_HALF}, True, True),
    ("AdamW in 8 bits", {**_CHECKPOINTED, **_EIGHT_BITS}, True, True),
    ("LoRA over a backbone in 4 bits (QLoRA)", {**_CHECKPOINTED, **_HALF, **_FOUR_BITS}, True, True),
    *(
        (
            "weights, gradients and optimizer state in parts, over {:,} devices (FSDP2)",
            {**_CHECKPOINTED, **_HALF, **_SHARDED, "trainer.devices": 2**k},
            True,
            True,
        )
        for k in range(1, MOST_RANKS.bit_length())
    ),
)
"""From the least to the most; whether with micro-batches of the same size, and of smaller ones."""


def largest(objective: Any, data: ObjectiveData, window: int) -> list[dict[str, Any]]:
    """The micro-batches that take the most memory in the first epoch: those of the longest rows."""
    batches = data.plan().global_batches()
    lengths = data.items["train"].lengths()
    widest = [len(rows) * max(sum(int(lengths[i]) for i in row) for row in rows) for rows in batches]
    order = np.argsort(widest)[::-1][:window]
    collated = Batches(data.items["train"], objective, data.packing)
    return [collated[Deal(batches[number], (data.seed, 0))] for number in order]


def even(objective: Any, rows: int, length: int) -> dict[str, Any]:
    """A micro-batch of rows of running text, all of the same length, of which all is learnt that can be."""
    ids = np.arange(rows * length).reshape(rows, length) % 1000 + 100
    items = [objective.block(row[: length - objective.block_frame].astype(np.int32), False) for row in ids]
    return objective.collate(items, [(0, 0, number) for number in range(rows)])


def planned(objective: Any, data: ObjectiveData, trainer: dict[str, Any], length: int | None, ranks: Ranks) -> Plan:
    """The plan of a run, on the first of its ranks.

    Args:
        length: of rows, where the data is not to be read; it is prepared where this is None.

    Raises:
        ValueError: the strategy cannot part the network.
    """
    window = min(trainer.get("accumulate_grad_batches") or 1, 2)  # a third micro-batch changes nothing any more

    def batches() -> list[dict[str, Any]]:
        return (
            largest(objective, data, window) if length is None else [even(objective, data.batch_size, length)] * window
        )

    found = plan(objective, batches, str(trainer.get("precision") or "32-true"), ranks)
    windows = (trainer.get("accumulate_grad_batches") or 1) / window
    return found._replace(flops=round(found.flops * windows), tokens=round(found.tokens * windows))


def table_of(found: Plan, ranks: Ranks) -> Table:
    """Memory at the peak, by kind, beside what the rule of thumb says."""
    table = Table("memory at the peak", "", "share", "rule of thumb", title=f"{ranks}, one optimizer step")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in KINDS:
        here, thumb = found.peak.get(kind, 0), PARTS.get(kind, 0) * found.parameters
        if here or thumb:
            table.add_row(kind, size(here), f"{here / found.bytes:.0%}", size(thumb) if thumb else "")
    table.add_row("together", size(found.bytes), "", size(TRAINED * found.parameters), style="bold")
    return table


def devices_of(found: Plan, precision: str, steps: int | None, device: Device | None, ranks: int = 1) -> Table:
    """Whether it fits each device, and what a step and the run take there, on so many of them."""
    title = f"At {UTILISATION:.0%} of the peak speed" + (f", {ranks:,} of each" if ranks > 1 else "")
    table = Table("device", "memory", "fits", "a step", "the run", "kWh", "$", title=title)
    for known in [device] if device else [*DEVICES.values(), this_cpu()]:
        seconds = found.flops / known.peak(precision) / UTILISATION
        hours = seconds * (steps or 0) / 3600
        rates = (known.watts / 1000, known.price)  # of this machine, nobody says
        costs = (f"{hours * ranks * rate:,.2f}" if rate else "unknown" for rate in rates)
        row = (_time(hours * 3600), *costs) if steps else ("", "", "")
        fits = "yes" if found.bytes <= known.room else "no"
        table.add_row(known.name, f"{known.memory:,.0f} GiB", fits, _time(seconds), *row)
    return table


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:,.1f} ms"
    return (
        f"{seconds:,.1f} s"
        if seconds < 120
        else f"{seconds / 60:,.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:,.1f} h"
    )


def facts_of(found: Plan) -> list[str]:
    """What else a person wants to know, each in a line."""
    return [
        f"Parameters: {found.parameters:,}, of which {found.learnable:,} learn ({found.learnable / found.parameters:.2%}).",
        f"Operations: {found.flops / 1e12:,.3g} TFLOP a step, {short(found.flops / max(1, found.tokens))} a token.",
        f"On disk: {size(found.checkpoint)} a checkpoint, {size(found.export)} the export.",
        f"Compute-optimal pre-training: {short(20 * found.parameters)} tokens, 20 a parameter (Hoffmann et al. 2022).",
        f"The rule of thumb is {TRAINED} bytes a parameter: all learn, in float32 with Adam, on one device, and 8 of these "
        "are activations. The plan counts what does learn, as it is stored, and activations by batch and length; "
        "gradients are not there at the peak if it comes before them.",
    ]


def as_json(found: Plan, device: Device | None) -> str:
    """All of it, in bytes and operations."""
    more = {} if device is None else {"device": device.name, "room": device.room, "fits": found.bytes <= device.room}
    return json.dumps({**found._asdict(), "bytes": found.bytes, **more}, indent=2)


def advice(found: Plan, device: Device, rows: int, window: int, again: Callable[..., Plan]) -> Iterator[str]:
    """Whether it fits, and how much more would; or the least change after which it does, as YAML."""
    if found.bytes <= device.room:
        yield f"It fits {device.name}, with micro-batches of up to {largest_rows(again, device.room)} rows."
        return
    yield f"It does not fit {device.name}: {size(found.bytes)}, and there are {size(device.room)}."
    if not (change := least_change(again, device.room, rows, window)):
        yield f"No change known here makes it fit, nor up to {MOST_RANKS:,} devices: take a smaller backbone."
        return
    name, changes, now = change
    yield f"The least change that fits, with {size(now.bytes)}: {name}. As an overlay (--config FILE.yaml):"
    yield overlay(changes)


def overlay(changes: dict[str, Any]) -> str:
    """Changed settings as YAML that runs over the config."""
    made: dict[str, Any] = {}
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = made
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return yaml.safe_dump(made, sort_keys=False, default_flow_style=None)


def least_change(
    again: Callable[..., Plan], room: int, rows: int, window: int
) -> tuple[str, dict[str, Any], Plan] | None:
    """The first change, from the least on, after which the run fits.

    Args:
        again: plans the run with changed settings, and so many rows in a micro-batch.
        room: bytes.
    """
    least = 0
    for name, changes, same, smaller in CHANGES:
        if ranks := changes.get("trainer.devices"):
            if least / ranks > room:  # even if all of it could be parted
                continue
            name = name.format(ranks)
        for micro in [rows] * same + [rows // 2**k for k in range(1, rows.bit_length())] * smaller:
            try:
                found = again(changes, micro)
            except ValueError:  # the run does not go with such a setting
                break
            if found.bytes <= room:
                split = {"data.init_args.batch_size": micro, "trainer.accumulate_grad_batches": window * rows // micro}
                return name, {**changes, **(split if micro < rows else {})}, found
            rest = found.bytes - found.peak.get(ACTIVATIONS, 0)
            least = least or rest
            if rest > room:
                break  # smaller micro-batches leave all the rest as it is
    return None


def largest_rows(again: Callable[..., Plan], room: int, most: int = 4096) -> int:
    """How many rows a micro-batch may have on a device, up to `most`; 0 if not one fits."""

    def bytes_of(rows: int) -> int:
        return again({}, rows).bytes

    if (one := bytes_of(1)) > room:
        return 0
    guess = 1 + (room - one) // max(1, bytes_of(2) - one)  # memory grows by about as much with each row
    fits, too_many = 1, most + 1
    while too_many - fits > 1:
        tried = next((n for n in (guess, guess + 1) if fits < n < too_many), (fits + too_many) // 2)
        if bytes_of(tried) <= room:
            fits = tried
        else:
            too_many = tried
    return fits
