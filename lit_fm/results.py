"""What came of a run: the export and a summary after a fit, measures and answers after the other verbs."""

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lit_fm.durable import free, keep_old, write_json, write_lines
from lit_fm.evaluate.forgetting import Forgetting
from lit_fm.evaluate.forgotten import change, draw, show
from lit_fm.evaluate.score import Score
from lit_fm.provenance import peak_memory
from lit_fm.ranks import writing_ranks_of
from lit_fm.run import Run
from lit_fm.screen import console, learnable, show_summary
from lit_fm.track import Guarded

_SHOWN = ("prompt", "prediction", "answer")


class Results(L.Callback):
    """Writes into the folder of a run what it led to, and shows it."""

    def __init__(self, run: Run, score: Score, forgetting: Forgetting) -> None:
        self.run, self.score, self.forgetting = run, score, forgetting
        self.predictions: list[dict] = []

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.score.finish(trainer, pl_module)
        self.forgetting.finish(trainer, pl_module)
        pl_module.export(self.run.folder / pl_module.adaptation.exports_as)
        if not trainer.is_global_zero:
            return
        summary = self._summary(trainer, pl_module)
        for name in ("summary.json", "scored.jsonl"):  # of a run that was extended
            keep_old(self.run.folder / name)
        if self.score.scored:
            write_lines(self.run.folder / "scored.jsonl", self.score.scored)
        write_json(self.run.folder / "summary.json", summary)
        rows = [[g["prompt"], g["prediction"], g["answer"]] for g in summary["generations"]]
        for logger in trainer.loggers:
            if isinstance(logger, Guarded):
                if rows:
                    logger.log_rows("generations", ["prompt", "prediction", "answer"], rows)
                logger.log_metrics({k: v for k, v in summary.items() if isinstance(v, float)}, trainer.global_step)
                if pl_module.adaptation.exports_as == "adapter":  # a whole model may be large: it stays in the folder
                    logger.log_folder(f"{self.run.folder.parent.name}-adapter", self.run.folder / "adapter")
        if self.forgetting.history:
            show(self.forgetting.history)
            draw(self.forgetting.history, self.run.folder / "forgetting.png")
        show_summary(self.run.folder, summary, pl_module.writes)

    def _summary(self, trainer: Any, objective: Any) -> dict[str, Any]:
        score = self.score
        scored = {_key(name): value for name, value in score.after.items()}
        scored |= {f"{_key(name)}_before": value for name, value in score.before.items() if name in score.after}
        if score.scored:
            scored |= {"scored_examples": len(score.scored), "test_examples": score.of}
        losses = {_key(k): float(v) for k, v in trainer.callback_metrics.items() if k.endswith("/loss")}
        losses = losses or last_losses(self.run.folder / "metrics.jsonl")
        return {
            **scored,
            **losses,
            "seconds": round(time.perf_counter() - self.run.started, 2),
            **({"energy_joules": round(joules, 1)} if (joules := self.run.meter.joules()) is not None else {}),
            "peak_memory_bytes": peak_memory(),
            "learnable_parameters": learnable(objective.network)[0],
            "optimizer_steps": trainer.global_step,
            "measured": list(score.after),
            **({"forgetting": change(self.forgetting.history)} if self.forgetting.history else {}),
            "generations": [{key: row[key] for key in _SHOWN} for row in score.scored[:5]],
        }

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
        write_json(path := free(self.run.folder / name), found)
        console.print("  ".join(f"{key} {value:.4f}" for key, value in found.items()), f"Written to {path}", sep="\n")

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.predictions += outputs

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        rows, (_, ranks) = self.predictions, writing_ranks_of(trainer)
        if ranks > 1:
            parts: list[Any] = [None] * ranks
            torch.distributed.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        if trainer.is_global_zero:
            path = free(self.run.folder / "predictions.jsonl")
            write_lines(path, sorted(rows, key=lambda row: row["row"]))
            console.print(f"{len(rows)} predictions written to {path}")


def last_losses(path: Path) -> dict[str, float]:
    """Of training and validation, as they were logged last."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    return {_key(k): v for line in lines for k, v in line.items() if k.endswith("/loss")}


def _key(metric: str) -> str:
    return metric.replace("/", "_")
