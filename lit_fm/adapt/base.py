"""The contract of an adaptation, and the plainest one."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lit_fm.adapt.unquantised import unquantised

Bits = Literal[4, 8]


class Adaptation(ABC):
    """Decides which weights of a backbone learn, and puts new ones in. Touches no network before `apply`."""

    exports_as = "adapter"
    """The folder of a run that `export` writes: `model` for a whole network, `adapter` for what was put in."""
    bits: Bits | None = None
    """The backbone is loaded quantised to so many bits a weight."""
    virtual_tokens = 0
    """Positions of the context that new vectors take."""
    tasks: tuple[str, ...] = ()
    """Tasks that have weights of their own: each row then says which it is of."""
    checkpoints_activations = True
    """Whether it works where activations are computed again in the backward pass."""
    splits = False
    """Whether it is known how it is parted within a matrix, for tensor parallel."""
    unmergeable: str | None = "its layers are not linear: they stay beside the backbone's"
    """Why what learnt cannot be folded into the backbone's own weights; None where it can."""

    task_type: str | None = None
    """What peft calls the objective (`CAUSAL_LM`, ...), where it has a word for it."""
    new: tuple[str, ...] = ()
    """Modules with random weights, such as a head: they always learn, and are exported."""
    new_tokens: tuple[int, ...] = ()
    """Rows of the embeddings with random weights."""
    learns_new_tokens = False
    """Whether it can let these rows learn and export them."""

    def apply(
        self, network: Any, task_type: str | None, new: Sequence[str] = (), new_tokens: Sequence[int] = ()
    ) -> Any:
        """The network that will be trained; `requires_grad` tells what learns. Its output is as before.

        Raises:
            ValueError: a setting does not fit this network.
        """
        if new_tokens and not self.learns_new_tokens:
            raise ValueError(
                f"model.new_tokens: {type(self).__name__} would leave their vectors random: use LoRA, Full, or Selective "
                "with learn: [new-tokens]."
            )
        self.task_type, self.new, self.new_tokens = task_type, tuple(new), tuple(new_tokens)
        with unquantised():
            return self.change(network)

    @abstractmethod
    def change(self, network: Any) -> Any:
        """Freeze what is not to learn, and put new weights in."""

    @abstractmethod
    def export(self, network: Any, folder: Path, base: str) -> None:
        """Write what learnt, as safetensors. `base`: what the backbone is called."""

    def check(self, activation_checkpointing: bool, from_scratch: bool) -> None:
        """Refuse settings of an objective that this cannot go with.

        Raises:
            ValueError: with the reason.
        """
        kind = type(self).__name__
        if activation_checkpointing and not self.checkpoints_activations:
            raise ValueError(
                f"model.activation_checkpointing: {kind} puts keys and values into a cache, and would twice: leave one out."
            )
        if from_scratch and self.exports_as != "model":
            raise ValueError(
                f"model.from_scratch: {kind} keeps only what it learns, and the random backbone would be lost: "
                "use lit_fm.Full."
            )

    def task_of(self, example: dict) -> int | None:
        """The number of an example's task, where tasks have weights of their own; -1 for one that is not named."""
        if not self.tasks:
            return None
        return self.tasks.index(example["task"]) if example.get("task") in self.tasks else -1

    def tasks_of(self, examples: list[dict]) -> list[int] | None:
        """The same, of examples to answer.

        Raises:
            ValueError: one is of no task that is known.
        """
        numbers = [self.task_of(example) for example in examples]
        if -1 in numbers:
            task, known = examples[numbers.index(-1)].get("task"), ", ".join(self.tasks)
            raise ValueError(f"a row is of the task {task!r}, expected one of {known}: say its task.")
        return numbers if self.tasks else None  # type: ignore[return-value]

    @property
    def unshardable(self) -> str | None:
        """Why ranks cannot keep parts of its weights; None where they can."""
        return f"weights of {self.bits} bits do not part" if self.bits else None

    # What happens in training besides the loss.

    def rates(self, network: Any) -> dict[str, float]:
        """Factors on the learning rate, by name of the weight; 1 where nothing is said."""
        return {}

    def begin(self, network: Any, steps: int) -> None:  # noqa: B027
        """Training begins, and will take so many optimizer steps."""

    def penalty(self, network: Any) -> Tensor | float:
        """Added to the mean loss."""
        return 0.0

    def before_step(self, network: Any, step: int) -> None:  # noqa: B027
        """Gradients are there; `step` optimizer steps were made."""

    def after_step(self, network: Any, step: int) -> None:  # noqa: B027
        """The optimizer made its `step`-th step; gradients are still there."""

    # What can be seen of it.

    def prompt_vectors(self, network: Any) -> Tensor | None:
        """The vectors that stand before the embedded text, as they are now: (tokens, width); None where there are none."""
        return None

    def state(self, network: Any) -> dict[str, Any]:
        """What a checkpoint must hold besides weights."""
        return {}

    def load_state(self, network: Any, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from what `state` gave."""

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that it was made with."""
        parameters = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in parameters}


class Full(Adaptation):
    """Every weight learns."""

    exports_as = "model"
    unmergeable = None
    learns_new_tokens = True
    splits = True

    def change(self, network: Any) -> Any:
        return network

    def export(self, network: Any, folder: Path, base: str) -> None:
        network.save_pretrained(folder)
