"""A curve over the number of shots: as a table, as CSV, and as a picture."""

import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.table import Table

from lit_fm.screen import SHARES

Row = dict[str, Any]
ABOUT = (
    "shots", "seed", "selection", "questions", "fewer_shots", "mean_shots", "prompt_tokens", "too_long", "cut", "seconds"
)  # fmt: skip
"""What a row says besides its measures."""
MANY = 4  # measures that a line, or a picture, has room for


def names_of(rows: list[Row]) -> list[str]:
    """What was measured."""
    return [*dict.fromkeys(name for row in rows for name in row if name not in ABOUT)]


def curve(rows: list[Row], name: str) -> dict[int, tuple[float, float, float]]:
    """Mean, least and most of a measure over the seeds, by the number of shots; nothing where none had room."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if name in row:
            found[row["shots"]].append(row[name])
    return {shots: (sum(of) / len(of), min(of), max(of)) for shots, of in sorted(found.items())}


def shown(rows: list[Row]) -> list[str]:
    """The measures that are shown: those over all tasks, where there are more than there is room for."""
    names = names_of(rows)
    return names if len(names) <= MANY else [name for name in names if "/" not in name]


def table(rows: list[Row]) -> Table:
    """For a person: of each measure mean and spread over the seeds, a column for each number of shots."""
    numbers = sorted({row["shots"] for row in rows})
    made = Table("shots", *map(str, numbers), title="In context: mean over the seeds, and least-most")
    for name in names_of(rows):
        of = curve(rows, name)
        made.add_row(name.replace("_", " ").replace("/", " "), *(_cell(name, of.get(shots)) for shots in numbers))
    by = [[row for row in rows if row["shots"] == shots] for shots in numbers]
    made.add_section()
    made.add_row("tokens of a prompt", *(f"{sum(r['prompt_tokens'] for r in of) / len(of):,.0f}" for of in by))
    fewer = [sum(r["fewer_shots"] for r in of) / sum(r["questions"] for r in of) for of in by]
    made.add_row("room for fewer", *(f"{share:.0%}" for share in fewer))
    return made


def _cell(name: str, of: tuple[float, float, float] | None) -> str:
    """Mean, and under it least and most."""
    share = name.rpartition("/")[2] in SHARES
    mean, least, most = (f"{100 * value:.1f}" if share else f"{value:.3g}" for value in of or (0.0, 0.0, 0.0))
    unit = "%" if share else ""
    return "no room" if of is None else f"{mean}{unit}" + ("" if least == most else f"\n{least}-{most}")


def as_csv(rows: list[Row]) -> str:
    """All rows, a column for each measure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*ABOUT, *names_of(rows)], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw(rows: list[Row], title: str, path: Path) -> None:
    """Mean over the seeds as a line, from least to most as a band, shares and other measures apart."""
    from matplotlib.figure import Figure

    groups = [[n for n in shown(rows) if (n.rpartition("/")[2] in SHARES) == share] for share in (True, False)]
    groups = [names for names in groups if names] or [[]]
    figure = Figure(figsize=(6.5, 3.6 * len(groups)), layout="constrained")
    ticks = sorted({row["shots"] for row in rows})
    for axes, names in zip(figure.subplots(len(groups), squeeze=False)[:, 0], groups, strict=True):
        for name in names:
            scale = 100 if name.rpartition("/")[2] in SHARES else 1
            found = {shots: [scale * value for value in of] for shots, of in curve(rows, name).items()}
            mean, least, most = zip(*found.values(), strict=True)
            places = [ticks.index(shots) for shots in found]
            [line] = axes.plot(places, mean, marker="o", label=name.replace("_", " "))
            axes.fill_between(places, least, most, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_xticks(range(len(ticks)), [str(shots) for shots in ticks])
        unit = "% of questions" if names and names[0].rpartition("/")[2] in SHARES else "score"
        axes.set(xlabel="shots", ylabel=f"{unit} (band: all seeds)")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
