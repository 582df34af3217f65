"""The verb: `compare --config compare.yaml`, which runs an experiment first, and `compare RUN RUN`."""

from pathlib import Path
from typing import NamedTuple

from lit_fm.arguments import find_config
from lit_fm.cli import fail, run_function
from lit_fm.compare.experiment import Experiment, read_experiment, run_experiment

OWN = ("--config", "--out", "--workers", "--seeds", "--methods", "--backbones", "--metric")
USAGE = (
    "compare --config NAME [--out DIR] [--workers N] [--seeds N] [--methods NAME,NAME] [--backbones NAME,NAME] [--metric "
    "NAME], and options of fit"
)
REPORT = (
    "compare.report:compare",
    f"Compare runs that ended, on one page: compare RUN RUN --out DIR. Or run an experiment first: {USAGE}.",
)


class Asked(NamedTuple):
    """What the command line asks for.

    Args:
        options: of fit, for all runs.
        out: the folder of it all.
        workers: runs at a time.
        metric: by which methods are compared; the first that the runs measured where nothing is said.
    """

    experiment: Experiment
    options: list[str]
    out: Path
    workers: int
    metric: str | None


def compare(args: list[str]) -> None:
    """Run the experiment if one is named, and compare; or compare runs that ended."""
    if any(word.partition("=")[0] == "--config" for word in args):
        run_experiment(*asked(args))
    else:
        run_function("compare", args, REPORT)


def asked(args: list[str]) -> Asked:
    """The command line, read.

    Raises:
        ValueError, FileNotFoundError, SystemExit: an option is wrong.
    """
    own, options, words = {}, [], iter(args)
    for word in words:
        key, equals, value = word.partition("=")
        if key in OWN and key not in own:
            own[key] = value if equals else next(words, "")
        else:
            options.append(word)
    if bare := [key for key, value in own.items() if not value]:
        fail(f"compare: {bare[0]} has no value: {USAGE}.", code=2)
    numbers = {key: own.get(key, "1") for key in ("--workers", "--seeds")}
    if wrong := [key for key, value in numbers.items() if not value.isdigit() or value == "0"]:
        fail(f"compare: {wrong[0]} {numbers[wrong[0]]} must be a number of at least 1: {USAGE}.", code=2)
    config = find_config(own["--config"])
    found = read_experiment(config)
    if "--seeds" in own:
        found = found._replace(seeds=int(own["--seeds"]))
    if "--methods" in own:
        found = found.only(own["--methods"].split(","))
    if "--backbones" in own:
        found = found._replace(backbones=own["--backbones"].split(","))
    return Asked(
        found,
        options,
        Path(own.get("--out", f"comparisons/{config.stem}")),
        int(numbers["--workers"]),
        own.get("--metric"),
    )
