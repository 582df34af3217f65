"""What a person sees: data and learnable weights before a run, progress while it goes on, and what came of it."""

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
SHARES = set(
    "exact_match normalised_exact_match accuracy macro_f1 entity_f1 f1 rouge1 rouge2 rougeL tool_call tool_name number "
    "choice_accuracy choice_accuracy_normalised".split()
)
"""Measures that are shares of something, in 0..1."""
METRICS = {"train/loss": "loss", "val/loss": "val loss", "lr": "lr", "tokens_per_second": "tokens/s"}


def _numbers(metrics: dict[str, Any]) -> str:
    forms = {"tokens_per_second": "{:,.0f}", "lr": "{:.2e}"}
    known = [(name, forms.get(key, "{:.4f}"), metrics[key]) for key, name in METRICS.items() if key in metrics]
    return "  ".join(f"{name} {form.format(float(value))}" for name, form, value in known)


class Steps(L.Callback):
    """Loss, learning rate and useful tokens per second: a bar on a terminal, some twenty lines in all elsewhere."""

    def __init__(self) -> None:
        self.last = 0
        self.shown_at = 0.0
        self.bar: Progress | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero and console.is_terminal:
            columns = (
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(16),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=console)
            self.task = self.bar.add_task("", total=pl_module.total_steps)
            self.bar.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        step, total = trainer.global_step, pl_module.total_steps
        if step == self.last or not trainer.is_global_zero:
            return
        self.last = step
        if self.bar and (
            time.monotonic() - self.shown_at > 0.2 or step == total
        ):  # reading a metric waits for the device
            self.shown_at = time.monotonic()
            self.bar.update(self.task, completed=step, description=_numbers(trainer.progress_bar_metrics))
        elif not self.bar and (step % max(1, total // 20) == 0 or step in (1, total)):
            print(f"step {step}/{total}  {_numbers(trainer.progress_bar_metrics)}", flush=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.bar:
            self.bar.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)


def show_data(report: dict[str, dict[str, Any]], fill: float) -> None:
    """What each split holds, what was left out of it and why, and the share of positions that are no padding."""
    table = Table("split", "rows", "examples", "dropped", "prompts cut short", title="Data")
    for split, about in report.items():
        dropped = ", ".join(f"{n:,} x {why}" for why, n in about["dropped"].items()) or "none"
        table.add_row(split, f"{about['rows']:,}", f"{about['examples']:,}", dropped, f"{about.get('shortened', 0):,}")
    console.print(table)
    for split, about in report.items():
        if about.get("beyond"):
            console.print(f"Left out of {split}: {about['beyond']:,} rows, since data.rows is {about['rows']:,}.")
        if "taken" in about:
            console.print(f"An epoch takes of {split.removeprefix('train: ')}: {about['taken']}.")
    console.print(f"Rows were read as: {', '.join(sorted({about['kind'] for about in report.values()}))}.")
    console.print(f"Of the positions in training batches, {fill:.1%} hold a token, the others are padding.")


def learnable(network: Any) -> tuple[int, int]:
    """How many parameters learn, and how many tensors."""
    learns = [p.numel() for p in network.parameters() if p.requires_grad]
    return sum(learns), len(learns)


def size(parameter: Any) -> int:
    """Its number of weights: two of them share a byte of a 4-bit tensor."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def show_learnable(objective: Any) -> None:
    """How much learns: tensors, parameters, percent; and how the rest is kept."""
    (n, tensors), parameters = learnable(objective.network), list(objective.network.parameters())
    total, bits = sum(map(size, parameters)), objective.adaptation.bits
    frozen = sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad)
    quantised = f" The backbone is kept in {bits} bits: {frozen / 2**20:,.1f} MiB." if bits else ""
    console.print(
        f"{type(objective.adaptation).__name__} on {objective.backbone}: {tensors} of {len(parameters)} tensors learn, "
        f"{n:,} of {total:,} parameters ({n / total:.2%}).{quantised}"
    )


def show_summary(folder: Path, summary: dict[str, Any], writes: bool) -> None:
    """What came of a run: score before and after, some answers, cost, and what to type next."""
    if summary["generations"]:
        table = Table("prompt", "answer", "right answer", title="Some answers on the test split")
        for row in summary["generations"]:
            right = row["prediction"].strip() == row["answer"].strip()
            cells = (_clip(row["prompt"]), Text(_clip(row["prediction"]), style="green" if right else "red"))
            table.add_row(Text(cells[0]), cells[1], Text(_clip(row["answer"])))
        console.print(table)
    table = Table(title="Run", show_header=False)
    if summary["generations"]:
        table.add_row("test examples scored", f"{summary['scored_examples']} of {summary['test_examples']}")
    for name in summary["measured"]:
        key, words = name.replace("/", "_"), name.replace("_", " ").replace("/", " ")
        if f"{key}_before" in summary:
            table.add_row(f"{words} before", measured(name, summary[f"{key}_before"]))
        table.add_row(f"{words} after", measured(name, summary[key]))
    for key in ("train_loss", "val_loss"):
        if key in summary:
            table.add_row(key.replace("_", " "), f"{summary[key]:.4f}")
    table.add_row("learnable parameters", f"{summary['learnable_parameters']:,}")
    table.add_row("time", f"{summary['seconds']:.1f} s")
    table.add_row("peak memory", f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB")
    table.add_row("run folder", str(folder))
    console.print(table)
    asked = [row["prompt"].rstrip("\n") for row in summary["generations"]]
    verbs = [f"test --run {folder}"]
    verbs += [f"predict --run {folder}"] if asked else []
    verbs += [f"generate --model {folder} --prompt {_quoted(asked[0])}"] if asked and writes else []
    console.print("Next:", style="bold")
    for verb in verbs:
        console.print(f"  {_python()} -m lit_fm {verb}", markup=False, soft_wrap=True)


def measured(name: str, value: float) -> str:
    """A measure as people read it: shares in percent. `name` may begin with that of a task."""
    return f"{value:.1%}" if name.rpartition("/")[2] in SHARES else f"{value:.3f}"


def _python() -> str:
    """What to type for the interpreter that runs here: its path when it is in a virtual environment that is not active."""
    inactive = sys.prefix != sys.base_prefix and not os.environ.get("VIRTUAL_ENV")
    return os.path.relpath(sys.executable) if inactive else "python"


def _clip(text: str, width: int = 300) -> str:
    text = text.strip()
    return text if len(text) <= width else f"{text[:width]} ... ({len(text):,} characters)"


def _quoted(text: str) -> str:
    """For a shell: `$'...'` keeps the line breaks of a prompt on one line."""
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{plain}'".replace("\n", "\\n") if "\n" in text or "'" in text else f"'{text}'"
