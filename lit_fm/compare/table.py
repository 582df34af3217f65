"""The table of methods: the same rows on the page, in Markdown, in CSV and in W&B."""

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lit_fm.compare import statistics
from lit_fm.compare.methods import Comparison, Method
from lit_fm.compare.verdict import figure, points, words
from lit_fm.track import Guarded, Tracker, loggers

NONE = "\N{EN DASH}"


class Column(NamedTuple):
    """What a method has under a heading: the number that rows are sorted and written by, and how it is read."""

    key: str
    heading: str
    value: Callable[[Method], Any]
    read: Callable[[Any], str]
    about: str


class Cell(NamedTuple):
    """Of one method in one column."""

    value: Any
    text: str


def columns(found: Comparison) -> list[Column]:
    """Those in which some method has a value."""
    made = [*_quality(found), *_costs()]
    return [column for column in made if any(column.value(m) is not None for m in found.methods)]


def cells(found: Comparison, method: Method) -> list[Cell]:
    """Of a method, by column."""
    values = [(column, column.value(method)) for column in columns(found)]
    return [Cell(value, NONE if value is None else column.read(value)) for column, value in values]


def _quality(found: Comparison) -> list[Column]:
    name, metric = words(found.metric), found.metric

    def shown(value: float) -> str:
        return figure(metric, value)

    def ends(value: float) -> str:
        return f"{points(metric, value):.1f}"

    return [
        Column("method", "method", lambda m: m.label, str, "runs that differ in nothing but the seed are one"),
        Column(metric, name, lambda m: m.mean, shown, f"mean over seeds, of {found.examples} test examples"),
        Column("deviation", "±", lambda m: statistics.spread(m.values), ends, "standard deviation over seeds"),
        Column("seeds", "seeds", lambda m: len(m.runs), str, "runs of the method"),
        Column("low", "95 % from", lambda m: m.low, ends, "low end of the bootstrap interval over test examples"),
        Column("high", "to", lambda m: m.high, ends, "high end of it"),
        Column("p", "p against best", lambda m: m.p, _p, "of being as good as the best, corrected by Holm"),
        *(
            Column(other, words(other), partial(_mean, name=other), partial(figure, other), "mean over seeds")
            for other in found.best.runs[0].measured
            if other != metric and "/" not in other
        ),
        Column("forgetting", "forgetting", lambda m: forgotten(m, "mean"), _signed, "mean change on other tasks, points"),
        Column("worst", "worst task", lambda m: forgotten(m, "worst"), _signed, "largest loss on another task, points"),
    ]  # fmt: skip


def _costs() -> list[Column]:
    def of(name: str) -> Callable[[Method], Any]:
        return lambda m: m.number(name)

    return [
        Column("learnable_parameters", "learns", of("learnable_parameters"), whole, "learnable parameters"),
        Column("peak_memory_bytes", "memory", of("peak_memory_bytes"), size, "peak memory of the run"),
        Column("seconds", "time", of("seconds"), duration, "of the run, with scoring before and after"),
        Column("energy_joules", "energy", of("energy_joules"), energy, "of the run, where it can be measured"),
        Column("bytes", "on disk", of("bytes"), size, "weights of the export"),
        Column("latency", "latency", of("latency"), _latency, "per written token, one prompt at a time, as exported"),
        Column("latency_merged", "merged", of("latency_merged"), _latency, "the same, folded into the backbone"),
    ]  # fmt: skip


def _mean(method: Method, name: str) -> float | None:
    known = [run.measured[name] for run in method.runs if name in run.measured]
    return sum(known) / len(known) if known else None


def forgotten(method: Method, name: str) -> float | None:
    """The mean over seeds of a change on tasks that were not trained: below 0 where something was lost."""
    known = [run.forgetting[name] for run in method.runs if run.forgetting.get(name) is not None]
    return sum(known) / len(known) if known else None


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def whole(value: float) -> str:
    """A number of things."""
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes."""
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= bytes_:
            return f"{value / bytes_:,.{0 if value >= 100 * bytes_ else 1}f}\N{NO-BREAK SPACE}{unit}"
    return f"{value:.0f}\N{NO-BREAK SPACE}B"


def duration(value: float) -> str:
    """Seconds."""
    if value >= 5400:
        return f"{value / 3600:,.1f}\N{NO-BREAK SPACE}h"
    return (
        f"{value / 60:.0f}\N{NO-BREAK SPACE}min"
        if value >= 600
        else f"{value:.{0 if value >= 10 else 1}f}\N{NO-BREAK SPACE}s"
    )


def energy(value: float) -> str:
    """Joules."""
    return f"{value / 3600:,.1f}\N{NO-BREAK SPACE}Wh"


def _latency(value: float) -> str:
    return f"{1000 * value:.1f}\N{NO-BREAK SPACE}ms"


def markdown(found: Comparison) -> str:
    """The table for a README."""
    heads = [column.heading for column in columns(found)]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    lines += [[cell.text.replace("|", r"\|").replace("\n", " ") for cell in cells(found, m)] for m in found.methods]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(found: Comparison) -> str:
    """The table with whole numbers: shares in 0..1, bytes, seconds, joules, seconds a token."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in columns(found)])
    writer.writerows([["" if c.value is None else c.value for c in cells(found, m)] for m in found.methods])
    return text.getvalue()


def track(found: Comparison, folder: Path, tracker: Tracker, project: str) -> None:
    """Hand the table to a tracker that has tables."""
    for logger in loggers(tracker, folder, project, None):
        if isinstance(logger, Guarded):
            rows = [[cell.value for cell in cells(found, m)] for m in found.methods]
            logger.log_rows("compare", [column.key for column in columns(found)], rows)
            logger.finalize("success")
