"""LightningCLI, with one parser only (the verb's), our defaults, and errors in a line or two."""

from typing import Any, NoReturn

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from lit_fm.checkpoint_io import VerifiedCheckpointIO
from lit_fm.cli import fail
from lit_fm.data.corpus import TextCorpus
from lit_fm.data.instruct import InstructionData
from lit_fm.data.mixture import Mixture
from lit_fm.evaluate.forgetting import Forgetting
from lit_fm.evaluate.neighbours import Neighbours
from lit_fm.evaluate.score import Score
from lit_fm.explain import explain
from lit_fm.objectives.base import Objective
from lit_fm.objectives.causal import CausalLM
from lit_fm.objectives.classify import SequenceClassification
from lit_fm.objectives.denoise import Denoising
from lit_fm.objectives.masked import MaskedLM
from lit_fm.objectives.span import SpanCorruption
from lit_fm.objectives.tag import TokenClassification
from lit_fm.results import Results
from lit_fm.run import Run
from lit_fm.screen import Steps

OBJECTIVES = (CausalLM, MaskedLM, SpanCorruption, Denoising, SequenceClassification, TokenClassification)
SHIPPED = (
    *OBJECTIVES,
    InstructionData,
    Mixture,
    TextCorpus,
)  # imported here, so that class names stand without their module


class Parser(LightningArgumentParser):
    """Says what is wrong in one message, instead of a dump of all that was tried."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser within a parser: the outer one says more
            super().error(message, ex)
        fail(explain(message, self), code=2)


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
        parser.add_lightning_class_args(Run, "run")
        parser.add_lightning_class_args(Score, "score")
        parser.add_lightning_class_args(Forgetting, "forgetting")
        parser.set_defaults({"run.name": self.run_name})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args([self.verb, *args])

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's way: hyper-parameters in a checkpoint would win over what was typed."""

    def resolved(self) -> str:
        """The whole config, as YAML."""
        settings = self.config[self.verb].clone()
        settings.run.folder = None  # it says where, not what
        return self._parser(self.verb).dump(settings, skip_none=False)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        run: Run = self._get(self.config_init, "run")
        trainer = self._get(self.config_init, "trainer")
        if not isinstance(trainer, dict | Namespace):
            raise ValueError(
                f"trainer: expected settings of the Trainer, got {trainer!r}: write trainer: {{max_steps: 100}}."
            )
        text = self.resolved()
        score, forgetting = (self._get(self.config_init, name) for name in ("score", "forgetting"))
        if self.verb == "fit":
            run.keep.wishes.listen()
            run.start = self._get(self.config_init, "ckpt_path")
            if trainer.get("enable_checkpointing") is False and (run.keep.every or run.keep.wishes.stop_after):
                raise ValueError(
                    "trainer.enable_checkpointing: run.save_every and run.stop_after need checkpoints: set it true."
                )
        loggers, checkpoints = run.open(self.verb, text, trainer.get("logger"))
        forgetting.folder = run.folder
        checkpoints = [] if trainer.get("enable_checkpointing") is False else checkpoints
        if trainer.get("enable_progress_bar") is not False:
            trainer["enable_progress_bar"] = False  # Lightning's own
            checkpoints = [Steps(), *checkpoints]
        given = trainer.get("plugins") or []
        writer: Any = VerifiedCheckpointIO()
        writer = AsyncCheckpointIO(writer) if run.save_in_background else writer
        trainer["plugins"] = [*(given if isinstance(given, list) else [given]), writer]
        trainer["callbacks"] = [
            *(trainer.get("callbacks") or []),
            Neighbours(run.folder),
            Results(run, score, forgetting),
            *checkpoints,
        ]
        root = trainer.get("default_root_dir") or str(run.folder)
        try:
            made = super().instantiate_trainer(logger=loggers or False, default_root_dir=root, **kwargs)
        except Exception:
            run.discard(loggers)
            raise
        if self.verb == "fit":  # the trainer's own handlers exit with 0 and may wait for each other for ever
            made._signal_connector.register_signal_handlers = run.keep.wishes.listen  # type: ignore[method-assign]
        return made

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "fit":  # which knows from where to go on
            kwargs["ckpt_path"] = self._get(self.config_init, "run")
        return {**kwargs, "weights_only": True}


def run(verb: str, args: list[str], name: str) -> None:
    """Parse, build, and call the trainer."""
    CLI(verb, args, name)
