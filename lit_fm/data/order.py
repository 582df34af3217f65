"""Which examples make up which batch: a pure function of seed and epoch, dealt to the ranks."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class BatchPlan(Sampler[list[int]]):
    """The batches of one rank, each a list of example numbers.

    Examples of like length share a batch, so that little is padding; the batches come in random order. A global batch of
    `batch_size * world` examples is dealt out, so the examples of an optimizer step are the same on any number of ranks.
    A rank that is dealt nothing in the last one gets an empty list.

    Args:
        lengths: of the examples, in tokens.
        batch_size: examples in a micro-batch of one rank.
        shuffle: off: every example once, in the given order.
    """

    def __init__(
        self, lengths: np.ndarray, batch_size: int, seed: int, shuffle: bool, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}, expected at least 1: raise it.")
        self.lengths, self.batch_size, self.seed, self.shuffle = lengths, batch_size, seed, shuffle
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.world))

    def global_batches(self) -> list[np.ndarray]:
        """All batches of the epoch, over all ranks."""
        n, size = len(self.lengths), self.batch_size * self.world
        if not self.shuffle:
            return [np.arange(i, min(i + size, n)) for i in range(0, n, size)]
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(n)
        pool = 50 * size  # sorting within a pool, not over all, keeps batches different from epoch to epoch
        order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in _chunks(order, pool)])
        batches = _chunks(order, size)
        full, partial = batches[: n // size], batches[n // size :]
        return [*(full[i] for i in rng.permutation(len(full))), *partial]

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches():
            yield batch[self.rank :: self.world].tolist()


def _chunks(items: np.ndarray, size: int) -> list[np.ndarray]:
    return [items[i : i + size] for i in range(0, len(items), size)]
