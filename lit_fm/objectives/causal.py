"""Causal language modelling: each token from those before it. Pre-training on text, and tuning on answers alone."""

from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from lit_fm.data.segments import SegmentEncoder, Segments
from lit_fm.data.templates import chat_segments, chat_text, pair_segments, prompt_text
from lit_fm.data.tokens import IGNORED, SHORTENED, Encoded
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.objectives.base import Batch, Objective
from lit_fm.objectives.loss import only_rows, sum_cross_entropy


class CausalLM(Objective):
    """Next-token prediction. Learns answers (with the token that ends them) from examples, and all of a text."""

    auto_class = AutoModelForCausalLM
    task_type = "CAUSAL_LM"

    def configure_model(self) -> None:
        super().configure_model()
        config = self.network.config
        if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", True) is False:
            raise ValueError(
                f"{self.backbone} ({config.model_type}) sees the tokens that follow: it is no causal model."
            )

    def segments(self, example: dict) -> Segments:
        """The text of an example, and which parts of it are learnt."""
        if "messages" in example:
            return chat_segments(example["messages"], self.tokenizer)
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
        encoded = encoder([made[i] for i in good], ["messages" in examples[i] for i in good])
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
        end = self.tokenizer.eos_token_id
        if not any(text.strip() for text, learn in segments if learn):
            return "empty text" if "text" in example else "empty answer"
        if end is not None and learnt[-1] and ids[-1] != end:
            ids, learnt = np.append(ids, end), np.append(learnt, True)
        whole = len(ids)
        if limit and whole > limit:
            ids, learnt = cut_left(ids, learnt, limit, prefix)
        if not learnt[1:].any():
            return f"answer longer than {limit} tokens" if limit and whole > limit else "no token to learn"
        item = {"input_ids": ids.astype(np.int32), "labels": np.where(learnt, ids, IGNORED).astype(np.int32)}
        turns = sum(turn["role"] == "assistant" for turn in example.get("messages", ()))
        lost = len(ids) < whole or (turns > 1 and len(segments) == 2)
        return {**item, SHORTENED: np.ones(1, np.int8)} if lost else item

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
            return prompt_text(example["prompt"])
        turns = example["messages"]
        asked = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        return chat_text(asked, self.tokenizer, add_generation_prompt=True)

    def answer(self, example: dict) -> str:
        """The right answer, as `answers` would write it: what was learnt last, without special tokens. Empty if none."""
        text = example.get("completion", "")
        if "messages" in example:
            text = self._last_turn(example["messages"])
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _last_turn(self, turns: list[dict]) -> str:
        if turns[-1]["role"] != "assistant":
            return ""
        try:
            return chat_segments(turns, self.tokenizer)[-1][0]
        except (TemplateError, IndexError):  # refused, or nothing in it is learnt
            return ""

    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        encoder = SegmentEncoder(self.tokenizer)
        prompts = [encoder.ids(self.prompt(example), "messages" in example) for example in examples]
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
