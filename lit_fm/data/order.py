"""Which examples make up which batch: a pure function of seed and epoch, dealt to the ranks."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from lit_fm.data.mixture import Mixture


class Deal(NamedTuple):
    """A micro-batch of one rank: the numbers of its examples, and the draw of randomness in it (none in evaluation)."""

    numbers: list[int]
    draw: tuple[int, int] | None


class BatchPlan(Sampler[Deal]):
    """The batches of one rank.

    Examples of like length share a batch, so that little is padding; the batches come in random order. A global batch of
    `batch_size * world` examples is dealt out, so the examples of an optimizer step are the same on any number of ranks.
    A rank that is dealt nothing in the last one gets an empty list.

    Args:
        lengths: of the examples, in tokens.
        batch_size: examples in a micro-batch of one rank.
        shuffle: off: every example once, in the given order.
        mixture: which examples an epoch takes; all of them where there is none.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
        mixture: Mixture | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}, expected at least 1: raise it.")
        self.lengths, self.batch_size, self.seed, self.shuffle = lengths, batch_size, seed, shuffle
        self.rank, self.world, self.epoch = rank, world, 0
        self.mixture = mixture or Mixture([len(lengths)], None, seed)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        count = len(self.mixture) if self.shuffle else len(self.lengths)
        return -(-count // (self.batch_size * self.world))

    def global_batches(self) -> list[np.ndarray]:
        """All batches of the epoch, over all ranks."""
        size = self.batch_size * self.world
        if not self.shuffle:
            return _chunks(np.arange(len(self.lengths)), size)
        order = self.mixture.draw(self.epoch)
        pool = 50 * size  # sorting within a pool, not over all, keeps batches different from epoch to epoch
        order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in _chunks(order, pool)])
        batches, full = _chunks(order, size), len(order) // size
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(full)
        return [*(batches[i] for i in shuffled), *batches[full:]]

    def __iter__(self) -> Iterator[Deal]:
        draw = (self.seed, self.epoch) if self.shuffle else None
        for batch in self.global_batches():
            yield Deal(batch[self.rank :: self.world].tolist(), draw)


def _chunks(items: np.ndarray, size: int) -> list[np.ndarray]:
    return [items[i : i + size] for i in range(0, len(items), size)]
