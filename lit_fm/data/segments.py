"""From text of which parts are learnt to token ids of which some are learnt: exact by character offsets.

A text is a list of segments `(text, learnt)`. They are tokenised apart, as they are when the model is used: the prompt
alone, then what follows. Where that could change the text (a tokenizer that puts a space before each, a border within a
word), it is tokenised as a whole, and a token is learnt when its characters lie in a learnt segment; only if a token then
reaches over a border, apart again.
"""

from collections.abc import Sequence
from itertools import pairwise
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
        self._joins = all(map(self._joins_like, ("a", "A", "1", "(", "\u00e9", "\u4e2d")))

    def _joins_like(self, begin: str) -> bool:
        """Whether a text that begins so is tokenised alone as it is behind a line break."""
        parts = [self._backend.encode(text, add_special_tokens=False).ids for text in ("b\n", begin, f"b\n{begin}")]
        return parts[0] + parts[1] == parts[2]

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

    def __call__(
        self, batch: Sequence[Segments], bare: Sequence[bool], end: int | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each text its ids and, of the same length, which of them are learnt.

        Args:
            end: the token that ends a text whose end is learnt.
        """
        prefixes = [self._prefix_for(_text(segments), alone) for segments, alone in zip(batch, bare, strict=True)]
        apart = [self._joins and _parted(segments) for segments in batch]
        parts = [text for segments, alone in zip(batch, apart, strict=True) if alone for text, _ in segments]
        ids = (encoding.ids for encoding in self._backend.encode_batch_fast(parts, add_special_tokens=False))
        whole = [_text(segments) for segments, alone in zip(batch, apart, strict=True) if not alone]
        encodings = iter(self._backend.encode_batch(whole, add_special_tokens=False))
        return [
            _join(prefix, [(next(ids), learn) for _, learn in segments], end)
            if alone
            else self._mark(prefix, next(encodings), segments, end)
            for prefix, alone, segments in zip(prefixes, apart, batch, strict=True)
        ]

    def _mark(
        self, prefix: list[int], encoding: Any, segments: Segments, end_token: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array(encoding.ids, dtype=np.int32)
        learnt = np.zeros(len(ids), dtype=bool)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        begin = 0
        for i, (text, learn) in enumerate(segments):
            end = begin + len(text)
            first, stop = np.searchsorted(offsets[:, 1], [begin, end], side="right")
            if i and text and not self._parts_at(offsets, first, begin):
                return self._apart(prefix, segments, end_token)
            learnt[first:stop] = learn
            begin = end
        cuts = [0, *(np.flatnonzero(np.diff(learnt)) + 1).tolist(), len(ids)]
        parts = [(ids[i:j].tolist(), bool(learnt[i])) for i, j in pairwise(cuts) if j > i]
        return _join(prefix, parts, end_token)

    @staticmethod
    def _parts_at(offsets: np.ndarray, first: int, border: int) -> bool:
        """Whether one token ends at a border and the next begins there.

        A tokenizer may leave the space out of a token's offsets: then the token before ends short of the border.
        """
        ends_there = first == 0 or offsets[first - 1, 1] == border
        return bool(ends_there and (first == len(offsets) or offsets[first, 0] == border))

    def _apart(self, prefix: list[int], segments: Segments, end: int | None) -> tuple[np.ndarray, np.ndarray]:
        parts = [(self._backend.encode(text, add_special_tokens=False).ids, learn) for text, learn in segments]
        return _join(prefix, parts, end)


def _text(segments: Segments) -> str:
    return "".join([text for text, _ in segments])


def _parted(segments: Segments) -> bool:
    """Whether white space stands at each border."""
    borders = ((left, right) for (left, _), (right, _) in pairwise(segments))
    return all(left[-1:].isspace() or right[:1].isspace() or not (left and right) for left, right in borders)


def _join(prefix: list[int], parts: list[tuple[list[int], bool]], end: int | None) -> tuple[np.ndarray, np.ndarray]:
    ids, learnt = list(prefix), bytearray(len(prefix))  # bytes are quicker to fill than arrays
    for part, learn in parts:
        ids += part
        learnt += (b"\1" if learn else b"\0") * len(part)
    if end is not None and ids and learnt[-1] and ids[-1] != end:
        ids.append(end)
        learnt.append(1)
    return np.array(ids, np.int32), np.frombuffer(learnt, bool)
