"""Which examples make up which batch: a pure function of seed and epoch, dealt to the ranks."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from lit_fm.data.packing import best_fit
from lit_fm.data.shares import Shares

Packing = Literal["none", "padding-free", "best-fit"]


class Deal(NamedTuple):
    """A micro-batch of one rank: the numbers of the examples in each of its rows, and the draw of randomness in it (none in
    evaluation)."""

    rows: list[list[int]]
    draw: tuple[int, int] | None

    @property
    def numbers(self) -> list[int]:
        """Of all examples."""
        return [number for row in self.rows for number in row]


class BatchPlan(Sampler[Deal]):
    """The batches of one rank.

    Examples of like length share a batch, so that little is padding; the batches come in random order. Where nothing is
    padded, batches are random, and so of about the same number of tokens: the largest takes less memory. The rows of an
    optimizer step, `batch_size * world * window` of them, are drawn together and then dealt out: they are the same for any
    number of ranks and micro-batches with this product. A rank that is dealt nothing in the last batch gets an empty list.

    Args:
        lengths: of the examples, in tokens.
        batch_size: rows in a micro-batch of one rank.
        shuffle: off: every example once, in the given order.
        shares: which examples an epoch takes; all of them where nothing is said.
        tokens: instead of `batch_size`: so many tokens with their padding in a micro-batch of one rank, at most.
        capacity: examples are packed in rows of so many tokens.
        window: micro-batches in an optimizer step.
        start: an epoch, and how many of its batches were trained on already.
        padded: whether rows of a batch are padded to the longest.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
        shares: Shares | None = None,
        tokens: int | None = None,
        capacity: int | None = None,
        window: int = 1,
        start: tuple[int, int] = (0, 0),
        padded: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}, expected at least 1: raise it.")
        longest = capacity or int(max(lengths, default=0))
        if tokens is not None and tokens < longest:
            raise ValueError(f"data.batch_tokens is {tokens}, but a row has up to {longest}: raise it.")
        self.lengths, self.batch_size, self.seed, self.shuffle = lengths, batch_size, seed, shuffle
        self.rank, self.world, self.window, self.start, self.epoch = rank, world, window, start, start[0]
        self.shares = shares or Shares([len(lengths)], None, seed)
        self.tokens, self.capacity, self.padded = tokens, capacity, padded
        self._planned: tuple[int, list[list[list[int]]]] = (-1, [])

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    @property
    def steady(self) -> bool:
        """Whether all epochs have the same number of batches."""
        return not self.tokens and (not self.capacity or self.shares.same)

    def __len__(self) -> int:
        if self.tokens or self.capacity:
            return len(self.global_batches())
        count = len(self.shares) if self.shuffle else len(self.lengths)
        return -(-count // (self.batch_size * self.world))

    def global_batches(self) -> list[list[list[int]]]:
        """All batches of the epoch over all ranks, as rows of numbers of examples."""
        epoch = self.epoch if self.shuffle else 0
        if self._planned[0] != epoch:
            self._planned = epoch, self._batches()
        return self._planned[1]

    def _batches(self) -> list[list[list[int]]]:
        size = self.batch_size * self.world
        if not self.shuffle:
            return _chunks([[i] for i in range(len(self.lengths))], size)
        of_step = size * self.window
        rng, order = np.random.default_rng([self.seed, self.epoch]), self.shares.draw(self.epoch)
        if self.capacity:
            rows = best_fit(order.tolist(), self.lengths.tolist(), self.capacity)
            size = self.world * (self.tokens // self.capacity) if self.tokens else size
            return _chunks(
                [rows[i] for i in rng.permutation(len(rows))], size
            )  # a step's are the next `window` of them
        # Sorting within a pool, not over all, keeps batches different from epoch to epoch.
        pool = 50 * (self.world * max(1, self.tokens // int(self.lengths.mean() + 1)) if self.tokens else of_step)
        if self.padded or self.tokens:
            order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in _chunks(order, pool)])
        batches = self._by_tokens(order, self.tokens) if self.tokens else _chunks(order, of_step)
        full = len(batches) if self.tokens else len(order) // of_step
        drawn = [batches[i].tolist() for i in (*rng.permutation(full), *range(full, len(batches)))]
        dealt = drawn if self.tokens else [part for batch in drawn for part in _chunks(batch, size)]
        return [[[number] for number in batch] for batch in dealt]

    def _by_tokens(self, order: np.ndarray, most: int) -> list[np.ndarray]:
        """Cuts an order where the next example would make a rank's rows, padded to the longest, too large."""
        cuts, start, longest = [], 0, 0
        for i, length in enumerate(self.lengths[order].tolist()):
            longest = max(longest, length)
            if i - start + 1 > self.world * (most // longest):
                cuts.append(i)
                start, longest = i, length
        return np.split(order, cuts)

    def __iter__(self) -> Iterator[Deal]:
        draw = (self.seed, self.epoch) if self.shuffle else None
        trained = self.start[1] if self.epoch == self.start[0] else 0
        for batch in self.global_batches()[trained:]:
            yield Deal(batch[self.rank :: self.world], draw)

    def batch_tokens(self) -> np.ndarray:
        """Tokens of each batch of the epoch over all ranks, without padding."""
        return np.array([sum(int(self.lengths[i]) for row in batch for i in row) for batch in self.global_batches()])

    def fill(self, padded: bool = True) -> float:
        """The share of the epoch's positions that are no padding; of its rows as they are packed where there is none."""
        used = int(self.batch_tokens().sum())
        if self.capacity:
            return used / (self.capacity * sum(map(len, self.global_batches())))
        if not padded:
            return 1.0
        dealt = (rows for b in self.global_batches() for rank in range(self.world) if (rows := b[rank :: self.world]))
        return used / sum(len(rows) * max(int(self.lengths[row[0]]) for row in rows) for rows in dealt)


def _chunks(items: "np.ndarray | list", size: int) -> list:
    return [items[i : i + size] for i in range(0, len(items), size)]
