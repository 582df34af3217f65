"""Write text: greedily, in batches whose answers are those of single prompts."""

import logging
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from lit_fm.adapted import load_adapted
from lit_fm.backbone import context_length, decoder_start
from lit_fm.data.chat import chat_text, turn_end
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.templates import prompt_text

BATCH = 64
log = logging.getLogger(__name__)


@torch.no_grad()
def continue_prompts(
    network: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int, tasks: list[int] | None = None
) -> list[str]:
    """What the network writes after each prompt, without special tokens, in the order given.

    Prompts of like length share a batch, padded on the left; the mask gives each its own positions. What an encoder reads
    is padded on the right. Behind virtual tokens there is no padding: it would part them from the text, so only prompts
    of equal length share a batch. Leaves the network in the mode that it was in, and its makers' sampling settings out
    of account.

    Args:
        prompts: token ids. One that leaves no room for the answer in the network's context loses its left; this is said.
        max_new_tokens: an answer is cut there at the latest.
        tasks: the number of each prompt's task, where tasks have a soft prompt of their own.

    Raises:
        ValueError: the context has no room for an answer of that length.
    """
    prompts = fitting(prompts, network, tokenizer.bos_token_id, max_new_tokens)
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    was_training = network.training
    network.eval()
    exact = virtual_tokens(network) > 0 and not network.config.is_encoder_decoder
    try:
        for numbers in _batches(order, [len(prompts[i]) if exact else 0 for i in order]):
            more = {} if tasks is None else {"task_ids": torch.tensor([tasks[i] for i in numbers])}
            made = _batch(network, tokenizer, [prompts[i] for i in numbers], max_new_tokens, **more)
            for i, ids in zip(numbers, made, strict=True):
                texts[i] = tokenizer.decode(ids, skip_special_tokens=True)
    finally:
        network.train(was_training)
    return texts


def _batches(order: list[int], kinds: list[int]) -> Iterator[list[int]]:
    """Cuts an order into batches, each of one kind."""
    for _, group in groupby(zip(order, kinds, strict=True), key=lambda pair: pair[1]):
        numbers = [number for number, _ in group]
        for start in range(0, len(numbers), BATCH):
            yield numbers[start : start + BATCH]


def virtual_tokens(network: Any) -> int:
    """Positions in front of the text that an adaptation takes."""
    return getattr(getattr(network, "active_peft_config", None), "num_virtual_tokens", 0)


def fitting(prompts: list[list[int]], network: Any, bos: int | None, max_new_tokens: int) -> list[list[int]]:
    """Prompts, without the left of those that leave no room for the answer; this is said.

    Raises:
        ValueError: the context has no room for an answer of that length.
    """
    room = (context_length(network.config) or sys.maxsize) - virtual_tokens(network)
    room -= 0 if network.config.is_encoder_decoder else max_new_tokens
    if room < 2:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, more than the context of the network: lower it.")
    if cut := sum(len(ids) > room for ids in prompts):
        log.warning("%d of %d prompts are longer than %d tokens and lose their left.", cut, len(prompts), room)
    return [
        ids if len(ids) <= room else [bos, *ids[1 - room :]] if bos is not None and ids[0] == bos else ids[-room:]
        for ids in prompts
    ]


def _batch(
    network: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int, **more: torch.Tensor
) -> torch.Tensor:
    from transformers import GenerationConfig

    device, encoder = next(network.parameters()).device, network.config.is_encoder_decoder
    width = max(1, *map(len, prompts))
    ends = end_tokens(network, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends[0] if ends else 0)
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        start = 0 if encoder else width - len(prompt)
        ids[row, start : start + len(prompt)] = torch.tensor(prompt, dtype=torch.long)
        mask[row, start : start + len(prompt)] = 1
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ends or None, pad_token_id=pad, use_cache=True,
        decoder_start_token_id=decoder_start(network.config) if encoder else None,
    )  # fmt: skip
    # What is not set in a given configuration is taken from the network's own, such as a repetition penalty.
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    own, inner.generation_config = inner.generation_config, greedy
    try:
        more = {name: value.to(device) for name, value in more.items()}
        made = network.generate(input_ids=ids.to(device), attention_mask=mask.to(device), **more)
    finally:
        inner.generation_config = own
    return made[:, 1 if encoder else width :]


def end_tokens(network: Any, tokenizer: Any) -> list[int]:
    """The end tokens that are trained, of texts and of turns, and those that the backbone's makers named."""
    named = getattr(network.generation_config, "eos_token_id", None)
    named = named if isinstance(named, list) else [named]
    turn = turn_end(tokenizer) if tokenizer.chat_template else ""
    turn_id = tokenizer.convert_tokens_to_ids(turn) if turn else None
    return sorted({end for end in (tokenizer.eos_token_id, turn_id, *named) if end is not None})


def generate(
    model: str,
    prompt: str | None = None,
    file: str | None = None,
    max_new_tokens: int = 128,
    chat: bool = False,
) -> None:
    """Write what a model says to prompts: text in, text out.

    Args:
        model: a run folder, an adapter folder, a zoo entry, or a Hugging Face id.
        prompt: without it and without a file, prompts are read from standard input, one a line.
        file: a text file with a prompt on each line.
        max_new_tokens: an answer is cut there at the latest.
        chat: each prompt is what a user says in a conversation.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, expected at least 1: raise it.")
    prompts = [*([prompt] if prompt else []), *(Path(file).read_text(encoding="utf-8").splitlines() if file else [])]
    if prompt is None and file is None:
        prompts = sys.stdin.read().splitlines()
    if not prompts:
        raise ValueError("no prompt: give --prompt TEXT, --file FILE, or lines on standard input.")
    network, tokenizer = load_adapted(model)
    if hasattr(getattr(network, "active_peft_config", None), "num_tasks"):
        raise ValueError(f"{model} has a soft prompt for each task: ask it by predict, with rows that say their task.")
    encoder = SegmentEncoder(tokenizer)
    if chat:
        asked = [chat_text([{"role": "user", "content": text}], tokenizer, True) for text in prompts]
    else:  # parted from the answer as in training
        asked = [prompt_text(text) for text in prompts]
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    end = encoder.suffix if network.config.is_encoder_decoder else []
    for text in continue_prompts(
        network, tokenizer, [[*encoder.ids(text, chat), *end] for text in asked], max_new_tokens
    ):
        print(text)
