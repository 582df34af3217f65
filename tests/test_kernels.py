"""Kernels for GPUs: taken where they do the same, refused or left alone elsewhere. Some of these need such a machine."""

import copy
import inspect
from itertools import pairwise

import pytest
import test_packing
import torch
from test_packing import LENGTHS, ROWS, random_items
from torch.nn import functional as F
from transformers.utils import is_liger_kernel_available

from lit_fm import CausalLM
from lit_fm.liger import use_liger
from lit_fm.objectives import packed
from lit_fm.objectives.packed import exact_way

CONFIGS = {name: test_packing.CONFIGS[name] for name in ("llama", "qwen3", "mistral", "gemma3")}


def built(make_backbone, name, dtype="float32"):
    objective = CausalLM(make_backbone(name, CONFIGS[name]), dtype=dtype)
    objective.configure_model()
    assert exact_way(objective.network, name, 128) == "each"
    objective._way = "each"
    return objective


def loss_and_gradients(objective, device="cpu"):
    network, items = objective.network.to(device), random_items(LENGTHS)
    network.zero_grad()
    batch = objective.pack([[items[i] for i in row] for row in ROWS])
    batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    loss = objective.token_losses(batch)[0]
    loss.backward()
    return [loss.detach().float(), *(p.grad.clone() for p in network.parameters())]


def varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """Stands in for PyTorch's flash attention, which needs a GPU, and is called as that one is."""
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert cu_seq_q.dtype == torch.int32
    assert max_q == max_k == cu_seq_q.diff().max()
    assert window_size[1] == 0
    made = []
    for start, end in pairwise(cu_seq_q.tolist()):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
        seen = (distance >= 0) & ((distance <= window_size[0]) | (window_size[0] < 0))
        made.append(F.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=enable_gqa).transpose(0, 1))
    return torch.cat(made)


@pytest.mark.parametrize("name", CONFIGS)
def test_flash_attention_is_given_what_it_needs_to_keep_examples_apart(make_backbone, monkeypatch, name):
    objective = built(make_backbone, name)
    plain, called = loss_and_gradients(objective), []
    monkeypatch.setattr(packed, "HALF", (torch.float32,))
    monkeypatch.setattr(packed.varlen, "varlen_attn", lambda *args, **how: called.append(1) or varlen(*args, **how))
    objective._flash = True
    for one, other in zip(plain, loss_and_gradients(objective), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert len(called) == objective.network.config.num_hidden_layers


def test_without_a_gpu_a_row_says_nothing_to_flash_attention_whose_arguments_are_as_we_call_them(make_backbone):
    objective = built(make_backbone, "llama")
    assert not packed.flash_on(objective.network)
    assert "borders" not in objective.pack([random_items(LENGTHS)])
    theirs = {name: of.kind for name, of in inspect.signature(packed.varlen.varlen_attn).parameters.items()}
    asked = inspect.signature(varlen).parameters
    assert {name: theirs[name] for name in asked} == {name: of.kind for name, of in asked.items()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_flash_attention_gives_the_loss_and_gradients_of_each_example_alone(make_backbone, name, dtype):
    objective, found = built(make_backbone, name, dtype), []
    objective.network.cuda()
    assert exact_way(objective.network, name, 128) == "each"
    for flash in (False, packed.flash_on(objective.network)):
        objective._flash = flash
        with torch.autocast("cuda", torch.bfloat16):
            found.append(loss_and_gradients(objective, "cuda"))
    assert flash
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 0.03 * other.norm()


def test_liger_is_refused_without_a_gpu(llama):
    with pytest.raises(ValueError, match="its kernels need a GPU, and the trainer computes on cpu: leave it out"):
        CausalLM(llama, liger=True).configure_model()


@pytest.mark.skipif(is_liger_kernel_available(), reason="liger-kernel is there")
def test_liger_says_which_package_it_needs(make_backbone):
    with pytest.raises(ValueError, match="pip install liger-kernel"):
        use_liger(built(make_backbone, "llama").network, "cuda:0")


@pytest.mark.skipif(not (torch.cuda.is_available() and is_liger_kernel_available()), reason="needs a GPU and Liger")
def test_liger_gives_the_same_loss_and_gradients(make_backbone):
    plain = built(make_backbone, "llama")
    fused = copy.deepcopy(plain)
    use_liger(fused.network, "cuda:0")
    found = [loss_and_gradients(objective, "cuda") for objective in (plain, fused)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
