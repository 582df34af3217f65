"""Several documents in one row that do not see each other; and whether a network can do that, tried out on it.

The mask is added to attention scores (a boolean one is misread by some implementations), positions begin anew.
"""

from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_fm.objectives.loss import only_rows

COMPARED = 64
"""Tokens of a row whose logits are compared: those of all would be as large as a whole batch's."""


def documents_of(ids: np.ndarray, tail: list[int]) -> np.ndarray:
    """(tokens,) which document of a block each token belongs to, by the token that ends each."""
    ended = np.isin(ids, tail[-1:]).cumsum()
    return np.concatenate([[0], ended[:-1]])


def apart(documents: list[np.ndarray], width: int, causal: bool, first: int = 0) -> dict[str, Tensor]:
    """`attention_mask` (batch, 1, time, time), to be added, and `position_ids` (batch, time), for rows of documents."""
    number = np.full((len(documents), width), -1)  # padding is a document of its own: it sees itself
    positions = np.zeros((len(documents), width), dtype=np.int64)
    for row, of in enumerate(documents):
        number[row, : len(of)] = of
        starts = np.flatnonzero(np.diff(of, prepend=-1))
        positions[row, : len(of)] = np.arange(len(of)) - np.repeat(starts, np.diff(np.append(starts, len(of))))
    seen = number[:, :, None] == number[:, None, :]
    if causal:
        seen &= np.tri(width, dtype=bool)
    mask = torch.where(torch.from_numpy(seen[:, None]), 0.0, torch.finfo(torch.float32).min)
    return {"attention_mask": mask, "position_ids": torch.from_numpy(positions + first)}


def first_position(network: Any) -> int:
    """The number of the first position: RoBERTa and its kin count from behind that of padding."""
    tables = (m for name, m in network.named_modules() if name.endswith("position_embeddings"))
    return next((table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None), 0)


@torch.no_grad()
def tried(network: Any, ids: Tensor, rows: Tensor | None = None, **more: Any) -> Tensor:
    """Logits of these ids, in evaluation mode; those of the tokens with these flat numbers, where some are given."""
    was_training = network.training
    network.eval()
    try:
        device = next(network.parameters()).device
        if hasattr(getattr(network, "active_peft_config", None), "num_tasks"):  # any soft prompt will do
            more["task_ids"] = torch.zeros(len(ids), dtype=torch.long)
        more = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in more.items()}
        head = network.get_output_embeddings()
        with nullcontext() if rows is None else only_rows(head, rows.to(device), ids.shape[1]):
            return network(input_ids=ids.to(device), **more).logits
    finally:
        network.train(was_training)


def sample(network: Any, length: int) -> Tensor:
    """(1, length) different ids."""
    return torch.arange(10, 10 + length)[None] % network.config.get_text_config().vocab_size


def differ(one: Tensor, other: Tensor, network: Any) -> bool:
    """Whether logits differ by more than rounding."""
    kinds = {p.dtype for p in network.parameters()}
    exact = one.dtype == torch.float32 == next(network.parameters()).dtype
    # Which columns LLM.int8() leaves out of rounding hangs on all tokens of a batch.
    allowed = 0.2 if torch.int8 in kinds else 1e-4 if exact else 2e-2
    one, other = one.float(), other.float()
    return bool((one - other).abs().max() > allowed * one.std())


def kept_apart(network: Any, parts: list[Tensor], borders: dict[str, Any], **more: Any) -> bool:
    """Whether parts (1, time) one after the other in a row have the logits of each alone.

    Args:
        borders: what the network is told of them in the row; `more` of each alone, too.
    """
    ids = torch.cat(parts, dim=1)
    starts = torch.tensor([0, *(part.shape[1] for part in parts)]).cumsum(0)
    rows = torch.cat([torch.linspace(0, ids.shape[1] - 1, COMPARED).long(), starts[:-1]]).unique()
    inside = [rows[(rows >= one) & (rows < end)] - one for one, end in pairwise(starts)]
    alone = torch.cat([tried(network, part, at, **more) for part, at in zip(parts, inside, strict=True)])
    try:
        return not differ(alone, tried(network, ids, rows, **borders, **more), network)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, RuntimeError):  # it does not take such a mask, positions or lengths
        return False


def check_causal(network: Any, name: str) -> None:
    """Refuse a network of which a token's logits change with the token that follows it.

    Raises:
        ValueError: it is none for a causal objective.
    """
    one = sample(network, 8)
    other = one.clone()
    other[0, -1] += 3
    before, after = tried(network, torch.cat([one, other]), use_cache=False)[:, :-1]
    if differ(before, after, network):
        raise ValueError(
            f"{name} ({network.config.model_type}) sees the tokens that follow: it is no causal model. Use "
            "MaskedLM or a head."
        )


def check_borders(network: Any, name: str, causal: bool, length: int) -> None:
    """Refuse a network whose logits for two documents in a block of this length are not those of each alone.

    Raises:
        ValueError: it would mix them.
    """
    ids, cut = sample(network, max(length, 2)), max(1, length // 3)
    more: dict[str, Any] = {"use_cache": False} if causal else {}
    documents = np.repeat([0, 1], [cut, ids.shape[1] - cut])
    packed = apart([documents], ids.shape[1], causal, first_position(network))
    if not kept_apart(network, [ids[:, :cut], ids[:, cut:]], packed, **more):
        raise ValueError(
            f"data.borders: {name} ({network.config.model_type}) cannot keep documents of a block apart exactly: leave it "
            "off."
        )
