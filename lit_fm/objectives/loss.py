"""One cross-entropy for all: logits only where there is a label, sums and counts instead of means."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric


@contextmanager
def only_rows(module: nn.Module, rows: Tensor) -> Iterator[None]:
    """Inside, `module` (the head) gets of its input (batch, time, width) only the rows with these flat numbers.

    The network's own forward stays in use, with all that it does to logits, but none are computed where there is no label.
    """

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, rows), *args[1:])

    handle = module.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


class TokenMean(Metric):
    """Sum of token losses over number of tokens: the same for any batch size and number of ranks."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        exact = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("total", torch.zeros((), dtype=exact), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: int) -> None:
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        return self.total / self.count


def sum_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over targets, computed in float32. Shapes: (targets, vocabulary), (targets,)."""
    return F.cross_entropy(logits.float(), targets, reduction="sum")
