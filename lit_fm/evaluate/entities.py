"""F1 of whole entities, as seqeval and the CoNLL script define it: right only with the right borders and the right kind."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def are_entity_tags(labels: Sequence[str]) -> bool:
    """Whether tags say where entities begin and go on (`B-PER`, `I-PER`, `O`)."""
    return any(label.startswith("B-") for label in labels) and all(
        label == "O" or label[:2] in ("B-", "I-") for label in labels
    )


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Kind, first and last word of each entity. An `I-` that continues nothing of its kind begins one."""
    found, kind, start = set(), None, 0
    for i, tag in enumerate([*tags, "O"]):
        begins, _, new = tag.partition("-")
        if kind is not None and (begins != "I" or new != kind):
            found.add((kind, start, i - 1))
            kind = None
        if begins in ("B", "I") and kind is None:
            kind, start = new, i
    return found


def entity_f1(predictions: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]) -> float:
    """Of tags as text, sentence by sentence."""
    pairs = [(entities(guess), entities(right)) for guess, right in zip(predictions, targets, strict=True)]
    named = sum(len(guessed) + len(given) for guessed, given in pairs)
    return 2 * sum(len(guessed & given) for guessed, given in pairs) / max(1, named)


class EntityF1(Metric):
    """Micro-averaged F1 over the entities of all sentences.

    Args:
        labels: the tags by number.
    """

    full_state_update = False
    right: Tensor
    guessed: Tensor
    given: Tensor

    def __init__(self, labels: list[str]) -> None:
        super().__init__()
        self.labels = labels
        for state in ("right", "guessed", "given"):
            self.add_state(state, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor, sentences: Tensor) -> None:
        """Numbers of tags, and of the sentence that each word is in, in order."""
        rows: Any = zip(sentences.tolist(), predictions.tolist(), targets.tolist(), strict=True)
        for _, words in groupby(rows, key=lambda row: row[0]):
            tags = [(self.labels[guess], self.labels[right]) for _, guess, right in words]
            guessed, given = entities([guess for guess, _ in tags]), entities([right for _, right in tags])
            self.right += len(guessed & given)
            self.guessed += len(guessed)
            self.given += len(given)

    def compute(self) -> Tensor:
        return 2 * self.right / (self.guessed + self.given).clamp(min=1)
