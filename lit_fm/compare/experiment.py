"""An experiment: methods on the same data, budget and seeds, each in a run folder of its own; then the comparison of these.

Every run is a `fit` or an `icl` like any other. What has ended is not run again, what was cut off goes on where it was: so
the same command, given again, ends with the same page.
"""

import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_fm.arguments import read_yaml
from lit_fm.compare.cells import Cell, run_cells
from lit_fm.compare.report import compare
from lit_fm.compare.runs import slug
from lit_fm.data.task import Task
from lit_fm.durable import write_json, write_text
from lit_fm.nearest import did_you_mean
from lit_fm.parsed import Parsed
from lit_fm.resume import Lock, changes
from lit_fm.screen import console

TARGET = "target"
"""What the experiment's own task is called in a mixture with those that are held out."""
KEYS = ("fit", "methods", "shots", "seeds", "backbones")


class Experiment(NamedTuple):
    """What a config of `compare` says.

    Args:
        fit: settings of all runs, as a config of `fit`.
        methods: those that learn, each with its options of `fit` by dotted name; `mixed: true` learns the held-out tasks of
            `forgetting`, too.
        shots: numbers of solved examples in the prompt of the backbone as it is.
        backbones: all methods are run on each, instead of the one of `fit`.
    """

    fit: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    shots: list[int]
    seeds: int
    backbones: list[str]

    def only(self, names: list[str]) -> "Experiment":
        """With these methods alone.

        Raises:
            ValueError: there is no such method.
        """
        names = [slug(name) for name in names]
        if strange := [name for name in names if name not in self.methods]:
            raise ValueError(f"--methods: there is no {strange[0]!r}: {did_you_mean(strange[0], self.methods)}")
        return self._replace(methods={name: self.methods[name] for name in names})


def read_experiment(path: Path) -> Experiment:
    """An experiment by its config.

    Raises:
        ValueError: it says something that is not known, or lacks something.
    """
    given = read_yaml(path)
    if not isinstance(given, dict) or not all(isinstance(given.get(key), dict) for key in ("fit", "methods")):
        raise ValueError(
            f"{path}: expected `fit:`, settings of all runs, and `methods:` by name; see compare.yaml in configs."
        )
    if strange := [key for key in given if key not in KEYS]:
        raise ValueError(f"{path}: there is no {strange[0]!r}: {did_you_mean(strange[0], KEYS)}")
    shots, seeds, backbones = given.get("shots") or [], given.get("seeds", 2), given.get("backbones") or []
    numbers = [*shots, seeds] if isinstance(shots, list) else [shots]
    if not isinstance(shots, list) or not all(isinstance(n, int) and n >= 0 for n in numbers) or seeds < 1:
        raise ValueError(f"{path}: shots {shots} and seeds {seeds}: expected numbers, such as shots: [0, 4], seeds: 2.")
    if not isinstance(backbones, list):
        raise ValueError(f"{path}: backbones {backbones!r}: expected a list, such as [tiny-clm, gpt2].")
    return Experiment(given["fit"], _methods(path, given["methods"]), shots, seeds, list(map(str, backbones)))


