"""A class for each word: named entities, word classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification

from lit_fm.data.tokens import IGNORED, SHORTENED, Draw, Encoded
from lit_fm.evaluate.entities import EntityF1, are_entity_tags, entity_f1
from lit_fm.evaluate.metrics import agreement
from lit_fm.objectives.base import Batch
from lit_fm.objectives.classify import Head
from lit_fm.objectives.loss import rows_of


class TokenClassification(Head):
    """A class for each word: rows with `tokens` (words) and `tags`. A word's class is read off its first token."""

    auto_class = AutoModelForTokenClassification
    task_type = "TOKEN_CLS"
    rows = "tokens and tags, two lists of one length"

    def labels_of(self, example: dict) -> list[str]:
        return [str(tag) for tag in example.get("tags", ())]

    def metrics(self) -> dict[str, Any]:
        more = {"entity_f1": EntityF1(self.labels)} if self.labels and are_entity_tags(self.labels) else {}
        return {**super().metrics(), **more}

    def prompt(self, example: dict) -> str:
        """The words, a space between them."""
        return " ".join(map(str, example.get("tokens", ())))

    def answer(self, example: dict) -> str:
        """The right tags, a space between them."""
        return " ".join(map(str, example.get("tags", ())))

    def encode(self, examples: list[dict], max_length: int | None) -> list[Encoded | str]:
        texts = self.tokenizer.backend_tokenizer.encode_batch(
            [self.prompt(e) for e in examples], add_special_tokens=False
        )
        return [self._item(example, text, max_length) for example, text in zip(examples, texts, strict=True)]

    def _item(self, example: dict, text: Any, limit: int | None) -> Encoded | str:
        words, tags = example.get("tokens"), example.get("tags")
        if not words or tags is None:
            return "no tokens and tags"
        if len(words) != len(tags):
            return "not as many tags as tokens"
        numbers = {label: number for number, label in enumerate(self.labels or ())}
        if unknown := [tag for tag in tags if str(tag) not in numbers]:
            return f"tag {unknown[0]} is not among the training rows'"
        head, tail = self._ends
        room = limit - len(head) - len(tail) if limit else len(text.ids)
        labels = np.full(len(text.ids), IGNORED, np.int32)
        place, starts = self.first_tokens(words, text.offsets)
        labels[starts] = [numbers[str(tags[word])] for word in place]
        ids, labels = np.array(text.ids[:room], np.int32), labels[:room]
        if not (labels != IGNORED).any():
            return "no word with a token"
        around = [np.full(len(part), IGNORED, np.int32) for part in (head, tail)]
        item = {
            "input_ids": np.concatenate([head, ids, tail]).astype(np.int32),
            "labels": np.concatenate([around[0], labels, around[1]]),
        }
        return {**item, SHORTENED: np.ones(1, np.int8)} if len(text.ids) > room else item

    @staticmethod
    def first_tokens(words: Sequence[str], offsets: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """Words that have a token of their own, and the first token of each, by characters: right for any tokenizer."""
        ends = np.cumsum([len(str(word)) + 1 for word in words])  # a space behind each
        place: list[int] = []
        starts: list[int] = []
        for token, (_, stop) in enumerate(offsets):
            word = int(np.searchsorted(ends, stop, side="left")) if stop else -1
            if stop and offsets[token][0] < stop and (not place or place[-1] != word) and word < len(words):
                place.append(word)
                starts.append(token)
        return place, starts

    def collate(self, items: list[Encoded], draws: list[Draw] | None = None) -> Batch:
        """Padded ids with their mask; flat targets at the first token of each word; `sentences`: the row of each."""
        batch, starts = self.padded(items)
        width = batch["input_ids"].shape[1]
        targets = np.full((len(items), width), IGNORED, np.int64)
        for row, item in enumerate(items):
            targets[row, starts[row] : starts[row] + len(item["labels"])] = item["labels"]
        rows = np.flatnonzero(targets != IGNORED)
        flat = torch.from_numpy(targets.reshape(-1)[rows])
        return {**batch, "rows": torch.from_numpy(rows), "targets": flat, "sentences": torch.from_numpy(rows // width)}

    def logits(self, batch: Batch) -> Tensor:
        return rows_of(super().logits(batch), batch["rows"], batch["input_ids"].shape[1])

    def observe(self, logits: Tensor, batch: Batch) -> None:
        if len(batch["targets"]):
            self.quality.update(logits.argmax(-1), batch["targets"], sentences=batch["sentences"])

    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        labels = self.labels or []
        blank = "O" if "O" in labels else labels[0]  # of a word without a token, or beyond the context
        examples = [{"tokens": e.get("prompt", "").split(), **e} for e in examples]  # to predict, text will do
        found = []
        items = self.encode([{**e, "tags": [labels[0]] * len(e["tokens"])} for e in examples], self.limit)
        known = [i for i, item in enumerate(items) if not isinstance(item, str)]
        best = dict(zip(known, self._predicted([items[i] for i in known]), strict=True))  # type: ignore[misc]
        for i, example in enumerate(examples):
            tags = [blank] * len(example["tokens"])
            offsets = self.tokenizer.backend_tokenizer.encode(self.prompt(example), add_special_tokens=False).offsets
            for word, number in zip(self.first_tokens(example["tokens"], offsets)[0], best.get(i, ()), strict=False):
                tags[word] = labels[int(number)]
            found.append(" ".join(tags))
        return found

    def agreed(self, predictions: list[str], answers: list[str]) -> dict[str, float]:
        guessed, right = [text.split() for text in predictions], [text.split() for text in answers]
        found = agreement([t for tags in guessed for t in tags], [t for tags in right for t in tags])
        if are_entity_tags(self.labels or []):
            found["entity_f1"] = entity_f1(guessed, right)
        return found
