"""How far LoRA moved each layer, and in how many directions: norm and effective rank of the update, as table and plot.

The effective rank is exp(H(p)), where p are the singular values as shares of their sum, and H is Shannon's entropy: k for k
directions of equal strength, near 1 where one of them outweighs all others. Roy and Vetterli 2007, "The effective rank: a
measure of effective dimensionality".
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from rich.table import Table
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lit_fm.adapt import Peft
from lit_fm.adapt.layers import block_of
from lit_fm.durable import free
from lit_fm.screen import console
from lit_fm.ship.opened import opened

FEW_BLOCKS = 48
"""Up to so many, each point of a line is marked."""


@dataclass(frozen=True)
class Update:
    """What one layer learnt: dW, which is added to its matrix W.

    Args:
        layer: its name in the backbone.
        kind: what it is called in each block.
        block: its number from the bottom; None outside of the blocks.
        rank: at most so many directions were there to learn (for AdaLoRA, those that were not pruned).
        effective_rank: of dW; 0 where nothing was learnt. DoRA's may exceed `rank`: its factors move whole rows of W.
        update_norm, weight_norm: Frobenius norms of dW and of W.
        share: `update_norm / weight_norm`.
    """

    layer: str
    kind: str
    block: int | None
    rank: int
    effective_rank: float
    update_norm: float
    weight_norm: float
    share: float


def diagnose(run: str) -> None:
    """How far LoRA moved each layer of a run; writes `update.csv` and `update.png` into its folder, over nothing.

    Args:
        run: folder of a run of LoRA, AdaLoRA, or peft's LORA.

    Raises:
        FileNotFoundError: no run, or none with a checkpoint.
        ValueError: its adaptation makes no low-rank update, or one that is not finite.
    """
    folder = Path(run)
    found = updates(opened(run)[0])
    table = Table("block", "layer", "rank", "effective rank", "norm of dW", "of W's norm", title="dW, the update of W")
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    for one, after in zip(found, [*found[1:], None], strict=True):
        numbers = (f"{one.rank}", f"{one.effective_rank:.2f}", f"{one.update_norm:.4g}", f"{one.share:.2%}")
        block = "" if one.block is None else f"{one.block}"
        table.add_row(block, one.kind, *numbers, end_section=after is not None and after.block != one.block)
    console.print(table)
    sheet, picture = free(folder / "update.csv"), free(folder / "update.png")
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Update)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in found)
    draw(found, "/".join(folder.resolve().parts[-2:]), picture)
    console.print(f"Written to {sheet}\nWritten to {picture}")


@torch.no_grad()
def updates(objective: Any) -> list[Update]:
    """Of each layer with a low-rank update, in the network's order.

    Raises:
        ValueError: there is none, or one that is no finite matrix; says which.
    """
    adaptation = objective.adaptation
    layers = {n: m for n, m in objective.network.named_modules() if isinstance(m, LoraLayer)}
    if not layers:
        tuner = adaptation.settings["config"]["peft_type"] if isinstance(adaptation, Peft) else ""
        raise ValueError(
            f"this run's adaptation is {type(adaptation).__name__}{f' with peft_type {tuner}' if tuner else ''}: "
            "diagnose needs a low-rank update, so a run of LoRA, of AdaLoRA, or of Peft with peft_type LORA."
        )
    names = {name: name.removeprefix("base_model.model.") for name in layers}
    kind, began, found = kinds(names.values()), getattr(adaptation, "first", {}), []
    for name, module in layers.items():
        layer = names[name]
        if not isinstance(base := module.get_base_layer(), nn.Linear | Conv1D):
            raise ValueError(f"diagnose reads linear layers, and {layer} is of {type(base).__name__}.")
        first = [began[f"{name}.lora_{x}.default.weight"] for x in "AB"] if began else None
        weight, core, rank = moved(module, first)
        if not core.isfinite().all():
            raise ValueError(f"the update of {layer} is not finite: the run diverged. Lower its learning rate.")
        singular = torch.linalg.svdvals(core)
        norm, whole = float(singular.norm()), float(weight.norm())
        share = norm / whole if whole else math.inf
        found.append(Update(layer, kind[layer], block_of(layer), rank, effective_rank(singular), norm, whole, share))
    return found


def effective_rank(singular: Tensor) -> float:
    """Of a matrix with these singular values, (n,); 0 for the zero matrix. Roy and Vetterli 2007, definition 1."""
    total = singular.sum()
    return float(torch.special.entr(singular / total).sum().exp()) if total > 0 else 0.0


def moved(layer: Any, first: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor, int]:
    """What a layer began with, how it moved, and the rank it had for that.

    Args:
        layer: peft's, of LoRA or AdaLoRA.
        first: A and B as they began, where W was lowered by their product: the update is what came since.

    Returns:
        W (out, in), dequantised; a matrix with the singular values that dW, as peft would add it, has besides zeros (small,
        save for DoRA, whose dW is not low-rank: to decompose it takes seconds a layer in a large backbone); the rank.
    """
    a, b, scale = layer.lora_A["default"], layer.lora_B["default"], layer.scaling["default"]
    if isinstance(layer, AdaLoraLayer):
        strength = layer.lora_E["default"]
        kept = strength.flatten() != 0  # pruning sets them to zero
        a, b, scale = (a * strength)[kept], b[:, kept], scale / (float(layer.ranknum["default"]) + 1e-5)
    else:
        a, b = a.weight, b.weight
    weight = dequantize_module_weight(layer.get_base_layer()).float()
    weight = weight.T if layer.fan_in_fan_out else weight
    a, b = a.float(), scale * b.float()
    if first is not None:
        a0, b0 = first[0].float(), scale * first[1].float()
        weight = weight + b0 @ a0
        a, b = torch.cat([a, a0]), torch.cat([b, -b0], dim=1)
    if "default" in layer.lora_magnitude_vector:
        # As peft computes it, so that the factor of a row that did not move is 1 to the bit.
        whole = weight + b @ a
        factor = layer.lora_magnitude_vector["default"].weight / torch.linalg.norm(whole, dim=1)
        return weight, (factor - 1)[:, None] * whole + b @ a, len(a)
    # B A = Q (R S^T) P^T, with Q and P orthonormal. In double precision, which costs nothing here.
    core = torch.linalg.qr(b.double()).R @ torch.linalg.qr(a.double().T).R.T
    return weight, core, len(a)


def kinds(names: Iterable[str]) -> dict[str, str]:
    """What a layer is called in its block: the shortest end of its name that no other layer there has.

    Where a network has several stacks of blocks, what tells them apart stands before it (`encoder`, `decoder`). A layer
    outside of the blocks keeps its name.
    """
    parted, named = {}, {}
    for name in names:
        if (number := block_of(name)) is None:
            named[name] = name
        else:
            before, _, after = f".{name}".partition(f".{number}.")
            parted[name] = tuple(before.split(".")), tuple(word for word in after.split(".") if not word.isdigit())
            named[name] = ""  # in the order of the names
    distinct = set(parted.values())
    shared = {word for stack, _ in distinct for word in stack if all(word in other for other, _ in distinct)}
    short = {}
    for stack, words in distinct:
        others = [other for where, other in distinct if where == stack and other != words]
        ends = (words[-n:] for n in range(1, len(words)))
        end = next((end for end in ends if all(other[-len(end) :] != end for other in others)), words)
        short[stack, words] = " ".join([*(word for word in stack if word not in shared), ".".join(end)])
    return named | {name: short[parts] for name, parts in parted.items()}


def draw(found: Sequence[Update], run: str, path: Path) -> None:
    """A picture of the updates: share of the norm and effective rank over the blocks, a line for each kind of layer.

    Layers outside of the blocks are level lines; several of one kind in a block (experts) are shown by their mean.
    """
    from matplotlib.figure import Figure  # Not pyplot: a figure of its own needs no display.
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(11, 7.5), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    names, depth = list(dict.fromkeys(one.kind for one in found)), {one.block for one in found}
    for number, kind in enumerate(names):
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":", "-.")[number // 10 % 4], "linewidth": 1.5}
        for axes, value in ((upper, "share"), (lower, "effective_rank")):
            by_block: dict[int | None, list[float]] = {}
            for one in found:
                if one.kind == kind:
                    by_block.setdefault(one.block, []).append(getattr(one, value))
            points = {block: sum(values) / len(values) for block, values in by_block.items()}
            if None in points:
                axes.axhline(points[None], label=f"{kind} (in no block)", **style)
            else:
                mark = {"marker": "o", "markersize": 4} if len(depth) <= FEW_BLOCKS else {}
                axes.plot(points.keys(), points.values(), label=kind, **style, **mark)
    ranks = {one.rank for one in found}
    if len(ranks) == 1:
        lower.axhline(max(ranks), color="0.4", linewidth=1, linestyle=(0, (6, 3)), label=f"nominal rank {max(ranks)}")
    figure.suptitle(f"Update of each layer: {run}")
    upper.set_ylabel("norm of the update, share of the norm of W")
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    lower.set_ylabel("effective rank of the update")
    lower.set_xlabel("block, from the bottom")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = lower.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, title="layer")
    figure.savefig(path, format="png")
