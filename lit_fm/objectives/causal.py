"""Causal language modelling: each token from those before it. Pre-training on text, and tuning on answers alone."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoModelForCausalLM

from lit_fm.backbone import special_ids
from lit_fm.data.chat import chat_segments, chat_text, last_answer
from lit_fm.data.segments import SegmentEncoder, Segments
from lit_fm.data.templates import pair_segments, prompt_text
from lit_fm.data.tokens import IGNORED, SHORTENED, Draw, Encoded
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.objectives.base import Batch, Objective
from lit_fm.objectives.borders import apart, check_causal, documents_of, first_position
from lit_fm.objectives.loss import only_rows
from lit_fm.objectives.noise import middle_last
from lit_fm.objectives.packed import APART, Way, exact_way, flash_on, pack


class CausalLM(Objective):
    """Next-token prediction. Learns answers (with the token that ends them) from examples, and all of a text.

    Args:
        fim_rate: the share of a text's documents whose middle is moved to the end, to learn to fill in (in training).
        fim_tokens: what marks prefix, suffix and middle.
    """

    auto_class = AutoModelForCausalLM
    task_type = "CAUSAL_LM"
    reads_all = True
    block_overlap = 1

    def __init__(
        self,
        *args: Any,
        fim_rate: float = 0.0,
        fim_tokens: tuple[str, str, str] = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= fim_rate <= 1:
            raise ValueError(f"fim_rate is {fim_rate}, expected a share of documents in 0..1: correct it.")
        self.fim_rate, self.fim_tokens = fim_rate, fim_tokens
        self._way: Way = "mask"
        self._first, self._flash = 0, False

    def check(self) -> None:
        check_causal(self.network, self.backbone)
        super().check()
        if getattr(self._data, "packing", "none") != "none":
            if self.adaptation.virtual_tokens:
                raise ValueError(
                    "data.packing: virtual tokens stand before a row, not before each example: leave it off."
                )
            self._way = exact_way(self.network, self.backbone, self._data.max_length)
            self._first, self._flash = first_position(self.network), flash_on(self.network)

    def pack(self, rows: list[list[Encoded]]) -> Batch:
        """A batch of rows of several examples each, none of which sees another."""
        return pack(rows, self._way, self._first, self._flash)

    @cached_property
    def fim_marks(self) -> tuple[int, int, int]:
        """Ids of the tokens before prefix, suffix and middle.

        Raises:
            ValueError: the tokenizer lacks one.
        """
        return special_ids(self.tokenizer, self.fim_tokens, "model.fim_tokens")  # type: ignore[return-value]

    def document_tail(self) -> list[int]:
        return [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]

    def block(self, ids: np.ndarray, borders: bool) -> Encoded:
        item = {"input_ids": ids, "labels": ids}
        return {**item, "documents": documents_of(ids, self.document_tail())} if borders else item

    def segments(self, example: dict) -> Segments:
        """The text of an example, and which parts of it are learnt."""
        if "messages" in example:
            return chat_segments(example["messages"], self.tokenizer, example.get("tools"))
        return [(example["text"], True)] if "text" in example else pair_segments(example)

    def encode(self, examples: list[dict], max_length: int | None) -> list[Encoded | str]:
        made: list[Any] = []
        for example in examples:
            try:
                made.append(self.segments(example))
            except TemplateError as error:
                made.append(f"refused by the chat template: {error}")
        good = [i for i, segments in enumerate(made) if not isinstance(segments, str)]
        encoder = SegmentEncoder(self.tokenizer)
        bare = ["messages" in examples[i] for i in good]
        encoded = encoder([made[i] for i in good], bare, self.tokenizer.eos_token_id)
        for i, (ids, learnt) in zip(good, encoded, strict=True):
            made[i] = self._labelled(examples[i], made[i], ids, learnt, max_length, encoder.prefix)
        return made

    def _labelled(
        self,
        example: dict,
        segments: Segments,
        ids: np.ndarray,
        learnt: np.ndarray,
        limit: int | None,
        prefix: list[int],
    ) -> Encoded | str:
        if not any(text.strip() for text, learn in segments if learn):
            return "empty text" if "text" in example else "empty answer"
        whole = len(ids)
        if limit and whole > limit:
            ids, learnt = cut_left(ids, learnt, limit, prefix)
        if not learnt[1:].any():
            return f"answer longer than {limit} tokens" if limit and whole > limit else "no token to learn"
        item = {"input_ids": ids, "labels": np.where(learnt, ids, np.int32(IGNORED))}
        return {**item, SHORTENED: np.ones(1, np.int8)} if len(ids) < whole else item

    def collate(self, items: list[Encoded], draws: list[Draw] | None = None) -> Batch:
        """Right-padded ids (batch, time), and where in them (flat) which token is the target: shifted here, once.

        The last token of a row is only a target. No mask: no token sees the padding to its right.
        """
        if self.fim_rate and draws:
            items = [self._filled_in(item, draw) for item, draw in zip(items, draws, strict=True)]
        width = max(len(item["input_ids"]) for item in items) - 1
        ids = np.zeros((len(items), width), dtype=np.int64)
        targets = np.full((len(items), width), IGNORED, dtype=np.int64)
        for row, item in enumerate(items):
            n = len(item["input_ids"]) - 1
            ids[row, :n] = item["input_ids"][:-1]
            targets[row, :n] = item["labels"][1:]
        more = {}
        if "documents" in items[0]:
            more = apart([item["documents"][:-1] for item in items], width, causal=True)
            for row, item in enumerate(items):  # a document's first token is not to be told from the one before it
                firsts = np.flatnonzero(np.diff(item["documents"]))
                targets[row, firsts] = IGNORED
        rows = np.flatnonzero(targets != IGNORED)
        return {
            "input_ids": torch.from_numpy(ids),
            "rows": torch.from_numpy(rows),
            "targets": torch.from_numpy(targets.reshape(-1)[rows]),
            "tokens": sum(len(item["input_ids"]) for item in items),
            **more,
        }

    def _filled_in(self, item: Encoded, draw: Draw) -> Encoded:
        """Running text with the middle of some of its documents moved to their end; examples stay as they are."""
        ids, labels = item["input_ids"], item["labels"]
        if labels is not ids:
            return item
        rng = np.random.default_rng(draw)
        parts = np.split(ids, np.flatnonzero(np.diff(documents_of(ids, self.document_tail()))) + 1)
        moved = []
        for part in parts:
            head, tail = int(part[0] == self.tokenizer.bos_token_id), int(part[-1] in self.document_tail())
            inner = part[head : len(part) - tail]
            if rng.random() < self.fim_rate and len(inner) > 2:
                inner = middle_last(inner, self.fim_marks, rng)
            moved += [part[:head], inner, part[len(part) - tail :]]
        return self.block(np.concatenate(moved)[: len(ids)], "documents" in item)  # the marks take room

    def logits(self, batch: Batch) -> Tensor:
        more = {key: batch[key] for key in (*APART, "task_ids") if key in batch}
        with only_rows(self.network.get_output_embeddings(), batch["rows"], batch["input_ids"].shape[1]):
            return self.network(input_ids=batch["input_ids"], use_cache=False, **more).logits

    def prompt(self, example: dict) -> str:
        """The text that an answer follows."""
        if "messages" not in example:
            return prompt_text(example["prompt"])
        turns = example["messages"]
        asked = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        return chat_text(asked, self.tokenizer, add_generation_prompt=True, tools=example.get("tools"))

    def answer(self, example: dict) -> str:
        """The right answer, as `answers` would write it: what was learnt last, without special tokens. Empty if none."""
        text = example.get("completion", "")
        if "messages" in example:
            try:
                text = last_answer(example["messages"], self.tokenizer, example.get("tools"))
            except TemplateError:
                return ""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def prompt_ids(self, examples: list[dict]) -> list[list[int]]:
        encoder = SegmentEncoder(self.tokenizer)
        return [encoder.ids(self.prompt(example), "messages" in example) for example in examples]

    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        prompts, tasks = self.prompt_ids(examples), self.adaptation.tasks_of(examples)
        return continue_prompts(self.network, self.tokenizer, prompts, max_new_tokens, tasks)


def cut_left(ids: np.ndarray, learnt: np.ndarray, limit: int, prefix: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The last `limit` tokens up to an answer's end, the special ones at the start kept.

    An answer that the cut would reach is not learnt.
    """
    stop = len(ids) - int(np.argmax(learnt[::-1]))
    ids, learnt = ids[:stop], learnt[:stop]
    if stop <= limit:
        return ids, learnt
    kept = len(prefix) if ids[: len(prefix)].tolist() == prefix else 0
    first = len(ids) - (limit - kept)
    learnt = learnt.copy()
    if learnt[first] and (learnt[first - 1] or not kept):  # nothing would stand before its first token
        asked = np.flatnonzero(~learnt[first:])
        learnt[first : first + asked[0] if len(asked) else None] = False
    return np.concatenate([ids[:kept], ids[first:]]), np.concatenate([learnt[:kept], learnt[first:]])