def _methods(path: Path, given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Methods by the names of their folders.

    Raises:
        ValueError: two would share a folder, one has no name, or its options are none.
    """
    methods: dict[str, dict[str, Any]] = {}
    for name, options in given.items():
        if not isinstance(options or {}, dict):
            raise ValueError(f"{path}: methods: {name} is {options!r}: expected options of fit by dotted name.")
        if not slug(name) or slug(name) in methods:
            why = "needs a letter of a-z or a digit" if not slug(name) else f"is the second {slug(name)!r}"
            raise ValueError(f"{path}: methods: {name!r} {why}, by which its folder is called: rename it.")
        methods[slug(name)] = dict(options or {})
    return methods


def run_experiment(asked: Experiment, options: list[str], out: Path, workers: int, metric: str | None = None) -> None:
    """Run what was not run yet, and compare.

    Args:
        options: of `fit`, for all runs.
        out: the folder of the runs and of the page.
        workers: runs at a time.
        metric: by which; the first that the runs measured where nothing is said.

    Raises:
        ValueError: an option is wrong, the experiment in `out` was another, or no run ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = Lock(out)
    keep_fit(out / "fit.yaml", asked.fit)
    cells = _cells(asked, options, out)
    if not cells:
        raise ValueError("there is nothing to run: name methods, or shots.")
    for cell in cells:
        if cell.name.endswith("-seed0"):  # each method is understood before the first of them starts
            Parsed(cell.args, cell.name)
    _keep(out / "experiment.json", cells)
    failed = run_cells(cells, workers)
    lock.release()
    for name, reason in failed.items():
        console.print(f"{name} is left out, since it failed: {reason}", markup=False)
    ended = [str(folder) for cell in cells if (folder := cell.ended)]
    if not ended:
        name, reason = next(iter(failed.items()))
        raise ValueError(f"no run ended; of {name}: {reason} (the log.txt of each is in {out / 'runs'})")
    compare(ended, str(out), metric)


def _cells(asked: Experiment, options: list[str], out: Path) -> list[Cell]:
    """All runs, seed after seed, so that a table is whole as early as can be."""
    shared = ["--config", str(out / "fit.yaml"), *options]
    ordered = str(asked.fit.get("data", {}).get("class_path")).endswith(("InstructionData", "Mixture"))
    cells = []
    for backbone in asked.backbones or [""]:
        base = [*shared, *(["--model.backbone", backbone] if backbone else [])]
        end = f"-{slug(backbone)}" if backbone else ""
        if asked.shots:
            more = ["--shots", ",".join(map(str, asked.shots)), "--seeds", str(asked.seeds)]
            cells.append(_cell(f"prompting{end}", "icl", [*base, *more], out))
        for seed in range(asked.seeds):
            for name, settings in asked.methods.items():
                own = _typed(_mixed(settings, base) if settings.get("mixed") else settings)
                own += ["--seed_everything", str(seed), *(["--data.order_seed", str(seed)] if ordered else [])]
                cells.append(_cell(f"{name}{end}-seed{seed}", "fit", [*base, *own], out))
    return cells


def _cell(name: str, verb: str, args: list[str], out: Path) -> Cell:
    where = ["--run.root", str(out / "runs"), "--run.name", name, "--run.tracker", "none"]
    return Cell(name, verb, [*args, *where], out / "runs" / (f"{name}-icl" if verb == "icl" else name))


def _typed(settings: dict[str, Any]) -> list[str]:
    return [
        word
        for key, value in settings.items()
        if key != "mixed"
        for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]


def _mixed(settings: dict[str, Any], base: list[str]) -> dict[str, Any]:
    """The settings with the task and all held-out ones as data, scored on the task alone.

    Raises:
        ValueError: there are none, or the data is more than a task.
    """
    found = Parsed(base, "mixed").settings
    data, held_out = found["data"], (found.get("forgetting") or {}).get("tasks")
    if not held_out or not str(data["class_path"]).endswith("InstructionData"):
        raise ValueError("methods: mixed needs InstructionData, and held-out tasks: give forgetting.tasks in fit.")
    if TARGET in held_out:
        raise ValueError(f"methods: mixed calls its own task {TARGET!r}: rename that of forgetting.tasks.")
    of_task = set(inspect.signature(Task).parameters)
    task = {key: value for key, value in data["init_args"].items() if key in of_task}
    rest = {key: value for key, value in data["init_args"].items() if key not in of_task}
    mixture = {"tasks": {TARGET: task, **held_out}, **rest}
    return {**settings, "data": {"class_path": "lit_fm.Mixture", "init_args": mixture}, "score.tasks": [TARGET]}


def keep_fit(path: Path, fit: dict[str, Any]) -> None:
    """Write down what all runs share.

    Raises:
        ValueError: it was another, and a run has begun with it.
    """
    text = yaml.safe_dump(fit, sort_keys=False, allow_unicode=True)
    if path.is_file() and path.read_text(encoding="utf-8") != text and any(path.parent.glob("runs/*/*/config.yaml")):
        told = "; ".join(map(str, changes(path.read_text(encoding="utf-8"), text))) or "how runs are carried out"
        raise ValueError(
            f"{path.parent} holds an experiment with other settings of fit ({told}): give another folder by --out."
        )
    write_text(path, text)


def _keep(path: Path, cells: list[Cell]) -> None:
    """Write down what is run.

    Raises:
        ValueError: a run of that name was another.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made = {cell.name: [cell.verb, *cell.args] for cell in cells}
    for name in known.keys() & made.keys():
        was, now = known[name], made[name]
        if was != now:
            gone, new = (" ".join(word for word in one if word not in other) for one, other in ((was, now), (now, was)))
            raise ValueError(
                f"{path.parent} holds an experiment in which {name} has other settings ({gone or 'none'} instead of "
                f"{new or 'none'}): give another folder by --out."
            )
    write_json(path, {**known, **made})
