"""Backbones in 4 or 8 bits, by bitsandbytes, on a CPU as on a GPU."""

import logging
from collections.abc import Sequence
from typing import Any

import torch


def quantisation(bits: int, dtype: torch.dtype, keep: Sequence[str]) -> Any:
    """What transformers is told: NF4 whose constants are quantised too, or LLM.int8().

    Dettmers et al. 2023, "QLoRA", section 3; Dettmers et al. 2022.

    Args:
        dtype: in which is computed.
        keep: modules that stay as they are.
    """
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(keep) or None)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(keep) or None,
    )


def outlined(auto_class: Any, config: Any, dtype: torch.dtype, bits: int | None, keep: Sequence[str]) -> Any:
    """A network without numbers, with layers of the kinds that it would be loaded in: for a plan."""
    network = auto_class.from_config(config, dtype=dtype)
    if bits:
        from transformers.integrations.bitsandbytes import replace_with_bnb_linear

        network = replace_with_bnb_linear(network, list(keep) or ["lm_head"], quantisation(bits, dtype, keep))
        network.is_loaded_in_4bit, network.is_loaded_in_8bit, network.is_quantized = bits == 4, bits == 8, True
    return network.train()


def right_on_cpu(network: Any) -> None:
    """Keep 4-bit weights on a CPU to what bitsandbytes 0.50 computes rightly there.

    It quantises blocks of 64 weights of the flat matrix, but its CPU kernel, when it dequantises, begins a new block with
    each row: rows that are no multiple of 64 come back wrong. The same scales for blocks of 32 are right.

    On CPUs with AVX512-BF16 the first pass in evaluation mode repacks weights for a kernel that has no backward pass and
    rounds to bfloat16, and training goes on with it: gradients then point elsewhere. That is switched off.

    Raises:
        ValueError: rows that are no multiple of 32.
    """
    from bitsandbytes.functional import dequantize_blockwise
    from bitsandbytes.nn import Linear4bit

    for name, layer in network.named_modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if not isinstance(layer, Linear4bit) or state is None or layer.weight.device.type != "cpu":
            continue
        size, width = 32, state.shape[-1]
        if width % state.blocksize == 0:
            continue
        if width % size:
            raise ValueError(
                f"bits: {name} has rows of {width} weights, and 4 bits on a CPU need a multiple of {size}: use 8, or a GPU."
            )
        if state.nested:
            state.absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset
            state.nested, state.state2, state.offset = False, None, None
        state.absmax = state.absmax.repeat_interleave(state.blocksize // size)
        state.blocksize = size
