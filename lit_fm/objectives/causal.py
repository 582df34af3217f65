"""Causal language modelling: each token from those before it. Pre-training on text, and tuning on answers alone."""

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lit_fm.data.segments import SegmentEncoder, Segments
from lit_fm.data.templates import chat_segments, chat_text, pair_segments
from lit_fm.data.tokens import SHORTENED, Encoded
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.objectives.base import Batch, Objective
from lit_fm.objectives.loss import IGNORED, only_rows, sum_cross_entropy


class CausalLM(Objective):
    """Next-token prediction. Learns answers (with the token that ends them) from examples, and all of a text."""

    auto_class = AutoModelForCausalLM
    task_type = "CAUSAL_LM"

    def segments(self, example: dict) -> Segments:
        """The text of an example, and which parts of it are learnt."""
        if "messages" in example:
            return chat_segments(example["messages"], self.tokenizer)
        return [(example["text"], True)] if "text" in example else pair_segments(example)

    def encode(self, examples: list[dict], max_length: int | None) -> list[Encoded | str]:
        segmented = [self.segments(example) for example in examples]
        encoder = SegmentEncoder(self.tokenizer)
        return [
            self._labelled(segments, ids, learnt, max_length, encoder.prefix)
            for segments, (ids, learnt) in zip(segmented, encoder(segmented), strict=True)
        ]

    def _labelled(
        self, segments: Segments, ids: np.ndarray, learnt: np.ndarray, limit: int | None, prefix: list[int]
    ) -> Encoded | str:
        end = self.tokenizer.eos_token_id
        if not any(text.strip() for text, learn in segments if learn):
            return "empty answer"
        if end is not None and learnt[-1] and ids[-1] != end:
            ids, learnt = np.append(ids, end), np.append(learnt, True)
        whole = len(ids)
        if limit and whole > limit:
            ids, learnt = cut_left(ids, learnt, limit, prefix)
        if not learnt[1:].any():
            return f"answer longer than {limit} tokens" if limit and whole > limit else "no token to learn"
        item = {"input_ids": ids.astype(np.int32), "labels": np.where(learnt, ids, IGNORED).astype(np.int32)}
        return {**item, SHORTENED: np.ones(1, np.int8)} if len(ids) < whole else item

    def collate(self, items: list[Encoded]) -> Batch:
        """Right-padded ids (batch, time), and where in them (flat) which token is the target: shifted here, once.

        The last token of a row is only a target. No mask: no token sees the padding to its right.
        """
        width = max(len(item["input_ids"]) for item in items) - 1
        ids = np.zeros((len(items), width), dtype=np.int64)
        targets = np.full((len(items), width), IGNORED, dtype=np.int64)
        for row, item in enumerate(items):
            n = len(item["input_ids"]) - 1
            ids[row, :n] = item["input_ids"][:-1]
            targets[row, :n] = item["labels"][1:]
        rows = np.flatnonzero(targets != IGNORED)
        return {
            "input_ids": torch.from_numpy(ids),
            "rows": torch.from_numpy(rows),
            "targets": torch.from_numpy(targets.reshape(-1)[rows]),
            "tokens": sum(len(item["input_ids"]) for item in items),
        }

    def logits(self, batch: Batch) -> Tensor:
        """Of the labelled positions alone: (targets, vocabulary)."""
        with only_rows(self.network.get_output_embeddings(), batch["rows"]):
            return self.network(input_ids=batch["input_ids"], use_cache=False).logits

    def token_losses(self, batch: Batch) -> tuple[Tensor, int]:
        return sum_cross_entropy(self.logits(batch), batch["targets"]), len(batch["targets"])

    def prompt(self, example: dict) -> str:
        """The text that an answer follows."""
        if "messages" not in example:
            return pair_segments({**example, "completion": example["completion"] or "?"})[0][0]
        turns = example["messages"]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        return chat_text(turns[:last], self.tokenizer, add_generation_prompt=True)

    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        encoder = SegmentEncoder(self.tokenizer)
        prompts = [encoder.ids(self.prompt(example)) for example in examples]
        return continue_prompts(self.network, self.tokenizer, prompts, max_new_tokens)


def cut_left(ids: np.ndarray, learnt: np.ndarray, limit: int, prefix: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The last `limit` tokens, the special ones at the start kept. An answer that the cut would reach is not learnt."""
    kept = len(prefix) if ids[: len(prefix)].tolist() == prefix else 0
    first = len(ids) - (limit - kept)
    learnt = learnt.copy()
    if learnt[first] and (learnt[first - 1] or not kept):  # nothing would stand before its first token
        asked = np.flatnonzero(~learnt[first:])
        learnt[first : first + asked[0] if len(asked) else None] = False
    return np.concatenate([ids[:kept], ids[first:]]), np.concatenate([learnt[:kept], learnt[first:]])
