"""`data report`: what there is to learn from, before anything is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from lit_fm.data.overlap import duplicates, overlapping, text_of
from lit_fm.data.tokens import IGNORED
from lit_fm.durable import free
from lit_fm.screen import console, show_data

SPLITS = ("train", "validation", "test")


def report(data: Any, objective: Any, trainer: dict[str, Any], folder: Path, n: int) -> None:
    """Print and write counts, lengths, what was dropped, duplicates, overlap, and how long a run takes.

    Args:
        trainer: settings of the trainer that say when a run ends.
        folder: gets `report.json` and `lengths.png`.
        n: words in a row that training and evaluation must not share.
    """
    show_data(data.report, data.fill())
    found: dict[str, Any] = {"splits": data.report, "lengths": {}}
    lengths = {split: data.items[split].lengths() for split in SPLITS if split in data.items}
    table = Table("split", "tokens", "learnt", "mean", "median", "95 %", "longest", title="Lengths in tokens")
    for split, of in lengths.items():
        about = {"tokens": int(of.sum()), "learnt": _learnt(data.items[split]), "mean": float(of.mean())}
        about |= {name: int(np.quantile(of, q)) for name, q in (("median", 0.5), ("p95", 0.95), ("longest", 1.0))}
        found["lengths"][split] = about
        table.add_row(
            split, *(f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in about.values())
        )
    console.print(table)
    found["run"] = _run(data, trainer)
    if data.has_answers:
        found |= _repeated(data, [split for split in SPLITS if split in lengths], n)
    folder.mkdir(parents=True, exist_ok=True)
    picture, path = free(folder / "lengths.png"), free(folder / "report.json")
    _draw(lengths, data.max_length, picture)
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"Written to {path} and {picture}")


def _learnt(items: Any) -> int:
    """How many tokens have a label."""
    return sum(int((item["labels"] != IGNORED).sum()) if "labels" in item else len(item["input_ids"]) for item in items)


def _run(data: Any, trainer: dict[str, Any]) -> dict[str, Any]:
    """How many tokens and optimizer steps an epoch and the whole run take, on one rank."""
    window = trainer.get("accumulate_grad_batches") or 1
    plan = data.plan()
    tokens, batches = int(plan.batch_tokens().sum()), len(plan)
    epochs, most = trainer.get("max_epochs"), trainer.get("max_steps") or -1
    planned = data.optimizer_steps(window, epochs if (epochs or -1) > 0 else None)
    steps = min((n for n in (planned, most) if n and n > 0), default=None)
    per_epoch = -(-batches // window)
    about = {"tokens_per_epoch": tokens, "batches_per_epoch": batches, "steps_per_epoch": per_epoch, "steps": steps}
    about["fill"] = data.fill()
    console.print(f"An epoch has {tokens:,} tokens in {batches:,} batches, {per_epoch:,} optimizer steps.")
    if steps:
        about["epochs"] = steps / per_epoch
        console.print(
            f"The run has {steps:,} steps: {about['epochs']:.2f} epochs, about {tokens * steps // per_epoch:,} tokens."
        )
    return about


def _repeated(data: Any, splits: list[str], n: int) -> dict[str, Any]:
    """Duplicates within and across splits, and evaluation examples that training text gives away."""
    texts = {split: [text_of(example) for example in data.examples(split)] for split in splits}
    twice = duplicates(texts)
    console.print("Duplicates: " + ", ".join(f"{count:,} {where}" for where, count in twice.items()) + ".")
    shared = {split: overlapping(texts["train"], texts[split], n) for split in splits if split != "train"}
    for split, numbers in shared.items():
        console.print(
            f"{len(numbers):,} of {len(texts[split]):,} {split} examples share {n} words in a row with training"
            + (f", such as number {numbers[0] + 1}: {texts[split][numbers[0]][:100]!r}." if numbers else "."),
            markup=False,
        )
    return {"duplicates": twice, "overlap": {"words": n, **shared}}


def _draw(lengths: dict[str, np.ndarray], limit: int | None, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    top = max(int(of.max()) for of in lengths.values())
    bins = np.linspace(0, top + 1, min(60, top + 1) + 1).tolist()
    for split, of in lengths.items():
        weights, label = np.full(len(of), 100 / len(of)), f"{split} ({len(of):,})"
        axes.hist(of, bins, weights=weights, histtype="step", linewidth=1.5, label=label)
    if limit and limit <= top * 1.2:
        axes.axvline(limit, color="black", linestyle=":", label=f"max_length {limit:,}")
    axes.set(xlabel="tokens of an example", ylabel="% of examples", title="Lengths")
    axes.legend()
    figure.savefig(path, dpi=120)
