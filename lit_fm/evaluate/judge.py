"""Examples measured: which of a test split, what is asked of them, what is answered, and how right that is."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist

from lit_fm.evaluate.calls import calls_of
from lit_fm.evaluate.likelihood import choose, right_choices
from lit_fm.evaluate.metrics import LIKELIHOOD
from lit_fm.screen import measured

Found = dict[str, float]
FEW = 10  # choices that are all tried where nobody asked for it: each costs the prompt anew
MORE = 8  # tokens that an answer may have beyond the longest right one: what is cut there is wrong anyway


class Asked(NamedTuple):
    """What the examples of a task are measured by."""

    text: list[str] | None
    """By what is written to them; by the objective's own metric where None."""
    likelihood: list[str]


class Chosen(NamedTuple):
    """The examples of a test split that are measured, in a drawn order."""

    examples: list[dict]
    rows: list[int]
    """Their places in the split, or in that of their task, from 1."""
    longest: int
    """Tokens of the longest right answer among them."""
    of: int
    too_long: int
    """How many examples have an answer, and how many are left out for its length."""

    def why_none(self, objective: Any, longest: int) -> str:
        """What is wrong where nothing is chosen."""
        if self.too_long:
            return f"all {self.of} right answers are longer than {longest} tokens: raise score.longest"
        return f"no test example has an answer that {type(objective).__name__} can give"


def choose_examples(data: Any, objective: Any, number: int, longest: int, tasks: list[str] | None = None) -> Chosen:
    """At most so many of the test split, drawn by the data's seed, whose right answers have at most `longest` tokens.

    Args:
        tasks: only of these.

    Raises:
        ValueError: no example is of one of them.
    """
    made = data.examples("test")
    if tasks and (strange := set(tasks) - {example.get("task") for example in made}):
        known = sorted({str(example["task"]) for example in made if example.get("task")})
        raise ValueError(f"score.tasks: no test example is of {min(strange)!r}: choose of {known or 'a mixture'}.")
    answers = [objective.answer_references(example) for example in made]
    flat = [text for right in answers for text in right]
    ids = iter(objective.tokenizer(flat or [""], add_special_tokens=False)["input_ids"])
    lengths = [max(len(next(ids)) for _ in right) for right in answers]
    asked = [i for i, example in enumerate(made) if not tasks or example.get("task") in tasks]
    answered = [i for i in asked if answers[i][0].strip()]
    fit = [i for i in answered if lengths[i] <= longest or not objective.writes]
    order = np.random.default_rng(data.seed).permutation(np.array(fit, dtype=int))[:number].tolist()
    most = max((lengths[i] for i in order), default=0)
    places = _places(made)
    return Chosen([made[i] for i in order], [places[i] for i in order], most, len(answered), len(answered) - len(fit))


def _places(examples: list[dict]) -> list[int]:
    """The place of each among those of its task, from 1: alike in a mixture and alone."""
    seen: Counter[str | None] = Counter()
    places = []
    for example in examples:
        seen[example.get("task")] += 1
        places.append(seen[example.get("task")])
    return places


def judge(
    objective: Any,
    data: Any,
    chosen: Chosen,
    say: Callable[[str], None],
    ranks: tuple[int, int] = (0, 1),
    until: str = "",
) -> tuple[Found, list[dict[str, Any]]]:
    """The measures of examples, and of each `row`, `prompt`, `prediction`, `answer`, `references`, `task`, right choices.

    By the metrics that the data names for each task. Of several tasks, each is told as `TASK/metric`, and by the metric's
    name alone the mean over the tasks that it is measured for. Where the likelihood of choices is all that is asked for,
    nothing is written: the answer then is the likeliest choice.

    Args:
        say: tells a person what is left out.
        ranks: number of this one and their count: they share the work.
        until: what is written behind this text is no part of the answer.

    Raises:
        ValueError: a metric that these examples or this objective cannot be measured by.
    """
    asked = {task: _asked(task, examples, data, objective) for task, examples in _tasks(chosen.examples).items()}
    by_choice = [example for example in chosen.examples if asked[example.get("task")].likelihood]
    if lost := sum(not right_choices(example) for example in by_choice):
        say(f"Choice accuracy leaves out {lost} of {len(by_choice)} examples: no choice is their right answer.")
    rank, number = ranks
    rows = _judged(objective, chosen.examples[rank::number], asked, chosen.longest + MORE, until)
    if number > 1:
        parts: list[Any] = [None] * number
        dist.all_gather_object(parts, rows)
        rows = [row for dealt in zip_longest(*parts) for row in dealt if row is not None]
    rows = [{"row": number, **row} for number, row in zip(chosen.rows, rows, strict=True)]
    return _by_task({task: _found(objective, part, asked[task]) for task, part in _tasks(rows).items()}), rows


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


def _judged(
    objective: Any, examples: list[dict], asked: dict[str | None, Asked], longest: int, until: str
) -> list[dict[str, Any]]:
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
        rows[i]["prediction"] = cut(text, until)
        if len(rows[i]["prediction"]) < len(text):
            rows[i]["cut"] = True
    for row, example in zip(rows, examples, strict=True) if not objective.writes else ():  # its answer is its choice
        if right_choices(example):
            right = row["prediction"].strip() in {text.strip() for text in row["references"]}
            row |= dict.fromkeys(asked[row["task"]].likelihood, right)
    return [{"prediction": "", **row, "answer": row["references"][0]} for row in rows]


def cut(text: str, until: str) -> str:
    """An answer without what is written behind the first `until` in it; where it begins so, that counts for nothing."""
    answer = text.lstrip()
    return answer.partition(until)[0] if until and until in answer else text


def _found(objective: Any, rows: list[dict[str, Any]], asked: Asked) -> Found:
    """The measures of one task."""
    texts, references = [row["prediction"] for row in rows], [row["references"] for row in rows]
    found = objective.measure(texts, references, asked.text)
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
