"""The run: a folder with the resolved config, provenance, metrics, checkpoints, the export, and a summary of it all."""

import json
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
from lit_fm.data.base import ObjectiveData
from lit_fm.keep import Keep
from lit_fm.position import position_of, take_position
from lit_fm.provenance import peak_memory, provenance
from lit_fm.screen import console, learnable, show_data, show_learnable, show_summary
from lit_fm.track import Guarded, Tracker, loggers


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
        stop_after: float | None = None,
        folder: str | None = None,
    ) -> None:
        if save_every is not None and save_every < 1:
            raise ValueError(f"run.save_every is {save_every}: raise it.")
        if keep < 2:
            raise ValueError(f"run.keep is {keep}: of fewer than 2 checkpoints none may be whole, raise it.")
        self.root, self.name, self.tracker, self.project = root, name, tracker, project
        self.resume, self.save_in_background, self.existing = resume, save_in_background, folder
        self.keep = Keep(save_every, keep, stop_after)
        self.checkpoint: Path | None = None
        self.opened = self.settled = False
        self.folder = Path(folder) if folder else Path(root, name)
        self.made: list[Path] = []  # folders that this process made
        self.begun = False
        self.started = time.perf_counter()
        self.predictions: list[dict] = []

    def open(self, verb: str, config: str, given_logger: Any, score: Any) -> tuple[list[Any], list[Any]]:
        """Make the folder, and give the trainer's loggers and checkpoint callbacks. `config`: resolved, as YAML."""
        self.config, self.score = config, score
        self.opened = getattr(rank_zero_only, "rank", 0) == 0
        if self.existing and verb != "fit":
            return [], []
        if not self.opened:
            return [], [self.keep]
        if verb == "fit":
            self._choose(config)
        else:
            self._make_folder()
            durable.write_text(self.folder / "config.yaml", config)
        return loggers(self.tracker, self.folder, self.project, given_logger), [self.keep]

    def _choose(self, config: str) -> None:
        """Go on with a run, or make a new folder; say which."""
        existing = Path(self.existing) if self.existing else None
        choice = resume.choose(Path(self.root, self.name), existing, self.resume, config)
        for line in choice.why:
            console.print(line)
        self.checkpoint = choice.checkpoint
        if choice.folder is None:
            self._make_folder()
        else:
            self.folder = choice.folder
            _keep_old(self.folder / "config.yaml", config)
            durable.sweep(self.folder / "checkpoints")
        durable.write_text(self.folder / "config.yaml", config)
        self._lock = resume.Lock(self.folder)

    def _make_folder(self) -> None:
        for parent in (Path(self.root), Path(self.root, self.name)):
            if not parent.exists():
                parent.mkdir(parents=True)
                self.made.append(parent)
        self.folder = _numbered(self.folder)
        self.made.append(self.folder)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.folder, self.checkpoint = trainer.strategy.broadcast((self.folder, self.checkpoint))
        self.settled, self.keep.folder = True, self.folder / "checkpoints"
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
        return {"seconds": time.perf_counter() - self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.started -= state["seconds"]

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
        if state := getattr(self, "_random_state", None):
            randomness.restore(state)

    # Fit.

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.check()  # before the first score
        if trainer.is_global_zero:
            _write_json(free(self.folder / "run.json"), provenance(trainer))
            for logger in trainer.loggers:
                logger.log_hyperparams(yaml.safe_load(self.config))
            console.print(f"Run folder: {self.folder}")
            show_data(trainer.datamodule.report, trainer.datamodule.fill())
            show_learnable(pl_module)
            if text := pl_module.about():
                console.print(text)
        self.begun = True

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        export = self.folder / pl_module.adaptation.exports_as
        pl_module.export(export)
        summary = self._summary(trainer, pl_module)
        if (path := self.folder / "summary.json").exists():  # the run was extended
            _keep_old(path)
        _write_json(self.folder / "summary.json", summary)
        rows = [[g["prompt"], g["prediction"], g["answer"]] for g in summary["generations"]]
        for logger in trainer.loggers:
            if isinstance(logger, Guarded) and rows:
                logger.log_rows("generations", ["prompt", "prediction", "answer"], rows)
                logger.log_metrics({k: v for k, v in summary.items() if isinstance(v, float)}, trainer.global_step)
        show_summary(self.folder, summary, pl_module.writes)

    def _summary(self, trainer: Any, objective: Any) -> dict[str, Any]:
        score = self.score
        scored = {_key(name): value for name, value in score.after.items()}
        scored |= {f"{_key(name)}_before": value for name, value in score.before.items() if name in score.after}
        if score.scored:
            scored |= {"scored_examples": len(score.scored), "test_examples": score.of}
        losses = {_key(k): float(v) for k, v in trainer.callback_metrics.items() if k.endswith("/loss")}
        return {
            **scored,
            **losses,
            "seconds": round(time.perf_counter() - self.started, 2),
            "peak_memory_bytes": peak_memory(),
            "learnable_parameters": learnable(objective.network)[0],
            "optimizer_steps": trainer.global_step,
            "measured": list(score.after),
            "generations": score.scored[:5],
        }

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

    # Validate, test and predict.

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, "validate.json")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "test" and trainer.state.status == "running":
            self._report(trainer, "test.json")

    def _report(self, trainer: Any, name: str) -> None:
        if not trainer.is_global_zero:
            return
        found = {_key(k): float(v) for k, v in trainer.callback_metrics.items()}
        found |= {_key(k): v for k, v in self.score.after.items()}
        _write_json(path := free(self.folder / name), found)
        console.print("  ".join(f"{key} {value:.4f}" for key, value in found.items()), f"Written to {path}", sep="\n")

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.predictions += outputs

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        rows = self.predictions
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        if trainer.is_global_zero:
            path = free(self.folder / "predictions.jsonl")
            lines = (json.dumps(row, ensure_ascii=False) for row in sorted(rows, key=lambda row: row["row"]))
            path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            console.print(f"{len(rows)} predictions written to {path}")


def _key(metric: str) -> str:
    return metric.replace("/", "_")


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


def free(path: Path) -> Path:
    """This path, or with a number behind its name when it is taken."""
    number, untaken = 1, path
    while untaken.exists():
        number += 1
        untaken = path.with_stem(f"{path.stem}-{number}")
    return untaken


def _keep_old(path: Path, new: str | None = None) -> None:
    """Put a file aside under the next free name, unless the new one is the same."""
    if path.exists() and path.read_text(encoding="utf-8") != new:
        path.rename(free(path.with_stem(f"{path.stem}-old")))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    durable.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
