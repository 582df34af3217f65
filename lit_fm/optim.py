"""Which weights decay, and how the learning rate moves over the optimizer steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, log, pi
from typing import Any, Literal

import torch
from torch import nn

from lit_fm.gradients import mesh_of


def adamw(params: Any) -> torch.optim.Optimizer:
    """What optimises where nothing is said."""
    return torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01, fused=True)


def decay_groups(network: nn.Module, rates: Mapping[str, float] | None = None) -> list[dict]:
    """Parameter groups over what learns: matrices decay; biases, norms, factors and embeddings do not.

    A rule by number of dimensions and kind of module, since names miss some norms (`ln_1`, RMSNorm).

    Args:
        rates: factors on the learning rate, by name; each has groups of its own, whose `factor` it is.
    """
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    groups: dict[tuple[float, bool, str], list[Any]] = {}
    for name, p in network.named_parameters():
        if p.requires_grad:
            decays = p.ndim >= 2 and min(p.shape) > 1 and id(p) not in embeddings and "trainable_tokens" not in name
            mesh = str(mesh_of(p) or "")  # no one call may work on tensors over several meshes of ranks
            groups.setdefault(((rates or {}).get(name, 1.0), not decays, mesh), []).append(p)
    return [
        {"params": learns, "factor": factor, **({"weight_decay": 0.0} if still else {})}
        for (factor, still, _), learns in sorted(groups.items(), key=lambda item: (abs(log(item[0][0])), item[0]))
    ]


@dataclass
class Schedule:
    """Warm-up from nothing, then `cosine`, `linear` or `constant`, as a factor on the learning rate.

    Args:
        warmup: optimizer steps, or below 1 the share of the whole run.
        floor: the factor at the end of the run.
        steps: of the whole run, where this one is to stop earlier on the same path.
    """

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.05
    floor: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 0 <= self.floor <= 1:
            raise ValueError(f"schedule: warmup {self.warmup} must not be negative, floor {self.floor} lies in 0..1.")

    def factor(self, step: int, total: int) -> float:
        """The factor for the update that follows `step` updates, of `total` in all."""
        total = self.steps or total
        warmup = round(self.warmup * total) if self.warmup < 1 else int(self.warmup)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        if self.kind == "constant":
            return 1.0
        fall = 1 - done if self.kind == "linear" else (1 + cos(pi * done)) / 2
        return self.floor + (1 - self.floor) * fall
