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
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from lit_fm.provenance import peak_memory, provenance
from lit_fm.screen import console, learnable, show_data, show_learnable, show_summary
from lit_fm.track import Guarded, Tracker, loggers


class Run(L.Callback):
    """One run and its folder, `ROOT/NAME/NNN`; a new number each time, so that nothing is overwritten.

    Args:
        root: the folder of all runs.
        name: of this kind of run; the name of the first config where nothing is said.
        tracker: beside the local files. `wandb` goes offline by itself where nobody is logged in.
        project: what the tracker files the run under.
        save_every: a checkpoint after so many optimizer steps, besides the one at the end of each epoch.
        folder: an existing run to validate, test or predict with (`--run` sets it).
    """

    def __init__(
        self,
        root: str = "runs",
        name: str = "run",
        tracker: Tracker = "wandb",
        project: str = "lit_fm",
        save_every: int | None = None,
        folder: str | None = None,
    ) -> None:
        if save_every is not None and save_every < 1:
            raise ValueError(f"run.save_every is {save_every}: raise it.")
        self.root, self.name, self.tracker, self.project = root, name, tracker, project
        self.save_every, self.existing = save_every, folder
        self.folder = Path(folder) if folder else Path(root, name)
        self.made: list[Path] = []  # folders that this process made
        self.begun = False
        self.started = time.perf_counter()
        self.predictions: list[dict] = []

    def open(self, verb: str, config: str, given_logger: Any, score: Any) -> tuple[list[Any], list[Any]]:
        """Make the folder, and give the trainer's loggers and checkpoint callbacks. `config`: resolved, as YAML."""
        self.config, self.score = config, score
        if self.existing:
            if verb == "fit":
                raise ValueError(f"fit makes a new run: give --config {self.existing}/config.yaml instead of --run.")
            return [], []
        first = getattr(rank_zero_only, "rank", 0) == 0
        if first:
            self._make_folder()
            (self.folder / "config.yaml").write_text(config)
        keep = [self._checkpoints()]
        keep += [self._checkpoints(every_n_train_steps=self.save_every)] if self.save_every else []
        return loggers(self.tracker, self.folder, self.project, given_logger) if first else [], keep

    def _make_folder(self) -> None:
        for parent in (Path(self.root), Path(self.root, self.name)):
            if not parent.exists():
                parent.mkdir(parents=True)
                self.made.append(parent)
        self.folder = _numbered(self.folder)
        self.made.append(self.folder)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.folder = trainer.strategy.broadcast(self.folder)
        if trainer.is_global_zero and not self.made and not self.existing:
            raise ValueError(
                "RANK, LOCAL_RANK or SLURM_PROCID says that this process is one of several, but it runs alone: unset them."
            )

    def _checkpoints(self, **when: Any) -> ModelCheckpoint:
        when = when or {"every_n_epochs": 1, "save_on_train_epoch_end": True}
        return ModelCheckpoint(self.folder / "checkpoints", "{step}", monitor="step", mode="max", save_top_k=2, **when)

    # Fit.

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.check()  # before the first score
        if trainer.is_global_zero:
            _write_json(self.folder / "run.json", provenance(trainer))
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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
