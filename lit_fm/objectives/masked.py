"""Masked language modelling: tokens that are hidden, from those on both sides. Devlin et al. 2019, "BERT", section 3.1."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM

from lit_fm.data.pieces import Pieces
from lit_fm.data.segments import SegmentEncoder, Segments
from lit_fm.data.tokens import IGNORED, SHORTENED, Draw, Encoded
from lit_fm.objectives.base import Batch, Objective
from lit_fm.objectives.borders import apart, documents_of, first_position
from lit_fm.objectives.loss import only_rows
from lit_fm.objectives.noise import chosen_tokens

CHOICES = 128  # blanks that are tried at a time
BLANK = "<mask>"  # where the answer goes in a prompt; at its end where there is none


class MaskedLM(Objective):
    """Learns hidden tokens of running text, and answers that stand where a prompt has a blank (a cloze).

    Which tokens are hidden is drawn anew each epoch; in evaluation it hangs on the text alone.

    Args:
        rate: the share of tokens that are predicted.
        replace: of those, the shares that are shown as the mask, as a random token, and as they are.
        unit: what is hidden as a whole: a `token`, a `word`, or an `ngram` of up to three words.
    """

    auto_class = AutoModelForMaskedLM
    task_type = None
    writes = False

    def __init__(
        self,
        *args: Any,
        rate: float = 0.15,
        replace: tuple[float, float, float] = (0.8, 0.1, 0.1),
        unit: Literal["token", "word", "ngram"] = "token",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < rate < 1 or min(replace) < 0 or abs(sum(replace) - 1) > 1e-6:
            raise ValueError(f"MaskedLM needs rate in 0..1 and shares `replace` that sum to 1, got {rate}, {replace}.")
        self.rate, self.replace, self.unit = rate, replace, unit
        self._longest: dict[tuple[str, ...], int] = {}

    # What the tokenizer says.

    @cached_property
    def mask_id(self) -> int:
        """Of the token that hides others.

        Raises:
            ValueError: the tokenizer has none.
        """
        found = self.tokenizer.mask_token_id
        if found is None:
            raise ValueError(
                f"the tokenizer of {self.backbone} has no mask token: it is no masked model. Use CausalLM."
            )
        return found

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        """Special tokens before and behind a text."""
        encoder = SegmentEncoder(self.tokenizer)
        return encoder.prefix, encoder.suffix

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces(self.tokenizer)

    # Examples.

    @property
    def block_frame(self) -> int:  # type: ignore[override]
        return sum(map(len, self._ends))

    def document_tail(self) -> list[int]:
        return self._ends[1]

    def running(self, texts: list[str]) -> np.ndarray:
        return SegmentEncoder(self.tokenizer).running(texts, self.document_tail(), headless=True)

    def block(self, ids: np.ndarray, borders: bool) -> Encoded:
        head, tail = self._ends
        tail = [] if tail and ids[-len(tail) :].tolist() == tail else tail
        item = {"input_ids": np.concatenate([head, ids, tail]).astype(np.int64)}
        return {**item, "documents": documents_of(item["input_ids"], self._ends[1])} if borders else item

    def segments(self, example: dict) -> Segments:
        """The text of a cloze, the answer in its place."""
        if "text" in example:
            return [(example["text"], False)]
        before, _, after = self.prompt(example).partition(BLANK)
        # A space before a word belongs to the word, as in running text.
        bare = before.rstrip(" ")
        return [(bare, False), (before[len(bare) :] + example["completion"], True), (after, False)]

    def encode(self, examples: list[dict], max_length: int | None) -> list[Encoded | str]:
        made: list[Encoded | str] = ["a conversation has no blank"] * len(examples)
        good = [i for i, example in enumerate(examples) if "messages" not in example]
        for i in [i for i in good if "text" not in examples[i] and self.prompt(examples[i]).count(BLANK) > 1]:
            made[i] = "more than one blank"
            good.remove(i)
        segments = [self.segments(examples[i]) for i in good]
        encoded = SegmentEncoder(self.tokenizer)(segments, [True] * len(good))
        for i, parts, (ids, answer) in zip(good, segments, encoded, strict=True):
            blanks = self._blanks(parts, examples[i].get("choices", ()))
            made[i] = self._item(examples[i], ids, answer, blanks, max_length)
        return made

    def _blanks(self, parts: Segments, choices: Sequence[Any]) -> int:
        """Tokens of the longest choice: every choice gets so many blanks, or their number would tell the answer."""
        key = (" " if len(parts) > 1 and parts[1][0].startswith(" ") else "", *map(str, choices))
        if key not in self._longest:
            texts = [key[0] + choice for choice in key[1:]]
            found = self.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
            self._longest[key] = max((len(encoding.ids) for encoding in found), default=0)
        return self._longest[key]

    def _item(
        self, example: dict, ids: np.ndarray, answer: np.ndarray, blanks: int, limit: int | None
    ) -> Encoded | str:
        head, tail = self._ends
        if not (example.get("text") or example.get("completion", "")).strip():
            return "empty text" if "text" in example else "empty answer"
        if "text" not in example and not answer.any():
            return "answer without a token"
        labels = np.where(answer, ids, IGNORED)
        if (more := blanks - int(answer.sum())) > 0 and "text" not in example:
            behind = np.flatnonzero(answer)[-1] + 1
            ids, labels = np.insert(ids, behind, [self.mask_id] * more), np.insert(labels, behind, [IGNORED] * more)
            answer = np.insert(answer, behind, [True] * more)
        cut = max(0, len(ids) + len(head) + len(tail) - limit) if limit else 0
        if answer[:cut].any():
            return f"answer beyond {limit} tokens"
        item = {"input_ids": np.concatenate([head, np.where(answer, self.mask_id, ids)[cut:], tail]).astype(np.int32)}
        if "text" not in example:
            none = [np.full(len(part), IGNORED) for part in (head, tail)]
            item["labels"] = np.concatenate([none[0], labels[cut:], none[1]]).astype(np.int32)
        return {**item, SHORTENED: np.ones(1, np.int8)} if cut else item

    # Batches.

    def hide(self, ids: np.ndarray, draw: Draw | None) -> tuple[np.ndarray, np.ndarray]:
        """Ids as they are shown, and labels: a function of seed, epoch and number, in evaluation of the ids alone."""
        rng = np.random.default_rng(draw or crc32(ids.astype(np.int64).tobytes()))
        chosen = chosen_tokens(self._groups(ids), self.rate, 3 if self.unit == "ngram" else 1, rng)
        places = np.flatnonzero(chosen)
        kind = rng.choice(3, size=len(places), p=self.replace)
        shown = ids.copy()
        shown[places[kind == 0]] = self.mask_id
        ordinary = np.flatnonzero(self._pieces.ordinary)
        shown[places[kind == 1]] = ordinary[rng.integers(0, len(ordinary), (kind == 1).sum())]
        return shown, np.where(chosen, ids, IGNORED)

    def _hidden(self, item: Encoded, draw: Draw | None) -> tuple[np.ndarray, np.ndarray]:
        return (item["input_ids"], item["labels"]) if "labels" in item else self.hide(item["input_ids"], draw)

    def seen(self, item: Encoded, draw: Draw | None) -> list[tuple[str, Any, Any]]:
        shown, labels = self._hidden(item, draw)
        hidden = labels[labels != IGNORED]
        return [("sees", shown, labels != IGNORED), ("says", hidden, np.ones(len(hidden), bool))]

    def _groups(self, ids: np.ndarray) -> np.ndarray:
        plain = self._pieces.ordinary[ids]
        if self.unit == "token":
            return np.where(plain, np.arange(len(ids)), -1)
        return np.where(plain, self._pieces.words(ids), -1)

    def collate(self, items: list[Encoded], draws: list[Draw] | None = None) -> Batch:
        """Right-padded ids (batch, time) with their mask, and where in them (flat) which token is the target."""
        width = max(len(item["input_ids"]) for item in items)
        pad = self.tokenizer.pad_token_id or 0
        ids = np.full((len(items), width), pad, dtype=np.int64)
        targets = np.full((len(items), width), IGNORED, dtype=np.int64)
        mask = np.zeros((len(items), width), dtype=np.int64)
        for row, item in enumerate(items):
            n = len(item["input_ids"])
            ids[row, :n], targets[row, :n] = self._hidden(item, draws[row] if draws else None)
            mask[row, :n] = 1
        more: dict[str, Any] = {"attention_mask": torch.from_numpy(mask)}
        if "documents" in items[0]:
            more = apart([item["documents"] for item in items], width, False, first_position(self.network))
        rows = np.flatnonzero(targets != IGNORED)
        found = {"input_ids": ids, "rows": rows, "targets": targets.reshape(-1)[rows]}
        return {**{name: torch.from_numpy(of) for name, of in found.items()}, "tokens": int(mask.sum()), **more}

    def logits(self, batch: Batch) -> Tensor:
        more = {key: batch[key] for key in ("attention_mask", "position_ids") if key in batch}
        with only_rows(self.network.get_output_embeddings(), batch["rows"], batch["input_ids"].shape[1]):
            return self.network(input_ids=batch["input_ids"], **more).logits

    # Answers.

    def prompt(self, example: dict) -> str:
        """The text with its blank, which may be written as the tokenizer writes it."""
        prompt = example.get("prompt", "").replace(self.tokenizer.mask_token or BLANK, BLANK)
        return prompt if BLANK in prompt else f"{prompt}{'' if not prompt or prompt[-1].isspace() else ' '}{BLANK}"

    def prompt_ids(self, examples: list[dict]) -> list[list[int]]:
        """With the blanks of the longest choice, which are the same whichever is tried."""
        tried = [{**example, "completion": str(example["choices"][0])} for example in examples]
        return [[] if isinstance(item, str) else item["input_ids"].tolist() for item in self.encode(tried, None)]

    def answer(self, example: dict) -> str:
        """The right one of the choices; none where there are none, since a masked model only chooses."""
        return example.get("completion", "").strip() if example.get("choices") else ""

    @torch.no_grad()
    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        """The choice whose tokens are the likeliest in the blanks, all together: each is tried.

        Raises:
            ValueError: an example without choices.
        """
        if lacking := [i for i, example in enumerate(examples) if not example.get("choices")]:
            raise ValueError(
                f"row {lacking[0] + 1}: a masked model chooses, it does not write: give rows with `choices`, or "
                "data.choices."
            )
        tried = [(i, str(choice)) for i, example in enumerate(examples) for choice in example["choices"]]
        items = self.encode([{**examples[i], "completion": choice} for i, choice in tried], self.limit)
        best = [(-np.inf, "")] * len(examples)
        was_training = self.network.training
        self.network.eval()
        for start in range(0, len(tried), CHOICES):
            group = [n for n in range(start, min(start + CHOICES, len(tried))) if not isinstance(items[n], str)]
            for n, score in zip(group, self._likely([items[n] for n in group]), strict=True):  # type: ignore[misc]
                best[tried[n][0]] = max(best[tried[n][0]], (score, tried[n][1]))
        self.network.train(was_training)
        return [choice for _, choice in best]

    def _likely(self, items: list[Encoded]) -> list[float]:
        """The log-probability of each choice's tokens."""
        if not items:
            return []
        batch = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in self.collate(items).items()}
        of = batch["rows"] // batch["input_ids"].shape[1]
        found = -F.cross_entropy(self.logits(batch).float(), batch["targets"], reduction="none")
        return torch.zeros(len(items), device=found.device).scatter_add(0, of, found).tolist()
