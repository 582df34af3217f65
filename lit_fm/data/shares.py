"""How much of which part of the data an epoch takes: a pure function of seed and epoch."""

from collections.abc import Sequence

import numpy as np


class Shares:
    """Parts of data, numbered one after the other, of which an epoch takes so many items each.

    A part is an endless sequence, one permutation of it after the other: nothing of it is seen again before all of it was,
    and each epoch goes on where the one before stopped.

    Args:
        counts: items in each part.
        taken: how many of them an epoch takes; may be more than there are. Without it, each item once.
    """

    def __init__(self, counts: Sequence[int], taken: Sequence[int] | None, seed: int) -> None:
        self.counts, self.seed = list(counts), seed
        self.taken = list(counts) if taken is None else list(taken)

    def __len__(self) -> int:
        return sum(self.taken)

    @property
    def same(self) -> bool:
        """Whether each epoch takes the same items."""
        return all(taken % count == 0 for taken, count in zip(self.taken, self.counts, strict=True) if taken)

    def draw(self, epoch: int) -> np.ndarray:
        """The items of an epoch, in a random order."""
        offsets = np.cumsum([0, *self.counts])
        parts = [
            self._part(part, epoch * taken, taken) + offset
            for part, (taken, offset) in enumerate(zip(self.taken, offsets, strict=False))
            if taken
        ]
        return np.random.default_rng([self.seed, epoch, len(self.counts)]).permutation(np.concatenate(parts))

    def _part(self, part: int, start: int, number: int) -> np.ndarray:
        """Items `start` to `start + number` of a part's sequence."""
        count, found = self.counts[part], []
        for turn in range(start // count, (start + number - 1) // count + 1):
            order = np.random.default_rng([self.seed, part, turn]).permutation(count)
            found.append(order[max(0, start - turn * count) : start + number - turn * count])
        return np.concatenate(found)


def until_one_runs_out(counts: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Items of each part by its weight, as many as the part that runs out first allows."""
    unit = min(count / weight for count, weight in zip(counts, weights, strict=True) if weight)
    return [max(1, round(unit * weight)) if weight else 0 for weight in weights]


def by_weights(counts: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Items of each part by its weight, as many together as there are."""
    unit = sum(counts) / sum(weights)
    return [max(1, round(unit * weight)) if weight else 0 for weight in weights]


def by_temperature(counts: Sequence[int], temperature: float, cap: int | None) -> list[int]:
    """Items of each part in proportion to min(count, cap)^(1/T) (T5, Raffel et al. 2020, section 3.5.2).

    As many together as there are under the cap: with T = 1, a part under the cap is taken once an epoch.
    """
    capped = [min(count, cap or count) for count in counts]
    rates = [(count / max(capped)) ** (1 / temperature) for count in capped]  # of the largest: no number is too large
    unit = sum(capped) / sum(rates)
    return [max(1, round(unit * rate)) for rate in rates]
