"""LightningCLI, with one parser only (the verb's), our defaults, and errors in a line or two."""

import inspect
import logging
import re
import warnings
from importlib import import_module
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_fm import _PUBLIC
from lit_fm.cli import fail
from lit_fm.data.base import ObjectiveData
from lit_fm.data.corpus import TextCorpus
from lit_fm.data.instruct import InstructionData
from lit_fm.evaluate.score import Score
from lit_fm.nearest import did_you_mean
from lit_fm.objectives.base import Objective
from lit_fm.objectives.causal import CausalLM
from lit_fm.run import Run
from lit_fm.screen import progress

SHIPPED = (CausalLM, InstructionData, TextCorpus)  # imported here, so that class names stand without their module
LEAF = re.compile(
    r"Option '(?P<option>[^']+)' is not accepted"
    r"|(?P<expected>Expected an? (?!<class 'NoneType'>|dot import|path).*)"
    r"|Expected a dot import path string: (?P<name>.+)"
    r"|(?P<missing>(?:module '.*' has no attribute|No module named) .*)"
)


class Parser(LightningArgumentParser):
    """Says what is wrong in one message, instead of a dump of all that was tried."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        fail(explain(message, self), code=2)


def explain(message: str, parser: Any) -> str:
    """The innermost cause in a parser's message: which key, what came, and the nearest right name."""
    keys: list[str] = []
    owner = None
    for line in message.splitlines():
        if found := re.search(r'Parser key "([^"]+)"', line):
            keys.append(found[1])
        elif found := re.search(r"Problem with given class_path '([^']+)'", line):
            owner = found[1]
        elif found := LEAF.search(line):
            return _cause(".".join(keys), owner, found)
    if found := re.search(r"unrecognized arguments: --([^\s=]+)", message, re.IGNORECASE):
        return f"there is no option --{found[1]}: {did_you_mean(found[1], _options(parser))}"
    if found := re.search(r"Key '([^']+)' is not (?:expected|accepted)|No action for key [\"']([^\"']+)", message):
        return f"there is no key {found[1] or found[2]!r}: {did_you_mean(found[1] or found[2], _options(parser))}"
    if "arguments are required" in message:
        lacking = message.rpartition(":")[2].strip()
        return f"{lacking} must be given: start from a config, such as --config lora.yaml."
    return message.strip()


def _cause(key: str, owner: str | None, found: re.Match) -> str:
    if option := found["option"]:
        module, _, name = (owner or "").rpartition(".")
        known = inspect.signature(getattr(import_module(module), name)).parameters if owner else ()
        return f"{key}.{option}: there is no such setting: {did_you_mean(option, known)}"
    if wrong := found["name"] or (found["missing"] and owner):
        return f"{key}: there is no class {wrong!r}: {did_you_mean(wrong.rpartition('.')[2], _PUBLIC)}"
    kind = re.sub(r"<class '([^']+)'>", r"\1", found["expected"])
    return f"{key}: {kind}"


def _options(parser: Any) -> list[str]:
    return [action.dest for action in parser._actions if action.dest != "help"]


class CLI(LightningCLI):
    """An objective, data for it, a trainer, and the run."""

    def __init__(self, verb: str, args: list[str], name: str) -> None:
        self.verb, self.run_name = verb, name
        super().__init__(
            Objective,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False, verb: {"allow_abbrev": False}},
            auto_configure_optimizers=False,
            save_config_callback=None,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            trainer_defaults={
                "use_distributed_sampler": False,  # our plan deals the batches
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "log_every_n_steps": 1,
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the verb that was typed: a parser for each of the others would cost its time."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Score, "score")
        parser.add_lightning_class_args(Run, "run")
        parser.set_defaults({"run.name": self.run_name})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args([self.verb, *args])

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's way: hyper-parameters in a checkpoint would win over what was typed."""

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        run: Run = self._get(self.config_init, "run")
        trainer = self._get(self.config_init, "trainer")
        text = self._parser(self.verb).dump(self.config[self.verb], skip_none=False)
        loggers, checkpoints = run.open(text, trainer.get("logger"), self._get(self.config_init, "score"))
        if trainer.get("enable_progress_bar") is not False:
            shown = progress()
            trainer["enable_progress_bar"] = isinstance(shown, ProgressBar)
            checkpoints = [shown, *checkpoints]
        trainer["callbacks"] = [*(trainer.get("callbacks") or []), *checkpoints]
        return super().instantiate_trainer(logger=loggers or False, default_root_dir=str(run.folder), **kwargs)


def run(verb: str, args: list[str], name: str) -> None:
    """Parse, build, and call the trainer."""
    quiet()
    CLI(verb, args, name)


def quiet() -> None:
    """Leave out what Lightning says of every run, so that what matters is seen."""
    for logger in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*`training_step` returned.*",
        ".*Trying to infer the `batch_size`.*",
    ):
        warnings.filterwarnings("ignore", text)


__all__ = ["CLI", "ObjectiveData", "run"]
