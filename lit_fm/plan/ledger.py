"""Which tensors are alive, and of which kind: an account of memory that is kept while a step is made."""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, LEARNABLE, BUFFERS = "frozen weights", "learnable weights", "buffers"
GRADIENTS, STATE, ACTIVATIONS = "gradients", "optimizer state", "activations"
KINDS = (WEIGHTS, LEARNABLE, BUFFERS, GRADIENTS, STATE, ACTIVATIONS)


class Ledger(TorchDispatchMode):
    """Counts the storage of every tensor that an operator gives, from then until it is freed; views share theirs."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[int, str]] = {}
        self.now: Counter[str] = Counter()
        self.peak: dict[str, int] = {}
        self._total = self._most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._enter(leaf, ACTIVATIONS)
        return made

    def call(self, tensors: Iterable[Tensor], kind: str) -> None:
        """From here on, these are of this kind."""
        for tensor in tensors:
            self._enter(tensor, kind)
            key = tensor.untyped_storage()._cdata
            size, before = self._live[key]
            self._live[key] = size, kind
            self.now[before] -= size
            self.now[kind] += size

    def begin(self) -> None:
        """The peak is looked for anew."""
        self._most, self.peak = 0, {}
        self._note()

    def _enter(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            return
        self._live[key] = size, kind
        self.now[kind] += size
        self._total += size
        weakref.finalize(storage, self._leave, key)
        self._note()

    def _leave(self, key: int) -> None:
        size, kind = self._live.pop(key)
        self.now[kind] -= size
        self._total -= size

    def _note(self) -> None:
        if self._total > self._most:
            self._most, self.peak = self._total, {kind: n for kind, n in self.now.items() if n}

    @property
    def most(self) -> int:
        """Bytes at the peak."""
        return self._most


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of their storages, each once."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def state_of(optimizer: Any) -> list[Tensor]:
    """What an optimizer remembers."""
    return [t for t in tree_leaves([*optimizer.state.values()]) if isinstance(t, torch.Tensor)]
