"""How well text is predicted: loss, perplexity and bits per byte of each part of the data."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenMean(Metric):
    """Sum of token losses over number of tokens: the same for any batch size and number of ranks."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        exact = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("total", torch.zeros((), dtype=exact), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: int) -> None:
        self.total += total
        self.count += count

    def compute(self) -> tuple[Tensor, Tensor]:
        """The mean, and of how many."""
        return self.total / self.count, self.count


def described(means: dict[str, Any], report: dict[str, dict], split: str, reads_all: bool) -> dict[str, float]:
    """Loss over all, and of each part loss, perplexity, and bits per byte where every token is a target.

    Args:
        means: `TokenMean` of each part; alone, its name is left out.
        report: of the data, by `split` or `split: part`.
    """
    computed = {part: mean.compute() for part, mean in means.items()}
    values, counts = (
        {p: float(mean) for p, (mean, _) in computed.items()},
        {p: int(n) for p, (_, n) in computed.items()},
    )
    total = sum(counts.values())
    found = {
        "loss": sum(values[part] * count for part, count in counts.items() if count) / total if total else math.nan
    }
    for part, value in values.items():
        prefix = f"{part}/" if len(values) > 1 else ""
        found[f"{prefix}loss"] = value
        about = report.get(f"{split}: {part}" if prefix else split, {})
        if "targets_per_byte" in about:
            found[f"{prefix}perplexity"] = math.exp(min(value, 700))
            if reads_all:
                found[f"{prefix}bits_per_byte"] = value * about["targets_per_byte"] / math.log(2)
    return found


@torch.no_grad()
def measure(trainer: Any, objective: Any, split: str) -> dict[str, float]:
    """The same, of a split, now: between two steps of a fit."""
    data, network, means = trainer.datamodule, objective.network, {}
    was_training = network.training
    network.eval()
    for part, loader in zip(data.parts(split), data.loaders(split), strict=True):
        mean = means[part] = TokenMean().to(objective.device)
        for batch in loader:
            batch = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.forward_context():
                mean.update(*objective.token_losses(batch))
    network.train(was_training)
    return described(means, data.report, split, objective.reads_all)
