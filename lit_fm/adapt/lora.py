"""LoRA: beside a frozen matrix W (out x in) learns a product of two thin ones, W + (alpha / rank) B A.

A (rank x in) starts at random, B (out x rank) at zero, so that nothing changes at the start. Hu et al. 2021,
"LoRA: Low-Rank Adaptation of Large Language Models", equation 3. Carried out by peft.
"""

import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from lit_fm.adapt.base import Adaptation
from lit_fm.nearest import did_you_mean


class LoRA(Adaptation):
    """Low-rank updates of linear layers; the backbone stays frozen.

    Args:
        rank: inner width of the update.
        alpha: the update is scaled by `alpha / rank`.
        dropout: on the input of the update, in training.
        targets: how names of linear layers end (`q_proj`, `layers.0.mlp.up_proj`), or `all-linear`: all but the head.

    Raises:
        ValueError: a number is out of its range.
    """

    exports_as = "adapter"

    def __init__(
        self, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, targets: str | list[str] = "all-linear"
    ) -> None:
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"LoRA needs rank >= 1, alpha > 0 and dropout in 0..1, got {rank}, {alpha}, {dropout}: correct them."
            )
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.targets = [targets] if isinstance(targets, str) and targets != "all-linear" else targets

    def apply(self, network: Any, task_type: str | None, new: Sequence[str] = ()) -> Any:
        from peft import LoraConfig, get_peft_model

        self._check_targets(network)
        config = LoraConfig(
            task_type=task_type,
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=self.targets,
            modules_to_save=list(new) or None,
            exclude_modules=rf".*({'|'.join(map(re.escape, new))})(\..*)?" if new else None,
        )
        return get_peft_model(network, config)

    def _check_targets(self, network: Any) -> None:
        """peft ignores a name that matches nothing while another one matches."""
        if isinstance(self.targets, str):
            return
        linear = [name for name, m in network.named_modules() if isinstance(m, nn.Linear | Conv1D)]
        leaves = {name.rpartition(".")[2] for name in linear}
        for target in self.targets:
            matched = [name for name in linear if name == target or name.endswith(f".{target}")]
            if not matched:
                raise ValueError(
                    f"adaptation.targets: no linear layer is called {target!r}: {did_you_mean(target, leaves)} "
                    f"This backbone has {sorted(leaves)}."
                )
            head = network.get_output_embeddings()
            tied = head is not None and head.weight is network.get_input_embeddings().weight
            if tied and any(network.get_submodule(name) is head for name in matched):
                raise ValueError(
                    f"adaptation.targets: {target!r} shares its matrix with the input embeddings, and LoRA on one of "
                    "two tied matrices cannot be merged: leave it out."
                )
