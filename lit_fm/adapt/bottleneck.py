"""Bottleneck adapters: small layers behind those of a frozen network, h + up(f(down(h))).

`up` starts at zero, so that nothing changes at the start, to the bit. Houlsby et al. 2019, "Parameter-Efficient Transfer
Learning for NLP", figure 2; Pfeiffer et al. 2021, "AdapterFusion".
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_fm.adapt.base import Adaptation
from lit_fm.adapt.delta import save_delta
from lit_fm.adapt.layers import is_norm, out_width, with_role
from lit_fm.adapt.tuner import check_targets

ACTIVATIONS: dict[str, Any] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Adapter(nn.Module):
    """What is added to the output of a layer: (..., width) to (..., width)."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation = ACTIVATIONS[activation]()
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: Tensor) -> Tensor:
        added = self.up(self.activation(self.down(hidden.to(self.down.weight.dtype))))
        return hidden + added.to(hidden.dtype)


def _behind(layer: Any, args: Any, output: Tensor) -> Tensor:
    return layer.adapter(output)


class Bottleneck(Adaptation):
    """Adapters behind sub-layers; the backbone stays frozen.

    Args:
        width: of the bottleneck.
        placement: behind attention and feed-forward layer (`houlsby`), or behind the feed-forward layer alone (`pfeiffer`).
        activation: in the bottleneck.
        norms: layer norms learn too, as Houlsby's do.
        targets: how names of linear layers end, in place of a placement.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        width: int = 64,
        placement: Literal["houlsby", "pfeiffer"] = "houlsby",
        activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu",
        norms: bool = False,
        targets: list[str] | None = None,
    ) -> None:
        if width < 1:
            raise ValueError(f"Bottleneck needs width >= 1, got {width}: raise it.")
        self.width, self.placement, self.activation, self.norms, self.targets = (
            width, placement, activation, norms, targets,
        )  # fmt: skip

    def places(self, network: Any) -> list[str]:
        """Names of the layers that get an adapter behind them."""
        if self.targets is not None:
            check_targets(self.targets, network)
            wanted = tuple(f".{target}" for target in self.targets)
            return [name for name, _ in network.named_modules() if f".{name}".endswith(wanted)]
        roles = ("attention output", "feed-forward output") if self.placement == "houlsby" else ("feed-forward output",)
        return [name for role in roles for name in with_role(network, role)]

    def change(self, network: Any) -> Any:
        network.requires_grad_(False)
        for name in self.new:
            network.get_submodule(name).requires_grad_()
        for module in network.modules() if self.norms else ():
            if is_norm(module):
                module.requires_grad_()
        for name in self.places(network):
            layer = network.get_submodule(name)
            device = next(layer.parameters()).device
            layer.adapter = Adapter(out_width(layer), self.width, self.activation).to(device, torch.float32)
            layer.register_forward_hook(_behind)
        return network

    def export(self, network: Any, folder: Path, base: str) -> None:
        save_delta(self, network, folder, base)
