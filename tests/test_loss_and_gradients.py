"""The loss, the gradients and the updates are those of one cross-entropy over all targets of a window."""

import os
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from conftest import ROOT, causal_configs
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_fm import CausalLM, Full, LoRA
from lit_fm.data.tokens import IGNORED
from lit_fm.optim import Schedule

LENGTHS = (9, 25, 6, 31, 12, 18, 7, 22, 14, 11, 28, 5)


def ragged_items(seed=3):
    """Encoded examples of unequal length, each with some tokens that are not learnt."""
    rng = np.random.default_rng(seed)
    items = []
    for n in LENGTHS:
        ids = rng.integers(3, 2048, n).astype(np.int32)
        learnt = np.arange(n) >= rng.integers(1, n - 1)
        items.append({"input_ids": ids, "labels": np.where(learnt, ids, IGNORED).astype(np.int32)})
    return items


def reference_loss(network, items, device="cpu"):
    """Sum of token losses and number of targets, each example alone, all logits, shifted here."""
    total, count = 0.0, 0
    for item in items:
        ids = torch.tensor(item["input_ids"], dtype=torch.long)[None]
        labels = torch.tensor(item["labels"], dtype=torch.long)[None]
        logits = network(input_ids=ids, use_cache=False).logits
        total = total + F.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=IGNORED, reduction="sum")
        count += int((labels[0, 1:] != IGNORED).sum())
    return total, count


def objective(backbone, adaptation=None, lr=0.1):
    L.seed_everything(7)
    made = CausalLM(backbone, adaptation, lambda p: torch.optim.SGD(p, lr=lr), Schedule("constant", warmup=0))
    made.configure_model()
    return made


def unshifted_configs():
    """Causal networks whose own loss does not shift labels: with it, they would learn to copy."""
    from transformers import BartConfig, XLNetConfig

    ids = {"vocab_size": 2048, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    bart = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "dropout": 0.0}
    xlnet = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "dropout": 0.0, "attn_type": "uni"}
    return {
        "bart-decoder": BartConfig(**ids, **bart, is_decoder=True, is_encoder_decoder=False, init_std=0.2),
        "xlnet": XLNetConfig(**ids, **xlnet),
    }


@pytest.mark.parametrize("name", unshifted_configs())
def test_a_network_whose_head_does_not_shift_learns_the_next_token_all_the_same(make_backbone, name):
    made = objective(make_backbone(f"unshifted-{name}", unshifted_configs()[name]))
    made.network.eval()
    items = ragged_items()
    total, count = reference_loss(made.network, items)
    ours, targets = made.token_losses(made.collate(items))
    assert targets == count
    torch.testing.assert_close(ours, total, rtol=1e-5, atol=1e-5)
    ids = torch.tensor(items[1]["input_ids"]).long()[None]
    with torch.no_grad():
        theirs, logits = made.network(input_ids=ids, labels=ids)[:2]
    copied = F.cross_entropy(logits[0], ids[0])
    torch.testing.assert_close(theirs, copied)  # what its own loss is


@pytest.mark.parametrize("name", causal_configs())
def test_loss_and_gradients_equal_a_plain_reference_on_every_architecture(make_backbone, name):
    made = objective(make_backbone(name, causal_configs()[name]))
    items = ragged_items()
    total, count = made.token_losses(made.collate(items))
    (total / count).backward()
    ours = [p.grad.clone() for p in made.network.parameters()]
    made.network.zero_grad()
    expected, expected_count = reference_loss(made.network, items)
    (expected / expected_count).backward()
    assert count == expected_count
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
    for mine, parameter in zip(ours, made.network.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-5, atol=1e-6)


def test_the_loss_equals_transformers_own_where_that_one_is_right(llama):
    made = objective(llama)
    item = ragged_items()[3]
    ids, labels = (torch.tensor(item[k], dtype=torch.long)[None] for k in ("input_ids", "labels"))
    total, count = made.token_losses(made.collate([item]))
    torch.testing.assert_close(total / count, made.network(input_ids=ids, labels=labels).loss, rtol=1e-6, atol=1e-6)


