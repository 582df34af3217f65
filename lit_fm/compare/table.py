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
    """What a method has under a heading: the number that rows are sorted by, and how it is read."""

    key: str
    heading: str
    """Empty for one that stands in files alone."""
    value: Callable[[Method], Any]
    read: Callable[[Method], str]
    about: str


def columns(found: Comparison) -> list[Column]:
    """Those in which some method has a value."""
    made = [*_quality(found), *_costs()]
    return [column for column in made if any(column.value(m) is not None for m in found.methods)]


def shown(found: Comparison) -> list[Column]:
    """Those that people read."""
    return [column for column in columns(found) if column.heading]


def _column(key: str, heading: str, value: Callable[[Method], Any], form: Callable[[Any], str], about: str) -> Column:
    return Column(key, heading, value, lambda m: NONE if value(m) is None else form(value(m)), about)


def _quality(found: Comparison) -> list[Column]:
    metric = found.metric

    def ends(value: float) -> str:
        return f"{points(metric, value):.1f}"

    others = [name for name in found.best.runs[0].measured if name != metric and "/" not in name]
    runs = [run for method in found.methods for run in method.runs]
    corpora = dict.fromkeys(name for run in runs for name in run.forgetting.get("corpora", {}))
    return [
        _column("method", "method", lambda m: m.label, str, "runs that differ in nothing but the seed are one"),
        _column(metric, words(metric), lambda m: m.mean, partial(figure, metric), "mean over seeds"),
        Column("low", "95\N{NO-BREAK SPACE}% interval", lambda m: m.low,
               lambda m: f"{ends(m.low)} \N{EN DASH} {ends(m.high)}", "bootstrap interval over test examples"),
        Column("high", "", lambda m: m.high, lambda m: ends(m.high), "the high end of the interval"),
        _column("deviation", "seeds \N{PLUS-MINUS SIGN}", lambda m: statistics.spread(m.values), ends,
                "standard deviation over seeds"),
        _column("seeds", "", lambda m: len(m.runs), str, "runs of the method"),
        _column("p", "p", lambda m: m.p, _p, "how often chance alone parts it so far from the best, by Holm"),
        *(_column(k, words(k), partial(_mean, name=k), partial(figure, k), "mean over seeds") for k in others),
        _column("forgetting", "forgetting", partial(forgotten, name="mean"), _signed, "mean change on other tasks, points"),
        _column("worst", "worst task", partial(forgotten, name="worst"), _signed, "largest loss on another task, points"),
        *(_column(f"{name}_loss_change", f"{name} text", partial(_text, name=name), _nats,
                  "change of the loss on this text, nats per token: above 0 is forgotten") for name in corpora),
    ]  # fmt: skip


def _costs() -> list[Column]:
    made = [
        ("learnable_parameters", "learns", whole, "learnable parameters"),
        ("peak_memory_bytes", "memory", size, "peak memory of the run"),
        ("seconds", "time", duration, "of the run, with scoring before and after"),
        ("energy_joules", "energy", energy, "of the run, where it can be measured"),
        ("bytes", "on disk", size, "weights of the export"),
        ("latency", "latency", _latency, "per written token, one prompt at a time, as exported"),
        ("latency_merged", "merged", _latency, "latency when folded into the backbone"),
    ]
    return [_column(key, heading, partial(Method.number, name=key), form, about) for key, heading, form, about in made]


def _mean(method: Method, name: str) -> float | None:
    known = [run.measured[name] for run in method.runs if name in run.measured]
    return sum(known) / len(known) if known else None


def forgotten(method: Method, name: str) -> float | None:
    """The mean over seeds of a change on tasks that were not trained: below 0 where something was lost."""
    known = [run.forgetting[name] for run in method.runs if run.forgetting.get(name) is not None]
    return sum(known) / len(known) if known else None


def _text(method: Method, name: str) -> float | None:
    """The mean over seeds of the change of a loss on text that was not trained."""
    told = [run.forgetting.get("corpora", {}).get(name) for run in method.runs]
    known = [one["change"] for one in told if one]
    return sum(known) / len(known) if known else None


def _nats(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(value: float) -> str:
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


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


def values(found: Comparison) -> list[list[Any]]:
    """The rows as numbers: shares in 0..1, bytes, seconds, joules, seconds a token."""
    return [[column.value(m) for column in columns(found)] for m in found.methods]


def markdown(found: Comparison) -> str:
    """The table for a README."""
    heads = [column.heading for column in shown(found)]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    lines += [[c.read(m).replace("|", r"\|").replace("\n", " ") for c in shown(found)] for m in found.methods]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(found: Comparison) -> str:
    """The table as numbers, for a program."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in columns(found)])
    writer.writerows([["" if value is None else value for value in row] for row in values(found)])
    return text.getvalue()


def track(found: Comparison, folder: Path, tracker: Tracker, project: str) -> None:
    """Hand the table to a tracker that has tables."""
    for logger in loggers(tracker, folder, project, None):
        if isinstance(logger, Guarded):
            logger.log_rows("compare", [column.key for column in columns(found)], values(found))
            logger.finalize("success")
