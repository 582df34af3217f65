"""Test examples side by side: what each method answered, and who was right."""

from typing import Any, NamedTuple

import numpy as np

from lit_fm.compare.counts import counts
from lit_fm.compare.methods import Comparison, keyed

SHOWN = 6


class Answer(NamedTuple):
    """What some methods answered alike."""

    text: str
    right: bool
    methods: list[str]


class Sample(NamedTuple):
    """A test example with all answers to it, the right ones first."""

    prompt: str
    references: list[str]
    task: str | None
    answers: list[Answer]


def samples(found: Comparison, number: int = SHOWN) -> list[Sample]:
    """Those on which methods part the most, in the order in which they were scored. Of each method, the first seed.

    Right is what has the metric's full mark; where it is no mean of examples, what equals a right answer.
    """
    tables = [keyed(method.runs[0]) for method in found.methods]
    keys = [key for key in tables[0] if all(key in table for table in tables)]
    marks = np.array([_right(found.metric, [table[key] for key in keys]) for table in tables])
    share = marks.mean(0)
    apart = np.argsort(np.abs(share - 0.5), kind="stable")[:number]
    tuned = next((i for i, m in enumerate(found.methods) if m.shots is None), 0)  # its prompt holds no examples
    return [
        Sample(row["prompt"], row["references"], row.get("task"), _answers(found, tables, keys[i], marks[:, i]))
        for i in sorted(apart)
        for row in [tables[tuned][keys[i]]]
    ]


def _right(metric: str, rows: list[dict[str, Any]]) -> np.ndarray:
    """(examples,) whether each was answered rightly."""
    measured = counts(metric, rows)
    if not measured.mean:
        measured = counts("exact_match", rows)
    return measured.each[:, 0] > 1 - 1e-6


def _answers(found: Comparison, tables: list[dict[Any, Any]], key: Any, marks: np.ndarray) -> list[Answer]:
    alike: dict[tuple[bool, str], list[str]] = {}
    for method, table, right in zip(found.methods, tables, marks, strict=True):
        alike.setdefault((bool(right), table[key]["prediction"].strip()), []).append(method.label)
    return [
        Answer(text, right, names) for (right, text), names in sorted(alike.items(), key=lambda item: not item[0][0])
    ]