class Fixed(L.LightningDataModule):
    """Given batches, in order."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None)


def fit(made, batches, accumulate, clip=None, epochs=1, callbacks=None):
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, accumulate_grad_batches=accumulate, gradient_clip_val=clip, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(made, datamodule=Fixed(batches))
    return trainer


@pytest.mark.parametrize("adaptation", [None, "lora"])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_updates_equal_a_plain_loop_whatever_the_accumulation(llama, accumulate, adaptation):
    items = ragged_items()
    micro = [items[i : i + 2] for i in range(0, len(items), 2)]  # 6 micro-batches: with 4, the last window has 2
    made = objective(llama, LoRA(rank=4) if adaptation else None)
    start = {k: v.clone() for k, v in made.network.state_dict().items()}
    fit(made, [made.collate(m) for m in micro], accumulate)
    trained = {k: v.clone() for k, v in made.network.state_dict().items()}

    made.network.load_state_dict(start)
    plain = torch.optim.SGD([p for p in made.network.parameters() if p.requires_grad], lr=0.1)
    for first in range(0, len(micro), accumulate):
        total, count = reference_loss(made.network, [i for m in micro[first : first + accumulate] for i in m])
        plain.zero_grad()
        (total / count).backward()
        plain.step()
    for name, weights in made.network.state_dict().items():
        torch.testing.assert_close(trained[name], weights, rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_by_the_norm_of_the_mean_not_of_the_sum(llama):
    items = ragged_items()
    made = objective(llama)
    before = [p.detach().clone() for p in made.network.parameters()]
    fit(made, [made.collate(items)], accumulate=1, clip=0.01)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, made.network.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


class Counted(Full):
    """Writes down what it is told of a fit."""

    def begin(self, network, steps):
        self.told = [("begin", steps)]

    def before_step(self, network, step):
        self.told.append(("before", step))

    def after_step(self, network, step):
        self.told.append(("after", step))


def test_an_adaptation_is_told_of_each_step(llama):
    made = objective(llama, Counted())
    fit(made, [made.collate(ragged_items()[i : i + 3]) for i in range(0, len(LENGTHS), 3)], accumulate=2)
    assert made.adaptation.told == [("begin", 2), ("before", 0), ("after", 1), ("before", 1), ("after", 2)]


class Speeds(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx % 2:
            self.seen.append(trainer.callback_metrics["tokens_per_second"].item())


def test_speed_counts_the_tokens_of_each_step_and_no_padding(llama, monkeypatch):
    clock = SimpleNamespace(perf_counter=count().__next__)
    monkeypatch.setattr("lit_fm.objectives.training.time", clock)
    made, seen = objective(llama), Speeds()
    batches = [made.collate(ragged_items()[i : i + 3]) for i in range(0, len(LENGTHS), 3)]
    fit(made, batches, accumulate=2, callbacks=[seen])  # a second passes at each step
    tokens = [sum(LENGTHS[:6]), sum(LENGTHS[6:])]
    assert seen.seen == tokens


def test_validation_loss_does_not_depend_on_the_batch_size(llama):
    items, losses = ragged_items(), []
    made = objective(llama)
    for size in (1, 2, 7, len(items)):
        batches = [made.collate(items[i : i + size]) for i in range(0, len(items), size)]
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        trainer.validate(made, DataLoader(batches, batch_size=None), verbose=False)
        losses.append(trainer.callback_metrics["val/loss"].item())
    with torch.no_grad():
        total, count = reference_loss(made.network.eval(), items)
    assert losses == pytest.approx([(total / count).item()] * 4, rel=1e-6)


def test_no_logits_are_computed_where_there_is_no_label(llama):
    made = objective(llama)
    batch = made.collate(ragged_items())
    assert made.logits(batch).shape == (len(batch["targets"]), 2048)
    labelled = sum(int((item["labels"][1:] != IGNORED).sum()) for item in ragged_items())
    assert len(batch["targets"]) == labelled


TWO_RANKS = """
import sys, torch
sys.path[:0] = [{tests!r}, {root!r}]
import lightning as L, test_loss_and_gradients as t
from lit_fm import LoRA
made = t.objective({backbone!r}, LoRA(rank=4))
items = t.ragged_items()
class Dealt(t.Fixed):
    def train_dataloader(self):
        rank = self.trainer.global_rank
        batches = [made.collate(items[i:i+4][rank::2]) for i in range(0, 12, 4)]
        return t.DataLoader(batches, batch_size=None)
trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, use_distributed_sampler=False,
                    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
