"""From text of which parts are learnt to token ids of which some are learnt: exact by character offsets.

A text is a list of segments `(text, learnt)`. It is tokenised once, as a whole, and a token is learnt when its characters
lie in a learnt segment. Where a token would reach over a border (`"answer: " + "yes"` joins to `" yes"`), the segments of
that one text are tokenised apart, as they are when the model is used: the prompt alone, then what follows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Segments = list[tuple[str, bool]]


class SegmentEncoder:
    """Token ids of segments, by a fast tokenizer, with the special tokens that it puts before a text (BOS, CLS).

    What it would put behind a text (EOS, SEP) is left to the objective.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        bare = self._backend.encode("a", add_special_tokens=False).ids
        full = self._backend.encode("a", add_special_tokens=True).ids
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        self.prefix: list[int] = full[:start]
        self.suffix: list[int] = full[start + len(bare) :]
        self._written_prefix = tokenizer.decode(self.prefix) if self.prefix else ""

    def _prefix_for(self, text: str, bare: bool) -> list[int]:
        """None where a chat template wrote the text, nor where it is there already: one BOS at most."""
        return [] if bare or (self._written_prefix and text.startswith(self._written_prefix)) else self.prefix

    def ids(self, text: str, bare: bool = False) -> list[int]:
        """Ids of a prompt, as training saw them. `bare`: the text brings its own special tokens."""
        return [*self._prefix_for(text, bare), *self._backend.encode(text, add_special_tokens=False).ids]

    def running(self, texts: Sequence[str], tail: list[int], headless: bool = False) -> np.ndarray:
        """Ids of documents one after the other, each with what stands before a text, unless headless, and `tail`."""
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        ids: list[int] = []
        for text, encoding in zip(texts, encodings, strict=True):
            ids += self._prefix_for(text, headless)
            ids += encoding.ids
            ids += tail if not tail or ids[-len(tail) :] != tail else []
        return np.array(ids, dtype=np.int32)

    def __call__(self, batch: Sequence[Segments], bare: Sequence[bool]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each text its ids and, of the same length, which of them are learnt."""
        texts = ["".join(text for text, _ in segments) for segments in batch]
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            self._mark(self._prefix_for(text, alone), encoding, segments)
            for text, alone, encoding, segments in zip(texts, bare, encodings, batch, strict=True)
        ]

    def _mark(self, prefix: list[int], encoding: Any, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array(encoding.ids, dtype=np.int32)
        learnt = np.zeros(len(ids), dtype=bool)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        begin = 0
        for i, (text, learn) in enumerate(segments):
            end = begin + len(text)
            first, stop = np.searchsorted(offsets[:, 1], [begin, end], side="right")
            if i and text and not self._parts_at(offsets, first, begin):
                return self._apart(prefix, segments)
            learnt[first:stop] = learn
            begin = end
        head = np.array(prefix, dtype=np.int32)
        return np.concatenate([head, ids]), np.concatenate([np.zeros(len(head), bool), learnt])

    @staticmethod
    def _parts_at(offsets: np.ndarray, first: int, border: int) -> bool:
        """Whether one token ends at a border and the next begins there.

        A tokenizer may leave the space out of a token's offsets: then the token before ends short of the border.
        """
        ends_there = first == 0 or offsets[first - 1, 1] == border
        return bool(ends_there and (first == len(offsets) or offsets[first, 0] == border))

    def _apart(self, prefix: list[int], segments: Segments) -> tuple[np.ndarray, np.ndarray]:
        parts = [(self._backend.encode(text, add_special_tokens=False).ids, learn) for text, learn in segments]
        ids = [*prefix, *(i for part, _ in parts for i in part)]
        learnt = [*([False] * len(prefix)), *(learn for part, learn in parts for _ in part)]
        return np.array(ids, dtype=np.int32), np.array(learnt, dtype=bool)
