"""Compare runs that exist: `compare RUN RUN ... --out DIR`."""

from dataclasses import replace
from pathlib import Path

from rich.table import Table

from lit_fm.compare import table
from lit_fm.compare.latency import measure_latency
from lit_fm.compare.methods import Comparison, compared
from lit_fm.compare.page import page
from lit_fm.compare.runs import Record, left_out, read
from lit_fm.compare.verdict import judge
from lit_fm.durable import keep_old, write_text
from lit_fm.screen import console
from lit_fm.ship.adapters import whole_copy
from lit_fm.track import Tracker

SCREEN = ("method", "low", "p", "learnable_parameters", "seconds", "bytes")


def compare(
    runs: list[str],
    out: str = "comparison",
    metric: str | None = None,
    latency: bool = True,
    tracker: Tracker = "none",
    project: str = "lit_fm",
) -> None:
    """Compare runs: which method to use, as a page, a table in Markdown and CSV, and on the screen.

    Args:
        runs: folders of runs, or with runs in them; `LABEL=FOLDER` gives a method its name.
        out: the folder of the page; what was there and differs is kept under another name.
        metric: by which; the first that the runs measured where nothing is said.
        latency: time what runs write, where that was not done; it stays in their folders.
        tracker: takes the table too.
        project: what the tracker files it under.

    Raises:
        FileNotFoundError: a folder holds no run that ended.
        ValueError: the runs cannot be compared, and why.
    """
    records = read(runs)
    if latency:
        for folder in dict.fromkeys(r.folder for r in records if r.shots is None):
            measure_latency(folder)
        records = read(runs)
    found = compared(_sized(records), metric)
    found.notes.extend(left_out(runs))
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    texts = {"index.html": page(found), "table.md": table.markdown(found), "table.csv": table.as_csv(found)}
    for name, text in texts.items():
        keep_old(target / name, text)
        write_text(target / name, text)
    table.track(found, target, tracker, project)
    _show(found)
    console.print(f"The page: {target / 'index.html'}", markup=False)


def _sized(records: list[Record]) -> list[Record]:
    """With the number of the backbone's parameters, where there are several backbones whose architecture can be read."""
    sizes: dict[str, int] = {}
    names = dict.fromkeys(record.backbone for record in records)
    for name in names if len(names) > 1 else ():
        try:
            sizes[name] = whole_copy(name) // 4
        except (ValueError, OSError):
            console.print(f"The size of {name} cannot be read: it is not in the picture of quality against size.")
    own = {name: {"backbone_parameters": size} for name, size in sizes.items()}
    return [replace(record, numbers={**own.get(record.backbone, {}), **record.numbers}) for record in records]


def _show(found: Comparison) -> None:
    columns = [c for c in table.shown(found) if c.key in (*SCREEN, found.metric)]
    shown = Table(*(column.heading for column in columns))
    for method in found.methods:
        shown.add_row(*(column.read(method) for column in columns))
    verdict = judge(found)
    console.print(shown)
    for note in found.notes:
        console.print(f"Note: {note}", markup=False)
    console.print(verdict.sentence, style="bold", markup=False)
    console.print(verdict.reason, markup=False)
