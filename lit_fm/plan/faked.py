"""Networks that have shapes and no numbers: what a backbone would be, without its weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def fake(tensor: Tensor, mode: FakeTensorMode) -> FakeTensor:
    """The same on a CPU that computes nothing."""
    return FakeTensor(mode, tensor.detach().to("meta"), torch.device("cpu"))


def faked(network: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A network on the meta device with fake weights in place; tied ones stay tied, quantised ones take what they will."""
    made: dict[int, Any] = {}
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in made:
                made[id(parameter)] = _parameter(module, name, parameter, mode)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                made.setdefault(id(buffer), fake(buffer, mode))
                module._buffers[name] = made[id(buffer)]
    return network


def _parameter(module: nn.Module, name: str, parameter: nn.Parameter, mode: FakeTensorMode) -> nn.Parameter:
    if type(parameter).__name__ == "Params4bit":
        return _four_bits(parameter, mode)
    if type(parameter).__name__ == "Int8Params":
        return _eight_bits(parameter, mode)
    return nn.Parameter(fake(parameter, mode), requires_grad=parameter.requires_grad)


def _eight_bits(parameter: nn.Parameter, mode: FakeTensorMode) -> nn.Parameter:
    """A weight in a byte, and a scale in 32 bits for each row."""
    packed = nn.Parameter(fake(parameter.to(torch.int8), mode), requires_grad=False)
    packed.CB = packed.data  # type: ignore[attr-defined]
    packed.SCB = fake(torch.empty(len(parameter), device="meta"), mode)  # type: ignore[attr-defined]
    return packed


def _four_bits(parameter: nn.Parameter, mode: FakeTensorMode) -> nn.Parameter:
    """Two weights in a byte, a scale in 8 bits for each 64 of them, and one in 32 for each 256 of these."""
    from bitsandbytes.functional import QuantState

    def of(count: int, dtype: torch.dtype) -> FakeTensor:
        return fake(torch.empty(count, dtype=dtype, device="meta"), mode)

    blocks = -(-parameter.numel() // 64)
    single = torch.float32
    nested = QuantState(of(-(-blocks // 256), single), code=of(256, single), blocksize=256, dtype=single)
    packed = nn.Parameter(of(-(-parameter.numel() // 2), torch.uint8).reshape(-1, 1), requires_grad=False)
    packed.quant_state = QuantState(  # type: ignore[attr-defined]
        of(blocks, torch.uint8), parameter.shape, of(16, single), 64, "nf4", single, of(1, single)[0], nested
    )
    return packed
