"""FSDP2 and tensor parallel, for any objective: each rank keeps a part of every weight and of its optimizer state.

Carried out by Lightning's `ModelParallelStrategy` and PyTorch's `fully_shard` and `parallelize_module`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from lit_fm import checkpoint_io, shards
from lit_fm.adapt import Adaptation
from lit_fm.blocks import blocks
from lit_fm.gradients import whole
from lit_fm.tensor_parallel import split


class Sharded(ModelParallelStrategy):
    """Weights, gradients and optimizer state in parts: over the ranks that share data, and within tensor-parallel groups.

    Args:
        tensor_parallel: ranks that work on one micro-batch together, each on a part of every large matrix.
        cpu_offload: parts wait in the host's memory while they are not needed.
    """

    def __init__(self, tensor_parallel: int = 1, cpu_offload: bool = False) -> None:
        if tensor_parallel < 1:
            raise ValueError(f"Sharded: tensor_parallel is {tensor_parallel}, expected at least 1: raise it.")
        super().__init__(data_parallel_size=1, tensor_parallel_size=tensor_parallel)
        self.tensor_parallel, self.cpu_offload = tensor_parallel, cpu_offload
        self._partial: list[nn.Parameter] = []

    def setup_environment(self) -> None:
        if isinstance(self.checkpoint_io, AsyncCheckpointIO):
            raise ValueError("run.save_in_background: ranks write their shards together: leave it out with Sharded.")
        self.group(self.num_nodes * self.num_processes)
        super().setup_environment()

    def group(self, ranks: int) -> None:
        """Part ranks into groups.

        Raises:
            ValueError: they do not part.
        """
        if ranks % self.tensor_parallel:
            raise ValueError(
                f"Sharded: {ranks} ranks do not part into groups of tensor_parallel {self.tensor_parallel}: change one."
            )
        self._data_parallel_size = ranks // self.tensor_parallel

    # Part the network.

    def check(self, adaptation: Adaptation) -> None:
        """Refuse what cannot be parted.

        Raises:
            ValueError: with the reason.
        """
        kind = type(adaptation).__name__
        if adaptation.unshardable:
            raise ValueError(f"Sharded: {kind}: {adaptation.unshardable}: use strategy ddp.")
        if self.tensor_parallel > 1 and not adaptation.splits:
            raise ValueError(
                f"Sharded: tensor_parallel knows how Full, Selective and plain LoRA are parted within a matrix, not "
                f"this {kind}: leave it at 1."
            )
        if self.cpu_offload and self.root_device.type == "cpu":
            raise ValueError("Sharded: cpu_offload: the weights are in the host's memory already: leave it out.")

    def shard(self, network: Any, precision: str) -> None:
        """Part a network in place, each of its blocks apart from the others."""
        if self.tensor_parallel > 1:
            self._partial = split(network, self.device_mesh["tensor_parallel"])
        half = torch.bfloat16 if precision == "bf16-mixed" else None
        how: dict[str, Any] = {
            "mesh": self.device_mesh["data_parallel"],
            "mp_policy": MixedPrecisionPolicy(param_dtype=half, reduce_dtype=half and torch.float32),
            "offload_policy": CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy(),
        }
        if self._data_parallel_size == 1 and self.tensor_parallel > 1:
            return
        for block in blocks(network):
            fully_shard(block, **how)
        fully_shard(network, **how)
        if hasattr(network, "generate"):
            register_fsdp_forward_method(network, "generate")

    def learnable(self, objective: Any) -> dict[str, nn.Parameter]:
        """What learns, by name, in the parts that the optimizer works on; a forward pass leaves some of it whole."""
        if hasattr(objective.network, "reshard"):
            objective.network.reshard()
        return {name: p for name, p in objective.named_parameters() if p.requires_grad}

    def sum_partial(self) -> None:
        """Gradients that each rank of a tensor-parallel group knows for its own heads alone are summed."""
        for parameter in self._partial:
            if parameter.grad is not None:
                local = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
                dist.all_reduce(local, group=self.device_mesh["tensor_parallel"].get_group())

    def setup_optimizers(self, trainer: Any) -> None:
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            check_optimizer(optimizer)

    # What is whole again.

    def gathered(self, objective: Any) -> nn.Module | None:
        """A network of its own with all that learnt, on the first rank; None on others. All must ask."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.learnable(objective).items():
            full = whole(parameter.detach())
            if dist.get_rank() == 0:
                found[name.removeprefix("network.")] = full.cpu()
        if dist.get_rank():
            return None
        network = objective.make()
        for name, parameter in network.named_parameters():
            if name in found:
                parameter.data.copy_(found[name])
        return network

    # Checkpoints: in shards, and read from shards or from a whole.

    lightning_restore_optimizer = True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return self.lightning_module.state_dict()  # type: ignore[union-attr]

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return getattr(optimizer, "_optimizer", optimizer).state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        shards.save(checkpoint, Path(self.broadcast(filepath)))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        learnable = self.learnable(self.lightning_module)

        def target(key: str, size: torch.Size, dtype: torch.dtype) -> Tensor | None:
            """As this rank keeps the weight, or the optimizer's state of the weight, that a key stands for."""
            kind, name = key.split("/", 1)
            if kind == "state_dict":
                parameter = learnable.get(name)
            elif self.optimizers:
                parameter = learnable.get(f"network.{name.split('/')[2]}")
            else:
                return None
            if parameter is not None and parameter.shape == size:
                return torch.empty_like(parameter, dtype=dtype, requires_grad=False)
            return torch.empty(size, dtype=dtype)

        return checkpoint_io.read(self.broadcast(str(checkpoint_path)), target)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        with torch.no_grad():
            for name, parameter in self.learnable(self.lightning_module).items():
                parameter.copy_(_as(parameter, checkpoint["state_dict"][name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = _parameters(optimizer)
            state = {
                number: {name: _as(parameters[number], value) for name, value in of.items()}
                for number, of in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    def remove_checkpoint(self, filepath: Any) -> None:
        if self.is_global_zero:
            self.checkpoint_io.remove_checkpoint(filepath)


def check_optimizer(optimizer: Any) -> None:
    """Refuse one that cannot work on parts.

    Raises:
        ValueError: with the reason.
    """
    fused = any(group.get("fused") for group in optimizer.param_groups)
    if fused and not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise ValueError(f"Sharded: {type(optimizer).__name__} is not fused over parts: model.optimizer.fused false.")
    if type(optimizer).__module__.startswith("bitsandbytes"):
        raise ValueError(
            f"Sharded: {type(optimizer).__name__} keeps its state in blocks that do not part: use "
            "torch.optim.AdamW; its state is in parts already."
        )


def _parameters(optimizer: Any) -> list[nn.Parameter]:
    """In the order in which its state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _as(parameter: Tensor, value: Any) -> Any:
    """A whole tensor as this rank keeps it, if it is of the parameter's shape."""
    if isinstance(value, Tensor) and isinstance(parameter, DTensor) and value.shape == parameter.shape:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value
