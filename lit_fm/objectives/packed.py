"""Examples one after the other in a row, none of which sees another; and in which way a network can do that exactly.

Two ways; the first that gives the logits of each example alone is taken:
`each`: attention is called for each example by itself, or by flash attention for all at once; one row without any padding.
`mask`: a mask is added to the scores, over rows padded to the longest: any network that takes one.
"""

import inspect
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_fm.data.tokens import IGNORED, Encoded
from lit_fm.objectives.borders import apart, first_position, kept_apart, sample

try:
    from torch.nn.attention import varlen
except ImportError:  # older versions of PyTorch lack it
    varlen = None  # type: ignore[assignment]

Way = Literal["each", "mask"]
Batch = dict[str, Any]
HALF = (torch.float16, torch.bfloat16)
EACH = "sdpa_of_each"
"""What transformers calls the first way."""
APART = ("attention_mask", "position_ids", "lengths", "borders", "longest")
"""What a batch may hold to keep examples apart."""


def attention_of_each(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    lengths: list[int] | None = None,
    borders: Tensor | None = None,
    longest: int = 0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """PyTorch's attention over each `lengths` of the time axis by itself; over all of it where none are given.

    Args:
        borders: (examples + 1,) the sums of `lengths` so far, int32: flash attention may be used, if it takes such numbers.
        longest: the largest of `lengths`.

    Shapes: (1, heads, time, width) in, (1, time, heads, width) out.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
    kind, width = query.device.type, query.shape[-1]
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    fits = dtype in HALF and width in range(8, 257, 8) and key.shape[-1] == value.shape[-1] == width
    if borders is not None and fits and not kwargs.get("dropout"):
        q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))
        behind = (window - 1 if window else -1, 0)
        how: Any = {"scale": kwargs.get("scaling"), "window_size": behind, "enable_gqa": query.shape[1] != key.shape[1]}
        made: Any = varlen.varlen_attn(q, k, v, borders, borders, longest, longest, **how)
        return made[None], None
    parts: Any = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    seen = [sdpa_attention_forward(module, q, k, v, _band(q, window), **kwargs)[0] for q, k, v in parts]
    return torch.cat(seen, dim=1), None


def _band(query: Tensor, window: int | None) -> Tensor | None:
    """The mask of a sliding window, where an example is longer than it; else causal attention needs none."""
    time = query.shape[2]
    if not window or time <= window:
        return None
    distance = torch.arange(time, device=query.device)[:, None] - torch.arange(time, device=query.device)
    seen = (distance >= 0) & (distance < window)
    return torch.where(seen, 0.0, torch.finfo(query.dtype).min).to(query.dtype)[None, None]


def _configs(network: Any) -> list[Any]:
    """Those that say which attention the network's layers use."""
    found = {id(m.config): m.config for m in network.modules() if hasattr(m, "config")}
    return [config for config in found.values() if hasattr(config, "_attn_implementation")]


def flash_on(network: Any) -> bool:
    """Whether PyTorch has flash attention for several lengths in a row where a network is: on GPUs since Ampere."""
    if network.device.type != "cuda" or not varlen:
        return False
    groups = "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters  # not in the first versions of it
    return groups and torch.cuda.get_device_capability(network.device) >= (8, 0)


def use_attention_of_each(network: Any) -> bool:
    """Switch a network that calls PyTorch's attention to `attention_of_each`, which does the same where no lengths are
    given; whether it could be done."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    known = ("sdpa", "flash", EACH)
    if not all(str(config._attn_implementation).startswith(known) for config in _configs(network)):
        return False
    AttentionInterface.register(EACH, attention_of_each)
    AttentionMaskInterface.register(EACH, sdpa_mask)
    _use(network, EACH)
    return True


def _use(network: Any, attention: str) -> None:
    for config in _configs(network):
        config._attn_implementation = attention


def pack(rows: list[list[Encoded]], way: Way, first: int = 0, flash: bool = False) -> Batch:
    """The batch of rows of examples: ids, positions, and where (flat) which token is the target.

    The last token of an example is only a target, so what is fed of each is one token shorter.

    Args:
        first: the number of the first position.
        flash: with what flash attention asks for.
    """
    rows = rows if way == "mask" else [[item for row in rows for item in row]]
    sizes = [[len(item["input_ids"]) - 1 for item in row] for row in rows]
    width = max(map(sum, sizes))
    ids = np.zeros((len(rows), width), np.int64)
    targets = np.full((len(rows), width), IGNORED, np.int64)
    for row, (items, lengths) in enumerate(zip(rows, sizes, strict=True)):
        ids[row, : sum(lengths)] = np.concatenate([item["input_ids"][:-1] for item in items])
        targets[row, : sum(lengths)] = np.concatenate([item["labels"][1:] for item in items])
    learnt = np.flatnonzero(targets != IGNORED)
    return {
        "input_ids": torch.from_numpy(ids),
        "rows": torch.from_numpy(learnt),
        "targets": torch.from_numpy(targets.reshape(-1)[learnt]),
        "tokens": sum(len(item["input_ids"]) for row in rows for item in row),
        **_isolation(sizes, width, way, first, flash),
    }


def _isolation(sizes: list[list[int]], width: int, way: Way, first: int, flash: bool) -> Batch:
    """What keeps examples apart, besides their order."""
    documents = [np.repeat(np.arange(len(lengths)), lengths) for lengths in sizes]
    if way == "mask":
        return apart(documents, width, causal=True, first=first)
    positions = np.concatenate([np.arange(length) for length in sizes[0]]) + first
    borders = {"borders": torch.from_numpy(np.cumsum([0, *sizes[0]], dtype=np.int32)), "longest": max(sizes[0])}
    return {
        "position_ids": torch.from_numpy(positions)[None],
        "attention_mask": torch.zeros(1, 1, 1, 1),  # any of four dimensions keeps the network from making a larger one
        "lengths": sizes[0],
        **(borders if flash else {}),
    }


def exact_way(network: Any, name: str, length: int) -> Way:
    """The first way in which a network gives examples in a row of this length the logits that each has alone.

    Raises:
        ValueError: there is none.
    """
    total = max(length, 8)
    parts = np.split(sample(network, total)[0].numpy(), [total // 4, total // 4 + total // 3])
    if use_attention_of_each(network):
        if _apart(network, parts, "each"):
            return "each"
        _use(network, "sdpa")
    if _apart(network, parts, "mask"):
        return "mask"
    raise ValueError(
        f"data.packing: {name} ({network.config.model_type}) cannot keep the examples of a row apart exactly: leave it off."
    )


def _apart(network: Any, parts: list[np.ndarray], way: Way) -> bool:
    """Whether these parts in one row get the logits that each has alone."""
    items = [{"input_ids": np.append(part, 0), "labels": np.append(part, 0)} for part in parts]
    batch = pack([items], way, first_position(network), flash_on(network))
    borders = {key: batch[key] for key in APART if key in batch}
    return kept_apart(network, [torch.from_numpy(part)[None] for part in parts], borders, use_cache=False)
