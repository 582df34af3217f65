"""Span corruption, as T5 was trained: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 3.1.4."""

from functools import cached_property
from itertools import count, takewhile
from typing import Any

import numpy as np
from numpy.random import Generator

from lit_fm.objectives.noise import noise_spans, span_counts, to_sentinels, too_few
from lit_fm.objectives.seq2seq import Seq2Seq


class SpanCorruption(Seq2Seq):
    """T5: spans of a text become one sentinel each; the decoder writes each sentinel with its span, and a last sentinel.

    Args:
        density: the share of tokens that are noise.
        mean_span: tokens in a span on average.
    """

    def __init__(
        self,
        *args: Any,
        density: float = 0.15,
        mean_span: float = 3.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < density < 1 or mean_span < 1:
            raise ValueError(f"SpanCorruption needs density in 0..1 and mean_span >= 1, got {density}, {mean_span}.")
        self.density, self.mean_span = density, mean_span

    @cached_property
    def sentinels(self) -> list[int]:
        """Ids of `<extra_id_0>`, `<extra_id_1>`, ...

        Raises:
            ValueError: the tokenizer has none.
        """
        known = self.tokenizer.get_vocab()
        found = [known[name] for name in takewhile(known.__contains__, (f"<extra_id_{i}>" for i in count()))]
        if not found:
            raise ValueError(
                f"the tokenizer of {self.backbone} has no <extra_id_0>: spans need sentinels. "
                "Use lit_fm.Denoising, which needs a mask token only."
            )
        return found

    def check(self) -> None:
        super().check()
        if (size := getattr(self._data, "block_size", 0)) and self.sentinels:
            _, spans = span_counts(size, self.density, self.mean_span)
            if spans + 1 > len(self.sentinels):
                raise ValueError(too_few(size, spans, len(self.sentinels)))

    def spoil(self, ids: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        return to_sentinels(ids, noise_spans(len(ids), self.density, self.mean_span, rng), self.sentinels)
