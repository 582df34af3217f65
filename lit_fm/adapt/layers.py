"""Where in a network the layers are that adaptations speak of, by the names that architectures give them."""

import re
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

_ATTENTION = (
    r"(?:^|\.)(?:self_attn|attn|attention|self_attention|SelfAttention|EncDecAttention|encoder_attn|rel_attn)\."
)
ROLES = {
    "attention": re.compile(_ATTENTION),
    "attention output": re.compile(_ATTENTION + r"(?:.+\.)?(?:o_proj|out_proj|c_proj|dense|Wo|o|out_lin)$"),
    "feed-forward output": re.compile(
        r"(?:^|\.)(?:(?<!attention\.)output\.dense|down_proj|fc2|dense_4h_to_h|fc_out|lin2|ffn_output|layer_2|w2"
        r"|mlp\.c_proj|mlp\.Wo|DenseReluDense\.wo)$"
    ),
    "keys and values": re.compile(
        r"\.(?:[kv]_proj|key|value|key_proj|value_proj|[kv]|[kv]_lin|c_attn|query_key_value|qkv_proj|Wqkv)$"
    ),
}


def linear_layers(network: nn.Module) -> list[str]:
    """Names of the linear layers, quantised ones included."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def with_role(network: nn.Module, role: str) -> list[str]:
    """Names of the linear layers that play a role.

    Raises:
        ValueError: none is called as any known architecture calls it.
    """
    found = [name for name in linear_layers(network) if ROLES[role].search(name)]
    if not found:
        raise ValueError(
            f"adaptation.targets: no layer of {type(network).__name__} is known as {role}: name some yourself. It has "
            f"{leaves(network)}."
        )
    return found


def leaves(network: nn.Module) -> list[str]:
    """How the names of its linear layers end."""
    return sorted({name.rpartition(".")[2] for name in linear_layers(network)})


def out_width(layer: Any) -> int:
    """The width of what a linear layer gives."""
    return layer.nf if isinstance(layer, Conv1D) else layer.out_features


def place_of(name: str) -> tuple[str, int] | None:
    """The stack and the number, from the bottom, of the block that a weight is in; None for what is in none."""
    found = re.match(r"(|.*?\.)(\d+)\.", name)
    return (found[1], int(found[2])) if found else None


def block_of(name: str) -> int | None:
    """The number of the block that a weight is in, from the bottom; None for what is in none."""
    place = place_of(name)
    return None if place is None else place[1]


def stacks(network: nn.Module) -> dict[str, int]:
    """How many blocks each stack of the network has."""
    found: dict[str, int] = {}
    for name, _ in network.named_parameters():
        if place := place_of(name):
            found[place[0]] = max(found.get(place[0], 0), place[1] + 1)
    return found


def head_of(network: Any) -> set[str]:
    """Names of the weights behind the body: of the layers that read its output. One that is tied is not among them."""
    if network.base_model is not network:
        return {name for name, _ in network.named_parameters() if not name.startswith(f"{network.base_model_prefix}.")}
    head, body = network.get_output_embeddings(), network.get_input_embeddings()
    own = {id(p) for p in (head.parameters() if head is not None else ())} - {id(p) for p in body.parameters()}
    return {name for name, p in network.named_parameters() if id(p) in own}


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a layer norm of any kind, by its class: names and bases differ among architectures."""
    return "norm" in type(module).__name__.lower() and any(True for _ in module.parameters(recurse=False))
