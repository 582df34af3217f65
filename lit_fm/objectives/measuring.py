"""How every objective is validated and tested: the mean loss over all targets of each part of the data, on all ranks."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from lit_fm.data.base import ObjectiveData
from lit_fm.evaluate.perplexity import TokenMean, described
from lit_fm.objectives.loss import sum_cross_entropy
from lit_fm.objectives.training import Batch, Training


class Measuring(Training, ABC):
    """Sums of token losses and numbers of targets, so that neither batches nor ranks change a mean."""

    reads_all = False
    """Whether each token of a text is a target: its loss then is the code length of the text."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.means: dict[str, TokenMean] = {}

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Of the positions that have a target alone: (targets, classes)."""

    def observe(self, logits: Tensor, batch: Batch) -> None:
        """Count what a validation measures besides the loss."""

    def observed(self) -> dict[str, float]:
        """What was counted, and begin anew."""
        return {}

    @property
    def _data(self) -> Any:
        """Ours, which knows its parts, or anybody's."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._add(batch, "validation", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._add(batch, "test", dataloader_idx)

    def _add(self, batch: Batch, split: str, number: int) -> None:
        data = self._data
        part = list(data.parts(split))[number] if isinstance(data, ObjectiveData) else str(number or "")
        mean = self.means.setdefault(part, TokenMean().to(self.device))
        if type(self).observe is Measuring.observe:
            mean.update(*self.token_losses(batch))
            return
        logits = self.logits(batch)
        self.observe(logits, batch)
        mean.update(sum_cross_entropy(logits, batch["targets"]), len(batch["targets"]))

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", "validation")

    def on_test_epoch_end(self) -> None:
        self._log_means("test", "test")

    def _log_means(self, stage: str, split: str) -> None:
        report = self._data.report if isinstance(self._data, ObjectiveData) else {}
        found = {**described(self.means, report, split, self.reads_all), **self.observed()}
        self.means = {}
        for name, value in found.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss")
