"""A class for a whole text; and what all heads share."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import AutoModelForSequenceClassification

from lit_fm.backbone import load_config, load_with_head
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.tokens import IGNORED, SHORTENED, Draw, Encoded
from lit_fm.evaluate.metrics import Names, References, Texts, agreement, measure
from lit_fm.objectives.base import Batch, Objective

BATCH = 64
MOST_LABELS = 1000


class Head(Objective):
    """A backbone with a new last layer that tells classes apart.

    Args:
        labels: the classes; those of the training rows, sorted, where nothing is said.
    """

    writes = answers_new_tasks = False
    rows = "a class as the answer"
    """What rows must hold."""

    def __init__(
        self,
        *args: Any,
        labels: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.labels = labels
        self.quality: Any = None

    def labels_of(self, example: dict) -> list[str]:
        """The classes that an example names."""
        return [
            str(label).strip()
            for label in (*example.get("choices", ()), example.get("completion", ""))
            if str(label).strip()
        ]

    def see(self, examples: Callable[[], list[dict]]) -> None:
        """Learn the names of the classes.

        Raises:
            ValueError: there are too many for a class each, or only one.
        """
        if self.labels is None:
            self.labels = sorted({label for example in examples() for label in self.labels_of(example)})
        if not 2 <= len(self.labels) <= MOST_LABELS:
            raise ValueError(
                f"the training rows name {len(self.labels)} classes (such as {self.labels[:2]}), expected 2 to "
                f"{MOST_LABELS}: give rows with {self.rows}, or name them: model.labels."
            )

        numbers = load_config(self.backbone).label2id or {}
        if set(numbers) == set(self.labels):  # a head that knows these classes keeps their order
            self.labels = sorted(self.labels, key=lambda label: numbers[label])

    @property
    def encoding(self) -> Any:
        return self.labels

    def about(self) -> str:
        labels = self.labels or []
        return f"{len(labels)} classes: {', '.join(labels[:20])}{' ...' if len(labels) > 20 else ''}."

    def export(self, folder: Path) -> None:
        super().export(folder)
        if self._trainer and not self.trainer.is_global_zero:
            return
        (folder / "labels.json").write_text(json.dumps(self.labels, ensure_ascii=False) + "\n", encoding="utf-8")

    def build(self) -> tuple[Any, list[str]]:
        if self.labels is None:
            raise ValueError("the classes are not known: train on InstructionData, or name them: model.labels.")
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        self.quality = MetricCollection(self.metrics())
        return load_with_head(self.backbone, self.auto_class, self.labels, pad, **self._loading)

    def metrics(self) -> dict[str, Any]:
        """What a validation measures besides the loss."""
        number = len(self.labels or ())
        return {
            "accuracy": MulticlassAccuracy(number, average="micro"),
            "macro_f1": MulticlassF1Score(number, average="macro"),
        }

    def agreed(self, predictions: list[str], answers: list[str]) -> dict[str, float]:
        """What answers are measured by where nothing is said."""
        return agreement(predictions, answers)

    def measure(self, predictions: Texts, references: References, names: Names = None) -> dict[str, float]:
        own = self.agreed(predictions, [right[0] for right in references])
        others = measure([name for name in names or () if name not in own], predictions, references)
        return {name: value for name, value in own.items() if names is None or name in names} | others

    def block(self, ids: np.ndarray, borders: bool) -> Encoded:
        raise ValueError(f"{type(self).__name__} needs classes, running text has none: use InstructionData.")

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        encoder = SegmentEncoder(self.tokenizer)
        return encoder.prefix, encoder.suffix

    def padded(self, items: list[Encoded]) -> tuple[Batch, np.ndarray]:
        """Ids (batch, time) and mask, and where each row begins in them. XLNet reads its class off the last position."""
        width = max(len(item["input_ids"]) for item in items)
        left = self.network.config.model_type == "xlnet"
        ids = np.full((len(items), width), self.network.config.pad_token_id or 0, np.int64)
        mask, starts = np.zeros((len(items), width), np.int64), np.zeros(len(items), np.int64)
        for row, item in enumerate(items):
            n = len(item["input_ids"])
            starts[row] = width - n if left else 0
            ids[row, starts[row] : starts[row] + n], mask[row, starts[row] : starts[row] + n] = item["input_ids"], 1
        batch = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "tokens": int(mask.sum()),
        }
        return batch, starts

    def logits(self, batch: Batch) -> Tensor:
        """Of the rows, or of positions in them: (targets, classes)."""
        return self.network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def observe(self, logits: Tensor, batch: Batch) -> None:
        if len(batch["targets"]):
            self.quality.update(logits.argmax(-1), batch["targets"])

    def observed(self) -> dict[str, float]:
        found = {name: float(value) for name, value in self.quality.compute().items()}
        self.quality.reset()
        return found

    def seen(self, item: Encoded, draw: Draw | None) -> list[tuple[str, Any, Any]]:
        classes = ", ".join((self.labels or [])[label] for label in item["labels"] if label != IGNORED)
        return [("reads", item["input_ids"], np.zeros(len(item["input_ids"]), bool)), ("says", classes, None)]

    @torch.no_grad()
    def _predicted(self, items: list[Encoded]) -> list[np.ndarray]:
        """The best class at each target of each item."""
        network, found = self.network, [np.zeros(0, int)] * len(items)
        was_training = network.training
        network.eval()
        order = sorted(range(len(items)), key=lambda i: len(items[i]["input_ids"]))
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            batch = self.collate([items[i] for i in numbers])
            best = self.logits({k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}).argmax(
                -1
            )
            cuts = np.cumsum([(items[i]["labels"] != IGNORED).sum() for i in numbers])[:-1]
            for i, part in zip(numbers, np.split(best.cpu().numpy(), cuts), strict=True):
                found[i] = part
        network.train(was_training)
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["labels"] = self.labels

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("labels") != self.labels:
            raise ValueError(
                f"this checkpoint tells {checkpoint.get('labels')} apart, the data {self.labels}: use its data."
            )
        super().on_load_checkpoint(checkpoint)


class SequenceClassification(Head):
    """A class for a text: the prompt is the text, the answer its class."""

    auto_class = AutoModelForSequenceClassification
    task_type = "SEQ_CLS"

    def prompt(self, example: dict) -> str:
        """The text that is classified."""
        return example.get("prompt", "")

    def answer(self, example: dict) -> str:
        """The right class."""
        return str(example.get("completion", "")).strip()

    def encode(self, examples: list[dict], max_length: int | None) -> list[Encoded | str]:
        texts = self.tokenizer.backend_tokenizer.encode_batch(
            [self.prompt(e) for e in examples], add_special_tokens=False
        )
        head, tail = self._ends
        numbers = {label: number for number, label in enumerate(self.labels or ())}
        made: list[Encoded | str] = []
        for example, text in zip(examples, texts, strict=True):
            room = max_length - len(head) - len(tail) if max_length else len(text.ids)
            ids = text.ids[max(0, len(text.ids) - room) :]
            label = numbers.get(self.answer(example))
            if not ids or "messages" in example:
                made.append("empty text" if "messages" not in example else "a conversation, not a text")
            elif label is None:
                made.append("class that is not among the training rows'" if self.answer(example) else "empty answer")
            else:
                item = {"input_ids": np.array([*head, *ids, *tail], np.int32), "labels": np.array([label], np.int32)}
                made.append({**item, SHORTENED: np.ones(1, np.int8)} if len(text.ids) > room else item)
        return made

    def collate(self, items: list[Encoded], draws: list[Draw] | None = None) -> Batch:
        """Padded ids with their mask; targets (batch,)."""
        batch, _ = self.padded(items)
        targets = torch.tensor([int(item["labels"][0]) for item in items])
        return {**batch, "rows": torch.arange(len(items)), "targets": targets}

    def logits(self, batch: Batch) -> Tensor:
        return super().logits(batch)[batch["rows"]]

    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        labels = self.labels or []
        items = self.encode([{**e, "completion": labels[0]} for e in examples], self.limit)
        known = [i for i, item in enumerate(items) if not isinstance(item, str)]
        best = dict(zip(known, self._predicted([items[i] for i in known]), strict=True))  # type: ignore[misc]
        return [labels[int(best[i][0])] if i in best else "" for i in range(len(examples))]
