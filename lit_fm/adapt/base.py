"""The contract of an adaptation, and the plainest one."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class Adaptation(ABC):
    """Decides which weights of a backbone learn, and puts new ones in. Touches no network before `apply`."""

    exports_as: str
    """The folder of a run that `export` writes: `model` for a whole network, `adapter` for what was put in."""

    @abstractmethod
    def apply(self, network: Any, task_type: str) -> Any:
        """The network that will be trained; `requires_grad` tells what learns. Its output is as before.

        Args:
            task_type: what peft calls the objective (`CAUSAL_LM`, ...).

        Raises:
            ValueError: a setting does not fit this network.
        """

    def export(self, network: Any, folder: Path) -> None:
        """Write what learnt, as safetensors, in the format that `from_pretrained` reads."""
        network.save_pretrained(folder)


class Full(Adaptation):
    """Every weight learns."""

    exports_as = "model"

    def apply(self, network: Any, task_type: str) -> Any:
        return network
