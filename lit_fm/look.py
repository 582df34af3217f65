"""The data and the cost of a run, without the run: `data show`, `data report` and `plan`."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from lit_fm.arguments import expand
from lit_fm.cli import LOOKS, fail
from lit_fm.data.base import ObjectiveData
from lit_fm.data.report import report
from lit_fm.data.show import show
from lit_fm.plan.devices import find_device
from lit_fm.plan.memory import Plan
from lit_fm.plan.ranks import ranks_of
from lit_fm.plan.verb import advice, as_json, devices_of, facts_of, planned, table_of
from lit_fm.screen import console
from lit_fm.trainer_cli import CLI


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

    def _set_seed(self) -> None:
        """Silently: a search plans the run many times."""
        L.seed_everything(self._get(self.config, "seed_everything"), workers=True, verbose=False)

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
        parser.add_argument(
            "--devices", type=int | None, default=None, help="ranks; in parts (FSDP2) unless trainer.strategy says how"
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
        on_gpu = self._get(self.config_init, "device") != "cpu"
        self.ranks = ranks_of(trainer, self._get(self.config_init, "devices"), on_gpu)
        if length:
            self.model.borrow_tokenizer()
        data = self.datamodule if length else self._prepared("fit")
        self.found = planned(self.model, data, trainer, length, self.ranks)
        if self.shown:
            self._show_plan(data, trainer, length)

    def _show_plan(self, data: Any, trainer: Any, length: int | None) -> None:
        name = self._get(self.config_init, "device")
        device, window = find_device(name) if name else None, trainer.get("accumulate_grad_batches") or 1
        if self._get(self.config_init, "json"):
            print(as_json(self.found, device))
            return
        epochs, most = trainer.get("max_epochs"), trainer.get("max_steps") or -1
        found = None if length else data.optimizer_steps(window, epochs if (epochs or -1) > 0 else None)
        ends = [most, found and -(-found // self.ranks.batches)]
        steps = min((n for n in ends if n and n > 0), default=None)
        speeds = devices_of(self.found, str(trainer.get("precision") or "32-true"), steps, device, self.ranks.world)
        for part in (table_of(self.found, self.ranks), *facts_of(self.found), speeds):
            console.print(part)
        for line in advice(self.found, device, data.batch_size, window, self.again) if device else ():
            console.print(line, markup=False)


def plan(args: list[str]) -> None:
    """What a run would take, without it."""
    name, rest = expand(["--json=true" if arg == "--json" else arg for arg in args])
    sys.argv = [sys.argv[0], "plan", *rest]
    Planning(rest, name)


def look_at_data(args: list[str]) -> None:
    """The data of a run, without the run."""
    if not args or args[0] not in LOOKS:
        ways = ", ".join(f"data {name}" for name in LOOKS)
        fail(f"data {' '.join(args[:1])}: expected one of {ways}, such as data show --config lora.yaml.", code=2)
    name, rest = expand(args[1:])
    rest = [f"--number{arg[2:]}" if arg == "-n" or arg.startswith("-n=") else arg for arg in rest]
    sys.argv = [sys.argv[0], "data", args[0], *rest]
    Look(args[0], rest, name)
