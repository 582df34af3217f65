"""The run: a folder with the resolved config, provenance, metrics and checkpoints; which one it is, and how it goes on."""

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

from lit_fm import durable, randomness, resume
from lit_fm.checkpoint import put_aside
from lit_fm.credentials import check_no_credentials
from lit_fm.data.base import ObjectiveData
from lit_fm.durable import free, keep_old, write_json
from lit_fm.energy import Meter
from lit_fm.guard import Guard
from lit_fm.keep import Keep
from lit_fm.plan.foresee import lacking
from lit_fm.plan.quantity import size
from lit_fm.position import begin_there, position_of, take_position
from lit_fm.provenance import provenance
from lit_fm.screen import console, show_data, show_learnable
from lit_fm.track import Tracker, loggers


class Run(L.Callback):
    """One run and its folder, `ROOT/NAME/NNN`; a new number for each run, so that nothing is overwritten.

    Args:
        root: the folder of all runs.
        name: of this kind of run; the name of the first config where nothing is said.
        tracker: beside the local files. `wandb` goes offline by itself where nobody is logged in.
        project: what the tracker files the run under.
        resume: `auto` goes on with the newest run of this name and these settings that did not end; `required` does so or
            stops with an error, and takes changed settings where the steps made remain what they were; `never` begins anew.
        save_every: a checkpoint after so many optimizer steps, besides the one at the end of each epoch.
        keep: how many checkpoints stay, the newest.
        save_in_background: checkpoints are copied in memory, and written while training goes on.
        skip_steps: optimizer steps whose loss or gradient is not finite that may be left out, before the run stops.
        stop_after: seconds of training, then the run saves and exits with code 75: the same command goes on.
        folder: an existing run to go on with, validate, test or predict with (`--run` sets it).
    """

    def __init__(
        self,
        root: str = "runs",
        name: str = "run",
        tracker: Tracker = "wandb",
        project: str = "lit_fm",
        resume: resume.Resume = "auto",
        save_every: int | None = None,
        keep: int = 2,
        save_in_background: bool = False,
        skip_steps: int = 0,
        stop_after: float | None = None,
        folder: str | None = None,
    ) -> None:
        if save_every is not None and save_every < 1:
            raise ValueError(f"run.save_every is {save_every}: raise it.")
        if keep < 2:
            raise ValueError(f"run.keep is {keep}: of fewer than 2 checkpoints none may be whole, raise it.")
        self.root, self.name, self.tracker, self.project = root, name, tracker, project
        self.resume, self.save_in_background, self.existing = resume, save_in_background, folder
        if skip_steps < 0:
            raise ValueError(f"run.skip_steps is {skip_steps}: give 0 or more.")
        self.keep, self.guard = Keep(save_every, keep, stop_after), Guard(skip_steps)
        self.checkpoint: Path | str | None = None
        self.start: str | None = None  # a checkpoint that was named
        self.opened = self.settled = False
        self.folder = Path(folder) if folder else Path(root, name)
        self.made: list[Path] = []  # folders that this process made
        self.begun = False
        self.started, self.meter = time.perf_counter(), Meter()

    def open(self, verb: str, config: str, given_logger: Any) -> tuple[list[Any], list[Any]]:
        """Make the folder, and give the trainer's loggers and checkpoint callbacks. `config`: resolved, as YAML."""
        check_no_credentials(config)
        self.config = config
        self.opened = getattr(rank_zero_only, "rank", 0) == 0
        if self.existing and verb != "fit":
            return [], []
        if not self.opened:
            return [], [self.keep]
        if verb == "fit":
            self._choose(config)
        else:
            self.make_folder()
            durable.write_text(self.folder / "config.yaml", config)
        return loggers(self.tracker, self.folder, self.project, given_logger), [self.keep]

    def _choose(self, config: str) -> None:
        """Go on with a run, or make a new folder; say which."""
        existing = Path(self.existing) if self.existing else None
        choice = resume.choose(Path(self.root, self.name), existing, self.resume, config)
        for line in choice.why:
            console.print(line)
        self.checkpoint = choice.checkpoint or (self.start and resume.start_of(self.start))
        if choice.folder is None:
            self.make_folder()
            durable.write_text(self.folder / "config.yaml", config)
        self.folder = choice.folder or self.folder
        self._lock = resume.Lock(self.folder)
        if choice.folder:
            durable.sweep(self.folder / "checkpoints")
            put_aside(self.folder / "checkpoints", choice.checkpoint)

    def make_folder(self) -> None:
        """A new one, by the next free number."""
        try:
            for parent in (Path(self.root), Path(self.root, self.name)):
                if not parent.exists():
                    parent.mkdir(parents=True)
                    self.made.append(parent)
            self.folder = _numbered(self.folder)
        except OSError as error:
            raise OSError(
                f"run.root {self.root} cannot be written ({error.strerror}): choose another folder."
            ) from error
        self.made.append(self.folder)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.folder, self.checkpoint = trainer.strategy.broadcast((self.folder, self.checkpoint))
        self.settled, self.keep.folder = True, self.folder / "checkpoints"
        self.guard.folder = self.folder
        if trainer.is_global_zero and not self.opened:
            raise ValueError(
                "RANK, LOCAL_RANK or SLURM_PROCID says that this process is one of several, but it runs alone: unset them."
            )

    def __bool__(self) -> bool:
        """As the trainer's path of a checkpoint: whether there is one, which is known once all ranks were told."""
        return not self.settled or self.checkpoint is not None

    def __fspath__(self) -> str:
        return str(self.checkpoint)

    __str__ = __fspath__

    # What a checkpoint holds of the run.

    def state_dict(self) -> dict[str, Any]:
        joules = self.meter.joules() or 0.0
        return {"seconds": time.perf_counter() - self.started, "skipped": self.guard.skipped, "joules": joules}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.started -= state["seconds"]
        self.meter.before = state.get("joules", 0.0)
        self.guard.skipped = state.get("skipped", 0)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        states: list[Any] = [None] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, randomness.collect())
        else:
            states = [randomness.collect()]
        checkpoint["random_states"] = states
        checkpoint["position"] = position_of(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        if isinstance(trainer.datamodule, ObjectiveData) and "position" in checkpoint:
            take_position(trainer, checkpoint)
        states = checkpoint.get("random_states", [])
        self._random_state = states[trainer.global_rank] if len(states) == trainer.world_size else None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begun = True
        begin_there(trainer)
        if trainer.is_global_zero and self.opened:  # only now: a resume that failed changes nothing
            keep_old(self.folder / "config.yaml", self.config)
            durable.write_text(self.folder / "config.yaml", self.config)
        if state := getattr(self, "_random_state", None):
            randomness.restore(state)

    # Fit.

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.check_once()  # before the first score
        pl_module.guard = self.guard
        if trainer.is_global_zero:
            write_json(free(self.folder / "run.json"), provenance(trainer))
            for logger in trainer.loggers:
                logger.log_hyperparams(yaml.safe_load(self.config))
            console.print(f"Run folder: {self.folder}")
            if isinstance(trainer.datamodule, ObjectiveData):
                show_data(trainer.datamodule.report, trainer.datamodule.fill())
            show_learnable(pl_module)
            where, config = trainer.strategy.root_device, self.folder / "config.yaml"
            if not pl_module.sharded and (short := lacking(pl_module.network, where, config)):
                console.print(
                    f"This will not fit: a step takes {size(short[0])} at its peak, and {size(short[1])} are there. "
                    "`plan` with the same options and --device says what to change."
                )
            if text := pl_module.about():
                console.print(text)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.keep.wishes.end()  # before the last scoring, which may take long

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if not self.begun:
            self.discard(trainer.loggers)

    def discard(self, tracked: list[Any]) -> None:
        """Remove the folders that this process made, for a run that never began; nothing else is touched."""
        if not self.made:
            return
        for logger in tracked:
            logger.finalize("failed")
        shutil.rmtree(self.made.pop(), ignore_errors=True)
        for parent in reversed(self.made):
            with suppress(OSError):  # another run is in it
                parent.rmdir()


def _numbered(parent: Path) -> Path:
    """A new folder with the next free number. Making it is what reserves it."""
    parent.mkdir(parents=True, exist_ok=True)
    number = max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0)
    while True:
        number += 1
        try:
            (parent / f"{number:03d}").mkdir()
            return parent / f"{number:03d}"
        except FileExistsError:
            continue
