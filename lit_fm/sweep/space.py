"""What a sweep tries: which settings, between which ends, for which metric."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from lit_fm.arguments import read_yaml
from lit_fm.evaluate.metrics import LIKELIHOOD, METRICS
from lit_fm.nearest import did_you_mean
from lit_fm.screen import SHARES

LOSSES = ("val_loss", "train_loss")
COSTS = ("seconds", "peak_memory_bytes", "learnable_parameters", "optimizer_steps")
KNOWN = {*LOSSES, *COSTS, *METRICS, *LIKELIHOOD, *SHARES, "loss", "perplexity", "bits_per_byte"} - {"rouge"}
"""Numbers in a `summary.json`, as far as the data's names of tasks and parts do not stand before them."""
OURS = ("run.root", "run.name", "run.folder", "run.resume")
FORM = "model.init_args.optimizer.init_args.lr: {min: 1e-4, max: 1e-2, log: true}"


class Range(NamedTuple):
    """Numbers between two ends, whole where both ends are; or values to choose from."""

    low: float = 0
    high: float = 0
    log: bool = False
    values: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Any, ...]:
        """What is tried out before a sweep begins."""
        return self.values or (self.low, self.high)


class Space(NamedTuple):
    """The sweep's own YAML. `over`: by key of the config, as it would be typed."""

    metric: str
    goal: str
    over: dict[str, Range]
    trials: int = 20
    method: str = "optuna"

    @property
    def on_test(self) -> bool:
        """Whether the metric is of the test split, by which settings that are chosen look better than they are."""
        return self.metric not in (*LOSSES, *COSTS) and not self.metric.startswith(("val_", "forgetting."))


def read(path: Path) -> Space:
    """A sweep's YAML.

    Raises:
        ValueError: a setting that lacks, that is not known, or that makes no sense.
    """
    said = read_yaml(path)
    if not isinstance(said, dict):
        raise ValueError(f"{path}: expected metric, goal and over, got {said!r}.")
    for name in said:
        if name not in Space._fields:
            raise ValueError(f"{path}: there is no setting {name!r}: {did_you_mean(name, Space._fields)}")
    for name in ("metric", "goal", "over"):
        if name not in said:
            raise ValueError(f"{path}: {name} is lacking: give metric: val_loss, goal: min, and over: {{{FORM}}}.")
    if not isinstance(said["over"], dict) or not said["over"] or not all(isinstance(key, str) for key in said["over"]):
        raise ValueError(f"{path}: over is {said['over']!r}: give settings by key, such as {FORM}.")
    space = Space(**{**said, "over": {key: _range(f"{path}: over.{key}", one) for key, one in said["over"].items()}})
    for name, known in (("goal", ("min", "max")), ("method", ("optuna", "wandb"))):
        if getattr(space, name) not in known:
            raise ValueError(f"{path}: {name} is {getattr(space, name)!r}: give {' or '.join(known)}.")
    if not isinstance(space.trials, int) or space.trials < 1:
        raise ValueError(f"{path}: trials is {space.trials!r}: give a number of at least 1.")
    if ours := set(OURS) & set(space.over):
        raise ValueError(f"{path}: over.{min(ours)} is what the sweep itself sets: leave it out.")
    if within := [(a, b) for a in space.over for b in space.over if b.startswith(f"{a}.")]:
        raise ValueError(f"{path}: over.{within[0][1]} is a part of over.{within[0][0]}: leave out one of them.")
    metric = str(space.metric)
    if not metric.startswith("forgetting.") and not any(metric == k or metric.endswith(f"_{k}") for k in KNOWN):
        raise ValueError(f"{path}: metric {metric!r} is no number of a summary.json: {did_you_mean(metric, KNOWN)}")
    return space


def _range(where: str, said: Any) -> Range:
    if not isinstance(said, dict) or not (
        set(said) == {"values"} or {"min", "max"} <= set(said) <= {"min", "max", "log"}
    ):
        raise ValueError(f"{where} is {said!r}: give {{values: [...]}} or {{min: ..., max: ..., log: true}}.")
    if "values" in said:
        values = said["values"]
        if not isinstance(values, list) or not values or not all(isinstance(v, str | int | float) for v in values):
            raise ValueError(f"{where}.values is {values!r}: give a list of numbers, words, true or false.")
        return Range(values=tuple(values))
    try:  # YAML reads 1e-4 as a word
        low, high = (float(end) if isinstance(end, str) else end for end in (said["min"], said["max"]))
        good = -math.inf < low < high < math.inf
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{where}: min {said['min']} must be a number below max {said['max']}.")
    log = said.get("log", False)
    if not isinstance(log, bool) or (log and low <= 0):
        raise ValueError(f"{where}: log is {log!r} and min {low}: log needs true or false, and a min above 0.")
    return Range(low, high, log)


def typed(settings: dict[str, Any]) -> list[str]:
    """Settings as options of a command line."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def corners(over: dict[str, Range]) -> list[dict[str, Any]]:
    """Settings that have each end of each range, and each value, in one of them."""
    most = max(len(one.ends) for one in over.values())
    return [{key: one.ends[i % len(one.ends)] for key, one in over.items()} for i in range(most)]


def labels(keys: list[str]) -> dict[str, str]:
    """Short names: the last words of each key that tell it from the others."""
    found = {}
    for key in keys:
        words, n = key.split("."), 1
        while n < len(words) and any(o != key and f".{o}".endswith("." + ".".join(words[-n:])) for o in keys):
            n += 1
        found[key] = ".".join(words[-n:])
    return found


def distributions(over: dict[str, Range]) -> dict[str, Any]:
    """The space as Optuna's."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, one in over.items():
        kind: Any = IntDistribution if one.whole else FloatDistribution
        found[key] = CategoricalDistribution(one.values) if one.values else kind(one.low, one.high, log=one.log)
    return found


def for_wandb(space: Space, arguments: list[str], project: str) -> dict[str, Any]:
    """The sweep as W&B's config of one, whose agents run `fit` with these arguments."""
    parameters: dict[str, dict[str, Any]] = {}
    for key, one in space.over.items():
        if one.values:
            parameters[key] = {"values": list(one.values)}
            continue
        kind = "log_uniform_values" if one.log else "uniform"
        kind = {"log_uniform_values": "q_log_uniform_values", "uniform": "int_uniform"}[kind] if one.whole else kind
        parameters[key] = {"distribution": kind, "min": one.low, "max": one.high}
        parameters[key] |= {"q": 1} if kind.startswith("q_") else {}
    return {
        "program": "lit_fm",
        "project": project,
        "method": "bayes",
        "metric": {"name": space.metric, "goal": {"min": "minimize", "max": "maximize"}[space.goal]},
        "parameters": parameters,
        "run_cap": space.trials,
        "command": ["${env}", "python", "-m", "lit_fm", "fit", *arguments, "--run.tracker=wandb", "${args}"],
    }
