"""Metrics as functions of sums over test examples, so that an example can be left out or taken twice at no cost."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lit_fm.evaluate.entities import entities
from lit_fm.evaluate.metrics import LIKELIHOOD, METRICS

Row = dict[str, Any]
MEASURED_BY = {"normalised_exact_match": "f1", "tool_name": "tool_call"} | dict.fromkeys(
    ("rouge1", "rouge2", "rougeL"), "rouge"
)
"""Measures that are not called as the metric that gives them."""
MEANS = {"exact_match", "accuracy", "f1", "tool_call", "number", *MEASURED_BY}
"""Means of what each example has by itself."""


class Counts(NamedTuple):
    """What each example adds (examples, numbers), and the metric of such sums: (..., numbers) to (...)."""

    each: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    mean: bool = False
    """Whether it is the mean of the first number, the second being 1."""


def counts(metric: str, rows: Sequence[Row]) -> Counts:
    """A metric over scored examples, each with `prediction` and `references`, or whether its choice was right.

    A metric that no shorter form is known of has one number for each example, how often it stands there, and is measured
    anew each time.

    Raises:
        ValueError: there is no such metric.
    """
    if metric in LIKELIHOOD:
        each = np.array([[row.get(metric, 0), metric in row] for row in rows], float)
        return Counts(each, _share, bool(each[:, 1].all()))
    name = MEASURED_BY.get(metric, metric)
    if name not in METRICS:
        raise ValueError(f"metric {metric!r} cannot be measured from answers: choose one of {', '.join(METRICS)}.")
    texts, right = [row["prediction"] for row in rows], [row["references"] for row in rows]
    if metric in MEANS:
        known: dict[tuple, float] = {}
        for text, references in zip(texts, right, strict=True):
            if (key := (text, *references)) not in known:
                known[key] = METRICS[name]([text], [references])[metric]
        values = [known[text, *references] for text, references in zip(texts, right, strict=True)]
        return Counts(np.array([[value, 1.0] for value in values]), _share, True)
    short = {"macro_f1": _macro_f1, "entity_f1": _entity_f1, "bleu": _translation, "chrf": _translation}
    return short.get(metric, _anew)(metric, texts, right)


def _share(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(1, sums[..., 1])


def _macro_f1(metric: str, texts: list[str], right: list[list[str]]) -> Counts:
    """Of each class: right, guessed, and given; averaged over the classes that are given."""
    guesses = [text.strip() for text in texts]
    names = [[text.strip() for text in known] for known in right]
    given = [guess if guess in known else known[0] for guess, known in zip(guesses, names, strict=True)]
    classes = sorted(set(given))
    guessed, true = (np.array([[text == name for name in classes] for text in part]) for part in (guesses, given))

    def value(sums: np.ndarray) -> np.ndarray:
        hits, named, there = np.split(sums, 3, axis=-1)
        f1 = 2 * hits / np.maximum(1, named + there)
        return (f1 * (there > 0)).sum(-1) / np.maximum(1, (there > 0).sum(-1))

    return Counts(np.hstack([guessed & true, guessed, true]).astype(float), value)


def _entity_f1(metric: str, texts: list[str], right: list[list[str]]) -> Counts:
    pairs = [(entities(text.split()), entities(known[0].split())) for text, known in zip(texts, right, strict=True)]
    each = np.array([[2 * len(made & known), len(made) + len(known)] for made, known in pairs], float)
    return Counts(each, _share)


def _translation(metric: str, texts: list[str], right: list[list[str]]) -> Counts:
    """By sacrebleu, out of the numbers of matching pieces that it counts for each sentence."""
    import sacrebleu

    made = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF}[metric]()
    width = max(map(len, right))
    streams = [[known[i] if i < len(known) else None for known in right] for i in range(width)]
    each = np.array(made._extract_corpus_statistics(texts, streams), float)

    def value(sums: np.ndarray) -> np.ndarray:
        flat = sums.reshape(-1, sums.shape[-1]).astype(int).tolist()
        return np.array([made._compute_score_from_stats(row).score for row in flat]).reshape(sums.shape[:-1])

    return Counts(each, value)


def _anew(metric: str, texts: list[str], right: list[list[str]]) -> Counts:
    name = MEASURED_BY.get(metric, metric)

    def one(times: np.ndarray) -> float:
        taken = np.repeat(np.arange(len(texts)), times.astype(int))
        return METRICS[name]([texts[i] for i in taken], [right[i] for i in taken])[metric]

    return Counts(np.eye(len(texts)), lambda sums: np.apply_along_axis(one, -1, sums))
