"""The verb: `sweep --config lora.yaml --sweep sweep.yaml`, by Optuna here, or by W&B's agents."""

import os
from pathlib import Path
from typing import Any

import yaml

from lit_fm.arguments import expand, find_config
from lit_fm.cli import fail
from lit_fm.durable import free, write_text
from lit_fm.parsed import Parsed
from lit_fm.resume import Lock
from lit_fm.screen import console, measured
from lit_fm.sweep import space as spaces
from lit_fm.sweep.report import Trial, ranked, report, shown
from lit_fm.sweep.trial import STOPPED, carried_out, keep, measure, note, why

USAGE = "sweep --config NAME --sweep NAME [--trials N] [--out DIR] [--wandb], and options of fit"


def sweep(args: list[str]) -> None:
    """Read the options, try out whether each trial will be understood, and begin or go on.

    Raises:
        ValueError: a key, a value, a range or a metric that cannot be.
    """
    own, rest = _own(args)
    if not own["--sweep"]:
        fail(f"sweep: --sweep is lacking: {USAGE}.", code=2)
    name, arguments = expand(rest, "fit")
    space = spaces.read(find_config(own["--sweep"]))
    if own["--trials"]:
        if not own["--trials"].isdigit() or int(own["--trials"]) < 1:
            fail(f"sweep: --trials {own['--trials']} must be a number of at least 1.", code=2)
        space = space._replace(trials=int(own["--trials"]))
    base = Parsed(arguments, name).resolved()
    for settings in spaces.corners(space.over):
        Parsed([*arguments, *spaces.typed(settings)], name)
    folder = Path(own["--out"] or f"sweeps/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    if own["--wandb"] or space.method == "wandb":
        by_wandb(space, folder, rest, yaml.safe_load(base)["run"]["project"])
    else:
        by_optuna(space, folder, base, rest)


def _own(args: list[str]) -> tuple[dict[str, str], list[str]]:
    """The sweep's own options, and those of fit."""
    own, rest = dict.fromkeys(("--sweep", "--out", "--trials", "--wandb"), ""), []
    words = iter(args)
    for word in words:
        key, equals, value = word.partition("=")
        if word == "--wandb":
            own[word] = "yes"
        elif key in own:
            own[key] = value if equals else next(words, "")
        else:
            rest.append(word)
    return own, rest


def by_optuna(space: spaces.Space, folder: Path, base: str, arguments: list[str]) -> None:
    """Trial after trial, each drawn from the seed, its number, and the values before: a sweep that goes on is the same.

    Raises:
        SystemExit: a trial was asked to stop; the same command goes on with it.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError("sweep needs Optuna: pip install -c constraints.txt optuna, or use --wandb.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock = Lock(folder)
    (folder / "trials").mkdir(exist_ok=True)
    keep(folder, "base.yaml", base)
    own = {key: one._asdict() | {"values": list(one.values)} for key, one in space.over.items()}
    keep(folder, "sweep.yaml", yaml.safe_dump({"metric": space.metric, "goal": space.goal, "over": own}))
    direction: Any = {"min": "minimize", "max": "maximize"}[space.goal]
    path = f"sqlite:///{folder / 'study.db'}"
    study = optuna.create_study(storage=path, study_name="sweep", direction=direction, load_if_exists=True)
    ended: list[Trial] = []
    for number in range(space.trials):
        if number == len(study.trials):
            study.sampler = optuna.samplers.TPESampler(seed=number)
            study.ask(spaces.distributions(space.over))
        known = study.trials[number]
        if not known.state.is_finished():
            value = _value(space, folder, number, known.params, ended)
            study.tell(number, value) if value is not None else study.tell(number, state=optuna.trial.TrialState.FAIL)
            known = study.trials[number]
        ended.append(Trial(number, known.params, known.value, "" if known.value is not None else why(folder, number)))
    lock.release()
    report(ended, space, folder, arguments)


def _value(
    space: spaces.Space, folder: Path, number: int, settings: dict[str, Any], before: list[Trial]
) -> float | None:
    """Carry out a trial, and tell it; None where it failed. One whose settings were tried before has the same value."""
    short = spaces.labels(list(space.over))
    if settings.keys() != space.over.keys():
        note(folder, number, "the sweep was killed before its settings were drawn")
        return None
    told = ", ".join(f"{short[key]} {shown(settings[key])}" for key in space.over)
    console.print(f"Trial {number}, of {space.trials}: {told} ...", markup=False)
    if same := next((one for one in before if one.settings == settings and one.value is not None), None):
        console.print(f"  the same as trial {same.number}.")
        return same.value
    code = carried_out(folder, number, settings)
    if code in STOPPED:
        console.print("The sweep was stopped. The same command goes on from here.")
        raise SystemExit(code)
    value = measure(folder, number, space.metric) if code == 0 else None
    if code == 0 and value is None:
        note(folder, number, f"{space.metric} is not finite")
    if value is None:
        console.print(f"  failed: {why(folder, number)}", markup=False)
        return None
    best = ranked([*before, Trial(number, settings, value)], space)[0]
    numbers = [measured(space.metric, v) for v in (value, best.value or 0.0)]
    console.print(f"  {space.metric} {numbers[0]}; the best so far is {numbers[1]}, of trial {best.number}.")
    return value


def by_wandb(space: spaces.Space, folder: Path, arguments: list[str], project: str) -> None:
    """Write W&B's config of the sweep, and run its agent where somebody is logged in."""
    import wandb

    config = spaces.for_wandb(space, arguments, project)
    path = free(folder / "wandb.yaml")
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    online = os.environ.get("WANDB_MODE", "online") == "online"
    if online and wandb.login(prompt=False, verify=False):
        wandb.agent(wandb.sweep(config, project=project), project=project, count=space.trials)
        return
    console.print(
        f"Nobody is logged in to W&B, so nothing was started. Its config of the sweep is {path}. Start it by:"
    )
    for line in ("wandb login", f"wandb sweep --project {project} {path}", "wandb agent THE_ID_THAT_IT_SAYS"):
        console.print(f"  {line}", markup=False)
