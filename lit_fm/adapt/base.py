"""The contract of an adaptation, and the plainest one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Adaptation(ABC):
    """Decides which weights of a backbone learn, and puts new ones in. Touches no network before `apply`."""

    exports_as: str
    """The folder of a run that `export` writes: `model` for a whole network, `adapter` for what was put in."""

    @abstractmethod
    def apply(self, network: Any, task_type: str | None, new: Sequence[str] = ()) -> Any:
        """The network that will be trained; `requires_grad` tells what learns. Its output is as before.

        Args:
            task_type: what peft calls the objective (`CAUSAL_LM`, ...), where it has a word for it.
            new: modules with random weights, such as a head: they always learn, and are exported.

        Raises:
            ValueError: a setting does not fit this network.
        """

    def export(self, network: Any, folder: Path) -> None:
        """Write what learnt, as safetensors, in the format that `from_pretrained` reads."""
        network.save_pretrained(folder)


class Full(Adaptation):
    """Every weight learns."""

    exports_as = "model"

    def apply(self, network: Any, task_type: str | None, new: Sequence[str] = ()) -> Any:
        return network
