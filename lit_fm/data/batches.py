"""Batches of encoded examples, as they were dealt."""

from typing import Any

import torch
from torch.utils.data import Dataset

from lit_fm.data.order import Deal, Packing


class Batches(Dataset):
    """Item `deal` is the batch of the examples dealt."""

    def __init__(self, items: Any, objective: Any, packing: Packing = "none") -> None:
        self.items, self.objective, self.packing = items, objective, packing

    def __getitem__(self, deal: Deal) -> Any:
        rows = [[self.items[i] for i in row] for row in deal.rows or [[0]]]
        items = [item for row in rows for item in row]
        if self.packing == "none":
            batch = self.objective.collate(items, [(*deal.draw, n) for n in deal.numbers or [0]] if deal.draw else None)
        else:
            batch = self.objective.pack(rows)
        if "task" in items[0]:
            batch["task_ids"] = torch.tensor([int(item["task"][0]) for item in items])
        if not deal.rows:  # this rank got nothing of the last batch: it steps along, and learns nothing
            batch |= {"rows": batch["rows"][:0], "targets": batch["targets"][:0], "tokens": 0}
        return batch
