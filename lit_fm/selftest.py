"""Whether a run that is killed and goes on is the run that was not: `selftest resume --config lora.yaml`."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils._pytree import tree_leaves

from lit_fm.cli import fail
from lit_fm.screen import console

_KILL = "LIT_FM_SELFTEST_KILL"
PARTS = ("data", "random state", "loss", "gradients", "weights")
"""What is compared, in the order in which one hangs on the other."""


def digest(values: Iterable[Any]) -> str:
    """Of the bits of tensors and of all else as it is written."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            local = value.to_local() if hasattr(value, "to_local") else value
            found.update(local.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:16]


class Trace(L.Callback):
    """Hashes of what each training step sees and does, a line each in `trace-RANK.jsonl` of the run folder."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.path = Path(trainer.default_root_dir if trainer.is_global_zero else ".")
        self.path = Path(trainer.strategy.broadcast(str(self.path))) / f"trace-{trainer.global_rank}.jsonl"
        self.micro = 0

    def _write(self, trainer: Any, **found: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": trainer.global_step, "micro": self.micro, **found}) + "\n")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == int(os.environ.get(_KILL, -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        self._write(trainer, data=digest(tree_leaves(batch)))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self._write(trainer, **{"random state": digest([torch.get_rng_state()]), "loss": digest([loss])})
        self.micro += 1

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        learnt = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self._write(trainer, gradients=digest(learnt))
        self.micro = 0

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._write(trainer, weights=digest(p for p in pl_module.parameters() if p.requires_grad))


def resume(arguments: list[str], steps: int, at: int) -> None:
    """Train `steps` optimizer steps at a stretch, and again with a SIGKILL after `at`; both must be equal to the last bit.

    Raises:
        ValueError: they differ; says where first.
    """
    if not 0 < at < steps:
        raise ValueError(f"selftest resume: --at {at} must lie between 0 and --steps {steps}.")
    settings = [
        *("--trainer.max_steps", str(steps), "--run.save_every", str(at), "--run.tracker", "none"),
        *("--score.examples", "0", "--trainer.callbacks+", "lit_fm.selftest.Trace"),
    ]
    with tempfile.TemporaryDirectory(prefix="lit_fm-selftest-") as folder:
        traces = []
        for name, kill in (("straight", None), ("killed", at)):
            command = [sys.executable, "-m", "lit_fm", "fit", *arguments, *settings]
            command += ["--run.root", f"{folder}/{name}"]
            if kill is not None:
                _trained(command, {_KILL: str(kill)}, killed=True)
            _trained(command, {}, killed=False)
            traces.append({path.name: _lines(path) for path in Path(folder, name).rglob("trace-*.jsonl")})
    ranks = _compare(*traces)
    console.print(
        f"Equal to the last bit: {steps} steps at a stretch, and {at}, a SIGKILL, and {steps - at}. Compared: "
        f"{', '.join(PARTS)}, on {ranks} rank{'s' if ranks > 1 else ''}."
    )


def _trained(command: list[str], more: dict[str, str], killed: bool) -> None:
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    if killed == (done.returncode == 0):
        what = "ended before it was killed: more steps are needed" if killed else "failed"
        raise ValueError(f"selftest resume: the run {what}.\n{done.stderr[-2000:]}{done.stdout[-1000:]}")


def _lines(path: Path) -> dict[tuple, dict]:
    """The newest of each step and micro-batch: a step that was made again counts as it was made last."""
    found: dict[tuple, dict] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        found.setdefault((line.pop("step"), line.pop("micro")), {}).update(line)
    return dict(sorted(found.items()))


def _compare(straight: dict[str, dict], killed: dict[str, dict]) -> int:
    if straight.keys() != killed.keys():
        raise ValueError(f"selftest resume: ranks {sorted(straight)} straight, {sorted(killed)} resumed.")
    for name, places in straight.items():
        for place in sorted(places.keys() | killed[name].keys()):
            one, other = places.get(place, {}), killed[name].get(place, {})
            if differing := [part for part in PARTS if one.get(part) != other.get(part)]:
                raise ValueError(
                    f"selftest resume: the {differing[0]} differ first, at optimizer step {place[0]}, micro-batch "
                    f"{place[1]}, in {name}. What is drawn there must hang on the step alone, or be kept in a checkpoint."
                )
    return len(straight)


def selftest(args: list[str]) -> None:
    """The verb: options of fit, how many steps, and behind which of them the kill comes."""
    numbers = {"--steps": "6", "--at": "3"}
    if args[:1] != ["resume"]:
        fail("selftest: expected selftest resume --config NAME [--steps 6] [--at 3], and options of fit.", code=2)
    rest: list[str] = []
    words = iter(args[1:])
    for word in words:
        key, equals, value = word.partition("=")
        if key in numbers:
            numbers[key] = value if equals else next(words, "")
        else:
            rest.append(word)
    if not all(number.isdigit() for number in numbers.values()):
        fail(f"selftest: --steps {numbers['--steps']} and --at {numbers['--at']} must be numbers.", code=2)
    resume(rest, int(numbers["--steps"]), int(numbers["--at"]))
