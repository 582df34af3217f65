"""What came of a sweep: a table, a picture, and the best settings as a config."""

import csv
import io
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.table import Table
from rich.text import Text

from lit_fm.arguments import find_config
from lit_fm.durable import write_text
from lit_fm.screen import console, measured
from lit_fm.sweep.space import Space, labels


class Trial(NamedTuple):
    """A trial that has ended: with a value, or with the reason why it has none."""

    number: int
    settings: dict[str, Any]
    value: float | None
    why: str = ""


def ranked(trials: list[Trial], space: Space) -> list[Trial]:
    """The best first, those that failed last."""
    sign = 1 if space.goal == "min" else -1
    return sorted(trials, key=lambda one: (one.value is None, sign * (one.value or 0), one.number))


def shown(value: Any) -> str:
    """A setting as people read it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def report(trials: list[Trial], space: Space, folder: Path, arguments: list[str]) -> None:
    """Write `trials.csv`, `sweep.png` and `best.yaml`, and show the trials.

    Raises:
        ValueError: all trials failed.
    """
    order, short = ranked(trials, space), labels(list(space.over))
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["trial", *space.over, space.metric, "failed"])
    writer.writerows([one.number, *(one.settings[key] for key in space.over), one.value, one.why] for one in order)
    write_text(folder / "trials.csv", rows.getvalue())
    table = Table(
        "trial", *short.values(), space.metric, title=f"Trials, the best first ({space.goal} of {space.metric})"
    )
    for one in order:
        told = "failed" if one.value is None else measured(space.metric, one.value)
        table.add_row(str(one.number), *(Text(shown(one.settings[key])) for key in space.over), told)
    console.print(table)
    for one in order:
        if one.value is None:
            console.print(f"Trial {one.number} failed: {one.why}", markup=False)
    best = order[0]
    if best.value is None:
        raise ValueError(f"all {len(order)} trials failed; what they said is in {folder / 'trials'}.")
    draw(order, space, folder / "sweep.png")
    command = shlex.join(["python", "-m", "lit_fm", "fit", *arguments, "--config", str(folder / "best.yaml")])
    lines = [*command.split("\n"), f"Trial {best.number} of {len(order)}: {space.metric} {best.value:.6g}."]
    head = "".join(f"# {line}\n" for line in lines)
    base = yaml.safe_load((folder / "base.yaml").read_text(encoding="utf-8"))
    write_text(folder / "best.yaml", head + yaml.safe_dump(as_config(best.settings, base), sort_keys=False))
    if space.on_test:
        console.print(
            f"{space.metric} is of the test split: the best of several looks better than it is. To compare with others, "
            "choose by val_loss, or measure the best on other rows."
        )
    console.print(f"Written to {folder}: trials.csv, sweep.png, best.yaml. Next:")
    console.print(f"  {command}", markup=False, soft_wrap=True)


def draw(order: list[Trial], space: Space, path: Path) -> None:
    """A picture: the metric over each setting; later trials are darker, the best one has a ring."""
    from matplotlib.figure import Figure  # Not pyplot: a figure of its own needs no display.
    from matplotlib.ticker import MaxNLocator, NullFormatter

    good = [one for one in order if one.value is not None]
    short, columns = labels(list(space.over)), min(3, len(space.over))
    lines = -(-len(space.over) // columns)
    figure = Figure(figsize=(4 * columns + 0.8, 3.4 * lines), dpi=150, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for axes, (key, one) in zip(panels, space.over.items(), strict=False):
        names = [str(value) for value in one.values]
        places = [names.index(str(t.settings[key])) if names else t.settings[key] for t in good]
        values, numbers = [t.value for t in good], [t.number for t in good]
        marks = axes.scatter(places, values, c=numbers, cmap="viridis_r", s=28, zorder=2)
        axes.scatter(places[:1], values[:1], facecolors="none", edgecolors="C3", linewidths=1.6, s=110, zorder=3)
        if names:
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.5, len(names) - 0.5)
        else:
            axes.set_xscale("log" if one.log else "linear")
            axes.set_xlim(*_wider(one.low, one.high, one.log))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(short[key])
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel(space.metric)
    for axes in panels:
        axes.set_visible(False)
    figure.colorbar(marks, ax=figure.axes, label="trial", ticks=MaxNLocator(integer=True))
    figure.savefig(path, format="png")


def _wider(low: float, high: float, log: bool) -> tuple[float, float]:
    """An axis from end to end, with some room."""
    room = (high / low) ** 0.05 if log else (high - low) * 0.05
    return (low / room, high * room) if log else (low - room, high + room)


def as_config(settings: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Settings by key as an overlay of a resolved config, in which the arguments of a class stand under `init_args`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        node, place = base, found
        *parents, last = key.split(".")
        for word in parents:
            node, place = _owner(node, place, word)
            node, place = node.get(word) or {}, place.setdefault(word, {})
        _, place = _owner(node, place, last)
        file = last == "adaptation" and str(value).endswith(".yaml")
        place[last] = str(find_config(value)) if file else value
    return found


def _owner(node: dict[str, Any], place: dict[str, Any], word: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a word stands that may be an argument of a class."""
    within = word not in node and "init_args" in node
    return (node["init_args"], place.setdefault("init_args", {})) if within else (node, place)
