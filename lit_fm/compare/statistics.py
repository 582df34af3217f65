"""How sure a comparison is: intervals over test examples, tests on the same examples, several tests at once.

The bootstrap is Efron and Tibshirani's (An Introduction to the Bootstrap, 1993), paired over systems as Koehn does it
(Statistical Significance Tests for Machine Translation Evaluation, 2004). Means of examples are compared by a paired
permutation test (Fisher 1935; Dror et al. 2018, The Hitchhiker's Guide to Testing Statistical Significance in NLP).
All of it is of the seeds that were run: examples are drawn anew, seeds are not.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from lit_fm.compare.counts import Counts

RESAMPLES = 4000
FLIPS = 10_000
BLOCK = 500
"""Resamples that are in memory at a time."""
LEVEL = 0.95
Several = list[list[Counts]]
"""Of each seed of a method, of each task, counts of examples that are the same for all seeds and methods."""


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation that so few values let one expect (n - 1); None of one alone."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def times(examples: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each example is drawn in each resample, in blocks: (resamples, examples). The same for the same numbers."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, BLOCK):
        yield random.multinomial(examples, [1 / examples] * examples, size=min(BLOCK, resamples - start)).astype(float)


def point(method: Several) -> float:
    """The mean over seeds of the mean over tasks of the metric."""
    return float(np.mean([np.mean([one.value(one.each.sum(0)) for one in tasks]) for tasks in method]))


def resampled(method: Several, resamples: int = RESAMPLES) -> np.ndarray:
    """The same for resampled examples, each task's by themselves: (resamples,). Equal draws for all methods."""
    found = np.zeros(resamples)
    for task in range(len(method[0])):
        blocks = times(len(method[0][task].each), resamples, seed=task)
        parts = [np.mean([s[task].value(drawn @ s[task].each) for s in method], axis=0) for drawn in blocks]
        found += np.concatenate(parts) / len(method[0])
    return found


def interval(values: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The percentile interval of resampled values (resamples, ...): its low and its high end."""
    return np.percentile(values, [50 * (1 - level), 50 * (1 + level)], axis=0)


def permutation_test(differences: np.ndarray, flips: int = FLIPS) -> float:
    """Two-sided p of paired differences (examples,), if nothing told the two apart: signs are drawn at random.

    All signs are tried where there are no more of them than flips; else the case itself counts as one of them, so that p
    is never 0 (Phipson and Smyth 2010).
    """
    told = differences[differences != 0]
    if not len(told):
        return 1.0
    observed = abs(told.sum()) * (1 - 1e-12) - 1e-12  # sums of the same numbers round differently
    if 2 ** len(told) <= flips:
        signs = np.array(list(product((-1, 1), repeat=len(told))))
        return float(np.mean(np.abs(signs @ told) >= observed))
    random, hits = np.random.default_rng(0), 0
    for start in range(0, flips, BLOCK):
        signs = random.integers(0, 2, (min(BLOCK, flips - start), len(told))) * 2.0 - 1
        hits += int((np.abs(signs @ told) >= observed).sum())
    return (hits + 1) / (flips + 1)


def bootstrap_test(observed: float, resampled_differences: np.ndarray) -> float:
    """Two-sided p of a difference: how often resampled ones lie as far from it as it lies from none."""
    away = np.abs(resampled_differences - observed) >= abs(observed) * (1 - 1e-12) - 1e-12
    return float((away.sum() + 1) / (len(away) + 1))


def compare(one: Several, other: Several, draws: tuple[np.ndarray, np.ndarray]) -> float:
    """Two-sided p that two methods do not differ on these examples: by permutation where the metric is a mean of them.

    Args:
        draws: what `resampled` gave for the two.
    """
    parts = [_each(method) for method in (one, other)]
    if parts[0] is not None and parts[1] is not None:
        return permutation_test(parts[0] - parts[1])
    return bootstrap_test(point(one) - point(other), draws[0] - draws[1])


def _each(method: Several) -> np.ndarray | None:
    """What each example adds to the metric, averaged over seeds: (examples,). None where it is no plain mean."""
    if not all(one.mean for tasks in method for one in tasks):
        return None
    values = [np.concatenate([t.each[:, 0] / len(t.each) / len(tasks) for t in tasks]) for tasks in method]
    return np.mean(values, axis=0)


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected by Holm (1979): the smallest times their number, the next by one fewer, ..."""
    found, highest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[i]))
        found[i] = highest
    return found
