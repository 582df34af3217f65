"""Norm and scale of gradients, also where some are shards of one mesh of ranks and some of another."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def mesh_of(tensor: Any) -> Any:
    """The mesh of ranks that a tensor is spread over; None for one that each rank has whole."""
    return getattr(tensor, "device_mesh", None)


def whole(tensor: Any) -> Tensor:
    """A tensor with its parts from all ranks. Each of them must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def by_mesh(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """In groups that one call may work on."""
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(mesh_of(tensor), []).append(tensor)
    return list(groups.values())


def scale(gradients: list[Tensor], factor: float) -> None:
    """Multiply all, in place."""
    for group in by_mesh(gradients):
        torch._foreach_mul_(group, factor)


def norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of them all together."""
    parts = [whole(nn.utils.get_total_norm(group)) for group in by_mesh(gradients)]
    return parts[0] if len(parts) == 1 else torch.linalg.vector_norm(torch.stack(parts))


def clip(parameters: Iterable[nn.Parameter], most: float, total: Tensor) -> None:
    """Scale gradients so that their norm, which is known, is `most` where it was above."""
    for group in by_mesh(parameters):
        nn.utils.clip_grads_with_norm_(group, most, total)
