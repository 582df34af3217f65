"""How checkpoints are written and read: whole or not at all, hashed, and never as pickled code.

A checkpoint is a folder: the state as PyTorch writes it, and a manifest.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch.utils._pytree import tree_leaves

from lit_fm import durable, shards
from lit_fm.shards import STATE

_ROOM = 1_000_000  # bytes besides the tensors


def size_of(state: Any) -> int:
    """Bytes of the tensors in it, about."""
    return sum(leaf.nbytes for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor)) + _ROOM


def read(path: Path | str, target: shards.Target | None = None, **how: Any) -> dict[str, Any]:
    """A checkpoint that is as it was written, or a single file of plain Lightning.

    Args:
        target: what each tensor of one in shards is read into; all ranks then call this. Without it, whole tensors.

    Raises:
        ValueError: an address, a damaged folder, or a file that holds more than numbers and text.
        FileNotFoundError: it is not there.
    """
    if "://" in str(path):
        raise ValueError(f"checkpoint {path}: addresses are not read, since anybody could write there: copy it here.")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path}: there is none.")
    if not path.is_dir():
        return _load(path, **how)
    if target:
        shards.on_first(lambda: durable.verify(path))
    else:
        durable.verify(path)
    state = _load(path / STATE, **how)
    return shards.read(path, state, target) if (path / shards.INDEX).is_file() else state


def _load(path: Path, **how: Any) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, **how)
    except Exception as error:  # of pickle, zip, torch: a person cannot know which
        raise ValueError(
            f"checkpoint {path} is not read: it holds more than numbers and text, or is torn ({type(error).__name__}). "
            "Use one that lit_fm or plain Lightning wrote."
        ) from error


class VerifiedCheckpointIO(CheckpointIO):
    """Writes folders that are synced, hashed and renamed into place; reads none that has changed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        about = {"step": checkpoint["global_step"], "epoch": checkpoint["epoch"]}
        with durable.writing(Path(path), size_of(checkpoint), about) as folder:
            torch.save(checkpoint, folder / STATE)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read(str(path), mmap=Path(str(path)).is_dir())

    def remove_checkpoint(self, path: Any) -> None:
        """By its name first: what is half removed is no checkpoint any more."""
        if not Path(path).exists():
            return
        draft = durable.begin(Path(path))
        Path(path).rename(draft / Path(path).name)
        shutil.rmtree(draft, ignore_errors=True)
