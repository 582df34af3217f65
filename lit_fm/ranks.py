"""Which rank of how many a process is, as far as data goes: ranks of one tensor-parallel group share theirs."""

from typing import Any


def ranks_of(trainer: Any) -> tuple[int, int]:
    """This rank's number and their count; (0, 1) without a trainer."""
    if trainer is None:
        return 0, 1
    if _shards(trainer):
        dealt = trainer.strategy.distributed_sampler_kwargs
        return dealt["rank"], dealt["num_replicas"]
    return trainer.global_rank, trainer.world_size


def writing_ranks_of(trainer: Any) -> tuple[int, int]:
    """The same of prompts to answer: ranks that keep parts of a network write all answers together, in step."""
    return (0, 1) if _shards(trainer) else ranks_of(trainer)


def _shards(trainer: Any) -> bool:
    return hasattr(getattr(trainer, "strategy", None), "shard")
