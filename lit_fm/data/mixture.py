"""Many tasks at once."""

from typing import Any

from lit_fm.data.instruct import Instructions
from lit_fm.data.shares import Shares, by_temperature, by_weights
from lit_fm.data.task import Task


class Mixture(Instructions):
    """Tasks mixed for any objective, each with its own validation curve and score.

    An epoch has as many examples as all tasks together, under the cap. A task that is taken more often than it has
    examples begins anew in another order; of one that is taken less often, the next epoch takes others.

    Args:
        tasks: by name; each says where its rows are and how they are read.
        weights: the share of each task among the examples of training; 0 only measures it.
        temperature: instead of weights: in proportion to min(examples, cap)^(1/T). 1 is proportional, higher is more even
            (T5, Raffel et al. 2020, section 3.5.2; FLAN takes 1 with a cap of 3,000).
        cap: examples that a task counts for at most.
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        weights: dict[str, float] | None = None,
        temperature: float = 1.0,
        cap: int | None = None,
        **batches: Any,
    ) -> None:
        super().__init__(tasks, **batches)
        if not tasks or "" in tasks:
            raise ValueError("data.tasks: expected tasks by name: tasks: {sums: {source: sums.jsonl}}.")
        if weights is not None and (temperature != 1 or cap):
            raise ValueError("data.weights are given, and data.temperature or data.cap too: leave out one of them.")
        if weights is not None and (
            set(weights) != set(tasks) or min(weights.values()) < 0 or not any(weights.values())
        ):
            raise ValueError(
                f"data.weights {weights}: expected a weight of at least 0 for each of {sorted(tasks)}, one of them above 0."
            )
        if temperature <= 0 or (cap is not None and cap < 1):
            raise ValueError(f"data.temperature {temperature} must be above 0, data.cap {cap} at least 1.")
        self.weights, self.temperature, self.cap = weights, temperature, cap
        cuts: dict[str, Task] = {}
        for name, task in tasks.items():
            other = cuts.setdefault(task.source.partition(":fields")[0], task)
            if (task.files, task.shares) != (other.files, other.shares):
                raise ValueError(
                    f"data.tasks.{name}: another task reads {task.source} too, but cuts other splits off it, so that one "
                    "would learn what the other is tested with: give both the same validation, test and shares."
                )

    def shares(self) -> Shares:
        parts = self.items["train"].parts
        return self._shares({name: len(store) for name, store in parts.items()})

    def _shares(self, counts: dict[str, int]) -> Shares:
        numbers = list(counts.values())
        if self.weights:
            taken = by_weights(numbers, [self.weights[name] for name in counts])
        else:
            taken = by_temperature(numbers, self.temperature, self.cap)
        return Shares(numbers, taken, self.order_seed)

    def prepare(self, split: str) -> Any:
        if not (prepared := super().prepare(split)):
            return None
        parts, reported = prepared
        if split == "train":
            shares = self._shares({name: len(store) for name, store in parts.parts.items()})
            for about, taken, count in zip(reported.values(), shares.taken, shares.counts, strict=True):
                about["taken"] = f"{taken:,} of {count:,} examples, {taken / len(shares):.1%} of all"
        return parts, reported
