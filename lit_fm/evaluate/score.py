"""How good a network is on the test split: before a run, after it, and in `test`."""

from collections import defaultdict
from itertools import zip_longest
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch.distributed as dist

from lit_fm.data.base import ObjectiveData
from lit_fm.evaluate import perplexity
from lit_fm.evaluate.calls import calls_of
from lit_fm.evaluate.likelihood import choose, right_choices
from lit_fm.evaluate.metrics import LIKELIHOOD
from lit_fm.ranks import writing_ranks_of
from lit_fm.screen import console, measured

Found = dict[str, float]
FEW = 10  # choices that are all tried where nobody asked for it: each costs the prompt anew


class Asked(NamedTuple):
    """What the examples of a task are measured by."""

    text: list[str] | None
    """By what is written to them; by the objective's own metric where None."""
    likelihood: list[str]


class Score(L.Callback):
    """Answers compared with the right ones on the test split, or how well its text is predicted: before and after a fit.

    By the metrics that the data names for each task. Of several tasks, each is told as `TASK/metric`, and by the metric's
    name alone the mean over the tasks that it is measured for. Where the likelihood of choices is all that is asked for,
    nothing is written: the answer then is the likeliest choice.

    Args:
        examples: score at most so many, drawn by the data's seed; 0 scores none.
        longest: score only examples whose right answers have at most so many tokens; the others are counted and shown.
    """

    def __init__(self, examples: int = 200, longest: int = 256) -> None:
        if examples < 0 or longest < 1:
            raise ValueError(f"score.examples {examples} must not be negative, score.longest {longest} at least 1.")
        self.examples, self.longest = examples, longest
        self.before: Found = {}
        self.after: Found = {}
        self.scored: list[dict[str, Any]] = []
        """Of each scored example `prompt`, `prediction`, `answer`, `references`, `task`, and which choice is right."""
        self.of = self.too_long = 0

    def _chosen(self, trainer: Any, objective: Any) -> tuple[list[dict], int]:
        """The examples to score, and the length of the longest right answer among them, in tokens."""
        data = trainer.datamodule
        made = data.examples("test")
        answers = [objective.answer_references(example) for example in made]
        flat = [text for right in answers for text in right]
        ids = iter(objective.tokenizer(flat or [""], add_special_tokens=False)["input_ids"])
        lengths = [max(len(next(ids)) for _ in right) for right in answers]
        answered = [i for i, right in enumerate(answers) if right[0].strip()]
        fit = [i for i in answered if lengths[i] <= self.longest or not objective.writes]
        self.of, self.too_long = len(answered), len(answered) - len(fit)
        order = np.random.default_rng(data.seed).permutation(np.array(fit, dtype=int))[: self.examples]
        return [made[i] for i in order], max((lengths[i] for i in order), default=0)

    def measure(self, trainer: Any, objective: Any) -> Found:
        """What is measured on the test split; prompts, predictions and answers are in `scored`."""
        data = trainer.datamodule
        if not self.examples or not isinstance(data, ObjectiveData):
            return {}
        if not data.has_answers:
            data.setup("test")
            return perplexity.measure(trainer, objective, "test")
        chosen, longest = self._chosen(trainer, objective)
        say = console.print if trainer.is_global_zero else lambda text: None
        if not chosen:
            say(f"Nothing is scored: no test example has an answer that {type(objective).__name__} can give.")
            return {}
        asked = {task: _asked(task, examples, data, objective) for task, examples in _tasks(chosen).items()}
        out = f", {self.too_long} left out: longer than {self.longest} tokens" if self.too_long else ""
        say(f"Scoring {len(chosen)} of {self.of} test examples{out} ...")
        by_choice = [example for example in chosen if asked[example.get("task")].likelihood]
        if lost := sum(not right_choices(example) for example in by_choice):
            say(f"Choice accuracy leaves out {lost} of {len(by_choice)} examples: no choice is their right answer.")
        # A few more tokens than the longest right answer: what is cut there is wrong anyway.
        rank, ranks = writing_ranks_of(trainer)
        rows = _judged(objective, chosen[rank::ranks], asked, longest + 8)
        if ranks > 1:
            parts: list[Any] = [None] * ranks
            dist.all_gather_object(parts, rows)
            rows = [row for dealt in zip_longest(*parts) for row in dealt if row is not None]
        self.scored = rows
        return _by_task({task: _found(objective, part, asked[task]) for task, part in _tasks(rows).items()})

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


