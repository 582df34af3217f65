"""Sequence to sequence: an encoder reads, a decoder writes. Spoilt text is mended, prompts are answered."""

from abc import abstractmethod
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.random import Generator
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from lit_fm.backbone import decoder_start
from lit_fm.data.base import ObjectiveData
from lit_fm.data.chat import chat_text, last_answer, turn_end
from lit_fm.data.segments import SegmentEncoder, Segments
from lit_fm.data.templates import pair_segments, prompt_text
from lit_fm.data.tokens import IGNORED, SHORTENED, Draw, Encoded
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.objectives.base import Batch, Objective
from lit_fm.objectives.loss import only_rows

_OVERFLOW_IN_FP16 = {"t5", "mt5", "umt5", "longt5", "switch_transformers"}


class Seq2Seq(Objective):
    """An encoder reads, a decoder writes: spoilt text and what it was, or a prompt and its answer."""

    auto_class = AutoModelForSeq2SeqLM
    task_type = "SEQ_2_SEQ_LM"

    @abstractmethod
    def spoil(self, ids: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """What the encoder sees of a text, and what the decoder must write; without special tokens at the ends."""

    def configure_model(self) -> None:
        super().configure_model()
        precision = f"{self.trainer.precision if self._trainer else ''} {self.weights_dtype}"
        halves = "16" in precision.replace("bfloat16", "").replace("bf16", "")
        if self.network.config.model_type in _OVERFLOW_IN_FP16 and halves:
            raise ValueError(
                f"{self.backbone} ({self.network.config.model_type}) overflows in 16-bit floats ({precision.strip()}): use "
                "trainer.precision bf16-mixed, and model.dtype float32 or bfloat16."
            )

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        """Special tokens before and behind a text."""
        encoder = SegmentEncoder(self.tokenizer)
        return encoder.prefix, encoder.suffix

    @property
    def block_frame(self) -> int:  # type: ignore[override]
        return sum(map(len, self._ends))

    def running(self, texts: list[str]) -> np.ndarray:
        """Documents without anything between them, as T5 was trained: a target never ends before its span does."""
        return SegmentEncoder(self.tokenizer).running(texts, [], headless=True)

    def block(self, ids: np.ndarray, borders: bool) -> Encoded:
        if borders:
            raise ValueError("data.borders: an encoder-decoder cannot keep documents of a block apart: leave it off.")
        return {"input_ids": ids}

    def check(self) -> None:
        if isinstance(self._data, ObjectiveData) and self._data.bordered:
            self.block(np.zeros(1, int), borders=True)

    # Examples.

    def segments(self, example: dict) -> Segments:
        """Prompt and answer as one text, and which part is learnt."""
        return pair_segments(example)

    def prompt(self, example: dict) -> str:
        """The text that the encoder reads."""
        if "messages" in example:
            turns = example["messages"]
            asked = turns[:-1] if turns[-1]["role"] == "assistant" else turns
            return chat_text(asked, self.tokenizer, tools=example.get("tools"))
        return prompt_text(example["prompt"])

    def answer(self, example: dict) -> str:
        """The text that the decoder writes. Empty if there is none."""
        if "messages" not in example:
            return example.get("completion", "")
        last = example["messages"][-1]
        if not last.get("tool_calls"):
            return (last["content"] or "") if last["role"] == "assistant" else ""
        text = last_answer(example["messages"], self.tokenizer, example.get("tools"))
        return text.removesuffix(turn_end(self.tokenizer)).strip()

    def encode(self, examples: list[dict], max_length: int | None) -> list[Encoded | str]:
        made: list[Any] = [self._texts(example) for example in examples]
        good = [i for i, texts in enumerate(made) if not isinstance(texts, str)]
        backend = self.tokenizer.backend_tokenizer
        sides = [backend.encode_batch_fast([made[i][side] for i in good], add_special_tokens=False) for side in (0, 1)]
        for i, read, written in zip(good, *([e.ids for e in side] for side in sides), strict=True):
            made[i] = self._text(read, max_length) if "text" in examples[i] else self._pair(read, written, max_length)
        return made

    def _texts(self, example: dict) -> tuple[str, str] | str:
        """What is read and what is written, or why not."""
        if "text" in example:
            return example["text"], ""
        try:
            return self.prompt(example), self.answer(example)
        except TemplateError as error:
            return f"refused by the chat template: {error}"

    def _text(self, ids: list[int], limit: int | None) -> Encoded | str:
        room = limit - self.block_frame if limit else len(ids)
        item = {"input_ids": np.array(ids[:room], dtype=np.int32)}
        if not ids:
            return "empty text"
        return {**item, SHORTENED: np.ones(1, np.int8)} if len(ids) > room else item

    def _pair(self, prompt: list[int], answer: list[int], limit: int | None) -> Encoded | str:
        head, tail = self._ends
        if not answer:
            return "empty answer"
        if limit and len(answer) + self.block_frame > limit:
            return f"answer longer than {limit} tokens"
        room = limit - self.block_frame if limit else len(prompt)
        item = {
            "input_ids": np.array([*head, *prompt[max(0, len(prompt) - room) :], *tail], dtype=np.int32),
            "labels": np.array([*head, *answer, *tail], dtype=np.int32),
        }
        return {**item, SHORTENED: np.ones(1, np.int8)} if len(prompt) > room else item

    def seen(self, item: Encoded, draw: Draw | None) -> list[tuple[str, Any, Any]]:
        read, written = self.pair(item, draw)
        return [("reads", read, np.zeros(len(read), bool)), ("writes", written, np.ones(len(written), bool))]

    # Batches.

    def pair(self, item: Encoded, draw: Draw | None) -> tuple[np.ndarray, np.ndarray]:
        """What is read and what is written, with special tokens; drawn by seed, epoch and number, or by the ids alone."""
        if "labels" in item:
            return item["input_ids"], item["labels"]
        ids = np.asarray(item["input_ids"], dtype=np.int64)
        head, tail = (np.array(part, dtype=np.int64) for part in self._ends)
        made = self.spoil(ids, np.random.default_rng(draw or crc32(ids.tobytes())))
        return np.concatenate([head, made[0], tail]), np.concatenate([head, made[1], tail])

    def collate(self, items: list[Encoded], draws: list[Draw] | None = None) -> Batch:
        """Right-padded ids for the encoder with their mask and for the decoder, each (batch, time), and flat targets.

        The decoder's are the targets shifted by one, with the token that starts them before.
        """
        pairs = [self.pair(item, draws[row] if draws else None) for row, item in enumerate(items)]
        pad, start = self.tokenizer.pad_token_id or 0, decoder_start(self.network.config)
        width, depth = (max(len(pair[side]) for pair in pairs) for side in (0, 1))
        ids, mask = np.full((len(items), width), pad, np.int64), np.zeros((len(items), width), np.int64)
        targets, seen = np.full((len(items), depth), IGNORED, np.int64), np.full((len(items), depth), pad, np.int64)
        for row, (read, written) in enumerate(pairs):
            ids[row, : len(read)], mask[row, : len(read)] = read, 1
            targets[row, : len(written)] = written
            seen[row, 0], seen[row, 1 : len(written)] = start, written[:-1]
        rows = np.flatnonzero(targets != IGNORED)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "decoder_input_ids": torch.from_numpy(seen),
            "rows": torch.from_numpy(rows),
            "targets": torch.from_numpy(targets.reshape(-1)[rows]),
            "tokens": int(mask.sum()) + len(rows),
        }

    def logits(self, batch: Batch) -> Tensor:
        more = {key: batch[key] for key in ("attention_mask", "decoder_input_ids")}
        with only_rows(self.network.get_output_embeddings(), batch["rows"], batch["decoder_input_ids"].shape[1]):
            return self.network(input_ids=batch["input_ids"], use_cache=False, **more).logits

    def prompt_ids(self, examples: list[dict]) -> list[list[int]]:
        head, tail = self._ends
        encoder = SegmentEncoder(self.tokenizer)
        return [[*head, *encoder.ids(self.prompt(example), bare=True), *tail] for example in examples]

    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        return continue_prompts(self.network, self.tokenizer, self.prompt_ids(examples), max_new_tokens)
