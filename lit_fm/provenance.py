"""Where a run came from, and the most memory that it took."""

import platform
import resource
import shlex
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lit_fm import __version__

PACKAGES = [
    "lightning",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "tokenizers",
    "datasets",
    "torchmetrics",
    "jsonargparse",
    "wandb",
]


def _git(*args: str) -> str | None:
    if not shutil.which("git"):
        return None
    done = subprocess.run(["git", "-C", str(Path(__file__).parent), *args], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def provenance(trainer: Any) -> dict[str, Any]:
    """What made this run: command, code, packages, data, hardware."""
    status = _git("status", "--porcelain")
    return {
        "command": shlex.join(["python", "-m", "lit_fm", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "lit_fm": __version__,
        "git": None if status is None else {"commit": _git("rev-parse", "HEAD"), "dirty": bool(status)},
        "packages": {name: _version(name) for name in PACKAGES},
        "data": getattr(trainer.datamodule, "report", {}),
        "hardware": {**hardware(), "processes": trainer.world_size},
    }


def hardware() -> dict[str, Any]:
    """The machine that works here."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "devices": gpus or ["cpu"],
    }


def peak_memory() -> int:
    """Bytes: of the GPU where one is used, else the largest resident size of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
