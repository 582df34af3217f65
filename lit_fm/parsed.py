"""A fit that is only understood: its objective and data are made, so that they check their settings; nothing runs."""

from typing import Any

import yaml

from lit_fm.arguments import expand
from lit_fm.trainer_cli import CLI


class Parsed(CLI):
    """The options of a fit, checked.

    Args:
        args: as they are typed.
        name: of the run, where no config gives it one.
    """

    def __init__(self, args: list[str], name: str = "") -> None:
        known, expanded = expand(args, "fit")
        super().__init__("fit", expanded, name or known)

    @property
    def settings(self) -> dict[str, Any]:
        """The whole resolved config."""
        return yaml.safe_load(self.resolved())

    def _set_seed(self) -> None:
        """Nothing is drawn."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing runs."""
