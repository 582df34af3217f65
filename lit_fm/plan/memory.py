"""What a run will take, found by making its steps without numbers: memory at the peak by kind, and operations.

The objective itself is built on shapes alone, and makes two optimizer steps under `FakeTensorMode`: nothing is loaded, and
no formula has to know the architecture or the adaptation. The second step is the one that counts: optimizer state is there.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lit_fm.plan.faked import fake, faked
from lit_fm.plan.ledger import BUFFERS, GRADIENTS, LEARNABLE, STATE, WEIGHTS, Ledger, bytes_of, state_of

Batch = dict[str, Any]
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Plan(NamedTuple):
    """Of one rank, and one optimizer step of it."""

    peak: dict[str, int]
    """Bytes by kind, at the moment when they are the most together."""
    flops: int
    """Operations of forward and backward passes, of all micro-batches."""
    tokens: int
    """In these micro-batches, padding left out."""
    parameters: int
    learnable: int
    checkpoint: int
    """Bytes of what learns, and of the optimizer's state."""
    export: int
    """Bytes of what learns."""

    @property
    def bytes(self) -> int:
        """At the peak."""
        return sum(self.peak.values())


def plan(objective: Any, batches: Callable[[], list[Batch]], precision: str = "32-true") -> Plan:
    """What an optimizer step over these micro-batches takes. The objective is used up.

    Args:
        batches: gives the micro-batches, as `collate` does, once the network is there.
        precision: the trainer's.
    """
    objective.network = network = outline(objective)
    micro = batches()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    objective.network = faked(network, mode)
    parameters = [*network.parameters()]
    learns = [p for p in parameters if p.requires_grad]
    with mode:
        ledger = Ledger()
        ledger.call([p for p in parameters if not p.requires_grad], WEIGHTS)
        ledger.call([part for p in parameters for part in _constants(p)], WEIGHTS)
        ledger.call(learns, LEARNABLE)
        ledger.call(network.buffers(), BUFFERS)
        given = [_given(batch, mode) for batch in micro]
        optimizer = objective.optimizer(objective.groups())
        with FlopCounterMode(display=False) as counter:  # in the first step, since counting keeps tensors alive
            _step(objective, given, optimizer, precision, ledger)
        ledger.begin()
        with ledger:
            _step(objective, given, optimizer, precision, ledger)
        state = bytes_of(state_of(optimizer))
    return Plan(
        ledger.peak,
        counter.get_total_flops(),
        sum(batch["tokens"] for batch in micro),
        sum(map(_count, parameters)),
        sum(p.numel() for p in learns),
        bytes_of(learns) + state,
        bytes_of(learns),
    )


def outline(objective: Any) -> Any:
    """The objective's adapted network, on the meta device."""
    with torch.device("meta"):
        return objective.make()


def _constants(parameter: Any) -> list[Tensor]:
    state = getattr(parameter, "quant_state", None)
    return [] if state is None else [state.absmax, state.code, state.state2.absmax, state.state2.code]


def _count(parameter: Any) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


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
        ledger.call([p.grad for p in learns if p.grad is not None], GRADIENTS)
    optimizer.step()
    ledger.call(state_of(optimizer), STATE)
