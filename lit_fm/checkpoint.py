"""What a checkpoint holds: the weights that learn, and never those that stay as the backbone has them."""

import re
import sys
from pathlib import Path
from typing import Any

from torch import nn

from lit_fm import durable


def newest(run: Path) -> Path:
    """The checkpoint of a run with the most steps.

    Raises:
        FileNotFoundError: it is no run, or has none yet.
    """
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"--run {run}: there is no run (a folder with config.yaml) here. Runs are in runs/.")
    found, damaged = newest_verified(run)
    for line in damaged:
        print(line, file=sys.stderr)
    if not found:
        raise FileNotFoundError(f"--run {run}: this run has no checkpoint {'that is whole' if damaged else 'yet'}.")
    return found


def by_step(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their step, rising."""
    found = {int(step[1]): path for path in folder.glob("*.ckpt") if (step := re.fullmatch(r"step=(\d+)", path.stem))}
    return dict(sorted(found.items()))


def newest_verified(run: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint of a run with the most steps that is as it was written, and what is wrong with those beyond it."""
    damaged = []
    for path in reversed(by_step(run / "checkpoints").values()):
        try:
            durable.verify(path)
        except (ValueError, OSError) as error:
            damaged.append(f"Skipped: {error}")
        else:
            return path, damaged
    return None, damaged


def put_aside(folder: Path, last: Path | None) -> None:
    """Rename checkpoints beyond the last one that is whole: they are damaged, and must not count among those to keep."""
    for step, path in by_step(folder).items():
        if last is None or step > int(last.stem.removeprefix("step=")):
            path.rename(durable.free(path.with_suffix(".damaged")))


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


def by_name(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """An optimizer's state with the names of weights in place of their numbers, which hang on how they are grouped.

    Args:
        names: of its weights, as it numbers them.
    """
    groups = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    return {**state, "state": {names[number]: of for number, of in state["state"].items()}, "param_groups": groups}


def by_number(state: dict[str, Any], groups: list[list[str]]) -> dict[str, Any]:
    """What `by_name` gave, for an optimizer that has its weights in these groups; rates and decay are set anew."""
    numbers = {name: number for number, name in enumerate(name for group in groups for name in group)}
    starts = [sum(map(len, groups[:i])) for i in range(len(groups))]
    made = [
        {**state["param_groups"][0], "params": [*range(start, start + len(group))]}
        for start, group in zip(starts, groups, strict=True)
    ]
    return {**state, "state": {numbers[name]: of for name, of in state["state"].items()}, "param_groups": made}
