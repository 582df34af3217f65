"""What data modules share: encoded by the objective that trains on them, stored once, dealt out by a plan."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lit_fm.data.mixture import Mixture
from lit_fm.data.order import BatchPlan, Deal
from lit_fm.data.tokens import SHORTENED, Draw, Encoded, TokenStore, encoding_fingerprint, fingerprint, stored

CHUNK = 1000


class Batches(Dataset):
    """Item `deal` is the batch of the examples dealt."""

    def __init__(self, items: Any, collate: Callable[[list[Encoded], list[Draw] | None], Any]) -> None:
        self.items, self.collate = items, collate

    def __getitem__(self, deal: Deal) -> Any:
        numbers = deal.numbers or [0]
        draws: list[Draw] | None = [(*deal.draw, number) for number in numbers] if deal.draw else None
        items = [self.items[i] for i in numbers]
        batch = self.collate(items, draws)
        if "task" in items[0]:
            batch["task_ids"] = torch.tensor([int(item["task"][0]) for item in items])
        if not deal.numbers:  # this rank got nothing of the last batch: it steps along, and learns nothing
            batch |= {"rows": batch["rows"][:0], "targets": batch["targets"][:0], "tokens": 0}
        return batch


class ObjectiveData(L.LightningDataModule):
    """Data in the form that the objective asks for.

    Args:
        batch_size: examples in a micro-batch of one rank.
        workers: processes that collate batches; 0 does it in the main one.
        seed: of splits and order.
    """

    max_new_tokens = 128
    has_answers = False
    """Whether `examples(split)` gives prompts with right answers."""
    max_length: int | None = None
    block_size = 0
    bordered = 0
    """Tokens in a block whose documents must not see each other; 0 where that is not asked for."""

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
    def prepare(self, split: str) -> tuple[Any, dict[str, dict[str, Any]]] | None:
        """The encoded examples of a split and what to report of each part of it; None where the data has no such split.

        The examples have `lengths()` in tokens, and numbered items.
        """

    def setup(self, stage: str) -> None:
        strategy: Any = self.trainer.strategy  # type: ignore[union-attr]
        first = strategy.local_rank == 0 if hasattr(strategy, "local_rank") else True
        if not first:
            strategy.barrier()  # the first rank of a machine fills the cache, the others read it
        for split in {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}.get(stage, ()):
            if split in self.items:
                continue
            if prepared := self.prepare(split):
                self.items[split], reported = prepared
                self.report |= reported
            elif stage != "fit" or split == "train":
                raise ValueError(f"the data has no {split} split: give data.{split} FILE, or a share to cut off.")
        if first:
            strategy.barrier()

    def encode(self, split: str, made: list[dict], limit: int | None, kind: str) -> tuple[TokenStore, dict[str, Any]]:
        """The examples as the objective encodes them, from the cache where they are in it; and what was left out."""
        content = fingerprint(made)
        about: dict[str, Any] = {"dropped": {}, "shortened": 0, "kind": kind, "content": content, "rows": len(made)}
        key = fingerprint(
            content,
            limit,
            self.objective.encoding,
            self.objective.adaptation.tasks,
            encoding_fingerprint(self.objective),
        )
        store = stored(key, lambda: (self._encode(made, limit, about), about))
        if not len(store):
            reasons = ", ".join(f"{n} x {why}" for why, n in store.about["dropped"].items())
            raise ValueError(f"data.source: none of {len(made)} {split} rows can be learnt from ({reasons}).")
        return store, {name: store.about[name] for name in (*about, "examples")}

    def _encode(self, made: list[dict], limit: int | None, about: dict[str, Any]) -> Iterator[Encoded]:
        dropped: Counter[str] = Counter()
        for start in range(0, len(made), CHUNK):
            chunk = made[start : start + CHUNK]
            for example, item in zip(chunk, self.objective.encode(chunk, limit), strict=True):
                task = self.objective.adaptation.task_of(example)
                if isinstance(item, str):
                    dropped[item] += 1
                elif task is not None and task < 0:
                    dropped["a task that the adaptation does not name"] += 1
                else:
                    about["shortened"] += item.pop(SHORTENED, None) is not None
                    yield item if task is None else {**item, "task": np.array([task], np.int32)}
        about["dropped"] = dict(dropped)

    def plan(self) -> BatchPlan:
        """Which examples make up which training batch of this rank."""
        trainer: Any = self.trainer
        lengths, world = self.items["train"].lengths(), (trainer.global_rank, trainer.world_size)
        return BatchPlan(lengths, self.batch_size, self.seed, True, *world, self.mixture())

    def mixture(self) -> Mixture | None:
        """Which examples an epoch of training takes, if not all."""
        return None

    def train_batches(self) -> int:
        """Micro-batches of one rank in an epoch."""
        return len(self.plan())

    def parts(self, split: str) -> dict[str, Any]:
        """The examples of a split by the part of the data that they are from; one part where nothing is said."""
        return {"": self.items[split]}

    def _loader(self, items: Any, plan: BatchPlan) -> Any:
        batches = Batches(items, self.objective.collate)
        # Forked workers read the objective where it is; sent to them, it would have to be pickled with its weights.
        more: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "fork"} if self.workers else {}
        return DataLoader(batches, sampler=plan, batch_size=None, num_workers=self.workers, **more)

    def loaders(self, split: str) -> list[Any]:
        """One for each part, each example once and in order."""
        world = self.trainer.global_rank, self.trainer.world_size  # type: ignore[union-attr]
        parts = self.parts(split).values() if split in self.items else ()
        return [
            self._loader(items, BatchPlan(items.lengths(), self.batch_size, self.seed, False, *world))
            for items in parts
        ]

    def train_dataloader(self) -> Any:
        return self._loader(self.items["train"], self.plan())

    def val_dataloader(self) -> Any:
        return self.loaders("validation")

    def test_dataloader(self) -> Any:
        return self.loaders("test")

    def predict_dataloader(self) -> Any:
        raise ValueError(f"{type(self).__name__} has no prompts to answer: predict with InstructionData.")
