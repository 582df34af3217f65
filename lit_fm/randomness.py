"""Randomness that a killed run finds again: in a training step a function of the step and the rank; elsewhere saved."""

from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states


def seed_step(seed: int, step: int, micro_batch: int, rank: int) -> None:
    """What is dropped out in a micro-batch: the same whenever the step is made, another on each rank."""
    words = np.random.SeedSequence([seed % 2**64, step, micro_batch, rank]).generate_state(2, np.uint32)
    # Where there is no accelerator, torch.manual_seed would note the whole call stack for each kind of it, in every step.
    seeded = torch if torch.accelerator.is_available() else torch.default_generator
    seeded.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def collect() -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators in this process, in types that are safe to read again."""
    states = _collect_rng_states()
    kind, keys, *rest = states["numpy"]
    return {
        **states,
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": _listed(states["python"]),
    }


def restore(states: dict[str, Any]) -> None:
    """What `collect` gave."""
    kind, keys, *rest = states["numpy"]
    version, inner, gauss = states["python"]
    numpy = (kind, keys.numpy().astype(np.uint32), *rest)
    _set_rng_states({**states, "numpy": numpy, "python": (version, tuple(inner), gauss)})


def _listed(state: tuple) -> list:
    version, inner, gauss = state
    return [version, list(inner), gauss]
