"""LightningCLI, with one parser only (the verb's), our defaults, and errors in a line or two."""

import json
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from lit_fm.checkpoint_io import VerifiedCheckpointIO
from lit_fm.cli import fail
from lit_fm.data.base import ObjectiveData
from lit_fm.data.corpus import TextCorpus
from lit_fm.data.instruct import InstructionData
from lit_fm.data.mixture import Mixture
from lit_fm.data.report import report
from lit_fm.data.show import show
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
from lit_fm.plan.devices import find_device
from lit_fm.plan.memory import Plan
from lit_fm.plan.verb import advice, as_json, devices_of, facts_of, planned, table_of
from lit_fm.results import Results
from lit_fm.run import Run
from lit_fm.screen import Steps, console

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
        parser.set_defaults({"run.name": self.run_name})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args([self.verb, *args])

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's way: hyper-parameters in a checkpoint would win over what was typed."""

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        run: Run = self._get(self.config_init, "run")
        trainer = self._get(self.config_init, "trainer")
        if not isinstance(trainer, dict | Namespace):
            raise ValueError(
                f"trainer: expected settings of the Trainer, got {trainer!r}: write trainer: {{max_steps: 100}}."
            )
        settings = self.config[self.verb].clone()
        settings.run.folder = None  # it says where, not what
        text = self._parser(self.verb).dump(settings, skip_none=False)
        score = self._get(self.config_init, "score")
        if self.verb == "fit":
            run.keep.wishes.listen()
            run.start = self._get(self.config_init, "ckpt_path")
            if trainer.get("enable_checkpointing") is False and (run.keep.every or run.keep.wishes.stop_after):
                raise ValueError(
                    "trainer.enable_checkpointing: run.save_every and run.stop_after need checkpoints: set it true."
                )
        loggers, checkpoints = run.open(self.verb, text, trainer.get("logger"))
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
            Results(run, score),
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


class Look(CLI):
    """The data of a run, as `data show` and `data report` want it: no trainer, no run folder, no network."""

    def __init__(self, kind: str, args: list[str], name: str) -> None:
        self.kind = kind
        super().__init__("fit", args, name)
        getattr(self, f"_{kind}")()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        if self.kind == "show":
            parser.add_argument("--number", type=PositiveInt, default=3, help="how many examples; also -n")
            parser.add_argument("--split", type=str, default="train", help="train, validation or test")
        else:
            parser.add_argument("--out", type=str, default=f"data-report/{self.run_name}", help="the report's folder")
            parser.add_argument("--words", type=PositiveInt, default=13, help="in a row that splits must not share")

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        """The data is looked at instead."""

    def _prepared(self, *stages: str) -> Any:
        data = self.datamodule
        if not isinstance(data, ObjectiveData):
            raise ValueError(
                f"data show and data report know InstructionData, Mixture and TextCorpus, not {type(data)}."
            )
        data.attach(self.model)
        for stage in stages:
            if stage != "test" or data.has("test"):
                data.setup(stage)
        return data

    def _show(self) -> None:
        split = self._get(self.config_init, "split")
        show(
            self._prepared("test" if split == "test" else "fit"),
            self.model,
            self._get(self.config_init, "number"),
            split,
        )

    def _report(self) -> None:
        folder, words = (self._get(self.config_init, name) for name in ("out", "words"))
        report(self._prepared("fit", "test"), self.model, self._get(self.config_init, "trainer"), Path(folder), words)


class Planning(Look):
    """What a run would take: its network is only outlined."""

    def __init__(self, args: list[str], name: str, shown: bool = True) -> None:
        self.args, self.shown = args, shown
        super().__init__("plan", args, name)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        CLI.add_arguments_to_parser(self, parser)
        parser.add_argument(
            "--device", type=str | None, default=None, help="that it must fit: a100-80, rtx4090, cpu, ..."
        )
        parser.add_argument("--length", type=int | None, default=None, help="of rows of text; no data is read")
        parser.add_argument("--json", type=bool, default=False, help="print bytes and operations as JSON")

    def again(self, changes: dict[str, Any], rows: int) -> Plan:
        """The plan with changed settings."""
        more = [part for key, value in changes.items() for part in (f"--{key}", json.dumps(value).strip('"'))]
        more += ["--data.init_args.batch_size", str(rows)]
        return Planning([*self.args, *more], self.run_name, shown=False).found

    def _plan(self) -> None:
        trainer, length = self._get(self.config_init, "trainer"), self._get(self.config_init, "length")
        if length is not None and length < 8:
            raise ValueError(f"--length is {length}, expected at least 8 tokens: raise it.")
        if length:
            self.model.borrow_tokenizer()
        data = self.datamodule if length else self._prepared("fit")
        self.found = planned(self.model, data, trainer, length)
        if self.shown:
            self._show_plan(data, trainer, length)

    def _show_plan(self, data: Any, trainer: Any, length: int | None) -> None:
        name = self._get(self.config_init, "device")
        device, window = find_device(name) if name else None, trainer.get("accumulate_grad_batches") or 1
        if self._get(self.config_init, "json"):
            print(as_json(self.found, device))
            return
        epochs, most = trainer.get("max_epochs"), trainer.get("max_steps") or -1
        ends = [most, None if length else data.optimizer_steps(window, epochs if (epochs or -1) > 0 else None)]
        steps = min((n for n in ends if n and n > 0), default=None)
        speeds = devices_of(self.found, str(trainer.get("precision") or "32-true"), steps, device)
        for part in (table_of(self.found), *facts_of(self.found), speeds):
            console.print(part)
        for line in advice(self.found, device, data.batch_size, window, self.again) if device else ():
            console.print(line, markup=False)


def look(kind: str, args: list[str], name: str) -> None:
    """Parse, prepare, and show, report or plan."""
    if kind == "plan":
        Planning(args, name)
    else:
        Look(kind, args, name)


def run(verb: str, args: list[str], name: str) -> None:
    """Parse, build, and call the trainer."""
    CLI(verb, args, name)
