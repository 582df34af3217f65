"""What the pieces of a vocabulary are: which are no special tokens, and which ones in a row make one word."""

from typing import Any

import numpy as np

_SPACES = "\u0120\u010a\u2581"  # how byte-level BPE writes a space and a line break, and sentencepiece a space


def by_number(tokenizer: Any) -> list[str]:
    """The pieces of a vocabulary by their ids; empty where there is none, as some vocabularies have gaps."""
    vocabulary = tokenizer.get_vocab()
    pieces = [""] * (max(vocabulary.values()) + 1)
    for piece, number in vocabulary.items():
        pieces[number] = piece
    return pieces


class Pieces:
    """Tables over a tokenizer's vocabulary.

    A piece goes on with a word when it does not begin one by itself, begins with a letter or digit, and follows one that
    ends in such. WordPiece marks what goes on, the others what begins.
    """

    def __init__(self, tokenizer: Any) -> None:
        pieces = by_number(tokenizer)
        self.ordinary = np.array([bool(piece) for piece in pieces])
        self.ordinary[tokenizer.all_special_ids] = False
        hashes = any(piece.startswith("##") for piece in pieces)
        bare = [piece.removeprefix("##").strip(_SPACES) for piece in pieces]
        self._begins = np.array([not p.startswith("##") if hashes else p[:1] in _SPACES for p in pieces])
        self._letter_first = np.array([piece[:1].isalnum() for piece in bare])
        self._letter_last = np.array([piece[-1:].isalnum() for piece in bare])

    def words(self, ids: np.ndarray) -> np.ndarray:
        """(tokens,) the number of the word that each token belongs to, rising."""
        joined = ~self._begins[ids[1:]] & self._letter_first[ids[1:]] & self._letter_last[ids[:-1]]
        joined &= self.ordinary[ids[:-1]]
        return np.concatenate([[0], (~joined).cumsum()])
