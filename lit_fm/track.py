"""Where metrics go: a local file, which is the truth, and a tracker, which may fail without harm to the run."""

import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_fm.durable import free

Tracker = Literal["wandb", "csv", "tensorboard", "none"]
log = logging.getLogger(__name__)
PATIENCE = 60.0
"""Seconds that a run waits for a tracker's answer at most."""


class LocalMetrics(Logger):
    """One JSON object a line in `metrics.jsonl`: the step, the seconds since the start, and what was logged."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path, self.started = folder / "metrics.jsonl", time.perf_counter()

    name = "local"
    version = None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        seconds = round(time.perf_counter() - self.started, 3)
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": seconds, **metrics}) + "\n")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder has the whole config."""


class Errands:
    """Calls, one after the other in a thread of their own, which neither raise nor hold anybody up.

    After the first that raises, or takes longer than `PATIENCE`, the rest is left undone, and this is said once.
    """

    def __init__(self, label: str) -> None:
        self.label, self.failed = label, False
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        self._since: float | None = None  # when the call began that is being made
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], Any], wait: bool = False) -> Any:
        """Have a call made; with `wait`, give what it gives. None if it failed."""
        if self._since is not None and time.monotonic() - self._since > PATIENCE:
            self._give_up(f"it has not answered for {PATIENCE:.0f} s")
        if self.failed:
            return None
        if self._thread is None:  # a daemon: one that hangs must not keep the process from ending
            self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker {self.label}")
            self._thread.start()
        done: queue.SimpleQueue = queue.SimpleQueue()
        self._waiting.put((call, done))
        if not wait:
            return None
        try:
            return done.get(timeout=PATIENCE)
        except queue.Empty:
            self._give_up(f"it has not answered for {PATIENCE:.0f} s")
            return None

    def _work(self) -> None:
        while True:
            call, done = self._waiting.get()
            self._since = time.monotonic()
            try:
                done.put(None if self.failed else call())
            except Exception as error:  # whatever a tracker raises, the run goes on
                self._give_up(f"{type(error).__name__}: {error}")
                done.put(None)
            self._since = None

    def _give_up(self, why: str) -> None:
        if not self.failed:
            self.failed = True
            log.warning("the tracker %s failed and is left out from here on: %s", self.label, why)

    @property
    def hangs(self) -> bool:
        """Whether a call is being made that nobody waits for any more."""
        return self.failed and self._since is not None


class Guarded(Logger):
    """A tracker that can neither kill a run nor keep it waiting: it works beside it, and is left alone once it fails."""

    made: "list[Guarded]" = []

    def __init__(self, make: Callable[[], Any], label: str) -> None:
        super().__init__()
        self.label, self.errands = label, Errands(label)
        self.inner = self.errands.run(make, wait=True)
        Guarded.made.append(self)

    def _call(self, method: str, *args: Any, wait: bool = False, **kwargs: Any) -> Any:
        if self.inner is not None and hasattr(self.inner, method):
            return self.errands.run(lambda: getattr(self.inner, method)(*args, **kwargs), wait)
        return None

    @property
    def name(self) -> str:
        return self.label

    @property
    def version(self) -> None:
        return None

    @property
    def experiment(self) -> Any:
        return self.errands.run(lambda: getattr(self.inner, "experiment", None), wait=True)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._call("log_metrics", dict(metrics), step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._call("log_hyperparams", params)

    @rank_zero_only
    def log_rows(self, key: str, columns: list[str], rows: list[list[Any]]) -> None:
        """A table, where the tracker has tables."""
        self._call("log_table", key=key, columns=columns, data=rows)

    @rank_zero_only
    def log_folder(self, name: str, folder: Path) -> None:
        """What a run exported, as a W&B artifact."""
        if self.label == "wandb" and self.inner is not None:
            self.errands.run(lambda: _log_artifact(self.inner.experiment, re.sub(r"[^\w.-]+", "-", name), folder))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._call("after_save_checkpoint", checkpoint_callback)

    def save(self) -> None:
        self._call("save")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._call("finalize", status, wait=True)
        if self.label == "wandb" and self.inner is not None:
            self.errands.run(lambda: _finish_wandb(status), wait=True)


def _log_artifact(run: Any, name: str, folder: Path) -> None:
    import wandb

    artifact = wandb.Artifact(name, type="model", description="What the run learnt, in peft's or transformers' format.")
    artifact.add_dir(str(folder))
    run.log_artifact(artifact)


def _finish_wandb(status: str) -> None:
    import wandb

    if wandb.run is not None:
        wandb.finish(exit_code=0 if status == "success" else 1)


def any_hangs() -> bool:
    """Whether some tracker still keeps a thread busy, and might keep the process from ending."""
    return any(tracker.errands.hangs for tracker in Guarded.made)


def _wandb(folder: Path, project: str, name: str) -> Any:
    """Offline where nobody is logged in, unless WANDB_MODE says something else."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    os.environ.setdefault("WANDB_SILENT", "true")
    offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False)
    return WandbLogger(
        project=project,
        name=name,
        save_dir=folder,
        mode="offline" if offline else os.environ.get("WANDB_MODE", "online"),
    )


def _csv(folder: Path, project: str, name: str) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(folder, name=free(folder / "csv").name, version="")  # it would delete those of before a resume


def _tensorboard(folder: Path, project: str, name: str) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def loggers(tracker: Tracker, folder: Path, project: str, given: Any) -> list[Logger]:
    """The tracker, or in its place the loggers that the config gives under `trainer.logger`; last the local file."""
    local: list[Logger] = [LocalMetrics(folder)]
    if given is False:
        return local
    if given not in (None, True):
        items = given if isinstance(given, list) else [given]
        return [*(Guarded(lambda item=item: item, type(item).__name__) for item in items), *local]  # type: ignore[misc]
    makers = {"wandb": _wandb, "csv": _csv, "tensorboard": _tensorboard}
    if tracker == "none":
        return local
    name = f"{folder.parent.name}-{folder.name}"
    return [Guarded(lambda: makers[tracker](folder, project, name), tracker), *local]
