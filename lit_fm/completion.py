"""What completes keys: a JSON schema of configs, by which editors also mark slips, and a script for shells."""

import json
from importlib.util import find_spec
from typing import Any

import lightning as L
from jsonargparse import ArgumentParser
from jsonargparse._completions_jsonschema import (
    ParserJsonschema,
)  # the public way describes torch's thousand modules too
from torch.optim import Optimizer

import lit_fm
from lit_fm.adapt import Adaptation
from lit_fm.cli import fail
from lit_fm.objectives.base import Objective
from lit_fm.trainer_cli import CLI

SHELLS = ("bash", "zsh", "tcsh")
DESCRIBED = (Objective, Adaptation, L.LightningDataModule, Optimizer)
"""Whose subclasses are told with their arguments; all other classes may be anything."""
_NOT_OURS = {"pattern": r"^(lit_fm|torch)\."}
OWN = {"class_path": {"type": "string", "not": _NOT_OURS}, "init_args": {"type": "object"}}
"""A class of the user's, which is not imported here."""


class Configs(ParserJsonschema):
    """Of whole configs and of overlays, so that nothing is required."""

    def generate(self, parser: ArgumentParser) -> dict[str, Any]:
        found = super().generate(parser)
        return {key: value for key, value in found.items() if key != "required"}

    def subclass_def(self, class_type: type, action: Any) -> dict[str, Any]:
        if class_type not in DESCRIBED:
            return {}
        closed = {"type": "object", "additionalProperties": False}
        own = {**closed, "properties": OWN, "required": ["class_path"]}
        overlay = {**closed, "properties": {"init_args": {"type": "object"}}}
        return {"anyOf": [*super().subclass_def(class_type, action)["anyOf"], own, overlay]}

    def class_path_schema(self, class_path: str, action: Any) -> dict[str, Any]:
        try:
            made = super().class_path_schema(class_path, action)
        except (AttributeError, ModuleNotFoundError):  # such as Lightning makes while it runs: no path leads there
            return {"not": {}}
        arguments, short = made["properties"]["init_args"], class_path.rpartition(".")[2]
        arguments.pop("required", None)
        made["required"] = ["class_path"]
        if short in lit_fm.__all__ and class_path.startswith("lit_fm."):
            made["properties"]["class_path"] = {"enum": [f"lit_fm.{short}", class_path, short]}
        return made


class Described(CLI):
    """The parser of a fit, described in place of being used."""

    def __init__(self, shell: str | None = None) -> None:
        self.shell = shell
        super().__init__("fit", [], "run")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        parser.prog = "lit-fm"
        made = parser.get_completion_script(f"shtab-{self.shell}") if self.shell else None
        print(made or json.dumps(Configs().generate(self._parser("fit")), indent=1))
        raise SystemExit


def schema(args: list[str]) -> None:
    """The verb: a JSON schema, on standard output."""
    if args:
        fail(
            f"schema takes no options, got {args[0]!r}: write its output into a file, schema > configs/schema.json.", 2
        )
    Described()


def completion(args: list[str]) -> None:
    """The verb: a script that completes `lit-fm fit` in a shell, on standard output."""
    if len(args) != 1 or args[0] not in SHELLS:
        fail(f"completion {' '.join(args)}: expected one of {', '.join(SHELLS)}, such as completion bash > FILE.", 2)
    if not find_spec("shtab"):
        raise ValueError("completion needs shtab, which is not installed: pip install shtab.")
    Described(args[0])