def _tasks(rows: list[dict]) -> dict[str | None, list[dict]]:
    """Examples by their task, in order of its name."""
    found = defaultdict(list)
    for row in rows:
        found[row.get("task")].append(row)
    return dict(sorted(found.items(), key=lambda pair: pair[0] or ""))


def _asked(task: str | None, examples: list[dict], data: Any, objective: Any) -> Asked:
    """What a task is measured by.

    Raises:
        ValueError: choices are asked for, and no example has any; or they are not told apart by likelihood.
    """
    names = data.metrics_of(task)
    if names is None:
        every = all(right_choices(example) and len(example["choices"]) <= FEW for example in examples)
        return Asked(None, ["choice_accuracy"] if every and objective.writes else [])
    by_choice = [name for name in names if name in LIKELIHOOD]
    of = f" of the task {task}" if task else ""
    if by_choice and not any(right_choices(example) for example in examples):
        raise ValueError(
            f"data.metrics: {by_choice[0]} needs rows with `choices`, one of them the right answer; none of "
            f"{len(examples)} test examples{of} is one: give data.choices, or choose another metric."
        )
    if "tool_call" in names and not any(calls_of(text) for e in examples for text in objective.answer_references(e)):
        raise ValueError(
            f"data.metrics: tool_call needs right answers that call a tool; none of {len(examples)} test examples{of} has "
            "one: choose another metric."
        )
    if LIKELIHOOD[1] in by_choice and not objective.writes:
        raise ValueError(f"data.metrics: {LIKELIHOOD[1]} needs an objective that writes: use {LIKELIHOOD[0]}.")
    return Asked([name for name in names if name not in LIKELIHOOD], by_choice)


def _judged(objective: Any, examples: list[dict], asked: dict[str | None, Asked], longest: int) -> list[dict[str, Any]]:
    """Of each example its prompt and task, the answer given, the right ones, and whether its likeliest choice is right."""
    rows = [
        {"prompt": objective.prompt(e), "references": objective.answer_references(e), "task": e.get("task")}
        for e in examples
    ]
    likely = [i for i, row in enumerate(rows) if asked[row["task"]].likelihood and objective.writes]
    read = [i for i in likely if right_choices(examples[i])]
    for i, choice in zip(read, choose(objective, [examples[i] for i in read]) if read else (), strict=True):
        best = (choice.best, choice.best_normalised)
        rows[i] |= dict(zip(LIKELIHOOD, (number in right_choices(examples[i]) for number in best), strict=True))
        rows[i]["prediction"] = str(examples[i]["choices"][choice.best]).strip() if choice.best >= 0 else ""
    write = [i for i, row in enumerate(rows) if asked[row["task"]].text != [] or not objective.writes]
    for i, text in zip(write, objective.answers([examples[i] for i in write], longest) if write else (), strict=True):
        rows[i]["prediction"] = text
    return [{"prediction": "", **row, "answer": row["references"][0]} for row in rows]


def _found(objective: Any, rows: list[dict[str, Any]], asked: Asked) -> Found:
    """The measures of one task."""
    texts, references = [row["prediction"] for row in rows], [row["references"] for row in rows]
    found = objective.measure(texts, references, asked.text)
    if asked.likelihood and not objective.writes:  # what it answers is the choice that it finds the likeliest
        return found | dict.fromkeys(
            asked.likelihood, objective.measure(texts, references, ["exact_match"])["exact_match"]
        )
    right = {name: [row[name] for row in rows if name in row] for name in asked.likelihood}
    return found | {name: sum(known) / max(1, len(known)) for name, known in right.items()}


def _by_task(found: dict[str | None, Found]) -> Found:
    """One task's measures as they are; of several, the plain mean over tasks, and each."""
    if len(found) == 1:
        return next(iter(found.values()))
    each: dict[str, list[float]] = defaultdict(list)
    for measures in found.values():
        for name, value in measures.items():
            each[name].append(value)
    means = {name: sum(values) / len(values) for name, values in each.items()}
    return means | {f"{task or 'other'}/{name}": v for task, m in found.items() for name, v in m.items()}


def written(found: Found) -> list[str]:
    """Measures as people read them."""
    return [f"{name.replace('_', ' ')} {measured(name, value)}" for name, value in found.items()]
