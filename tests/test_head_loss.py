"""The loss behind a head, a chunk of rows at a time, is that of all logits at once, with the same gradients."""

import lightning as L
import pytest
import torch
from conftest import causal_configs, masked_configs, seq2seq_configs
from test_contract import FAMILIES
from test_loss_and_gradients import objective, ragged_items, reference_loss
from torch.utils.data import DataLoader
from transformers import Gemma2Config

from lit_fm import LoRA
from lit_fm.objectives import loss
from lit_fm.objectives.loss import HeadLoss, sum_cross_entropy

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 2048}
GEMMA = Gemma2Config(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=64,
    final_logit_softcapping=5.0, max_position_embeddings=512, **IDS,
)  # fmt: skip
NETWORKS = [
    *(("causal", name) for name in (*causal_configs(), "gemma2")),
    *(("masked", name) for name in masked_configs()),
    *(("seq2seq", name) for name in seq2seq_configs()),
]
CHANGED_BEHIND = {"gemma2", "bart"}  # a soft cap; a bias of its own


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", 7)


def made_and_batch(make_backbone, family, name, **options):
    kind, configs, zoo = FAMILIES[family]
    config = GEMMA if name == "gemma2" else configs()[name]
    L.seed_everything(7)
    made = kind(make_backbone(name, config, tokenizer=zoo), **options)
    made.configure_model()
    texts = [{"text": "one two three four five six seven eight nine ten " * n} for n in (5, 4, 6, 5)]
    return made, made.collate(made.encode(texts, 64))


def found(made, batch, whole=False):
    made.network.zero_grad()
    total = sum_cross_entropy(made.logits(batch), batch["targets"]) if whole else made.token_losses(batch)[0]
    total.backward()
    return total.detach(), {n: p.grad.clone() for n, p in made.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("family", "name"), NETWORKS)
@pytest.mark.parametrize("adaptation", [None, "lora"])
def test_loss_and_gradients_are_those_of_all_logits_at_once(make_backbone, family, name, adaptation):
    made, batch = made_and_batch(make_backbone, family, name, adaptation=LoRA(rank=4) if adaptation else None)
    assert len(batch["targets"]) > 14
    made.network.eval()
    expected, theirs = found(made, batch, whole=True)
    for _ in range(2):  # at first it is found out where the network ends
        total, ours = found(made, batch)
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
        assert ours.keys() == theirs.keys()
        for name_of, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[name_of], rtol=1e-5, atol=1e-5, msg=name_of)
    assert made._head_loss.ends is (name not in CHANGED_BEHIND)


def test_no_more_logits_than_a_chunk_are_there_at_once(llama):
    made = objective(llama)
    batch = made.collate(ragged_items())
    seen, of_weights = [], (32, 2048)

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if (
                isinstance(result, torch.Tensor)
                and result.ndim == 2
                and result.shape[1] == 2048
                and len(result) not in of_weights
            ):
                seen.append(len(result))
            return result

    with Largest():
        made.token_losses(batch)[0].backward()
    assert max(seen) == 7
    assert len(batch["targets"]) > 7


def test_validation_counts_the_same_loss(llama):
    made, items = objective(llama), ragged_items()
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.validate(made, DataLoader([made.collate(items)], batch_size=None), verbose=False)
    with torch.no_grad():
        total, count = reference_loss(made.network.eval(), items)
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx((total / count).item(), rel=1e-6)
    assert made._head_loss.ends


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_to_find_out_where_a_network_ends_draws_no_randomness(make_backbone, name):
    """So that a run that was resumed drops out what the unbroken one does."""
    made, batch = made_and_batch(make_backbone, "causal", name)
    made.network.get_input_embeddings().register_forward_hook(lambda m, i, o: torch.nn.functional.dropout(o, 0.5))
    made.network.train()
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(made.token_losses(batch)[0].item())
    made._head_loss = HeadLoss()
    made._head_loss.ends = False
    torch.manual_seed(3)
    assert losses == pytest.approx([made.token_losses(batch)[0].item()] * 2, rel=1e-5)


@pytest.mark.parametrize("write", [lambda z: z.mul_(0.5), lambda z: z * 0.5, lambda z: z[:, :-1]])
def test_what_is_done_to_logits_behind_the_head_is_seen(llama, write):
    made = objective(llama)
    batch, plain = made.collate(ragged_items()), made.logits
    made.logits = lambda batch: write(plain(batch))
    batch["targets"] = batch["targets"].clamp(max=2000)
    total, _ = made.token_losses(batch)
    assert made._head_loss.ends is False
    torch.testing.assert_close(total, sum_cross_entropy(made.logits(batch), batch["targets"]))


def test_a_network_that_does_not_call_its_head_has_all_logits(llama):
    made = objective(llama)
    head = made.network.lm_head
    made.logits = lambda batch: made.network.model(batch["input_ids"]).last_hidden_state[0] @ head.weight.t()
    batch = {"input_ids": torch.arange(10, 40)[None], "targets": torch.arange(10, 40)}
    total, _ = made.token_losses(batch)
    assert made._head_loss.ends is False
    torch.testing.assert_close(total, sum_cross_entropy(made.logits(batch), batch["targets"]))


def test_under_autocast_it_is_the_same_but_for_rounding(llama):
    made = objective(llama)
    batch = made.collate(ragged_items())
    exact = found(made, batch)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = made.token_losses(batch)
    made.network.zero_grad()
    total.backward()
    torch.testing.assert_close(total.detach(), exact[0], rtol=1e-3, atol=0)
    head = made.network.get_output_embeddings().weight.grad
    assert head.dtype == torch.float32
    assert (head - exact[1]["lm_head.weight"]).norm() < 0.02 * head.norm()
