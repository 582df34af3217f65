"""Where metrics go: a local file, which is the truth, and a tracker, which may fail without harm to the run."""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

Tracker = Literal["wandb", "csv", "tensorboard", "none"]
log = logging.getLogger(__name__)


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


class Guarded(Logger):
    """A tracker that cannot kill a run: after its first error it is told so once, and left alone."""

    def __init__(self, make: Callable[[], Any], label: str) -> None:
        super().__init__()
        self.label, self.failed, self.inner = label, False, None
        self.inner = self._try(make)

    def _try(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.failed:
            return None
        try:
            return call(*args, **kwargs)
        except Exception as error:  # whatever a tracker raises, the run goes on
            self.failed = True
            log.warning(
                "the tracker %s failed and is left out from here on: %s: %s", self.label, type(error).__name__, error
            )
            return None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.inner is not None and hasattr(self.inner, method):
            return self._try(getattr(self.inner, method), *args, **kwargs)
        return None

    @property
    def name(self) -> str:
        return self.label

    @property
    def version(self) -> None:
        return None

    @property
    def experiment(self) -> Any:
        return self._try(getattr, self.inner, "experiment", None)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._call("log_metrics", metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._call("log_hyperparams", params)

    @rank_zero_only
    def log_rows(self, key: str, columns: list[str], rows: list[list[Any]]) -> None:
        """A table, where the tracker has tables."""
        self._call("log_table", key=key, columns=columns, data=rows)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._call("after_save_checkpoint", checkpoint_callback)

    def save(self) -> None:
        self._call("save")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._call("finalize", status)
        if self.label == "wandb" and self.inner is not None:
            self._try(self._finish_wandb, status)

    def _finish_wandb(self, status: str) -> None:
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=0 if status == "success" else 1)


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

    return CSVLogger(folder, name="csv", version="")


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
