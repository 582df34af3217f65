"""How much of which part an epoch takes: a pure function of seed and epoch."""

from collections.abc import Sequence

import numpy as np


class Mixture:
    """Parts of data, numbered one after the other, mixed by weights.

    With weights, an epoch is as long as the part that runs out first allows; of each other part it takes as many items as
    its weight says, and the next epoch goes on where it stopped. Nothing of a part is seen again before all of it was.

    Args:
        counts: items in each part.
        weights: shares of the parts among the items of an epoch, in any unit; without them, all items.
    """

    def __init__(self, counts: Sequence[int], weights: Sequence[float] | None, seed: int) -> None:
        self.counts, self.seed = list(counts), seed
        self.taken = list(counts)
        if weights is not None:
            unit = min(count / weight for count, weight in zip(counts, weights, strict=True) if weight)
            self.taken = [max(1, round(unit * weight)) if weight else 0 for weight in weights]

    def __len__(self) -> int:
        return sum(self.taken)

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
        """Items `start` to `start + number` of a part's endless sequence: one permutation of it after the other."""
        count, found = self.counts[part], []
        for turn in range(start // count, (start + number - 1) // count + 1):
            order = np.random.default_rng([self.seed, part, turn]).permutation(count)
            found.append(order[max(0, start - turn * count) : start + number - turn * count])
        return np.concatenate(found)
