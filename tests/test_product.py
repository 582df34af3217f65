"""LoRA computed at once is the function that peft computes, with the same gradients."""

import pytest
import torch
from conftest import causal_configs
from peft.tuners.lora.layer import Linear
from test_loss_and_gradients import objective, ragged_items
from torch.utils.flop_counter import FlopCounterMode

from lit_fm import LoRA
from lit_fm.adapt.product import Product, _Updated


def stirred(made):
    """With updates that are not zero."""
    torch.manual_seed(1)
    for name, parameter in made.network.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def layers(made, kind):
    """Switch all layers with LoRA to ours or to peft's."""
    found = [m for m in made.network.modules() if isinstance(m, Linear)]
    for module in found:
        module.__class__ = kind
    return found


def learnt(made, items, half=False):
    made.network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        total, _ = made.token_losses(made.collate(items))
    total.backward()
    return total.detach(), [p.grad.clone() for p in made.network.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "opt"])  # gpt2: transposed, with a bias
@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dropout": 0.3}, {"dora": True}])
@pytest.mark.parametrize("few", [False, True])
def test_loss_and_gradients_are_those_of_pefts_own_forward(make_backbone, name, options, few):
    made = stirred(objective(make_backbone(name, causal_configs()[name]), LoRA(rank=4, **options)))
    items = ragged_items()[2:3] if few else ragged_items()  # 6 tokens, of which W takes no sum; 200
    made.network.double()
    made.network.train(not options.get("dropout"))
    assert layers(made, Product)
    loss, gradients = learnt(made, items)
    layers(made, Linear)
    expected, theirs = learnt(made, items)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for mine, other in zip(gradients, theirs, strict=True):
        assert (mine - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("size", [(32, 96), (64, 64), (96, 32)])
def test_the_sum_is_taken_where_it_is_less_work(learns, size):
    into, out = size
    weight, bias = torch.randn(out, into), None
    a, b = (torch.randn(s, requires_grad=learns) for s in ((8, into), (out, 8)))

    def work(tokens, summed):
        x = torch.randn(tokens, into, requires_grad=learns)
        with FlopCounterMode(display=False) as counter:
            made = _Updated.apply(x, weight, bias, a, b, 2.0, torch.float32, summed)
            if learns:
                made.sum().backward()
        return counter.get_total_flops()

    fewest = 2 * into * out / (2 * into + out) if learns else into * out / (into + out)
    assert work(int(fewest), True) >= work(int(fewest), False)
    assert work(int(fewest) + 1, True) < work(int(fewest) + 1, False)


def test_no_tensor_is_kept_but_what_the_layer_was_given(llama):
    made = objective(llama, LoRA(rank=4))
    layer = layers(made, Product)[0]
    x = torch.randn(2, 40, 32, requires_grad=True)
    given = {t.data_ptr() for t in (x, layer.base_layer.weight, *(p for p in layer.parameters() if p.requires_grad))}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert {t.data_ptr() for t in kept} == given


def test_in_16_bits_a_small_update_is_not_rounded_away(llama):
    made = objective(llama, LoRA(rank=4))
    layer = layers(made, Product)[0]
    weights = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.constant_(weights[2], 1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        weights[0].fill_(1.0)  # whose next number in 16 bits is 1.008
        x = weights[1].sum(0).sign()[None].repeat(64, 1) * torch.tensor([1.0, -1.0]).repeat(16)  # W takes it to about 0
        ours = layer(x).float()
        layer.__class__ = Linear
        torch.testing.assert_close(ours, layer(x).float(), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("few", [False, True])
def test_under_autocast_the_loss_is_the_same_but_for_rounding(llama, few):
    made = stirred(objective(llama, LoRA(rank=4)))
    items = ragged_items()[2:3] if few else ragged_items()
    loss, gradients = learnt(made, items, half=True)
    torch.testing.assert_close(loss, learnt(made, items)[0], rtol=1e-3, atol=0)
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_under_autocast_a_layer_is_as_near_to_exact_numbers_as_pefts_own(llama):
    layer = layers(stirred(objective(llama, LoRA(rank=4))), Product)[0]
    x, slope = torch.randn(200, layer.in_features), torch.randn(200, layer.out_features)

    def found(kind, half):
        layer.__class__ = kind
        layer.zero_grad()
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made = layer(given)
        made.backward(slope.to(made.dtype))
        return [made.detach().float(), given.grad, *(p.grad for p in layer.parameters() if p.requires_grad)]

    exact, ours, theirs = found(Linear, False), found(Product, True), found(Linear, True)
    for one, other, right in zip(ours, theirs, exact, strict=True):
        assert (one - right).norm() < 1.05 * (other - right).norm()


def test_it_works_in_compiled_blocks_and_where_activations_are_computed_again(llama):
    from lit_fm import CausalLM

    found = []
    for options in ({}, {"activation_checkpointing": True}, {"compile": True}):
        torch.manual_seed(7)
        made = CausalLM(llama, LoRA(rank=4), **options)
        made.configure_model()
        stirred(made)
        found.append(learnt(made, ragged_items()))
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-5, atol=0)
        for mine, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())
