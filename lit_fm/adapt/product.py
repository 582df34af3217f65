"""A layer with LoRA, y = x (W + s B A)^T, in as few products as it takes; peft adds up two layers, with copies between.

In two ways, of which FLOPs choose. Beside a matrix W (out x in), A and B cost 2 tokens rank (in + out) forward, and
2 tokens rank in more backward than where B A is added to W, which costs 2 rank in out each time. So the sum is less
work for more than 2 in out / (2 in + out) tokens, and without a backward pass for more than in out / (in + out),
whatever the rank. In 16 bits, a sum would round small updates away: there, A and B stay beside W.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D


class _Updated(torch.autograd.Function):
    """x (W + s B A)^T + bias, of which x, W, A and B are kept, and nothing else."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        dtype: torch.dtype,
        summed: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.how = scale, dtype, summed
        rows, weight, a, b = (tensor.to(dtype) for tensor in (x.reshape(-1, x.shape[-1]), weight, a, b))
        bias = None if bias is None else bias.to(dtype)
        if summed:
            made = F.linear(rows, torch.addmm(weight, b, a, alpha=scale), bias)
        else:
            made = F.linear(rows, weight, bias)
            torch.addmm(made, rows @ a.t(), b.t(), alpha=scale, out=made)
        return made.view(*x.shape[:-1], made.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        kept, (scale, dtype, summed) = ctx.saved_tensors, ctx.how
        x, weight, a, b = (tensor.to(dtype) for tensor in kept)
        rows, slope = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, weight.shape[0])
        thin, of_x = slope @ b, None
        if ctx.needs_input_grad[0]:
            if summed:
                of_x = slope @ torch.addmm(weight, b, a, alpha=scale)
            else:
                of_x = slope @ weight
                torch.addmm(of_x, thin, a, alpha=scale, out=of_x)
            of_x = of_x.view(x.shape).to(kept[0].dtype)
        of_a, of_b = thin.t() @ rows, slope.t() @ (rows @ a.t())
        return of_x, None, None, (of_a * scale).to(kept[2].dtype), (of_b * scale).to(kept[3].dtype), None, None, None


class Product(Linear):
    """peft's layer, computed at once wherever that is the same function."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not self._plain(x):
            return super().forward(x, *args, **kwargs)
        base: Any = self.base_layer
        name = self.active_adapters[0]
        weight = base.weight.t() if isinstance(base, Conv1D) else base.weight
        a, b, scale = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind := x.device.type) else x.dtype
        tokens, (out, into) = x.numel() // x.shape[-1], weight.shape
        fewest = 2 * out * into / (out + 2 * into) if torch.is_grad_enabled() else out * into / (out + into)
        summed = dtype in (torch.float32, torch.float64) and tokens > fewest
        return _Updated.apply(x, weight, base.bias, a, b, scale, dtype, summed)

    def _plain(self, x: Tensor) -> bool:
        """One adapter beside a frozen matrix that is whole and not quantised; no dropout, no variant of LoRA."""
        base: Any = self.base_layer
        names = self.active_adapters
        if self.disable_adapters or self.merged or len(names) != 1 or not isinstance(base, nn.Linear | Conv1D):
            return False
        (name,) = names
        if name not in self.lora_A or name in self.lora_variant or self.lora_bias[name]:
            return False
        if self.training and not isinstance(self.lora_dropout[name], nn.Identity):
            return False
        tensors = [x, base.weight, self.lora_A[name].weight, self.lora_B[name].weight]
        if any(isinstance(tensor, DTensor) for tensor in tensors) or any(p.requires_grad for p in base.parameters()):
            return False
        alike = all(tensor.dtype == x.dtype for tensor in tensors)
        return alike or (x.is_floating_point() and torch.is_autocast_enabled(x.device.type))


def compute_at_once(network: nn.Module) -> None:
    """Let all layers with LoRA in a network compute so; their weights, names and state stay as they are."""
    for module in network.modules():
        if type(module) is Linear:
            module.__class__ = Product
