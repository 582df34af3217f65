"""Which tensors are alive, of which kind, and how much is computed: an account that is kept while a step is made."""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

WEIGHTS, LEARNABLE, BUFFERS = "frozen weights", "learnable weights", "buffers"
GRADIENTS, STATE, ACTIVATIONS = "gradients", "optimizer state", "activations"
GATHERED, BUCKETS = "gathered weights", "gradients to send"
KINDS = (WEIGHTS, LEARNABLE, BUFFERS, GRADIENTS, BUCKETS, STATE, GATHERED, ACTIVATIONS)
_aten = torch.ops.aten
_ON_GPU = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _aten._scaled_dot_product_flash_attention_backward,
}


class Ledger(TorchDispatchMode):
    """Counts the storage of every tensor that an operator gives, from then until it is freed; views share theirs.

    Of a tensor that ranks keep in parts, what counts is this rank's part and what is computed with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[int, str]] = {}
        self.now: Counter[str] = Counter()
        self.peak: dict[str, int] = {}
        self._total = self._most = 0
        self.flops = 0

    def __enter__(self) -> Any:
        """From here on, storages that change their size are seen too: FSDP2 frees gathered weights like that."""
        resize = self._resize = UntypedStorage.resize_

        def resize_(storage: Any, size: int) -> None:
            resize(storage, size)
            self._resized(storage)

        UntypedStorage.resize_ = resize_  # type: ignore[method-assign,assignment]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # comes back with the parts
        made = func(*args, **(kwargs or {}))
        self.flops += flops_of(func, args, kwargs or {}, made)
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._enter(leaf, ACTIVATIONS)
        return made

    def call(self, tensors: Iterable[Tensor], kind: str) -> None:
        """From here on, these are of this kind."""
        for tensor in tensors:
            tensor = part(tensor)
            self._enter(tensor, kind)
            key = tensor.untyped_storage()._cdata
            size, before = self._live[key]
            self._live[key] = size, kind
            self.now[before] -= size
            self.now[kind] += size

    def begin(self) -> None:
        """The peak is looked for anew, and operations are counted from nothing."""
        self._most, self.peak, self.flops = 0, {}, 0
        self._note()

    def _enter(self, tensor: Tensor, kind: str) -> None:
        self._keep(part(tensor).untyped_storage(), kind)

    def _keep(self, storage: Any, kind: str) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            return
        self._live[key] = size, kind
        self.now[kind] += size
        self._total += size
        weakref.finalize(storage, self._leave, key)
        self._note()

    def _resized(self, storage: Any) -> None:
        self._keep(storage, GATHERED)
        (before, kind), now = self._live[storage._cdata], storage.nbytes()
        self._live[storage._cdata] = now, GATHERED
        self.now[kind] -= before
        self.now[GATHERED] += now
        self._total += now - before
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


def part(tensor: Any) -> Tensor:
    """Of a tensor that ranks keep in parts, this rank's."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of their storages, each once."""
    return sum({s._cdata: s.nbytes() for s in (part(t).untyped_storage() for t in tensors)}.values())


def flops_of(func: Any, args: Any, kwargs: Any, made: Any) -> int:
    """By PyTorch's own formulas; they know attention on GPUs only, which a CPU computes in the same products."""
    packet = _ON_GPU.get(func._overloadpacket, func._overloadpacket)
    count = flop_registry.get(packet)
    return count(*args, **kwargs, out_val=made) if count else 0


def state_of(optimizer: Any) -> list[Tensor]:
    """What an optimizer remembers."""
    return [t for t in tree_leaves([*optimizer.state.values()]) if isinstance(t, torch.Tensor)]
