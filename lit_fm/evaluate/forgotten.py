"""What was forgotten: the changes from the first measure of a history to the last, as numbers, a table and a picture."""

from pathlib import Path
from typing import Any

from rich.table import Table

from lit_fm.screen import SHARES, console, measured

History = list[dict[str, Any]]
"""Of each measure its `step`, and by name what was found of `tasks` and `corpora`; the metric that counts stands first."""


def change(history: History) -> dict[str, Any]:
    """Of each task and corpus before, after, and the difference; over the tasks, the mean change and the worst one.

    In the mean, a metric of 0 to 100 counts as a share.
    """
    first, last = history[0], history[-1]
    found: dict[str, Any] = {
        kind: {name: _compared(was, last[kind][name]) for name, was in first[kind].items()}
        for kind in ("tasks", "corpora")
    }
    if changes := {name: one["change"] * unit(one["metric"]) for name, one in found["tasks"].items()}:
        worst = min(changes, key=lambda name: changes[name])
        found |= {"mean": sum(changes.values()) / len(changes), "worst": changes[worst], "worst_task": worst}
    return found


def _compared(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    metric = next(iter(before))
    was, now = before[metric], after[metric]
    return {"metric": metric, "before": was, "after": now, "change": now - was}


def unit(metric: str) -> float:
    """What makes a share of a metric of a task."""
    return 1.0 if metric in SHARES else 0.01


def show(history: History) -> None:
    """A table of the changes."""
    found = change(history)
    table = Table("held out", "measured by", "before", "after", "change", title="What was forgotten")
    for name, one in {**found["tasks"], **found["corpora"]}.items():
        metric = one["metric"]
        told = f"{one['change']:+.1%}" if metric in SHARES else f"{one['change']:+.3f}"
        table.add_row(name, metric.replace("_", " "), *(measured(metric, one[k]) for k in ("before", "after")), told)
    console.print(table)
    if found["tasks"]:
        worst = f"{found['worst']:+.1%} ({found['worst_task']})"
        console.print(f"Tasks, below 0 is forgotten: mean {found['mean']:+.1%}, worst {worst}.")
    if found["corpora"]:
        console.print("Losses of corpora, in nats per token: above 0 is forgotten.")


def draw(history: History, path: Path) -> None:
    """A picture of each task's metric and each corpus' loss over the optimizer steps."""
    from matplotlib.figure import Figure  # Not pyplot: a figure of its own needs no display.
    from matplotlib.ticker import MaxNLocator

    titles = {"tasks": "tasks: what falls is forgotten", "corpora": "corpora: what rises is forgotten"}
    kinds = [kind for kind in titles if history[0][kind]]
    figure = Figure(figsize=(5.5 * len(kinds), 4.2), dpi=150, layout="constrained")
    for kind, axes in zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True):
        for name, was in history[0][kind].items():
            metric = next(iter(was))
            scale = unit(metric) if kind == "tasks" else 1
            steps, values = zip(*((one["step"], one[kind][name][metric] * scale) for one in history), strict=True)
            axes.plot(steps, values, marker="o", markersize=4, label=f"{name}: {metric.replace('_', ' ')}")
        axes.set_title(titles[kind], fontsize="medium")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("share" if kind == "tasks" else "nats per token")
        axes.set_ylim(bottom=0, top=1.04 if kind == "tasks" else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, format="png")
