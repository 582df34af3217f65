"""One cross-entropy for all: logits only where there is a label, sums and counts instead of means."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from lit_fm.randomness import collect, restore

CHUNK = 512
"""Rows of logits that are there at once."""


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


class HeadLoss:
    """The same sum, with the logits of some rows at a time, where a network ends in a plain linear head.

    Whether it does shows at the first call: what it gives must be what the head gave, and nobody wrote into it.
    """

    def __init__(self) -> None:
        self.ends: bool | None = None

    def __call__(self, network: Any, logits: Callable[[], Tensor], targets: Tensor) -> Tensor:
        head: Any = network.get_output_embeddings() if len(targets) > CHUNK and self.ends is not False else None
        if type(head) is nn.Linear and not isinstance(head.weight, DTensor) and "forward" not in vars(head):
            random = collect() if self.ends is None else None
            hidden, self.ends = _before(head, logits)
            if self.ends:
                return _OfHead.apply(hidden, head.weight, head.bias, targets, torch.is_grad_enabled())
            if random:
                restore(random)
        return sum_cross_entropy(logits(), targets)


def _before(head: Any, logits: Callable[[], Tensor]) -> tuple[Tensor | None, bool]:
    """What the head is given of the rows, while it computes the first alone; and whether its output is left alone."""
    given: list[Any] = []

    def first(hidden: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():  # whose tensors count how often they were written into
            made = F.linear(hidden[:1], head.weight, head.bias)
        given[:] = hidden, made, made._version
        return made

    head.forward = first
    try:
        found = logits()
    finally:
        del head.forward
    if not given:
        return None, False
    hidden, made, version = given
    return hidden, found is made and made._version == version


class _OfHead(torch.autograd.Function):
    """The sum of cross-entropies behind a linear layer, a chunk of rows at a time; gradients are made on the way."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, learns: bool) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        needs = [learns and needed for needed in ctx.needs_input_grad[:3]]
        given: Any = (hidden, weight, bias)
        sums = [torch.zeros_like(t, dtype=torch.float32) if n else None for t, n in zip(given, needs, strict=True)]
        cast, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            rows, wanted = hidden[start : start + CHUNK].to(dtype), targets[start : start + CHUNK, None]
            logits = F.linear(rows, cast, offset).float()
            picked, top = logits.gather(1, wanted), logits.amax(1, keepdim=True)
            norm = logits.sub_(top).exp_().sum(1, keepdim=True)
            total += (norm.log() + top - picked).sum()
            if not any(needs):
                continue
            logits.div_(norm).scatter_add_(1, wanted, -torch.ones_like(picked))
            slope = logits.to(dtype)
            if sums[0] is not None:
                sums[0][start : start + CHUNK] = slope @ cast
            if sums[1] is not None:
                sums[1] += slope.t() @ rows
            if sums[2] is not None:
                sums[2] += logits.sum(0)
        ctx.slopes = [None if t is None else t.to(g.dtype) for t, g in zip(sums, given, strict=True)]
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        slopes, ctx.slopes = (
            ctx.slopes,
            None,
        )  # so that none is held here any more, and weights can take theirs uncopied
        return *(None if slope is None else slope.mul_(gradients[0]) for slope in slopes), None, None
