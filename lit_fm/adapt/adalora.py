"""AdaLoRA: low-rank updates P E Q whose ranks move to the matrices that need them. Zhang et al. 2023.

Carried out by peft, but for the penalty that keeps P and Q orthogonal (equation 4): we never ask a model for its loss.
"""

from typing import Any

import torch
from torch import Tensor

from lit_fm.adapt.tuner import Tuner, besides, check_targets

AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What peft remembers of the importance of weights."""


class AdaLoRA(Tuner):
    """Low-rank updates of linear layers that begin at one rank, and are pruned to another on average.

    Args:
        rank: on average, at the end.
        first_rank: of each matrix at the start.
        alpha: the update is scaled by `alpha / first_rank`, as peft does.
        dropout: on the input of the update, in training.
        targets: how names of linear layers end, or `all-linear`: all but the head.
        warmup, rest: shares of the run, at its start and its end, in which ranks stay as they are.
        every: optimizer steps between two prunings.
        orthogonal: weight of the penalty on P and Q that are not orthogonal.

    Raises:
        ValueError: a number is out of its range.
    """

    unshardable = "it compares whole matrices to move their ranks"

    def __init__(
        self,
        rank: int = 8,
        first_rank: int = 12,
        alpha: float = 16.0,
        dropout: float = 0.0,
        targets: str | list[str] = "all-linear",
        warmup: float = 0.1,
        rest: float = 0.3,
        every: int = 10,
        orthogonal: float = 0.1,
    ) -> None:
        if not 1 <= rank <= first_rank or alpha <= 0 or not 0 <= dropout < 1 or every < 1 or orthogonal < 0:
            raise ValueError(
                f"AdaLoRA needs 1 <= rank <= first_rank, alpha > 0, dropout in 0..1, every >= 1 and orthogonal >= 0, got "
                f"{rank}, {first_rank}, {alpha}, {dropout}, {every}, {orthogonal}: correct them."
            )
        if warmup < 0 or rest < 0 or warmup + rest >= 1:
            raise ValueError(f"AdaLoRA: warmup {warmup} and rest {rest} must leave a part of the run for pruning.")
        self.rank, self.first_rank, self.alpha, self.dropout = rank, first_rank, alpha, dropout
        self.targets = [targets] if isinstance(targets, str) and targets != "all-linear" else targets
        self.warmup, self.rest, self.every, self.orthogonal = warmup, rest, every, orthogonal

    def config(self, network: Any) -> Any:
        from peft import AdaLoraConfig

        check_targets(self.targets, network)
        return AdaLoraConfig(
            task_type=self.task_type,
            target_r=self.rank,
            init_r=self.first_rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=self.targets,
            deltaT=self.every,
            total_step=2**31,  # known when training begins
            **besides(self.new),
        )

    def begin(self, network: Any, steps: int) -> None:
        config = network.peft_config["default"]
        if steps < 2:
            raise ValueError(f"AdaLoRA needs two optimizer steps to tell what matters, got {steps}: raise max_steps.")
        config.tfinal = min(round(self.rest * steps), steps - 2)  # importance is known after a step
        config.tinit, config.total_step = min(round(self.warmup * steps), steps - config.tfinal - 1), steps
        network.base_model.rankallocator.set_total_step(steps)

    def penalty(self, network: Any) -> Tensor | float:
        if not self.orthogonal:
            return 0.0
        products = [
            p @ p.T if ".lora_A." in name else p.T @ p
            for name, p in network.named_parameters()
            if p.requires_grad and (".lora_A." in name or ".lora_B." in name)
        ]
        apart = [torch.linalg.norm(p - torch.eye(len(p), device=p.device, dtype=p.dtype)) for p in products]
        return self.orthogonal * torch.stack(apart).mean()

    def after_step(self, network: Any, step: int) -> None:
        network.base_model.update_and_allocate(step)

    def state(self, network: Any) -> dict[str, Any]:
        allocator = network.base_model.rankallocator
        return {
            "ranks": network.peft_config["default"].rank_pattern,
            **{name: vars(allocator)[name] for name in AVERAGES},
        }

    def load_state(self, network: Any, state: dict[str, Any]) -> None:
        network.peft_config["default"].rank_pattern = state["ranks"]
        vars(network.base_model.rankallocator).update({name: state[name] for name in AVERAGES})
