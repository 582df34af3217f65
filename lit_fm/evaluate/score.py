"""How good a network is on the test split: before a run, after it, and in `test`."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch.distributed as dist

from lit_fm.evaluate import perplexity
from lit_fm.screen import SHARES, console


def exact_match(predictions: Sequence[str], answers: Sequence[str]) -> float:
    """The share of predictions that equal the answer, white space at the ends aside."""
    pairs = zip(predictions, answers, strict=True)
    return sum(guess.strip() == right.strip() for guess, right in pairs) / max(1, len(answers))


class Score(L.Callback):
    """Answers compared with the right ones on the test split, or how well its text is predicted: before and after a fit.

    Args:
        examples: score at most so many, drawn by the data's seed; 0 scores none.
        longest: score only examples whose right answer has at most so many tokens; the others are counted and shown.
    """

    def __init__(self, examples: int = 200, longest: int = 256) -> None:
        if examples < 0 or longest < 1:
            raise ValueError(f"score.examples {examples} must not be negative, score.longest {longest} at least 1.")
        self.examples, self.longest = examples, longest
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.scored: list[dict[str, Any]] = []
        self.of = self.too_long = 0

    def _chosen(self, trainer: Any, objective: Any) -> tuple[list[dict], int]:
        """The examples to score, and the length of the longest right answer among them, in tokens."""
        data = trainer.datamodule
        made = data.examples("test")
        answers = [objective.answer(example) for example in made]
        ids = objective.tokenizer(answers or [""], add_special_tokens=False)["input_ids"]
        answered = [i for i, text in enumerate(answers) if text.strip()]
        fit = [i for i in answered if len(ids[i]) <= self.longest or not objective.writes]
        self.of, self.too_long = len(answered), len(answered) - len(fit)
        order = np.random.default_rng(data.seed).permutation(np.array(fit, dtype=int))[: self.examples]
        return [made[i] for i in order], max((len(ids[i]) for i in order), default=0)

    def measure(self, trainer: Any, objective: Any) -> dict[str, float]:
        """What the objective measures on the test split; prompts, predictions and answers are in `scored`."""
        data = trainer.datamodule
        if not self.examples:
            return {}
        if not data.has_answers:
            data.setup("test")
            return perplexity.measure(trainer, objective, "test")
        chosen, longest = self._chosen(trainer, objective)
        if not chosen:
            if trainer.is_global_zero:
                console.print(
                    f"Nothing is scored: no test example has an answer that {type(objective).__name__} can give."
                )
            return {}
        if trainer.is_global_zero:
            out = f", {self.too_long} left out: longer than {self.longest} tokens" if self.too_long else ""
            console.print(f"Scoring {len(chosen)} of {self.of} test examples{out} ...")
        mine = chosen[trainer.global_rank :: trainer.world_size]
        # A few more tokens than the longest right answer: what is cut there is wrong anyway.
        texts = objective.answers(mine, longest + 8) if mine else []
        self.scored = [
            {"prompt": objective.prompt(e), "prediction": text, "answer": objective.answer(e)}
            for e, text in zip(mine, texts, strict=True)
        ]
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(parts, self.scored)
            self.scored = [row for part in parts for row in part]
        return objective.measure([row["prediction"] for row in self.scored], [row["answer"] for row in self.scored])

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = self.measure(trainer, pl_module)
        if self.before and trainer.is_global_zero:
            console.print(f"Before training, on the test split: {', '.join(written(self.before))}.")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.after = self.measure(trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.datamodule.has_answers:  # a test of running text has measured it already
            self.after = self.measure(trainer, pl_module)


def written(found: dict[str, float]) -> list[str]:
    """Measures as people read them: shares in percent."""
    return [
        f"{name.replace('_', ' ')} {value:.1%}" if name in SHARES else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in found.items()
    ]
