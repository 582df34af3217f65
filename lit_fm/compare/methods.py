"""Runs of one method together: their seeds, the examples that all share, what they reached, and how sure that is."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lit_fm.compare import statistics
from lit_fm.compare.counts import counts
from lit_fm.compare.runs import Record

FEWEST = 20
"""Shared test examples from which on a comparison goes on, with a warning, where runs did not score the same ones."""
OWN = ("seed_everything", "run", "ckpt_path", "weights_only")
"""Settings in which runs of one method may differ."""
Key = tuple[Any, Any]


@dataclass
class Method:
    """What is compared: the runs of one method on one backbone."""

    name: str
    backbone: str
    runs: list[Record]
    label: str = ""
    values: list[float] = field(default_factory=list)
    """The metric of each run."""
    low: float = 0.0
    high: float = 0.0
    draws: np.ndarray = field(default_factory=lambda: np.empty(0))
    """The mean of resampled examples."""
    p: float | None = None
    """Of so large a difference from the best by chance alone, corrected for all methods; None of the best itself."""
    best: bool = False

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def shots(self) -> int | None:
        return self.runs[0].shots

    def number(self, name: str) -> float | None:
        """The mean over runs of what is known of their cost."""
        known = [run.numbers[name] for run in self.runs if name in run.numbers]
        return float(np.mean(known)) if known else None


class Comparison(NamedTuple):
    """Methods, the best first, on the same test examples."""

    metric: str
    methods: list[Method]
    examples: int
    notes: list[str]

    @property
    def best(self) -> Method:
        return self.methods[0]

    def equal(self) -> list[Method]:
        """Those that are not significantly worse than the best, with it."""
        return [m for m in self.methods if m.p is None or m.p >= 1 - statistics.LEVEL]


def compared(records: Sequence[Record], metric: str | None = None) -> Comparison:
    """Records grouped into methods, measured on the examples that all scored, and tested against the best.

    Raises:
        ValueError: the runs share no metric, or not the test examples, or there are none.
    """
    if not records:
        raise ValueError("there is nothing to compare: name runs, such as runs/lora/001.")
    notes: list[str] = []
    methods = _grouped(records, notes)
    runs = [run for method in methods for run in method.runs]
    notes += [
        f"{m.label}: {few:.0%} of the questions had room for fewer examples." for m in methods if (few := _fewer(m))
    ]
    tables = [keyed(run) for run in runs]
    shared = _shared(runs, tables, notes)
    metric = _metric(runs, tables, metric, notes)
    tasks = _tasks(metric, runs, [key for key in tables[0] if key in shared])
    parts = {
        id(run): [counts(metric, [table[key] for key in keys]) for keys in tasks]
        for run, table in zip(runs, tables, strict=True)
    }
    several = [[parts[id(run)] for run in method.runs] for method in methods]
    for method, of in zip(methods, several, strict=True):
        method.values, method.draws = [statistics.point([tasks]) for tasks in of], statistics.resampled(of)
        method.low, method.high = map(float, statistics.interval(method.draws))
    order = sorted(range(len(methods)), key=lambda i: (-round(methods[i].mean, 9), *cost(methods[i])))
    best, others = order[0], order[1:]
    draws = [(methods[best].draws, methods[i].draws) for i in others]
    found = [statistics.compare(several[best], several[i], d) for i, d in zip(others, draws, strict=True)]
    methods[best].best = True
    for i, p in zip(others, statistics.holm(found), strict=True):
        methods[i].p = p
    return Comparison(metric, [methods[i] for i in order], sum(map(len, tasks)), notes)


def cost(method: Method) -> tuple:
    """What makes one cheaper: a smaller backbone, then fewer learnable parameters, fewer shots, fewer seconds."""
    names = ("backbone_parameters", "learnable_parameters", "seconds")
    size, learnt, seconds = (float("inf") if (n := method.number(name)) is None else n for name in names)
    return size, learnt, method.shots or 0, seconds, method.label


def _fewer(method: Method) -> float:
    """The share of questions that were asked with fewer shots than the method is called by."""
    few, of = (method.number(name) for name in ("fewer_shots", "questions"))
    return few / of if few and of else 0.0


def _flat(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, dict) and settings:
        for key, value in settings.items():
            if name or key not in OWN:
                yield from _flat(value, f"{name}.{key}" if name else key)
    elif name not in ("model.init_args.backbone", "data.init_args.seed", "data.init_args.order_seed"):
        yield name, settings


def _settings(record: Record) -> dict[str, Any]:
    """What makes another method of a run; of prompting, what is asked and how, since nothing learns."""
    found = dict(_flat(record.config))
    if record.shots is None:
        return found
    aside = ("data.init_args.batch_size", "data.init_args.workers")
    return {key: value for key, value in found.items() if key.startswith(("data.", "score.")) and key not in aside}


def _grouped(records: Sequence[Record], notes: list[str]) -> list[Method]:
    """Methods with their runs, in the order given. Runs of one name that were set differently are several methods."""
    groups: dict[tuple, list[Record]] = defaultdict(list)
    settings = {id(record): _settings(record) for record in records}
    for record in records:
        groups[record.method, record.backbone, repr(sorted(settings[id(record)].items()))].append(record)
    named: dict[tuple[str, str], list[list[Record]]] = defaultdict(list)
    for (name, backbone, _), runs in groups.items():
        named[name, backbone].append(runs)
    methods = []
    short = _short({record.backbone for record in records})
    for (name, backbone), found in named.items():
        for runs in found:
            more = _differences([settings[id(r[0])] for r in found], settings[id(runs[0])]) if len(found) > 1 else ""
            full = f"{name} ({more or runs[0].folder.name})" if len(found) > 1 else name
            label = f"{full} on {short[backbone]}" if len(short) > 1 else full
            methods.append(Method(full, backbone, _one_a_seed(runs, label, notes), label))
    return methods


def _short(backbones: Iterable[str]) -> dict[str, str]:
    """The ends of their paths: as much as it takes to tell them apart."""
    every = {name: name.rstrip("/").split("/") for name in backbones}
    for length in range(1, max(map(len, every.values())) + 1):
        ends = {name: "/".join(parts[-length:]) for name, parts in every.items()}
        if len(set(ends.values())) == len(ends):
            return ends
    return dict(zip(every, every, strict=True))


def _differences(all_: list[dict[str, Any]], own: dict[str, Any]) -> str:
    keys = sorted({key for one in all_ for key in one if len({repr(other.get(key)) for other in all_}) > 1})
    return ", ".join(f"{key.rpartition('.')[2]} {own.get(key)}" for key in keys[:3])


def _one_a_seed(runs: list[Record], label: str, notes: list[str]) -> list[Record]:
    """The newest of each seed: a seed that ran twice tells nothing of chance."""
    by_seed = {run.seed: run for run in sorted(runs, key=lambda run: str(run.folder))}
    if len(by_seed) < len(runs):
        notes.append(f"{label}: of several runs with the same seed, the one with the highest number is compared.")
    return [by_seed[seed] for seed in sorted(by_seed)]


def keyed(run: Record) -> dict[Key, dict[str, Any]]:
    """Scored examples by task, if there are several, and their number in its test split, or the order of scoring."""
    numbered = all("row" in row for row in run.scored)
    alone = len({row.get("task") for row in run.scored}) == 1  # of a mixture, too
    return {
        (None if alone else row.get("task"), row["row"] if numbered else i): row for i, row in enumerate(run.scored)
    }


def _shared(runs: list[Record], tables: list[dict[Key, Any]], notes: list[str]) -> set[Key]:
    shared = set(tables[0]).intersection(*tables[1:])
    for run, table in zip(runs, tables, strict=True):
        for key in sorted(shared, key=str):
            if table[key]["references"] != tables[0][key]["references"]:
                raise ValueError(
                    f"{runs[0].folder} and {run.folder} scored different test examples (the answers to number {key[1]} are "
                    f"{tables[0][key]['answer'][:40]!r} and {table[key]['answer'][:40]!r}): run them with the same data, "
                    "data.seed and score settings."
                )
    longest = max(map(len, tables))
    if len(shared) < longest:
        few = next(run for run, table in zip(runs, tables, strict=True) if set(table) != shared or len(table) < longest)
        if len(shared) < FEWEST:
            raise ValueError(
                f"the runs share only {len(shared)} test examples, fewer than {FEWEST} (see {few.folder}): run them "
                "with the same data, data.seed and score.examples."
            )
        notes.append(
            f"Not all runs scored the same test examples (see {few.folder}): compared on the {len(shared)} that all did, "
            "so figures may differ from those in the runs."
        )
    return shared


def _metric(runs: list[Record], tables: list[dict[Key, Any]], asked: str | None, notes: list[str]) -> str:
    """The metric that is asked for, or else the first one of the first run that all have, as their answers give it."""
    common = [name for name in runs[0].measured if "/" not in name and all(name in run.measured for run in runs)]
    if asked is not None and asked not in common:
        raise ValueError(f"metric {asked!r} was not measured by all runs: choose one of {', '.join(common) or 'none'}.")
    for name in [asked] if asked else common:
        unlike = [run for run, table in zip(runs, tables, strict=True) if not _agrees(run, table, name)]
        if not unlike:
            return name
        notes.append(f"{name} is not compared: {unlike[0].folder} measured it otherwise than by its scored answers.")
    each = "; ".join(f"{run.method}: {', '.join(run.measured)}" for run in runs[:6])
    raise ValueError(
        f"the runs share no metric that their scored answers give ({each}): run them with the same data.metrics."
    )


def _agrees(run: Record, table: dict[Key, Any], metric: str) -> bool:
    try:
        tasks = _tasks(metric, [run], list(table))
        value = statistics.point([[counts(metric, [table[key] for key in keys]) for keys in tasks]])
    except ValueError:
        return False
    return bool(np.isclose(value, run.measured[metric], rtol=1e-5, atol=1e-6))


def _tasks(metric: str, runs: Sequence[Record], keys: Iterable[Key]) -> list[list[Key]]:
    """Examples by task: of several, those that the metric is measured for."""
    found: dict[Any, list[Key]] = defaultdict(list)
    for key in sorted(keys, key=lambda key: (str(key[0] or ""), key[1])):
        found[key[0]].append(key)
    if len(found) > 1:
        measured = runs[0].measured
        found = {task: of for task, of in found.items() if f"{task or 'other'}/{metric}" in measured}
    return list(found.values())
