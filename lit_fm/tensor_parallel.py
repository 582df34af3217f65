"""Large matrices in parts, by the plan that transformers has for the architecture."""

import re
from typing import Any

from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module


def split(network: Any, mesh: Any) -> list[nn.Parameter]:
    """Part the large matrices of a network, by the plan that its architecture has in transformers.

    Returns:
        Weights that stay whole, and whose gradients are partial on each rank.

    Raises:
        ValueError: there is no plan, or the heads do not part.
    """
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    config, kind, ranks = base.config, type(base).__name__, mesh.size()
    plan = getattr(config, "base_model_tp_plan", None)
    if not plan:
        raise ValueError(f"Sharded: tensor_parallel: transformers has no plan for {kind}: leave it at 1.")
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if (count := getattr(config, name, None) or ranks) % ranks:
            raise ValueError(f"Sharded: tensor_parallel {ranks} does not divide {name} {count} of {kind}.")
    if any(getattr(config, name, 0) for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")):
        raise ValueError(
            f"Sharded: tensor_parallel: {kind} drops out attention, alike on the heads of all ranks: set "
            "its attention dropout to 0 in config.json."
        )
    partial: list[nn.Parameter] = []
    styles: dict[str, ParallelStyle] = {}
    for name, module in base.base_model.named_modules():
        for pattern, how in plan.items():
            if not re.fullmatch(pattern.replace(".", r"\.").replace("*", r"\d+"), name):
                continue
            if how == "replicated_with_grad_allreduce":
                partial += module.parameters()
            elif how in ("colwise", "rowwise"):
                styles |= _styles(name, module, how)
            else:
                raise ValueError(f"Sharded: tensor_parallel: {kind} asks for {how!r}, which is not known here.")
    parallelize_module(base.base_model, mesh, styles)
    return partial


def _styles(name: str, module: Any, how: str) -> dict[str, ParallelStyle]:
    """Of a matrix, or of one with LoRA beside it: the thin matrix at the parted side is parted too."""
    style = ColwiseParallel if how == "colwise" else RowwiseParallel
    if not hasattr(module, "base_layer"):
        return {name: style()}
    thin = "lora_B" if how == "colwise" else "lora_A"
    return {f"{name}.base_layer": style(), f"{name}.{thin}.default": style()}
