"""How often a network's answer is the right one: before a run, after it, and in `test`."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch.distributed as dist

from lit_fm.data.examples import answer_of


def exact_match(predictions: Sequence[str], answers: Sequence[str]) -> float:
    """The share of predictions that equal the answer, white space at the ends aside."""
    pairs = zip(predictions, answers, strict=True)
    return sum(guess.strip() == right.strip() for guess, right in pairs) / max(1, len(answers))


class Score(L.Callback):
    """Exact match on the test split, before the first step and after the last one.

    Args:
        examples: score at most so many, drawn by the data's seed; 0 scores none.
        margin: a prediction may be so many tokens longer than the longest right answer. What is cut there is wrong anyway.
    """

    def __init__(self, examples: int = 200, margin: int = 8) -> None:
        if examples < 0 or margin < 0:
            raise ValueError(f"score.examples {examples} and score.margin {margin} must not be negative.")
        self.examples, self.margin = examples, margin
        self.before: float | None = None
        self.after: float | None = None
        self.scored: list[dict[str, Any]] = []
        self.of = 0

    def _chosen(self, trainer: Any) -> list[dict]:
        data = trainer.datamodule
        if not self.examples or not hasattr(data, "examples"):
            return []
        answered = [e for e in data.examples("test") if answer_of(e).strip()]
        self.of = len(answered)
        order = np.random.default_rng(data.seed).permutation(len(answered))[: self.examples]
        return [answered[i] for i in order]

    def _measure(self, trainer: Any, objective: Any) -> float | None:
        chosen = self._chosen(trainer)
        if not chosen:
            return None
        ids = objective.tokenizer([answer_of(e) for e in chosen], add_special_tokens=False)["input_ids"]
        mine = chosen[trainer.global_rank :: trainer.world_size]
        longest = max(map(len, ids)) + self.margin
        texts = objective.answers(mine, longest) if mine else []
        self.scored = [{**e, "prediction": text} for e, text in zip(mine, texts, strict=True)]
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(parts, self.scored)
            self.scored = [row for part in parts for row in part]
        return exact_match([r["prediction"] for r in self.scored], [answer_of(r) for r in self.scored])

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.after = self._measure(trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self.after = self._measure(trainer, pl_module)
