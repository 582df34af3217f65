"""What data modules share: encoded by the objective that trains on them, stored once, dealt out by a plan."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset

from lit_fm.data.order import BatchPlan
from lit_fm.data.tokens import IGNORED, SHORTENED, Encoded, TokenStore, encoding_fingerprint, fingerprint, stored

CHUNK = 1000


class Batches(Dataset):
    """Item `[numbers of examples]` is their batch."""

    def __init__(self, items: Any, collate: Callable[[list[Encoded]], Any]) -> None:
        self.items, self.collate = items, collate

    def __getitem__(self, numbers: list[int]) -> Any:
        if not numbers:  # this rank got nothing of the last batch: it steps along, and learns nothing
            idle = self.items[0]
            return {**self.collate([{**idle, "labels": np.full_like(idle["labels"], IGNORED)}]), "tokens": 0}
        return self.collate([self.items[i] for i in numbers])


class ObjectiveData(L.LightningDataModule):
    """Data in the form that the objective asks for.

    Args:
        batch_size: examples in a micro-batch of one rank.
        workers: processes that collate batches; 0 does it in the main one.
        seed: of splits and order.
    """

    max_new_tokens = 128

    def __init__(self, batch_size: int, workers: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1 or workers < 0:
            raise ValueError(f"data.batch_size {batch_size} must be at least 1, data.workers {workers} not negative.")
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.items: dict[str, Any] = {}
        self.report: dict[str, dict[str, Any]] = {}

    @property
    def objective(self) -> Any:
        return self.trainer.lightning_module  # type: ignore[union-attr]

    @abstractmethod
    def prepare(self, split: str) -> tuple[Sequence[Encoded] | TokenStore, dict[str, Any]] | None:
        """The encoded examples of a split and what to report of them; None where the data has no such split."""

    def setup(self, stage: str) -> None:
        strategy: Any = self.trainer.strategy  # type: ignore[union-attr]
        first = strategy.local_rank == 0 if hasattr(strategy, "local_rank") else True
        if not first:
            strategy.barrier()  # the first rank of a machine fills the cache, the others read it
        for split in {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}.get(stage, ()):
            if split in self.items:
                continue
            if prepared := self.prepare(split):
                self.items[split], self.report[split] = prepared
            elif stage != "fit" or split == "train":
                raise ValueError(f"the data has no {split} split: give data.{split} FILE, or a share to cut off.")
        if first:
            strategy.barrier()

    def encode(self, split: str, made: list[dict], limit: int | None, kind: str) -> tuple[TokenStore, dict[str, Any]]:
        """The examples as the objective encodes them, from the cache where they are in it; and what was left out."""
        content = fingerprint(made)
        about: dict[str, Any] = {"dropped": {}, "shortened": 0, "kind": kind, "content": content, "rows": len(made)}
        key = fingerprint(content, limit, encoding_fingerprint(self.objective))
        store = stored(key, lambda: (self._encode(made, limit, about), about))
        if not len(store):
            reasons = ", ".join(f"{n} x {why}" for why, n in store.about["dropped"].items())
            raise ValueError(f"data.source: none of {len(made)} {split} rows can be learnt from ({reasons}).")
        return store, {name: store.about[name] for name in (*about, "examples")}

    def _encode(self, made: list[dict], limit: int | None, about: dict[str, Any]) -> Iterator[Encoded]:
        dropped: Counter[str] = Counter()
        for start in range(0, len(made), CHUNK):
            for item in self.objective.encode(made[start : start + CHUNK], limit):
                if isinstance(item, str):
                    dropped[item] += 1
                else:
                    about["shortened"] += item.pop(SHORTENED, None) is not None
                    yield item
        about["dropped"] = dict(dropped)

    def plan(self, split: str) -> BatchPlan:
        """Which examples make up which batch of this rank."""
        trainer: Any = self.trainer
        lengths = self.items[split].lengths()
        train = split == "train"
        return BatchPlan(lengths, self.batch_size, self.seed, train, trainer.global_rank, trainer.world_size)

    def train_batches(self) -> int:
        """Micro-batches of one rank in an epoch."""
        return len(self.plan("train"))

    def _loader(self, split: str) -> Any:
        if split not in self.items:
            return []
        plan = self.plan(split)
        batches = Batches(self.items[split], self.objective.collate)
        # Forked workers read the objective where it is; sent to them, it would have to be pickled with its weights.
        more: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "fork"} if self.workers else {}
        return DataLoader(batches, sampler=plan, batch_size=None, num_workers=self.workers, **more)

    def train_dataloader(self) -> Any:
        return self._loader("train")

    def val_dataloader(self) -> Any:
        return self._loader("validation")

    def test_dataloader(self) -> Any:
        return self._loader("test")

    def predict_dataloader(self) -> Any:
        raise ValueError(f"{type(self).__name__} has no prompts to answer: predict with InstructionData.")
