"""Fold what learnt into the backbone's own weights, and prove on the run's own data that nothing changed."""

from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from lit_fm.adapt import Full
from lit_fm.backbone import fit_embeddings
from lit_fm.screen import console
from lit_fm.ship.export import free_folder, write_card
from lit_fm.ship.opened import opened

BATCHES = 8  # of the validation split


def merged(objective: Any) -> Any:
    """A network of the backbone's own class that says what the adapted one says. Uses up the objective's network.

    A quantised backbone is dequantised first: rounding the sum to 4 bits again would lose much of what was learnt.

    Raises:
        ValueError: it cannot be merged, and why.
    """
    adaptation, network = objective.adaptation, objective.network
    check_mergeable(adaptation)
    if any(hasattr(p, "quant_state") or p.dtype == torch.int8 for p in network.parameters()):
        network = dequantised(objective)
    if not hasattr(network, "merge_and_unload"):
        return network
    for name, module in list(network.named_modules()):  # heads that learnt: some of peft's tuners trip over them
        if isinstance(module, ModulesToSaveWrapper):
            network.set_submodule(name, module.modules_to_save["default"])
    try:
        return network.merge_and_unload(safe_merge=True)
    except (ValueError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"{type(adaptation).__name__} cannot be merged: {error}") from error


@torch.no_grad()
def dequantised(objective: Any) -> Any:
    """The adapted network over weights that say, in full precision, what the quantised ones say."""
    learnt = {name: p.detach() for name, p in objective.network.named_parameters() if p.requires_grad}
    objective.network = None
    plain, new = objective.build()
    plain = plain.dequantize()
    if objective.new_tokens:
        fit_embeddings(plain, objective.tokenizer)
    made = objective.adaptation.apply(plain, objective.task_type, new, objective.adaptation.new_tokens)
    parameters = dict(made.named_parameters())
    for name, weight in learnt.items():
        parameters[name].copy_(weight)
    return made


def merge(run: str, out: str) -> None:
    """Make a whole model of a run: what learnt is folded into the backbone, and compared on the run's own data.

    Args:
        run: the run's folder.
        out: a new folder, in the format that plain `from_pretrained` reads.

    Raises:
        FileExistsError: `out` is there already.
        ValueError: it cannot be merged, or the merged model differs from the adapted one; nothing is written.
    """
    target = free_folder(out)
    objective, trainer, score = opened(run)
    check_mergeable(objective.adaptation)
    device = objective.device
    name, bits = type(objective.adaptation).__name__, objective.adaptation.bits
    rows = {"adapted": score.measure(trainer, objective)}
    batches = list(
        islice(chain.from_iterable(zip(*objective.trainer.datamodule.val_dataloader(), strict=False)), BATCHES)
    )
    if bits == 8:  # its layers round what goes through them as well, which no weights can say
        objective.network = dequantised(objective).eval()
    expected = _logits(objective, batches)
    whole = {p.dtype for p in objective.network.parameters() if p.is_floating_point()} == {torch.float32}
    objective.network = merged(objective).to(device).eval()
    found = {"merged": compared(expected, _logits(objective, batches))}
    rows["merged"] = score.measure(trainer, objective)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as aside:
        draft = Path(aside, target.name)
        objective.adaptation = Full()
        objective.export(draft)
        objective.network = objective.auto_class.from_pretrained(draft).to(device).eval()
        found["reloaded"] = compared(expected, _logits(objective, batches))
        rows["reloaded"] = score.measure(trainer, objective)
        table = _table(rows, found)
        if unlike := _differs(rows, found, 1e-4 if whole else 2e-2, len(score.scored)):
            console.print(table)
            raise ValueError(f"merge: {unlike}, and nothing was written: report it, with {run}/config.yaml.")
        about = {"adaptation": name, "bits": bits, "targets": sum(map(len, expected)), **found, "measured": rows}
        write_card(Path(run), draft, about)
        draft.rename(target)
    console.print(table, f"{name} folded into {objective.backbone}: {target}", sep="\n")


def check_mergeable(adaptation: Any) -> None:
    """Refuse what cannot be folded into the backbone's weights.

    Raises:
        ValueError: with the reason.
    """
    if adaptation.unmergeable:
        raise ValueError(f"{type(adaptation).__name__} cannot be merged: {adaptation.unmergeable}.")


@torch.no_grad()
def _logits(objective: Any, batches: list[Any]) -> list[Tensor]:
    return [
        objective.logits(
            {k: v.to(objective.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        ).float().cpu()
        for batch in batches
    ]  # fmt: skip


def compared(expected: list[Tensor], given: list[Tensor]) -> dict[str, float]:
    """How far logits (targets, classes) are from those expected: the largest difference, its share of the largest
    logit, and the mean KL divergence in nats.
    """
    apart = max(float((one - other).abs().max()) for one, other in zip(expected, given, strict=True))
    pairs = [(F.log_softmax(one, -1), F.log_softmax(other, -1)) for one, other in zip(expected, given, strict=True)]
    divergence = sum(float((one.exp() * (one - other)).sum()) for one, other in pairs) / sum(map(len, expected))
    largest = max(float(one.abs().max()) for one in expected)
    return {"largest_difference": apart, "share_of_largest": apart / largest, "kl": max(0.0, divergence)}


def _differs(rows: dict[str, dict[str, float]], found: dict[str, dict[str, float]], allowed: float, scored: int) -> str:
    for name, about in found.items():
        if not about["share_of_largest"] <= allowed:
            return f"{name}, the logits differ by {about['share_of_largest']:.1e} of the largest, more than {allowed}"
        for measure, value in rows["adapted"].items():
            if scored and "/" in measure:  # of one task: too few answers; all tasks together are compared
                continue
            if abs(rows[name][measure] - value) > max(0.01, 2 / max(1, scored)) * max(1.0, abs(value)):  # two answers
                return f"{measure} is {value:.4f} adapted and {rows[name][measure]:.4f} {name}"
    return ""


def _table(rows: dict[str, dict[str, float]], found: dict[str, dict[str, float]]) -> Table:
    table = Table("model", "largest logit difference", "KL (nats)", *rows["adapted"], title="On the run's own data")
    for name, measures in rows.items():
        about = found.get(name)
        apart = (f"{about['largest_difference']:.1e}", f"{about['kl']:.1e}") if about else ("", "")
        table.add_row(name, *apart, *(f"{value:.4f}" for value in measures.values()))
    return table
