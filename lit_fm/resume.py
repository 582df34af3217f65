"""Which run a fit goes on with, and which settings may be others than they were."""

import fcntl
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from lit_fm.checkpoint import newest_verified

Resume = Literal["auto", "required", "never"]
_LAUNCH = (
    "run",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.default_root_dir",
    "trainer.profiler",
    "trainer.logger",
    "trainer.accumulate_grad_batches",
    "data.init_args.batch_size",
    "data.init_args.workers",
    "ckpt_path",
    "weights_only",
)
"""Settings that say where and how a run is carried out: the steps are the same."""
_HONOURED = (
    "trainer",
    "score",
    "model.init_args.optimizer",
    "model.init_args.schedule",
    "model.init_args.activation_checkpointing",
    "model.init_args.compile",
    "model.init_args.liger",
    "data.init_args.token_budget",
)
"""Settings that hold from the resumed step on."""
_FIXED = (
    "model.init_args.optimizer.class_path",
    "trainer.callbacks",
    "trainer.limit_train_batches",
    "trainer.overfit_batches",
    "trainer.reload_dataloaders_every_n_epochs",
)


class Change(NamedTuple):
    """A setting that is another than it was."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {self.was!r} -> {self.now!r}"


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    return {
        k: v for name, value in settings.items() for k, v in flat(value, f"{prefix}.{name}" if prefix else name).items()
    }


def _under(key: str, heads: tuple[str, ...]) -> bool:
    return any(key == head or key.startswith(f"{head}.") for head in heads)


def changes(was: str, now: str) -> list[Change]:
    """What two resolved configs (YAML) differ in, but for how the run is carried out."""
    old, new = flat(yaml.safe_load(was)), flat(yaml.safe_load(now))
    added = {key for key in new.keys() - old.keys() if not new[key]}  # settings that came later, and ask for nothing
    keys = [key for key in {**old, **new} if key not in added and not _under(key, _LAUNCH)]
    return [Change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def refused(found: list[Change]) -> list[Change]:
    """Those changes that would make another run of it."""
    return [change for change in found if not _under(change.key, _HONOURED) or _under(change.key, _FIXED)]


class Choice(NamedTuple):
    """What a fit does: the folder that it goes on in (None: a new one), from which checkpoint, and why."""

    folder: Path | None
    checkpoint: Path | None
    why: list[str]


NEW = "run.resume never starts anew."


def choose(parent: Path, existing: Path | None, mode: Resume, config: str) -> Choice:
    """The run to go on with.

    Args:
        parent: the folder of all runs of this kind.
        existing: the run that was asked for by name.
        config: resolved, as YAML.

    Raises:
        ValueError, FileNotFoundError: required, but there is none, it is at work, or its settings are others.
    """
    if existing or mode == "required":
        return _required(parent, existing, config)
    if mode == "never":
        return Choice(None, None, [])
    others: list[str] = []
    for folder in numbered(parent):
        if (folder / "summary.json").exists() or at_work(folder):
            continue
        if found := changes((folder / "config.yaml").read_text(encoding="utf-8"), config):
            said = ", ".join(map(str, found[:3])) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
            others.append(f"{folder} is unfinished, but has other settings ({said}): a new run begins.")
            continue
        checkpoint, damaged = newest_verified(folder)
        where = f"from {checkpoint.stem}" if checkpoint else "from the start: no checkpoint of it is whole"
        return Choice(folder, checkpoint, [*damaged, f"Going on with {folder}, which is unfinished, {where}. {NEW}"])
    return Choice(None, None, others[:1])


def _required(parent: Path, existing: Path | None, config: str) -> Choice:
    folder = existing or next(iter(numbered(parent)), None)
    if folder is None or not (folder / "config.yaml").is_file():
        raise FileNotFoundError(
            f"run.resume: there is no run to go on with in {folder or parent}: check run.root and run.name."
        )
    if at_work(folder):
        raise ValueError(f"run.resume: {folder} is at work in another process: wait for it, or stop it.")
    found = changes((folder / "config.yaml").read_text(encoding="utf-8"), config)
    if wrong := refused(found):
        raise ValueError(
            f"run.resume: {folder} cannot go on with {', '.join(map(str, wrong))}: set them back, or start a new run "
            "(run.resume never)."
        )
    checkpoint, damaged = newest_verified(folder)
    if checkpoint is None:
        raise FileNotFoundError(f"run.resume: {folder} has no checkpoint that is whole. {' '.join(damaged)}")
    most, step = (
        yaml.safe_load(config).get("trainer", {}).get("max_steps") or -1,
        int(checkpoint.stem.removeprefix("step=")),
    )
    if 0 < most < step:
        raise ValueError(f"run.resume: {folder} has made {step} steps, more than trainer.max_steps {most}: raise it.")
    said = [f"Changed from here on: {', '.join(map(str, found))}."] if found else []
    return Choice(folder, checkpoint, [*damaged, f"Going on with {folder} from {checkpoint.stem}.", *said])


def numbered(parent: Path) -> list[Path]:
    """Folders of fits (or, where those are kept, of icl), newest first."""
    if not parent.is_dir():
        return []
    fits = ("config.yaml", "run.json")  # the other verbs leave no run.json
    runs = [p for p in parent.iterdir() if p.name.isdigit() and all((p / name).is_file() for name in fits)]
    return sorted(runs, key=lambda p: -int(p.name))


def start_of(named: str) -> str:
    """The checkpoint that a fit was told to start from.

    Raises:
        ValueError: it is a word that stands for one.
    """
    if named in ("last", "best", "hpc", "registry") or named.startswith("registry:"):
        raise ValueError(
            f"--ckpt_path {named}: give a checkpoint's folder; run.resume finds the last one of a run by itself."
        )
    return named


class Lock:
    """Held by the process that works in a folder, until it ends, however it ends. A fork does not hold it."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "lock").open("w")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError(f"{folder} is at work in another process: wait for it, or stop it.") from error

    def release(self) -> None:
        self._file.close()


def at_work(folder: Path) -> bool:
    """Whether a process works in it."""
    try:
        Lock(folder).release()
    except OSError:
        return True
    return False
