"""Where the time of a training step goes, by Lightning's own marks around each part of it, while a real fit runs."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import Profiler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_fm.plan.devices import others
from lit_fm.plan.ledger import bytes_of, flops_of, state_of

DATA, FORWARD, BACKWARD, OPTIMIZER, OTHER = "data", "forward", "backward", "optimizer", "logging and other"
PHASES = (DATA, FORWARD, BACKWARD, OPTIMIZER, OTHER)
_MARKS = {
    "train_dataloader_next": DATA,
    "batch_to_device": DATA,
    "transfer_batch_to_device": DATA,
    "training_step": FORWARD,
    "backward": BACKWARD,
    "optimizer_step": OPTIMIZER,
    "on_before_optimizer_step": OPTIMIZER,
    "configure_gradient_clipping": OPTIMIZER,
    "optimizer_zero_grad": OPTIMIZER,
    "lr_scheduler_step": OPTIMIZER,
}
WARM_UP = 3
TRACED = 2


class Clock(Profiler):
    """Each moment belongs to the innermost part that is marked, so that the phases add up to all of the time.

    A GPU is waited for wherever a phase ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spent = dict.fromkeys(PHASES, 0.0)
        self._open: list[str] = []
        self._since = time.perf_counter()
        self._named: Any = None

    @property
    def phase(self) -> str:
        """The one that goes on."""
        return self._open[-1] if self._open else OTHER

    def start(self, action_name: str) -> None:
        owner, _, called = action_name.rpartition(".")
        self._turn([*self._open, OTHER if owner.startswith("[Callback]") else _MARKS.get(called, self.phase)])

    def stop(self, action_name: str) -> None:
        self._turn(self._open[:-1])

    def _turn(self, opened: list[str]) -> None:
        before = self.phase
        if before == (opened[-1] if opened else OTHER):
            self._open = opened
            return
        self.lap()
        self._open = opened
        if self._named:
            self.name_phase()

    def lap(self) -> float:
        """Count the time until now for the phase that goes on; gives what the clock shows."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.spent[self.phase] += now - self._since
        self._since = now
        return now

    def name_phase(self, on: bool = True) -> None:
        """In a trace, from here on."""
        if self._named:
            self._named.__exit__(None, None, None)
        self._named = torch.profiler.record_function(f"phase: {self.phase}") if on else None
        if self._named:
            self._named.__enter__()


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products and attention, by phase, and those of logits.

    Args:
        vocabulary: what a dimension of each product of logits is.
    """

    def __init__(self, clock: Clock, vocabulary: int) -> None:
        super().__init__()
        self.clock, self.vocabulary = clock, vocabulary
        self.counted: Counter[str] = Counter()
        self.logits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if flops := flops_of(func, args, kwargs or {}, made):
            self.counted[self.clock.phase] += flops
            self.logits += flops * any(
                self.vocabulary in leaf.shape for leaf in tree_leaves(args) if hasattr(leaf, "shape")
            )
        return made


@dataclass
class Measured:
    """Of the steps that were measured, neither warm-up nor traced ones."""

    steps: list[float] = field(default_factory=list)
    """Seconds of each."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of all of them, by phase."""
    tokens: int = 0
    """In the batches of this rank, padding left out."""
    flops: float = 0.0
    """Operations for a token, from the step after them."""
    logits: float = 0.0
    """Their share of the operations."""
    others: float = 0.0
    """Cores that others took meanwhile."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes of tensors at the peak of each phase of a traced step."""


class Phases(L.Callback):
    """Leads the clock through a fit: steps to warm up, to measure, one to count operations in, and traced ones.

    Args:
        steps: to measure.
        trace: the file to write.
    """

    def __init__(self, steps: int, trace: Path) -> None:
        self.clock, self.steps, self.trace = Clock(), steps, trace
        self.found = Measured()
        self._made = self._counted = 0
        self._begun = 0.0

    @property
    def all_steps(self) -> int:
        """Of the fit."""
        return WARM_UP + self.steps + 1 + TRACED

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.last = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        place = self._made - WARM_UP
        tokens = batch["tokens"]
        self.found.tokens += tokens if 0 <= place < self.steps else 0
        self._counted += tokens if place == self.steps else 0
        if trainer.global_step == self.last:
            return
        self.last = trainer.global_step
        now = self.clock.lap()
        if 0 <= place < self.steps:
            self.found.steps.append(now - self._begun)
        self._made += 1
        self._next(place + 1, pl_module)
        self._begun = self.clock.lap()

    def _next(self, place: int, objective: Any) -> None:
        """What begins with this step, counted from the first that is measured."""
        if place == 0:
            self.clock.spent, self._others = dict.fromkeys(PHASES, 0.0), others()
        elif place == self.steps:
            self.found.seconds = dict(self.clock.spent)
            self.found.others = max(0.0, others() - self._others) / sum(self.found.steps)
            head = objective.network.get_output_embeddings()
            self._operations = Operations(self.clock, head.weight.shape[0] if head is not None else 0)
            self._operations.__enter__()
        elif place == self.steps + 1:
            self._operations.__exit__(None, None, None)
            flops = sum(self._operations.counted.values())
            self.found.flops, self.found.logits = flops / self._counted, self._operations.logits / max(flops, 1)
            self._begin_trace(objective)
        elif place == self.steps + 1 + TRACED:
            self._end_trace()

    def _begin_trace(self, objective: Any) -> None:
        optimizer = objective.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()  # a profiler knows what is freed only of what was made under it
        parts = [*objective.network.parameters(), *objective.network.buffers(), *state_of(optimizer)]
        self._base = bytes_of(parts)
        kinds = torch.profiler.supported_activities()
        self._profile = torch.profiler.profile(activities=kinds, profile_memory=True)
        self._profile.__enter__()
        self.clock.name_phase()

    def _end_trace(self) -> None:
        self.clock.name_phase(False)
        self._profile.__exit__(None, None, None)
        self._profile.export_chrome_trace(str(self.trace))
        recorded: Any = self._profile.profiler
        self.found.memory = peaks(recorded.kineto_results.events(), self._base)


def peaks(events: list[Any], base: int) -> dict[str, int]:
    """Bytes at the peak of each phase.

    Args:
        events: of a trace in which phases have names.
        base: bytes that were there when it began.
    """
    mark = "phase: "
    named = {e.start_ns(): e.name()[len(mark) :] for e in events if e.name().startswith(mark)}
    device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    moves = [
        (e.start_ns(), e.nbytes())
        for e in events
        if e.name() == "[memory]" and device.type in str(e.device_type()).lower()
    ]
    found, phase, now = dict.fromkeys(PHASES, 0), OTHER, base
    for when, change in sorted([*((at, 0) for at in named), *moves]):
        phase = named.get(when, phase)
        now += change
        found[phase] = max(found[phase], now)
    return found
