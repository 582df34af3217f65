"""Whether a run that is about to start fits the memory that is there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lit_fm.plan.devices import GIB, memory_of

WORTH_A_PLAN = GIB
"""Bytes of weights, gradients and moments, below which a run starts without the seconds that a plan takes."""


def lacking(network: Any, device: Any, config: Path) -> tuple[int, int] | None:
    """Bytes that training a network takes, and those that are there; None where they are enough.

    Args:
        device: where the network lies.
        config: of the run, for its plan.
    """
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    gradients = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    need, have = weights + gradients, memory_of(device) + weights  # whatever the batch, no run takes less
    if need <= have and weights + 3 * gradients > WORTH_A_PLAN:
        need = max(need, planned(config, device.type == "cpu") or 0)
    return (need, have) if need > have else None


def planned(config: Path, on_cpu: bool) -> int | None:
    """Bytes at the peak by `plan`, made in a process of its own; None where the run cannot be planned."""
    command = [sys.executable, "-m", "lit_fm", "plan", "--config", str(config), "--json"]
    done = subprocess.run([*command, *["--device", "cpu"] * on_cpu], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)["bytes"] if done.returncode == 0 else None
