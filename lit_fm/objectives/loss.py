"""One cross-entropy for all: logits only where there is a label, sums and counts instead of means."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F


def rows_of(hidden: Tensor, rows: Tensor, time: int) -> Tensor:
    """Of (batch, time, width) the rows with these flat numbers. Virtual tokens in front of the text do not count."""
    return hidden[:, hidden.shape[1] - time :].reshape(-1, hidden.shape[-1]).index_select(0, rows)


@contextmanager
def only_rows(module: nn.Module, rows: Tensor, time: int) -> Iterator[None]:
    """Inside, `module` (the head) gets of its input (batch, time, width) only the rows with these flat numbers.

    The network's own forward stays in use, with all that it does to logits, but none are computed where there is no label.
    """

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (rows_of(args[0], rows, time), *args[1:])

    handle = module.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def sum_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over targets, computed in float32. Shapes: (targets, vocabulary), (targets,)."""
    return F.cross_entropy(logits.float(), targets, reduction="sum")
