"""Checkpoints that each rank writes its own part of, and that any number of ranks reads, without pickled code.

Weights and optimizer state are in the format of PyTorch's distributed checkpoints; all else is in one file beside them.
The folder gets its name once all ranks have written.
"""

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from lit_fm import durable

STATE, INDEX = "state.pt", ".metadata"
_PARTED = ("state_dict", "optimizer_states")
_MARK = "<shards>"
_NAMES = {
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.serialization": {"_get_layout"},
}  # fmt: skip
"""All that an index of tensors has to name."""

Target = Callable[[str, torch.Size, torch.dtype], Tensor | None]
"""Makes what a stored tensor of this key, size and type is read into; None for one that is not needed."""


class _Index(pickle.Unpickler):
    """Reads an index of tensors, and runs nothing that anybody may have written into it."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _NAMES.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


class _Reader(dcp.FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        index = read_index(Path(self.path))
        index.storage_meta = index.storage_meta or StorageMeta()
        index.storage_meta.load_id = self.load_id
        return index


def read_index(folder: Path) -> Metadata:
    """What tensors a folder holds, and where.

    Raises:
        ValueError: it is no such index, or points out of the folder.
    """
    try:
        index = _Index(io.BytesIO((folder / INDEX).read_bytes())).load()
        files = {place.relative_path for place in index.storage_data.values()}
        plain = all(isinstance(entry, TensorStorageMetadata) for entry in index.state_dict_metadata.values())
    except Exception as error:  # whatever a damaged or hostile pickle leads to
        raise ValueError(
            f"checkpoint {folder} is not read: its {INDEX} holds more than tensors' places ({error}). Use one "
            "that lit_fm wrote."
        ) from error
    if not plain or any(Path(file).name != file for file in files):
        raise ValueError(f"checkpoint {folder} is not read: its {INDEX} points at more than tensors in this folder.")
    return index


def _taken(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """The same with marks for tensors, which go into `tensors`."""
    if isinstance(value, Tensor):
        tensors[key] = value.detach()
        return _MARK + key
    if isinstance(value, dict):
        return {name: _taken(inner, f"{key}/{name}", tensors) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_taken(inner, f"{key}/{number}", tensors) for number, inner in enumerate(value)]
    return value


def _put_back(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_MARK):
        return tensors.get(value.removeprefix(_MARK))
    if isinstance(value, dict):
        return {name: _put_back(inner, tensors) for name, inner in value.items()}
    if isinstance(value, list):
        return [_put_back(inner, tensors) for inner in value]
    return value


def on_first(call: Callable[[], Any]) -> Any:
    """What a call gives on the first rank, or its error, on every rank."""
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = call()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; every rank calls this, with its parts.

    Raises:
        OSError: no room, or it cannot be written there; what was there before is untouched.
    """
    tensors: dict[str, Tensor] = {}
    rest = {k: _taken(v, k, tensors) if k in _PARTED else v for k, v in checkpoint.items()}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    draft = on_first(lambda: durable.begin(path, size))
    try:
        dcp.save(
            tensors,
            storage_writer=dcp.FileSystemWriter(draft, sync_files=True),
            planner=dcp.DefaultSavePlanner(flatten_state_dict=False),
        )
        hashes: list[Any] = [None] * dist.get_world_size()
        own = {file.name: durable.digest(file) for file in draft.glob(f"__{dist.get_rank()}_*")}
        dist.all_gather_object(hashes, own)
        about = {"step": checkpoint["global_step"], "epoch": checkpoint["epoch"], "ranks": len(hashes)}

        def commit() -> None:
            torch.save(rest, draft / STATE)
            durable.commit(draft, path, about, {name: found for part in hashes for name, found in part.items()})

        on_first(commit)
    finally:
        if dist.get_rank() == 0:
            shutil.rmtree(draft, ignore_errors=True)


def read(folder: Path, rest: dict[str, Any], target: Target | None = None) -> dict[str, Any]:
    """A checkpoint with its tensors.

    Args:
        rest: what is beside them.
        target: where each is read into, by parts; every rank then calls this. Without it, whole tensors.
    """
    entries = read_index(folder).state_dict_metadata
    make = target or (lambda key, size, dtype: torch.empty(size, dtype=dtype))
    wanted = {
        key: make(key, entry.size, entry.properties.dtype)
        for key, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    tensors = {key: tensor for key, tensor in wanted.items() if tensor is not None}
    planner = dcp.DefaultLoadPlanner(flatten_state_dict=False)
    dcp.load(tensors, storage_reader=_Reader(folder), planner=planner, no_dist=target is None)
    return _put_back(rest, tensors)
