"""`profile`: a few steps of a real fit; where their time and memory go, what is wasted, and a trace to look into."""

import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser
from rich.table import Table

from lit_fm.arguments import expand
from lit_fm.durable import free, write_json
from lit_fm.evaluate.forgetting import Forgetting
from lit_fm.evaluate.neighbours import Neighbours
from lit_fm.evaluate.score import Score
from lit_fm.plan.devices import speed
from lit_fm.plan.phases import Phases
from lit_fm.plan.wastes import BUSY, largest, shares, utilisation
from lit_fm.results import Results
from lit_fm.screen import console
from lit_fm.trainer_cli import CLI

ASIDE = (Score, Forgetting, Neighbours, Results)
"""Nothing is scored or exported."""


class Profiling(CLI):
    """A fit of a few steps, which are measured."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--steps", type=PositiveInt, default=20, help="to measure, after three to warm up")
        parser.add_argument(
            "--out", type=str | None, default=None, help="the folder of trace and figures, or the run's"
        )

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        trainer = self._get(self.config_init, "trainer")
        if isinstance(trainer, dict | Namespace) and trainer.get("profiler"):
            raise ValueError("trainer.profiler: profile measures by itself: leave it out.")
        run = self._get(self.config_init, "run")
        self.phases = phases = Phases(self._get(self.config_init, "steps"), Path())
        for name, value in {"profiler": phases.clock, "max_steps": phases.all_steps, "max_epochs": -1}.items():
            trainer[name] = value
        made = super().instantiate_trainer(**kwargs)
        every: Any = made
        every.callbacks = [callback for callback in every.callbacks if not isinstance(callback, ASIDE)] + [phases]
        self.folder = Path(self._get(self.config_init, "out") or run.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        phases.trace = free(self.folder / "trace.json.gz")
        return made

    def _run_subcommand(self, subcommand: str) -> None:
        super()._run_subcommand(subcommand)
        found, trainer = self.phases.found, self.trainer
        if not trainer.is_global_zero:
            return
        if not found.memory:
            raise ValueError(
                f"the fit ended after {trainer.global_step} of {self.phases.all_steps} steps: lower --steps, or leave out "
                "what ends it."
            )
        half = trainer.precision.startswith(("bf16", "16", "transformer"))
        dtype = torch.float16 if trainer.precision.startswith("16") else torch.bfloat16 if half else torch.float32
        peak = speed(trainer.strategy.root_device, dtype)
        other = speed(trainer.strategy.root_device, torch.bfloat16) if dtype == torch.float32 else None
        wastes = largest(found, self.model, self.datamodule, peak, other)
        write_json(free(self.folder / "profile.json"), self._figures(peak, [waste._asdict() for waste in wastes]))
        self._show(peak, [waste.text for waste in wastes])

    def _figures(self, peak: float, wastes: list[dict]) -> dict[str, Any]:
        found = self.phases.found
        return {
            "steps": len(found.steps),
            "seconds_of_each": found.steps,
            "seconds": found.seconds,
            "tokens": found.tokens,
            "operations_a_token": found.flops,
            "share_of_logits": found.logits,
            "machine_peak": peak,
            "utilisation": utilisation(found, peak),
            "cores_of_others": found.others,
            "peak_bytes": found.memory,
            "wastes": wastes,
        }

    def _show(self, peak: float, wastes: list[str]) -> None:
        found, steps = self.phases.found, len(self.phases.found.steps)
        table = Table("phase", title=f"A step, of {steps}")
        for name in ("ms", "share", "peak MiB"):
            table.add_column(name, justify="right")
        for phase, share in shares(found).items():
            cells = f"{found.seconds[phase] / steps * 1e3:,.1f}", f"{share:.1%}", f"{found.memory[phase] / 2**20:,.0f}"
            table.add_row(phase, *cells)
        whole = sum(found.steps)
        table.add_section()
        table.add_row("all", f"{whole / steps * 1e3:,.1f}", "100.0%", f"{max(found.memory.values()) / 2**20:,.0f}")
        console.print(table)
        console.print(
            f"{found.tokens / whole:,.0f} useful tokens/s; median step {statistics.median(found.steps) * 1e3:,.1f} ms, "
            f"slowest {max(found.steps) * 1e3:,.1f} ms."
        )
        console.print(
            f"{utilisation(found, peak):.1%} of the {peak / 1e12:,.3g} TFLOPS that this machine reaches in products of "
            "large matrices (MFU)."
        )
        if found.others > BUSY:
            console.print(f"Others used {found.others:.1f} cores meanwhile: times may be too long, and MFU too low.")
        console.print("Largest wastes:" if wastes else "Nothing stands out as wasted.", style="bold")
        for number, text in enumerate(wastes, 1):
            console.print(f"{number}. {text}", markup=False)
        console.print(f"Trace: {self.phases.trace}, to open in https://ui.perfetto.dev", soft_wrap=True)


def profile(args: list[str]) -> None:
    """Measure some steps of a fit, which is neither scored nor kept."""
    name, rest = expand(args)
    rest += ["--run.resume", "never", "--run.save_every", "null", "--run.stop_after", "null"]
    rest += ["--trainer.limit_val_batches", "0", "--trainer.enable_checkpointing", "false"]
    if not any(arg.startswith("--run.tracker") for arg in rest):
        rest += ["--run.tracker", "none"]
    sys.argv = [sys.argv[0], "profile", *rest]
    Profiling("fit", rest, f"{name}-profile")
