"""What data modules share: encoded by the objective that trains on them, stored once, dealt out by a plan."""

import math
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from lit_fm.data.batches import Batches
from lit_fm.data.order import BatchPlan, Packing
from lit_fm.data.parts import Parts
from lit_fm.data.shares import Shares
from lit_fm.data.tokens import SHORTENED, Encoded, TokenStore, encoding_fingerprint, fingerprint, stored
from lit_fm.ranks import ranks_of

CHUNK = 1000


class ObjectiveData(L.LightningDataModule):
    """Data in the form that the objective asks for.

    Args:
        batch_size: rows in a micro-batch of one rank: examples, or what they are packed in.
        workers: processes that collate batches; 0 does it in the main one.
        seed, order_seed: of splits and order; of the order of training alone.
        token_budget: training ends once so many tokens were dealt, padding not counted.
        batch_tokens: instead of `batch_size`: tokens in a micro-batch of one rank, with padding, at most.
    """

    max_new_tokens = 128
    has_answers = False
    """Whether `examples(split)` gives prompts with right answers."""
    max_length: int | None = None
    block_size = 0
    bordered = 0
    """Tokens in a block whose documents must not see each other; 0 where that is not asked for."""
    packing: Packing = "none"

    def __init__(
        self,
        batch_size: int,
        workers: int,
        seed: int,
        token_budget: int | None = None,
        batch_tokens: int | None = None,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or workers < 0:
            raise ValueError(f"data.batch_size {batch_size} must be at least 1, data.workers {workers} not negative.")
        for name, value in (("token_budget", token_budget), ("batch_tokens", batch_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"data.{name} is {value}: raise it.")
        self.batch_size, self.batch_tokens, self.token_budget = batch_size, batch_tokens, token_budget
        self.workers, self.seed, self.order_seed = workers, seed, seed if order_seed is None else order_seed
        self.items: dict[str, Any] = {}
        self.report: dict[str, dict[str, Any]] = {}
        self._attached: Any = None

    def attach(self, objective: Any) -> None:
        """Prepare data for an objective without a trainer."""
        self._attached = objective

    @property
    def objective(self) -> Any:
        return self._attached or self.trainer.lightning_module  # type: ignore[union-attr]

    def _position(self) -> tuple[int, int]:
        """The epoch that training is in, and how many of its batches are done, as the trainer counts."""
        loop: Any = getattr(self.trainer, "fit_loop", None)
        if loop is None:
            return 0, 0
        epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress
        if epochs.ready == epochs.processed:  # between two epochs
            return epochs.processed, 0
        return (epochs.processed + 1, 0) if batches.is_last_batch else (epochs.processed, batches.current.ready)

    def metrics_of(self, task: str | None) -> list[str] | None:
        """What the answers of a task are measured by; the objective's own metric where nothing is said."""
        return None

    @abstractmethod
    def prepare(self, split: str) -> tuple[Any, dict[str, dict[str, Any]]] | None:
        """The encoded examples of a split and what to report of each part of it; None where the data has no such split.

        The examples have `lengths()` in tokens, and numbered items.
        """

    def setup(self, stage: str) -> None:
        strategy: Any = self.trainer.strategy if self.trainer else None
        first = getattr(strategy, "local_rank", 0) == 0
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
        if first and strategy is not None:
            strategy.barrier()
        if stage == "fit" and self.trainer and not self.plan().steady:  # the number of batches is read anew
            self.trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]

    def encode(
        self,
        split: str,
        made: Callable[[], Iterable[dict | str]],
        limit: int | None,
        identity: Any,
        about: dict[str, Any],
    ) -> tuple[TokenStore, dict[str, Any]]:
        """The examples as the objective encodes them, from the cache where they are in it; and what was left out.

        Args:
            made: gives examples, or the reason why a row gives none.
            identity: tells these examples from others.
            about: what to report of them besides.
        """
        objective = self.objective
        key = fingerprint(
            identity, split, limit, objective.encoding, objective.adaptation.tasks, encoding_fingerprint(objective)
        )
        about |= {"content": fingerprint(identity, split), "dropped": {}, "shortened": 0, "rows": 0}
        store = stored(key, lambda: (self._encode(made(), limit, about), about))
        if not len(store):
            reasons = ", ".join(f"{n} x {why}" for why, n in store.about["dropped"].items()) or "it has no rows"
            raise ValueError(f"data.source: none of {store.about['rows']} {split} rows can be learnt from ({reasons}).")
        return store, {name: value for name, value in store.about.items() if name != "columns"}

    def _encode(self, made: Iterable[dict | str], limit: int | None, about: dict[str, Any]) -> Iterator[Encoded]:
        dropped: Counter[str] = Counter()
        adaptation = self.objective.adaptation
        for chunk, items in self._encoded_chunks(iter(made), limit):
            about["rows"] += len(chunk)
            for example, item in zip(chunk, items, strict=True):
                task = None if isinstance(example, str) else adaptation.task_of(example)
                if isinstance(item, str):
                    dropped[item] += 1
                elif task is not None and task < 0:
                    dropped["a task that the adaptation does not name"] += 1
                else:
                    about["shortened"] += item.pop(SHORTENED, None) is not None
                    yield item if task is None else {**item, "task": np.array([task], np.int32)}
        about["dropped"] = dict(dropped)

    def _encoded_chunks(
        self, made: Iterator[dict | str], limit: int | None
    ) -> Iterator[tuple[list[dict | str], list[Encoded | str]]]:
        """Chunks in order; one is tokenised, which leaves Python alone, while another is read and labelled."""

        def encoded(chunk: list[dict | str]) -> tuple[list[dict | str], list[Encoded | str]]:
            found = iter(self.objective.encode([example for example in chunk if not isinstance(example, str)], limit))
            return chunk, [example if isinstance(example, str) else next(found) for example in chunk]

        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(2) as threads:
            while (chunk := list(islice(made, CHUNK))) or waiting:
                if chunk:
                    waiting.append(threads.submit(encoded, chunk))
                if not chunk or len(waiting) > 2:
                    yield waiting.popleft().result()

    def plan(self, epoch: int = 0) -> BatchPlan:
        """Which examples make up which training batch of this rank."""
        capacity = self.max_length if self.packing == "best-fit" else None
        plan = BatchPlan(
            self.items["train"].lengths(), self.batch_size, self.order_seed, True, *ranks_of(self.trainer), self.shares(),
            self.batch_tokens, capacity, getattr(self.trainer, "accumulate_grad_batches", 1), self._position(),
            self.packing != "padding-free",
        )  # fmt: skip
        plan.set_epoch(epoch)
        return plan

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return True

    def fill(self) -> float:
        """The share of positions in the first epoch's batches that are no padding; of packed rows, their share in use."""
        return self.plan().fill(self.packing != "padding-free")

    def shares(self) -> Shares | None:
        """Which examples an epoch of training takes, if not all."""
        return None

    def optimizer_steps(self, window: int, epochs: int | None, limit: int | float = 1.0) -> int | None:
        """Of a whole run, until its epochs or its budget of tokens end; None where neither is set.

        Args:
            window: micro-batches in an optimizer step.
            limit: micro-batches of an epoch that are used, or their share.
        """
        plan, steps, tokens = self.plan(), 0, 0
        for epoch in range(epochs) if epochs else count() if self.token_budget else ():
            plan.set_epoch(epoch)
            batches = min(len(plan), limit) if isinstance(limit, int) else int(len(plan) * limit)
            if not batches:
                raise ValueError(f"trainer.limit_train_batches {limit} leaves none of {len(plan)} batches: raise it.")
            if self.token_budget:
                ends = np.add.reduceat(plan.batch_tokens()[:batches], range(0, batches, window)).cumsum() + tokens
                if ends[-1] >= self.token_budget:
                    return steps + int(np.searchsorted(ends, self.token_budget)) + 1
                tokens = int(ends[-1])
            elif plan.steady:
                return epochs * math.ceil(batches / window)  # type: ignore[operator]
            steps += math.ceil(batches / window)
        return steps or None

    def parts(self, split: str) -> dict[str, Any]:
        """The examples of a split by the part of the data that they are from; one part where nothing is said."""
        items = self.items[split]
        return items.parts if isinstance(items, Parts) else {"": items}

    def _loader(self, items: Any, plan: BatchPlan, packing: Packing = "none") -> Any:
        batches = Batches(items, self.objective, packing)
        # Forked workers read the objective where it is; sent to them, it would have to be pickled with its weights.
        more: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "fork"} if self.workers else {}
        own = torch.Generator()  # a loader draws a number when it begins: not from the state that dropout draws from
        return DataLoader(batches, sampler=plan, batch_size=None, num_workers=self.workers, generator=own, **more)

    def loaders(self, split: str) -> list[Any]:
        """One for each part, each example once and in order."""
        parts = self.parts(split).values() if split in self.items else ()
        return [
            self._loader(items, BatchPlan(items.lengths(), self.batch_size, self.seed, False, *ranks_of(self.trainer)))
            for items in parts
        ]

    def train_dataloader(self) -> Any:
        plan = self.plan(self._position()[0])
        return self._loader(self.items["train"], plan, self.packing)

    def val_dataloader(self) -> Any:
        return self.loaders("validation")

    def test_dataloader(self) -> Any:
        return self.loaders("test")

    def predict_dataloader(self) -> Any:
        raise ValueError(f"{type(self).__name__} has no prompts to answer: predict with InstructionData.")
