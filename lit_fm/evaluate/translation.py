"""BLEU and chrF over all of a test set, in 0..100, as sacrebleu computes them where nothing is set.

BLEU: Papineni et al. 2002; chrF: Popović 2015. torchmetrics' own differ on short texts: its BLEU is not smoothed, its chrF
is the mean of the F-scores of each order. Of its BLEU, the counts are taken.
"""

import math
from collections import Counter

import numpy as np

ORDER = 6  # of chrF's n-grams


def bleu(predictions: list[str], references: list[list[str]]) -> float:
    """Four-gram BLEU of text in mteval's tokens (`13a`); the nth order without a hit is granted 2^-n of one."""
    from torchmetrics.text import SacreBLEUScore

    counts = SacreBLEUScore()
    nearest = [  # of references as near in length, the shorter counts, so it comes first
        sorted((text.rstrip() for text in right), key=lambda text: len(counts.tokenizer(text))) for right in references
    ]
    counts.update([text.rstrip() for text in predictions], nearest)
    hits, of = counts.numerator.tolist(), counts.denominator.tolist()
    if not any(hits) or not all(of):
        return 0.0
    missed, logs = 0, []
    for hit, number in zip(hits, of, strict=True):
        missed += not hit
        logs.append(math.log((hit or 2.0**-missed) / number))
    short = min(0.0, 1 - float(counts.target_len / counts.preds_len))
    return 100 * math.exp(short + sum(logs) / len(logs))


def chrf(predictions: list[str], references: list[list[str]]) -> float:
    """F2 of character n-grams, white space left out; of several references the one that a text is nearest to."""
    total = np.zeros((ORDER, 3))
    for text, right in zip(predictions, references, strict=True):
        guessed = _ngrams(text)
        total += max((_shared(guessed, _ngrams(other)) for other in right), key=_f2)
    return 100 * _f2(total)


def _ngrams(text: str) -> list[Counter[str]]:
    text = "".join(text.split())
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, ORDER + 1)]


def _shared(guessed: list[Counter[str]], given: list[Counter[str]]) -> np.ndarray:
    """(orders, 3): how many n-grams are guessed (where any could be right), are given, and are both."""
    pairs = zip(guessed, given, strict=True)
    return np.array([(guess.total() * bool(right), right.total(), (guess & right).total()) for guess, right in pairs])


def _f2(counts: np.ndarray) -> float:
    guessed, given, both = counts[(counts[:, :2] > 0).all(1)].T
    if not both.sum():
        return 0.0
    precision, recall = (both / guessed).mean(), (both / given).mean()
    return float(5 * precision * recall / (4 * precision + recall))