trainer.fit(made, datamodule=Dealt([None] * 3))
if trainer.global_rank == 0:
    torch.save([p.detach() for p in made.network.parameters() if p.requires_grad], {out!r})
"""


DROPOUT = """
import sys, torch
sys.path[:0] = [{tests!r}, {root!r}]
import lightning as L, test_loss_and_gradients as t
made = t.objective({backbone!r})
class Dropped(t.Fixed):
    def train_dataloader(self):
        return t.DataLoader([made.collate(t.ragged_items()[:2])] * 2, batch_size=None)
drawn, plain = [], made.token_losses
def recording(batch):
    drawn.append(torch.nn.functional.dropout(torch.ones(64)).nonzero().flatten().tolist())
    return plain(batch)
made.token_losses = recording
trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, use_distributed_sampler=False,
                    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
trainer.fit(made, datamodule=Dropped([None] * 2))
open({out!r} + str(trainer.global_rank), "w").write(str(drawn))
"""


def test_two_ranks_drop_out_different_things(llama, tmp_path):
    script, out = tmp_path / "two.py", tmp_path / "drawn"
    script.write_text(DROPOUT.format(tests=str(ROOT / "tests"), root=str(ROOT), backbone=llama, out=str(out)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = ((tmp_path / f"drawn{rank}").read_text() for rank in (0, 1))
    assert one != two


def test_two_ranks_with_ragged_targets_give_the_weights_of_one(llama, tmp_path):
    script, out = tmp_path / "two.py", tmp_path / "two.pt"
    script.write_text(TWO_RANKS.format(tests=str(ROOT / "tests"), root=str(ROOT), backbone=llama, out=str(out)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    items, made = ragged_items(), objective(llama, LoRA(rank=4))
    fit(made, [made.collate(items[i : i + 4]) for i in range(0, 12, 4)], accumulate=1)
    learnt = [p for p in made.network.parameters() if p.requires_grad]
    for one, two in zip(learnt, torch.load(out, weights_only=True), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_not_finite_stops_the_run_before_the_step(llama):
    made = objective(llama)
    batches = [made.collate([item]) for item in ragged_items()]
    reached = []
    plain = made.token_losses

    def poisoned(batch):
        total, count = plain(batch)
        reached.append(total)
        if len(reached) == 3:
            kept.append([p.detach().clone() for p in made.network.parameters()])
            return total * float("nan"), count
        return total, count

    kept = []
    made.token_losses = poisoned
    with pytest.raises(ValueError, match="loss is nan and the gradient's norm nan at optimizer step 2: training stops"):
        fit(made, batches, accumulate=1)
    assert all(torch.equal(a, b) for a, b in zip(kept[0], made.network.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(llama):
    """With a loss that is finite: the logarithm's slope at nothing."""
    made = objective(llama)
    plain = made.token_losses

    def steep(batch):
        total, count = plain(batch)
        return total + 0 * (total * 0).abs().sqrt(), count

    made.token_losses = steep
    before = [p.detach().clone() for p in made.network.parameters()]
    with pytest.raises(ValueError, match="gradient's norm nan at optimizer step 0"):
        fit(made, [made.collate([item]) for item in ragged_items()], accumulate=1, clip=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, made.network.parameters(), strict=True))


def test_a_rank_that_is_dealt_nothing_steps_along(llama):
    from lit_fm.data.batches import Batches
    from lit_fm.data.order import Deal

    made = objective(llama)
    batch = Batches(ragged_items(), made)[Deal([], None)]
    total, count = made.token_losses(batch)
    total.backward()
    assert (total.item(), count, batch["tokens"]) == (0.0, 0, 0)
    assert all(not p.grad.any() for p in made.network.parameters() if p.grad is not None)


def test_a_step_waits_for_the_device_only_for_what_must_be_known(llama):
    """Each number that Python reads of a tensor is a wait; the sums over ranks are read together, as a list."""
    made, read = objective(llama), []

    class Reads(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default:
                read.append(func)
            return func(*args, **(kwargs or {}))

    plain = made.on_before_optimizer_step

    def counted(optimizer):
        with Reads():
            plain(optimizer)

    made.on_before_optimizer_step = counted
    fit(made, [made.collate(ragged_items())] * 2, accumulate=1)
    assert len(read) == 2  # one a step: whether loss and norm are finite
