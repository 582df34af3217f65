"""Which weights decay, and the learning rate at each update."""

import math

import pytest
import torch
from conftest import causal_configs
from lightning.pytorch.plugins import MixedPrecision
from test_loss_and_gradients import Fixed, L, fit, objective, ragged_items
from torch import nn

from lit_fm.optim import Schedule, decay_groups


@pytest.mark.parametrize("name", causal_configs())
def test_matrices_decay_and_biases_norms_and_embeddings_do_not(make_backbone, name):
    network = objective(make_backbone(name, causal_configs()[name])).network
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    decays, rest = decay_groups(network)
    assert "weight_decay" not in decays
    assert rest["weight_decay"] == 0
    assert all(p.ndim >= 2 and id(p) not in embeddings for p in decays["params"])
    assert all(p.ndim == 1 or id(p) in embeddings for p in rest["params"])
    ids = [id(p) for p in [*decays["params"], *rest["params"]]]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())


def test_frozen_weights_are_in_no_group():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    assert [len(group["params"]) for group in decay_groups(network)] == [1, 1]


def test_schedule_has_its_closed_form():
    total = 100
    cosine = Schedule("cosine", warmup=10, floor=0.1)
    linear = Schedule("linear", warmup=0.1, floor=0.0)
    for step in range(total):
        done = (step - 10) / 90
        warm = (step + 1) / 11
        expected = warm if step < 10 else 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
        assert cosine.factor(step, total) == pytest.approx(expected)
        assert linear.factor(step, total) == pytest.approx(warm if step < 10 else 1 - done)
    assert Schedule("constant", warmup=0).factor(99, total) == 1
    assert cosine.factor(100_000, total) == pytest.approx(0.1)


@pytest.mark.parametrize(("accumulate", "epochs"), [(1, 1), (4, 2), (3, 3)])
def test_the_rate_moves_once_an_optimizer_step(llama, accumulate, epochs):
    made = objective(llama, lr=1.0)
    made.schedule = Schedule("linear", warmup=2)
    rates = []
    step = made.on_before_optimizer_step

    def recorded(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    made.on_before_optimizer_step = recorded
    batches = [made.collate([item]) for item in ragged_items()]
    trainer = fit(made, batches, accumulate, epochs=epochs)
    total = epochs * math.ceil(len(batches) / accumulate)
    assert trainer.global_step == made.total_steps == total
    assert rates == pytest.approx([made.schedule.factor(step, total) for step in range(total)])


@pytest.mark.parametrize("wrong", [{"warmup": -1}, {"floor": 1.5}])
def test_nonsense_in_a_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match="must not be negative"):
        Schedule(**wrong)


def test_sgd_and_adamw_take_the_groups():
    network = nn.Linear(2, 2)
    for optimizer in (torch.optim.SGD, torch.optim.AdamW):
        assert len(optimizer(decay_groups(network), lr=0.1).param_groups) == 2


@pytest.mark.parametrize("skipped", [1, 2])
@pytest.mark.parametrize("fused", [False, True])
def test_the_rate_waits_for_an_update_that_a_gradient_scaler_skipped(llama, skipped, fused):
    """Half precision: a gradient that overflows is skipped, and the schedule must not run ahead."""
    made = objective(llama)
    made.optimizer = lambda params: torch.optim.AdamW(params, lr=1e-3, fused=fused)
    made.schedule = Schedule("linear", warmup=0)
    rates, calls, plain = [], [], made.token_losses

    def overflowing(batch):
        total, count = plain(batch)
        calls.append(1)
        return (total * 1e36 if len(calls) == skipped else total), count

    made.token_losses = overflowing
    before = made.on_before_optimizer_step

    def recorded(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        before(optimizer)

    made.on_before_optimizer_step = recorded
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, gradient_clip_val=1.0, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)],
    )  # fmt: skip
    trainer.fit(made, datamodule=Fixed([made.collate([item]) for item in ragged_items()[:6]]))
    taken = [max(0, i - (i >= skipped)) for i in range(6)]  # updates before each step
    assert all(p.isfinite().all() for p in made.network.parameters())
    assert rates == pytest.approx([1e-3 * made.schedule.factor(step, 6) for step in taken])


@pytest.mark.parametrize("fused", [False, True])
def test_clipping_goes_with_a_fused_optimizer_in_mixed_precision(llama, fused):
    made = objective(llama)
    made.optimizer = lambda params: torch.optim.AdamW(params, lr=1e-3, fused=fused)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, precision="bf16-mixed", gradient_clip_val=1.0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(made, datamodule=Fixed([made.collate(ragged_items())]))
    assert trainer.global_step == 1
    assert made._norm.isfinite()


def test_rates_asked_for_win_over_those_of_a_checkpoint(llama, tmp_path):
    def run(lr, decay, steps, checkpoint=None):
        made = objective(llama)
        made.optimizer = lambda params: torch.optim.AdamW(params, lr=lr, weight_decay=decay)
        made.schedule = Schedule("linear", warmup=0)
        rates = []
        step = made.on_before_optimizer_step

        def recorded(optimizer):
            rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))
            step(optimizer)

        made.on_before_optimizer_step = recorded
        trainer = L.Trainer(
            accelerator="cpu", max_steps=steps, logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(made, datamodule=Fixed([made.collate([i]) for i in ragged_items()]), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "saved.ckpt")
        return rates

    run(1e-3, 0.1, 2)
    resumed = run(1e-1, 0.0, 4, tmp_path / "saved.ckpt")
    assert [rate for rate, _ in resumed] == pytest.approx([1e-1 * 0.5, 1e-1 * 0.25])
    assert [decay for _, decay in resumed] == [0.0, 0.0]
