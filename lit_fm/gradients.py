"""Norm and scale of gradients, also where some are shards of one mesh of ranks and some of another."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
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
    """The Euclidean norm of them all together, over all ranks that have parts of them."""
    layouts: dict[Any, list[Any]] = {}
    for gradient in gradients:
        layouts.setdefault((mesh_of(gradient), getattr(gradient, "placements", ())), []).append(gradient)
    squares = []
    for (mesh, placements), group in layouts.items():
        local = [gradient.to_local() if mesh else gradient for gradient in group]
        if (
            local[0].device.type == "cpu"
        ):  # a float32 norm over a million numbers at once is off in the fourth digit there
            local = [torch.linalg.vector_norm(part, dim=-1) if part.ndim else part for part in local]
        square = torch.stack(torch._foreach_norm(local)).square().sum()
        for dimension, placement in enumerate(placements):
            if not placement.is_replicate():
                dist.all_reduce(square, group=mesh.get_group(dimension))
        squares.append(square)
    return torch.stack(squares).sum().sqrt()


def clip(parameters: Iterable[nn.Parameter], most: float, total: Tensor) -> None:
    """Scale gradients so that their norm, which is known, is `most` where it was above."""
    for group in by_mesh(parameters):
        nn.utils.clip_grads_with_norm_(group, most, total)
