"""One rank of many, without the others: a process group whose messages are never sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from lit_fm.sharded import Sharded


class Ranks(NamedTuple):
    """Where a run is planned for.

    Args:
        strategy: the trainer's.
        on_gpu: attention is computed as GPUs do.
    """

    world: int = 1
    strategy: Any = None
    on_gpu: bool = False

    @property
    def sharded(self) -> Sharded | None:
        """The strategy, if it parts the network."""
        return self.strategy if isinstance(self.strategy, Sharded) else None

    @property
    def batches(self) -> int:
        """Micro-batches side by side."""
        return self.world // (self.sharded.tensor_parallel if self.sharded else 1)

    def __str__(self) -> str:
        if self.world == 1:
            return "One device"
        return f"One of {self.world:,} ranks ({'lit_fm.Sharded' if self.sharded else 'DDP'})"


def ranks_of(trainer: dict[str, Any], asked: int | None, on_gpu: bool) -> Ranks:
    """By the trainer's settings.

    Args:
        asked: so many ranks, whatever the settings say; in parts (FSDP2) if they name no strategy.

    Raises:
        ValueError: the number is not told.
    """
    given, strategy = trainer.get("devices"), trainer.get("strategy")
    given = len(given) if isinstance(given, list) else given
    told = int(str(given)) if str(given).isdigit() else None
    named = strategy not in (None, "auto")
    if asked is not None and asked < 1:
        raise ValueError(f"--devices is {asked}, expected at least 1: raise it.")
    if asked is None and told is None and named:
        raise ValueError(f"plan: trainer.devices is {given}, and the plan hangs on their number: add --devices 8.")
    world = asked or (told or 1) * (trainer.get("num_nodes") or 1)
    if not named:
        strategy = Sharded() if asked and world > 1 else None
    return Ranks(world, strategy, on_gpu)


@contextmanager
def first_of(ranks: Ranks) -> Iterator[None]:
    """The first of the ranks within; the strategy that parts the network knows its place among them.

    Raises:
        ValueError: the ranks do not part into the strategy's groups.
    """
    if not (sharded := ranks.sharded):
        yield
        return
    sharded.group(ranks.world)
    dist.init_process_group("fake", rank=0, world_size=ranks.world)
    try:
        shape = ranks.batches, sharded.tensor_parallel
        sharded._device_mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data_parallel", "tensor_parallel"))
        yield
    finally:
        dist.destroy_process_group()
