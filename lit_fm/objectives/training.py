"""How every objective steps and optimises.

The loss of an optimizer step is the sum of token losses over all micro-batches of its window and all ranks, divided by
the number of target tokens in them. Sums are back-propagated; the gradient is divided once, before the step.
"""

import math
import time
from abc import ABC, abstractmethod
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_fm.adapt import Adaptation
from lit_fm.gradients import clip, norm, scale
from lit_fm.guard import Guard, finite
from lit_fm.optim import Schedule, decay_groups
from lit_fm.randomness import seed_step
from lit_fm.ranks import ranks_of
from lit_fm.signals import WISHES, Wishes

Batch = dict[str, Any]


class Training(L.LightningModule, ABC):
    """Steps over windows of micro-batches, by sums of token losses."""

    def __init__(self, optimizer: OptimizerCallable, schedule: Schedule, adaptation: Adaptation) -> None:
        super().__init__()
        self.optimizer, self.schedule, self.adaptation = optimizer, schedule, adaptation
        self.network: Any = None
        self._window: list[Batch] = []
        self._window_loss: list[Tensor] = []
        self._window_targets = self._window_tokens = 0
        self._scale = 0.0
        self._noise = torch.initial_seed()
        self.wishes, self.guard, self._skips = Wishes(), Guard(), False
        self.asked = [0.0] * len(WISHES)
        self._checked = False

    @property
    def sharded(self) -> Any:
        """The strategy, if it is one that parts the network."""
        strategy = self.trainer.strategy if self._trainer else None
        return strategy if hasattr(strategy, "shard") else None

    @abstractmethod
    def token_losses(self, batch: Batch) -> tuple[Tensor, int]:
        """The sum of the losses of all targets in the batch, and their number."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Keep float buffers as exact as they are: `bf16-true` would round the rotary frequencies."""
        exact = {n: b for n, b in self.named_buffers() if b.dtype == torch.float32}
        super()._apply(fn, recurse)
        for name, buffer in list(self.named_buffers()):
            if name in exact and buffer.dtype != torch.float32:
                owner, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(owner), leaf, exact[name].to(buffer.device))
        return self

    # Step.

    def check(self) -> None:
        """Try out what a setting asks of the network, before anything is learnt.

        Raises:
            ValueError: it cannot do it.
        """

    def check_once(self) -> None:
        """`check`, unless a callback did so since the fit began."""
        if not self._checked:
            self.check()
        self._checked = True

    def on_fit_start(self) -> None:
        self.check_once()
        self._checked = False

    def on_train_start(self) -> None:
        self.network.train()  # from_pretrained gives eval mode, which Lightning would keep: no dropout in the whole fit
        self._clock = time.perf_counter()
        if self.sharded:
            self.sharded.learnable(self)  # as they are kept
        if any(p.dtype != torch.float32 for p in self.network.parameters() if p.requires_grad):
            rank_zero_warn(
                "weights that learn are below float32, where small updates vanish. Prefer model.dtype float32, and "
                "trainer.precision bf16-mixed for speed."
            )
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self._scale = scaler.get_scale() if scaler is not None else 0.0
        self._use_asked_rates()
        self.adaptation.begin(self.network, self.total_steps)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed_step(self._noise, self.trainer.global_step, len(self._window_loss), ranks_of(self.trainer)[0])
        total, targets = self.token_losses(batch)
        self._window.append(batch)
        self._window_loss.append(total.detach())
        self._window_targets += targets
        self._window_tokens += batch["tokens"]
        total = total + self.adaptation.penalty(self.network) * targets
        return total * self.trainer.accumulate_grad_batches  # Lightning divides by it

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """With what the adaptation does after it; not when a gradient scaler skipped the update."""
        super().optimizer_step(*args, **kwargs)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if not self._skips and (scaler is None or scaler.get_scale() >= self._scale):
            self.adaptation.after_step(self.network, self.trainer.global_step + 1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn summed gradients into the mean over all targets of the window; refuse a loss that is not finite."""
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        local = torch.stack(self._window_loss).sum(dtype=exact)[None]
        counts = torch.tensor([self._window_targets, *self.wishes.votes()], dtype=exact, device=self.device)
        summed = self.trainer.strategy.reduce(torch.cat([local, counts]), reduce_op="sum")
        total, targets, *self.asked = summed.tolist()  # waits for the device; once more below, for the gradients' norm
        mean = total / targets if targets else math.nan
        self.adaptation.before_step(self.network, self.trainer.global_step)
        # Strategies average gradients over ranks; with the number of ranks back in, they are sums.
        if self.sharded:
            self.sharded.sum_partial()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        scale(gradients, self.trainer.world_size / targets if targets else math.nan)
        self._norm = norm(gradients)
        size = self._norm.item()
        self._skips = not finite(mean, size, bool(self._scale))
        if self._skips:
            self.guard.refuse(self, mean, size, self._window)
        now = time.perf_counter()
        speed = self._window_tokens * ranks_of(self.trainer)[1] / (now - self._clock)
        self._window, self._window_loss, self._window_targets, self._window_tokens, self._clock = [], [], 0, 0, now
        rate = optimizer.param_groups[0]["lr"]
        self.tell({"train/loss": mean, "lr": rate, "tokens_per_second": speed, "gradient_norm": size})

    def tell(self, measured: dict[str, float]) -> None:
        """What a step measured, to screen, callbacks and trackers: Lightning's `log` takes a millisecond for each value."""
        trainer: Any = self.trainer
        trainer.progress_bar_metrics.update(measured)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in measured.items()})
        if trainer.loggers and (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            trainer._logger_connector.log_metrics({**measured, "epoch": trainer.current_epoch}, trainer.global_step)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """By the norm that is known already."""
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            clip(self.network.parameters(), gradient_clip_val, self._norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def agree(self, votes: list[float]) -> list[float]:
        """The sums over all ranks."""
        return self.trainer.strategy.reduce(torch.tensor(votes, device=self.device), reduce_op="sum").tolist()

    def on_validation_end(self) -> None:
        self._clock = time.perf_counter()

    # Optimise.

    def groups(self) -> list[dict]:
        """What the optimizer gets."""
        return decay_groups(self.network, self.adaptation.rates(self.network))

    def grouped(self) -> list[list[str]]:
        """The names of the weights in each group."""
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        return [[names[id(parameter)] for parameter in group["params"]] for group in self.groups()]

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.groups())
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("factor")
        # A fused optimizer would undo a scaler's scale inside its step, after norms were taken; we want it before.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        self._asked = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self.total_steps = total = self._optimizer_steps()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _use_asked_rates(self) -> None:
        """A loaded checkpoint brings its own learning rate, weight decay and so on: what was asked for now holds."""
        optimizer, scheduler = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        factor = self.schedule.factor(scheduler.last_epoch, self.total_steps)  # type: ignore[union-attr]
        scheduler.base_lrs = [asked["lr"] for asked in self._asked]  # type: ignore[union-attr]
        for group, asked in zip(optimizer.param_groups, self._asked, strict=True):  # type: ignore[union-attr]
            group.update({**asked, "lr": asked["lr"] * factor, "initial_lr": asked["lr"]})

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Not when a gradient scaler skipped the update: it then lowered its scale."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler is not None else 0.0
        skipped, self._scale = scale < self._scale, scale
        if not skipped:
            scheduler.step()

    def _optimizer_steps(self) -> int:
        """Of the whole run: from our batch plan, or Lightning's count of the loader where the data is not ours.

        That one drops a saved loader state.
        """
        trainer: Any = self.trainer
        data, window, limit = trainer.datamodule, trainer.accumulate_grad_batches, trainer.limit_train_batches
        epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        ours = hasattr(data, "optimizer_steps")
        if not ours and epochs:
            return trainer.estimated_stepping_batches
        planned = data.optimizer_steps(window, epochs, limit) if ours else None
        ends = [steps for steps in (trainer.max_steps, planned) if steps is not None and steps > 0]
        if not ends:
            raise ValueError(
                "the run has no end, which the schedule needs: set trainer.max_steps, trainer.max_epochs or "
                "data.token_budget."
            )
        if ours and data.token_budget:
            trainer.fit_loop.epoch_loop.max_steps = min(ends)
        return min(ends)
