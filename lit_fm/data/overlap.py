"""What examples have in common: duplicates, and evaluation text that stands in training text."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy as np

COMMON = 10
"""A sequence of words in more training examples than this is held for the template's (Brown et al. 2020, appendix C)."""
_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def text_of(example: dict[str, Any]) -> str:
    """All of an example that is read or learnt."""
    turns = [str(turn.get("content") or "") for turn in example.get("messages", ())]
    turns += [json.dumps(turn["tool_calls"]) for turn in example.get("messages", ()) if turn.get("tool_calls")]
    turns += [json.dumps(example["tools"])] if example.get("tools") else []
    return "\n".join([*turns, *(example[field] for field in ("prompt", "completion", "text") if field in example)])


def duplicates(splits: dict[str, list[str]]) -> dict[str, int]:
    """Texts that stand in a split again, or in training already: by the words, upper case and white space aside."""
    known = {split: Counter(" ".join(text.lower().split()) for text in texts) for split, texts in splits.items()}
    found = {f"within {split}": sum(n - 1 for n in counts.values()) for split, counts in known.items()}
    train = known.get("train", Counter())
    across = {split: sum(n for text, n in known[split].items() if text in train) for split in known if split != "train"}
    return found | {f"of {split} in train": n for split, n in across.items()}


def _ngrams(text: str, n: int) -> np.ndarray:
    """A hash of each sequence of `n` words, upper case and punctuation aside."""
    words = np.array([crc32(word.encode()) for word in _WORD.findall(text.lower())], np.uint64)
    if len(words) < n:
        return words[:0]
    hashes = np.zeros(len(words) - n + 1, np.uint64)
    for i in range(n):  # wraps around at 2^64, as a hash may
        hashes = hashes * _FACTOR + words[i : len(words) - n + 1 + i]
    return np.unique(hashes)


def overlapping(train: Iterable[str], evaluation: list[str], n: int = 13) -> list[int]:
    """Numbers of the evaluation texts that share a sequence of `n` words with a training text.

    What more than 10 training texts have in common is left out: it is the template's.
    """
    asked = [_ngrams(text, n) for text in evaluation]
    wanted = np.unique(np.concatenate([np.zeros(0, np.uint64), *asked]))
    counts = np.zeros(len(wanted), np.int64)
    for text in train:
        grams = _ngrams(text, n)
        counts[_places(grams, wanted)] += 1
    shared = wanted[(counts > 0) & (counts <= COMMON)]
    return [number for number, grams in enumerate(asked) if len(_places(grams, shared))]


def _places(grams: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where in what is known, which is sorted, those of the sequences are that are in it."""
    places = np.searchsorted(known, grams)
    inside = places < len(known)
    places, grams = places[inside], grams[inside]
    return places[known[places] == grams]
