"""Denoising, as BART was trained: Lewis et al. 2020, "BART", section 2.2."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import Generator

from lit_fm.data.pieces import by_number
from lit_fm.objectives.noise import infilled, sentences_moved
from lit_fm.objectives.seq2seq import Seq2Seq


class Denoising(Seq2Seq):
    """BART: spans of a text become one mask each, whatever their length, its sentences move; the decoder writes it all.

    Args:
        rate: the share of tokens that are hidden.
        mean_span: of the Poisson distribution of span lengths.
        permute: put sentences in a random order.
    """

    def __init__(
        self,
        *args: Any,
        rate: float = 0.3,
        mean_span: float = 3.0,
        permute: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= rate < 1 or mean_span <= 0:
            raise ValueError(f"Denoising needs rate in 0..1 and mean_span above 0, got {rate}, {mean_span}.")
        self.rate, self.mean_span, self.permute = rate, mean_span, permute

    @cached_property
    def _full_stops(self) -> np.ndarray:
        """(vocabulary,) bool: pieces that end a sentence."""
        return np.array([piece[-1:] in {".", "!", "?", "。", "؟"} for piece in by_number(self.tokenizer)])

    def spoil(self, ids: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.tokenizer.mask_token_id is None:
            raise ValueError(f"{self.backbone} has no mask token: use lit_fm.SpanCorruption.")
        moved = sentences_moved(ids, self._full_stops[ids], rng) if self.permute else ids
        return infilled(moved, self.rate, self.mean_span, self.tokenizer.mask_token_id, rng), ids
