"""Kernels for GPUs: taken where they do the same, refused or left alone elsewhere. Two of these need such a machine."""

import copy

import pytest
import torch
from conftest import llama_config
from test_packing import LENGTHS, ROWS, random_items
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask
from transformers.utils import is_flash_attn_2_available, is_liger_kernel_available

from lit_fm import CausalLM
from lit_fm.liger import use_liger
from lit_fm.objectives import packed
from lit_fm.objectives.loss import sum_cross_entropy
from lit_fm.objectives.packed import EACH, attention_of_each, exact_way

NAME = "varlen_of_test"


@pytest.fixture
def built(llama):
    objective = CausalLM(llama)
    objective.configure_model()
    objective.network.eval()
    return objective


def varlen(module, query, key, value, attention_mask, cu_seq_lens_q=None, **kwargs):
    """Stands in for flash attention, which needs a GPU: it is told the borders, and no mask."""
    lengths = None if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    return attention_of_each(module, query, key, value, attention_mask, lengths, **kwargs)


def deaf(module, query, key, value, attention_mask, cu_seq_lens_q=None, **kwargs):
    """It does not listen to where the borders are."""
    return attention_of_each(module, query, key, value, attention_mask, None, **kwargs)


@pytest.mark.parametrize(("kernel", "way"), [(varlen, "flash"), (deaf, "each"), (None, "each")])
def test_attention_that_is_told_the_borders_is_taken_where_it_keeps_them(built, monkeypatch, kernel, way):
    items = random_items(LENGTHS)
    alone = torch.cat([built.logits(built.collate([item])) for item in items])
    if kernel:
        AttentionInterface.register(NAME, kernel)
        AttentionMaskInterface.register(NAME, flash_attention_mask)
    monkeypatch.setattr(packed, "FLASH", NAME if kernel else "there_is_none")
    monkeypatch.setattr(packed, "flash_there", lambda network: True)
    built._way = exact_way(built.network, "llama", 128)
    assert built._way == way
    assert built.network.config._attn_implementation == {"flash": NAME, "each": EACH}[way]
    batch = built.pack([[items[i] for i in row] for row in ROWS])
    assert ("attention_mask" in batch) == (way == "each")
    torch.testing.assert_close(built.logits(batch), alone, atol=1e-5, rtol=0)


@pytest.mark.skipif(not is_flash_attn_2_available(), reason="needs a GPU and flash-attn")
def test_flash_attention_gives_the_loss_of_each_example_alone(built):
    network, items = built.network.to("cuda", torch.bfloat16), random_items(LENGTHS)

    def loss(batch):
        batch = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        return sum_cross_entropy(built.logits(batch), batch["targets"]).float()

    alone = sum(loss(built.collate([item])) for item in items)
    built._way = exact_way(network, "llama", 128)
    assert built._way == "flash"
    torch.testing.assert_close(loss(built.pack([[items[i] for i in row] for row in ROWS])), alone, rtol=1e-2, atol=0)


def test_liger_is_refused_without_a_gpu(llama):
    with pytest.raises(ValueError, match="its kernels need a GPU, and the trainer computes on cpu: leave it out"):
        CausalLM(llama, liger=True).configure_model()


@pytest.mark.skipif(is_liger_kernel_available(), reason="liger-kernel is there")
def test_liger_says_which_package_it_needs(built):
    with pytest.raises(ValueError, match="pip install liger-kernel"):
        use_liger(built.network, "cuda:0")


@pytest.mark.skipif(not (torch.cuda.is_available() and is_liger_kernel_available()), reason="needs a GPU and Liger")
def test_liger_gives_the_same_loss_and_gradients(make_backbone):
    plain = CausalLM(make_backbone("liger", llama_config()))
    plain.configure_model()
    fused = copy.deepcopy(plain)
    use_liger(fused.network, "cuda:0")
    seen = []
    for objective in (plain, fused):
        objective.network.cuda()
        batch = objective.collate(random_items(LENGTHS))
        batch = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        loss = objective.token_losses(batch)[0]
        loss.backward()
        seen.append([loss.detach(), *(p.grad for p in objective.network.parameters())])
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
