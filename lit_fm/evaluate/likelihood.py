"""Which of its choices a network that writes finds the likeliest after a prompt."""

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.tokens import IGNORED, Encoded

BATCH = 64
log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """Of one example: log-probabilities (nats) of its choices, and the numbers of the likeliest ones; -1 for none."""

    logprobs: list[float]
    best: int
    best_normalised: int
    """By log-probability per byte of the choice in UTF-8."""


def right_choices(example: dict) -> set[int]:
    """The numbers of the choices that are right answers, white space at the ends aside; none of a conversation's."""
    if "messages" in example:
        return set()
    right = {text.strip() for text in example.get("references") or [example.get("completion", "")]}
    return {i for i, choice in enumerate(example.get("choices") or ()) if str(choice).strip() in right}


def choose(objective: Any, examples: list[dict], batch_size: int = BATCH) -> list[Choice]:
    """The log-probability of each choice as what follows the prompt, all its tokens together, without what ends it.

    Each choice is encoded as an answer is in training, so the prompt and what parts them are the same. One that leaves the
    prompt no room has none (-inf), and this is said. Leaves the network in the mode that it was in.

    Args:
        objective: one that writes, its network built.
        examples: with `prompt` and `choices`.
    """
    tried: dict[tuple[str, str, str | None], dict] = {}
    keys = []
    for example in examples:
        before = example.get("completion", "")
        lead = before[: len(before) - len(before.lstrip())]  # white space that training saw before an answer
        made = [{**example, "completion": lead + str(choice).strip()} for choice in example["choices"]]
        keys.append([(example["prompt"], one["completion"], example.get("task")) for one in made])
        tried |= zip(keys[-1], made, strict=True)
    known = dict(zip(tried, _logprobs(objective, list(tried.values()), batch_size), strict=True))
    if lost := sum(np.isinf(value) for value in known.values()):
        log.warning("%d of %d choices leave no room for a prompt, or are empty: they are not chosen.", lost, len(known))
    return [_choice([known[key] for key in of], [len(key[1].strip().encode()) for key in of]) for of in keys]


def _choice(logprobs: list[float], sizes: list[int]) -> Choice:
    found = np.array(logprobs)
    if not np.isfinite(found).any():
        return Choice(logprobs, -1, -1)
    return Choice(logprobs, int(found.argmax()), int((found / np.maximum(1, sizes)).argmax()))


@torch.no_grad()
def _logprobs(objective: Any, examples: list[dict], batch_size: int) -> list[float]:
    """Of the completion of each."""
    found = [-np.inf] * len(examples)
    items = objective.encode(examples, objective.limit)
    tasks = objective.adaptation.tasks_of(examples)
    fit = [i for i, item in enumerate(items) if not isinstance(item, str)]
    fit.sort(key=lambda i: len(items[i]["input_ids"]))
    was_training = objective.network.training
    objective.network.eval()
    try:
        for start in range(0, len(fit), batch_size):
            group = fit[start : start + batch_size]
            more = {} if tasks is None else {"task_ids": torch.tensor([tasks[i] for i in group])}
            sums = _sums(objective, [items[i] for i in group], more)
            for i, value in zip(group, sums, strict=True):
                found[i] = value
    finally:
        objective.network.train(was_training)
    return found


def _sums(objective: Any, items: list[Encoded], more: dict[str, Tensor]) -> list[float]:
    batch = objective.collate(items) | more
    width = batch.get("decoder_input_ids", batch["input_ids"]).shape[1]
    own = torch.from_numpy(np.concatenate([_own(objective, item["labels"]) for item in items]))
    batch |= {"rows": batch["rows"][own], "targets": batch["targets"][own]}
    rows = batch["rows"] // width
    batch = {key: value.to(objective.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    logprobs = -F.cross_entropy(objective.logits(batch).float(), batch["targets"], reduction="none").cpu()
    return torch.zeros(len(items)).index_add(0, rows, logprobs).tolist()


def _own(objective: Any, labels: np.ndarray) -> np.ndarray:
    """(targets,) which of an item's targets are the answer's own: not the special tokens at its ends."""
    if objective.network.config.is_encoder_decoder:
        encoder = SegmentEncoder(objective.tokenizer)
        head, tail, count = len(encoder.prefix), len(encoder.suffix), len(labels)
    else:  # a text's first token is no target
        head, tail, count = 0, int(labels[-1] == objective.tokenizer.eos_token_id), int((labels[1:] != IGNORED).sum())
    places = np.arange(count)
    return (places >= head) & (places < count - tail)
