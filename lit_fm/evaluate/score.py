"""How good a network is on the test split: before a run, after it, and in `test`."""

from typing import Any

import lightning as L

from lit_fm.data.base import ObjectiveData
from lit_fm.evaluate import perplexity
from lit_fm.evaluate.judge import Found, choose_examples, judge, written
from lit_fm.ranks import writing_ranks_of
from lit_fm.screen import console


class Score(L.Callback):
    """Answers compared with the right ones on the test split, or how well its text is predicted: before and after a fit.

    Answers as `judge` measures them.

    Args:
        examples: score at most so many, drawn by the data's seed; 0 scores none.
        longest: score only examples whose right answers have at most so many tokens; the others are counted and shown.
        tasks: score only these tasks of a mixture; all where nothing is said.
    """

    def __init__(self, examples: int = 200, longest: int = 256, tasks: list[str] | None = None) -> None:
        if examples < 0 or longest < 1:
            raise ValueError(f"score.examples {examples} must not be negative, score.longest {longest} at least 1.")
        self.examples, self.longest, self.tasks = examples, longest, tasks
        self.before: Found = {}
        self.after: Found = {}
        self.scored: list[dict[str, Any]] = []
        """What `judge` gives of each scored example."""
        self.of = self.too_long = 0

    def measure(self, trainer: Any, objective: Any) -> Found:
        """What is measured on the test split; prompts, predictions and answers are in `scored`."""
        data = trainer.datamodule
        if not self.examples or not isinstance(data, ObjectiveData):
            return {}
        if not data.has_answers:
            data.setup("test")
            return perplexity.measure(trainer, objective, "test")
        chosen = choose_examples(data, objective, self.examples, self.longest, self.tasks)
        self.of, self.too_long = chosen.of, chosen.too_long
        say = console.print if trainer.is_global_zero else lambda text: None
        if not chosen.examples:
            say(f"Nothing is scored: {chosen.why_none(objective, self.longest)}.")
            return {}
        out = f", {self.too_long} left out: longer than {self.longest} tokens" if self.too_long else ""
        say(f"Scoring {len(chosen.examples)} of {self.of} test examples{out} ...")
        found, self.scored = judge(objective, data, chosen, say, writing_ranks_of(trainer))
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.before = state["before"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.before:  # of a run that goes on
            return
        self.before = self.measure(trainer, pl_module)
        if self.before and trainer.is_global_zero:
            console.print(f"Before training, on the test split: {', '.join(written(self.before))}.")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.after = self.measure(trainer, pl_module)

    def finish(self, trainer: Any, objective: Any) -> None:
        """What was not measured since no training was left to do, of a run that was cut off in its last scoring."""
        if not self.after:
            self.after = self.measure(trainer, objective)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.datamodule.has_answers:  # a test of running text has measured it already
            self.after = self.measure(trainer, pl_module)
