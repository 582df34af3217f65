"""What a run will take, found by making its steps without numbers: memory at the peak by kind, and operations.

The objective itself is built on shapes alone, and makes two optimizer steps under `FakeTensorMode`: nothing is loaded, and
no formula has to know the architecture or the adaptation. The second step is the one that counts: optimizer state is there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from lit_fm.plan.faked import fake, faked
from lit_fm.plan.ledger import BUCKETS, BUFFERS, GRADIENTS, LEARNABLE, STATE, WEIGHTS, Ledger, state_of
from lit_fm.plan.ranks import Ranks, first_of
from lit_fm.sharded import check_optimizer

Batch = dict[str, Any]
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Plan(NamedTuple):
    """Of the first rank, and one optimizer step of it."""

    peak: dict[str, int]
    """Bytes by kind, at the moment when they are the most together."""
    flops: int
    """Operations of forward and backward passes, of all micro-batches."""
    tokens: int
    """In these micro-batches, padding left out."""
    parameters: int
    learnable: int
    checkpoint: int
    """Bytes of what learns, and of the optimizer's state; of all ranks together."""
    export: int
    """Bytes of what learns."""

    @property
    def bytes(self) -> int:
        """At the peak."""
        return sum(self.peak.values())


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Attention as GPUs compute it: with dropout, too, its scores are never all there at once; on a CPU they are.

    The function is replaced, since a mode would not hold where activations are computed again.
    """
    given = functional.scaled_dot_product_attention

    def without_dropout(*args: Any, **kwargs: Any) -> Tensor:
        return given(*args, **{**kwargs, "dropout_p": 0.0})

    functional.scaled_dot_product_attention = without_dropout
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = given


def plan(
    objective: Any, batches: Callable[[], list[Batch]], precision: str = "32-true", ranks: Ranks = Ranks()
) -> Plan:
    """What an optimizer step over these micro-batches takes, on the first rank. The objective is used up.

    Args:
        batches: gives the rank's micro-batches, as `collate` does, once the network is there.
        precision: the trainer's.

    Raises:
        ValueError: the network cannot be parted so.
    """
    if ranks.sharded:
        ranks.sharded.check(objective.adaptation)
    objective.network = network = outline(objective)
    micro = batches()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    objective.network = faked(network, mode)
    with first_of(ranks), as_on_gpu() if ranks.on_gpu else nullcontext():
        if ranks.sharded:
            ranks.sharded.shard(network, precision)
        return _of_rank(objective, micro, precision, ranks, mode)


def _of_rank(objective: Any, micro: list[Batch], precision: str, ranks: Ranks, mode: FakeTensorMode) -> Plan:
    network = objective.network
    parameters = [*network.parameters()]
    learns = [p for p in parameters if p.requires_grad]
    optimizer = objective.optimizer(objective.groups())
    if ranks.sharded:
        check_optimizer(optimizer)
    if hasattr(optimizer, "fill_qmap"):
        optimizer.fill_qmap()  # what 8 bits stand for is computed, and needs numbers
    ledger = Ledger()
    for parameter in learns:
        parameter.register_post_accumulate_grad_hook(lambda p: ledger.call([p.grad], GRADIENTS))
    with mode:
        ledger.call([p for p in parameters if not p.requires_grad], WEIGHTS)
        ledger.call([part for p in parameters for part in _constants(p)], WEIGHTS)
        ledger.call(learns, LEARNABLE)
        ledger.call(network.buffers(), BUFFERS)
        given = [_given(batch, mode) for batch in micro]
        with ledger:
            _step(objective, given, optimizer, precision, ledger)
            ledger.begin()
            _step(objective, given, optimizer, precision, ledger)
        state = state_of(optimizer)
    if ranks.world > 1 and not ranks.sharded:
        ledger.peak[BUCKETS] = _whole_bytes(learns)  # DDP copies gradients into them
    return Plan(
        ledger.peak,
        ledger.flops,
        sum(batch["tokens"] for batch in micro),
        sum(map(_count, parameters)),
        sum(p.numel() for p in learns),
        _whole_bytes([*learns, *state]),
        _whole_bytes(learns),
    )


def outline(objective: Any) -> Any:
    """The objective's adapted network, on the meta device."""
    with torch.device("meta"):
        return objective.make()


def _constants(parameter: Any) -> list[Tensor]:
    if hasattr(parameter, "SCB"):
        return [parameter.SCB]
    state = getattr(parameter, "quant_state", None)
    return [] if state is None else [state.absmax, state.code, state.state2.absmax, state.state2.code]


def _count(parameter: Any) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def _whole_bytes(tensors: list[Tensor]) -> int:
    """With the parts that other ranks have."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _given(batch: Batch, mode: FakeTensorMode) -> Batch:
    return {key: fake(value, mode) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _step(objective: Any, batches: list[Batch], optimizer: Any, precision: str, ledger: Ledger) -> None:
    """As the trainer makes it: gradients of the step before go once the first forward pass is done."""
    half = _AUTOCAST.get(precision)
    learns = [p for group in optimizer.param_groups for p in group["params"]]
    for number, batch in enumerate(batches):
        with torch.autocast("cpu", half) if half else nullcontext():
            total, _ = objective.token_losses(batch)
        if number == 0:
            optimizer.zero_grad()
        total.backward()
        del total
        ledger.call([p.grad for p in learns if p.grad is not None], GRADIENTS)  # FSDP2 sets them by itself
    optimizer.step()
    ledger.call(state_of(optimizer), STATE)
