"""Examples one after the other in a row, none of which sees another; and in which way a network can do that exactly.

Three ways, the fastest first; the first that gives the logits of each example alone is taken:
`flash`: flash attention finds the borders in positions that begin anew; the batch is one row without any padding.
`each`: attention is called for each example by itself; one row without any padding, too.
`mask`: a mask is added to the scores, over rows padded to the longest: any network that takes one.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_fm.data.tokens import IGNORED, Encoded
from lit_fm.objectives.borders import apart, differ, first_position, sample, tried

Way = Literal["flash", "each", "mask"]
Batch = dict[str, Any]
EACH = "sdpa_of_each"
"""What transformers calls the second way."""


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


def use_attention_of_each(network: Any) -> bool:
    """Switch a network that calls PyTorch's attention to `attention_of_each`, which does the same where no lengths are
    given; whether it could be done."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    configs = _configs(network)
    if any(config._attn_implementation not in ("sdpa", EACH) for config in configs):
        return False
    AttentionInterface.register(EACH, attention_of_each)
    AttentionMaskInterface.register(EACH, sdpa_mask)
    for config in configs:
        config._attn_implementation = EACH
    return True


def _use_sdpa(network: Any) -> None:
    for config in _configs(network):
        config._attn_implementation = "sdpa"


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
    positions = np.concatenate([np.arange(length) for length in sizes[0]]) + first
    kept: Batch = {"position_ids": torch.from_numpy(positions)[None]}
    if way == "each":  # any mask of four dimensions keeps the network from making one of time x time
        kept |= {"attention_mask": torch.zeros(1, 1, 1, 1), "lengths": sizes[0]}
    return kept


def exact_way(network: Any, name: str, length: int) -> Way:
    """The first way in which a network gives examples in a row of this length the logits that each has alone.

    Raises:
        ValueError: there is none.
    """
    first, total = first_position(network), max(length, 8)
    ids = sample(network, total)
    cuts = [total // 4, total // 4 + total // 3]
    parts = np.split(ids[0].numpy(), cuts)
    alone = torch.cat([tried(network, torch.from_numpy(part)[None], use_cache=False) for part in parts], dim=1)
    items = [{"input_ids": np.append(part, 0), "labels": np.append(part, 0)} for part in parts]
    flash = all("flash" in str(config._attn_implementation) for config in _configs(network))
    ways: list[Way] = ["flash"] if flash else ["each", "mask"] if use_attention_of_each(network) else ["mask"]
    for way in ways:
        batch = pack([items], way, first)
        more = {k: batch[k] for k in ("attention_mask", "position_ids", "lengths") if k in batch}
        try:
            if not differ(alone, tried(network, batch["input_ids"], use_cache=False, **more), network):
                return way
        except (ValueError, TypeError, RuntimeError):  # it does not take such a mask, positions or lengths
            pass
        if way == "each":
            _use_sdpa(network)
    raise ValueError(
        f"data.packing: {name} ({network.config.model_type}) cannot keep the examples of a row apart exactly: leave it off."
    )
