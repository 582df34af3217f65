"""The verb: `compare --config compare.yaml`, which runs an experiment first, and `compare RUN RUN`."""

from pathlib import Path

from lit_fm.arguments import find_config
from lit_fm.cli import fail, run_function
from lit_fm.compare.experiment import read_experiment, run_experiment

OWN = ("--config", "--out", "--workers", "--seeds", "--methods", "--backbones")
USAGE = (
    "compare --config NAME [--out DIR] [--workers N] [--seeds N] [--methods NAME,NAME] [--backbones NAME,NAME], and "
    "options of fit"
)
REPORT = (
    "lit_fm.compare.report:compare",
    f"Compare runs that ended, on one page: compare RUN RUN --out DIR. Or run an experiment first: {USAGE}.",
)


def compare(args: list[str]) -> None:
    """Read the options, run the experiment if one is named, compare.

    Raises:
        ValueError: an option is wrong.
    """
    if not any(word.partition("=")[0] == "--config" for word in args):
        run_function("compare", args, REPORT)
        return
    own, options, words = {}, [], iter(args)
    for word in words:
        key, equals, value = word.partition("=")
        if key in OWN and key not in own:
            own[key] = value if equals else next(words, "")
        else:
            options.append(word)
    numbers = {key: own.get(key, "1") for key in ("--workers", "--seeds")}
    if wrong := [key for key, value in numbers.items() if not value.isdigit() or value == "0"]:
        fail(f"compare: {wrong[0]} {numbers[wrong[0]]} must be a number of at least 1: {USAGE}.", code=2)
    config = find_config(own["--config"])
    asked = read_experiment(config)
    if "--seeds" in own:
        asked = asked._replace(seeds=int(own["--seeds"]))
    if "--methods" in own:
        asked = asked.only(own["--methods"].split(","))
    if "--backbones" in own:
        asked = asked._replace(backbones=own["--backbones"].split(","))
    run_experiment(asked, options, Path(own.get("--out", f"comparisons/{config.stem}")), int(numbers["--workers"]))
