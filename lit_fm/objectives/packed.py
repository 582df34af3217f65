"""Examples one after the other in a row, none of which sees another; and in which way a network can do that exactly.

Three ways, the fastest first; the first that gives the logits of each example alone is taken:
`flash`: flash attention is told the borders; the batch is one row without any padding. On GPUs that have it, in 16 bits.
`each`: attention is called for each example by itself; one row without any padding, too.
`mask`: a mask is added to the scores, over rows padded to the longest: any network that takes one.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_fm.data.tokens import IGNORED, Encoded
from lit_fm.objectives.borders import apart, first_position, kept_apart, sample

Way = Literal["flash", "each", "mask"]
Batch = dict[str, Any]
FLASH, EACH = "flash_attention_2", "sdpa_of_each"
"""What transformers calls the first two ways."""
APART = ("attention_mask", "position_ids", "lengths", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""What a batch may hold to keep examples apart."""


def attention_of_each(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    lengths: list[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """PyTorch's attention over each `lengths` of the time axis by itself; over all of it where none are given.

    Shapes: (1, heads, time, width) in, (1, time, heads, width) out.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
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


def flash_there(network: Any) -> bool:
    """Whether flash attention is installed, and takes the kind of numbers that this network computes in."""
    from transformers.utils import is_flash_attn_2_available

    kind = network.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else network.dtype
    return dtype in (torch.float16, torch.bfloat16) and is_flash_attn_2_available()


def use_flash(network: Any) -> bool:
    """Switch a network to flash attention; whether it could be done."""
    try:
        network.set_attn_implementation(FLASH)
    except (ImportError, ValueError):  # the architecture does without
        return False
    return all(config._attn_implementation == FLASH for config in _configs(network))


def use_attention_of_each(network: Any) -> bool:
    """Switch a network that calls PyTorch's attention to `attention_of_each`, which does the same where no lengths are
    given; whether it could be done."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if any(config._attn_implementation not in ("sdpa", EACH) for config in _configs(network)):
        return False
    AttentionInterface.register(EACH, attention_of_each)
    AttentionMaskInterface.register(EACH, sdpa_mask)
    _use(network, EACH)
    return True


def _use(network: Any, attention: str) -> None:
    for config in _configs(network):
        config._attn_implementation = attention


def pack(rows: list[list[Encoded]], way: Way, first: int = 0) -> Batch:
    """The batch of rows of examples: ids, positions, and where (flat) which token is the target.

    The last token of an example is only a target, so what is fed of each is one token shorter.

    Args:
        first: the number of the first position.
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
        **_isolation(sizes, width, way, first),
    }


def _isolation(sizes: list[list[int]], width: int, way: Way, first: int) -> Batch:
    """What keeps examples apart, besides their order."""
    documents = [np.repeat(np.arange(len(lengths)), lengths) for lengths in sizes]
    if way == "mask":
        return apart(documents, width, causal=True, first=first)
    lengths = sizes[0]
    positions = np.concatenate([np.arange(length) for length in lengths]) + first
    kept: Batch = {"position_ids": torch.from_numpy(positions)[None]}
    if way == "each":  # any mask of four dimensions keeps the network from making one of time x time
        return kept | {"attention_mask": torch.zeros(1, 1, 1, 1), "lengths": lengths}
    borders = torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32))
    return kept | {
        "cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": max(lengths), "max_length_k": max(lengths),
    }  # fmt: skip


def exact_way(network: Any, name: str, length: int, computing: AbstractContextManager | None = None) -> Way:
    """The first way in which a network gives examples in a row of this length the logits that each has alone.

    Args:
        computing: within it the network computes as it will in training: flash attention is only tried so.

    Raises:
        ValueError: there is none.
    """
    total = max(length, 8)
    parts = np.split(sample(network, total)[0].numpy(), [total // 4, total // 4 + total // 3])
    was = network.config._attn_implementation
    with computing or nullcontext():
        if flash_there(network) and use_flash(network) and _apart(network, parts, "flash"):
            return "flash"
    _use(network, was)
    if use_attention_of_each(network):
        if _apart(network, parts, "each"):
            return "each"
        _use(network, was)
    if _apart(network, parts, "mask"):
        return "mask"
    raise ValueError(
        f"data.packing: {name} ({network.config.model_type}) cannot keep the examples of a row apart exactly: leave it off."
    )


def _apart(network: Any, parts: list[np.ndarray], way: Way) -> bool:
    """Whether these parts in one row get the logits that each has alone."""
    items = [{"input_ids": np.append(part, 0), "labels": np.append(part, 0)} for part in parts]
    batch = pack([items], way, first_position(network))
    borders = {key: batch[key] for key in APART if key in batch}
    return kept_apart(network, [torch.from_numpy(part)[None] for part in parts], borders, use_cache=False)
