"""The blocks that a network repeats: what is sharded, and compiled, one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def blocks(network: nn.Module) -> list[nn.Module]:
    """Of each stack from the bottom, as they stand in the outermost lists of modules."""
    lists: list[str] = []
    found: list[nn.Module] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
            lists.append(name)
            found += list(module)
    return found


def compile_blocks(network: Any) -> None:
    """Compile each block when it is first used; blocks of one kind share what was compiled."""
    for block in blocks(network):
        block.compile(dynamic=True)


@contextmanager
def rest_whole(network: Any) -> Iterator[None]:
    """What is in no block (embeddings, soft prompts) is whole within, if ranks keep parts of it. All must come here."""
    sharded = hasattr(network, "unshard")
    if sharded:
        network.unshard()
    try:
        yield
    finally:
        if sharded:
            network.reshard()
