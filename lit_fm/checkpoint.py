"""What a checkpoint holds: the weights that learn, and never those that stay as the backbone has them."""

import re
from pathlib import Path
from typing import Any

from torch import nn


def newest(run: Path) -> Path:
    """The checkpoint of a run with the most steps.

    Raises:
        FileNotFoundError: it is no run, or has none yet.
    """
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"--run {run}: there is no run (a folder with config.yaml) here. Runs are in runs/.")
    found = {
        int(step[1]): path for path in run.glob("checkpoints/*.ckpt") if (step := re.search(r"step=(\d+)", path.name))
    }
    if not found:
        raise FileNotFoundError(f"--run {run}: this run has no checkpoint yet.")
    return found[max(found)]


def learnable_names(module: nn.Module) -> set[str]:
    """Names of the weights that learn, as `state_dict` spells them."""
    return {name for name, p in module.named_parameters() if p.requires_grad}


def keep_learnable(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Drop from a checkpoint's `state_dict` what does not learn: it is read from the backbone again."""
    names = learnable_names(module)
    checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}


def check_learnable(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint that does not hold exactly the weights that learn here.

    Raises:
        ValueError: with a name that lacks, or is too many.
    """
    expected, given = learnable_names(module), set(checkpoint["state_dict"])
    if expected == given:
        return
    lacking, extra = sorted(expected - given), sorted(given - expected)
    raise ValueError(
        f"this checkpoint does not fit: {len(lacking)} of {len(expected)} learnable tensors are not in it"
        f"{f' (such as {lacking[0]})' if lacking else ''}, {len(extra)} in it are not learnt here"
        f"{f' (such as {extra[0]})' if extra else ''}. Use the backbone and the adaptation that it was made with."
    )
