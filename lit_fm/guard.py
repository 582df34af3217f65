"""What is done with an optimizer step whose loss or gradient is not finite: left out, or the end of the run."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from lit_fm.screen import console


class Guard:
    """Leaves out so many of such steps, keeps what they were made of, and then stops the run.

    Args:
        most: steps in a run that may be left out.
        folder: of the run; the batches go there.
    """

    def __init__(self, most: int = 0, folder: Path | None = None) -> None:
        self.most, self.folder = most, folder
        self.skipped = 0

    def refuse(self, objective: Any, mean: float, norm: float, batches: list[dict[str, Any]]) -> None:
        """Take such a step's gradients away, so that it changes nothing. All ranks come here together.

        Raises:
            ValueError: too many steps were left out already.
        """
        trainer = objective.trainer
        step, found = trainer.global_step, f"the loss is {mean} and the gradient's norm {norm} at optimizer step "
        kept = self._keep(objective, batches, step)
        if self.skipped >= self.most:
            raise ValueError(
                f"{found}{step}: training stops, the weights are as before this step{kept}. Lower the rate, set "
                "trainer.gradient_clip_val, look at the data, or let run.skip_steps leave some such steps out."
            )
        self.skipped += 1
        for parameter in objective.network.parameters():
            parameter.grad = None
        if trainer.is_global_zero:
            console.print(f"Left out, {self.skipped} of at most {self.most}: {found}{step}{kept}.")

    def _keep(self, objective: Any, batches: list[dict[str, Any]], step: int) -> str:
        if self.folder is None:
            return ""
        folder = self.folder / f"bad-step={step}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rank-{objective.global_rank}"
        torch.save(batches, path.with_suffix(".pt"))
        rows = [row for batch in batches for row in batch.get("input_ids", torch.zeros(0, 0)).tolist()]
        lines = (json.dumps({"read": objective.tokenizer.decode(row)}, ensure_ascii=False) + "\n" for row in rows)
        path.with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
        return f"; what it was made of is in {folder}"


def finite(mean: float, norm: float, scaled: bool) -> bool:
    """Whether both are. Of a scaled loss the norm may be infinite: the scaler leaves that step out."""
    return math.isfinite(mean) and (math.isfinite(norm) or scaled)
