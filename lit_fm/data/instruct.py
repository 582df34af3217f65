"""Instruction data: prompts with answers, or conversations, from a person's own files."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from lit_fm.backbone import context_length, load_config
from lit_fm.data.base import ObjectiveData
from lit_fm.data.chat import PLAIN_CHAT
from lit_fm.data.examples import Example
from lit_fm.data.order import Packing
from lit_fm.data.parts import Parts
from lit_fm.data.task import Task
from lit_fm.ranks import writing_ranks_of

LONGEST = 1024
LEAST = 16  # tokens that a soft prompt must leave for text


class Instructions(ObjectiveData):
    """Tasks by name, for any objective: the loss is on the answers alone.

    Args:
        max_length: in tokens; as long as the backbone takes, up to 1,024, where nothing is said. A longer prompt
            loses its left, an answer that does not fit drops the row; both are counted and shown.
        max_new_tokens: the longest answer that `predict` writes.
        packing: `best-fit`: examples share rows of `max_length` tokens; `padding-free`: those of a batch follow each other.
            In both, none sees another; refused where the backbone cannot do that exactly.
        batch_size: rows in a micro-batch of one rank: examples, or what they are packed in.
        batch_tokens: instead of `batch_size`: tokens in a micro-batch of one rank, with padding, at most.
        token_budget: training ends once so many tokens were dealt, padding not counted.
        workers: processes that collate batches; 0 does it in the main one.
        seed: of splits, templates and order.
        order_seed: of the order of training alone: runs that differ in it learn and are scored on the same examples.
    """

    has_answers = True

    def __init__(
        self,
        tasks: dict[str, Task],
        max_length: int | None = None,
        max_new_tokens: int = 128,
        packing: Packing = "none",
        batch_size: int = 16,
        batch_tokens: int | None = None,
        token_budget: int | None = None,
        workers: int = 0,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed, token_budget, batch_tokens, order_seed)
        for name, value in (("max_length", max_length), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < (2 if name == "max_length" else 1):
                raise ValueError(f"data.{name} is {value}: raise it.")
        for task in tasks.values():
            task.seed = seed
        self.tasks, self._max_length, self.max_new_tokens, self.packing = tasks, max_length, max_new_tokens, packing
        self._made: dict[str, list[Example]] = {}

    def _named(self, name: str, split: str, answered: bool = True) -> Iterator[Example | str]:
        """The examples of a task, with its name where there are several."""
        for example in self.tasks[name].examples(split, answered):
            yield example if isinstance(example, str) or not name else {**example, "task": name}

    def examples(self, split: str, answered: bool = True) -> list[Example]:
        """The examples of a split, as text; read once. `answered`: off for rows to predict, which may lack the answer."""
        key = f"{split}, {'' if answered else 'not '}answered"
        if key not in self._made:
            made = [example for name in self.tasks for example in self._named(name, split, answered)]
            self._made[key] = [example for example in made if not isinstance(example, str)]
        return self._made[key]

    def has(self, split: str) -> bool:
        return any(task.has(split) for task in self.tasks.values())

    def metrics_of(self, task: str | None) -> list[str] | None:
        """What answers of a task are measured by; None where nothing is said."""
        known = self.tasks.get(task or "") or self.tasks.get("")
        return known.metrics if known else None

    @property
    def max_length(self) -> int:  # type: ignore[override]
        """In tokens.

        Raises:
            ValueError: more was asked for than the backbone takes.
        """
        context = context_length(load_config(self.objective.backbone))
        taken = self.objective.adaptation.virtual_tokens
        if context and context - taken < LEAST:
            raise ValueError(
                f"{type(self.objective.adaptation).__name__} takes {taken} of the {context} positions that "
                f"{self.objective.backbone} has: lower adaptation.tokens, so that {LEAST} are left."
            )
        context = context and context - taken
        if self._max_length and context and self._max_length > context:
            raise ValueError(
                f"data.max_length is {self._max_length}, but {self.objective.backbone} takes {context} tokens at most: "
                "lower it."
            )
        return self._max_length or min(LONGEST, context or LONGEST)

    def setup(self, stage: str) -> None:
        objective = self.objective
        if self.packing != "none" and not hasattr(objective, "pack"):
            raise ValueError(f"data.packing: {type(objective).__name__} does not pack examples: leave it off.")
        objective.see(lambda: self.examples("train"))
        super().setup(stage)

    def prepare(self, split: str) -> Any:
        stores, reported = {}, {}
        for name, task in self.tasks.items():
            if not task.has(split):
                continue
            if not self.objective.tokenizer.chat_template and task.talks(split):
                self.objective.tokenizer.chat_template = PLAIN_CHAT  # exported with it, for those who serve it
            about: dict[str, Any] = {}

            def made(name: str = name, task: Task = task, about: dict = about) -> Iterator[Example | str]:
                yield from self._named(name, split)
                about["kind"] = ", ".join(sorted(task.seen))
                about["beyond"] = task.beyond if split == "train" else 0

            store, about = self.encode(split, made, self.max_length, [name, task.identity()], about)
            stores[name], reported[f"{split}: {name}" if name else split] = store, about
        if not stores:
            return None
        return (stores[""] if "" in stores else Parts(stores)), reported

    def predict_dataloader(self) -> Any:
        rank, world = writing_ranks_of(self.trainer)
        rows = [{"row": i, **example} for i, example in enumerate(self.examples("test", answered=False), 1)]
        if not rows:
            raise ValueError("there is nothing to predict: the data has no test split; give --data.test FILE.")
        return DataLoader(rows[rank::world], batch_size=64, collate_fn=list)  # type: ignore[arg-type]


class InstructionData(Instructions):
    """Prompt and answer in each row of one source, for any objective: the loss is on the answer alone.

    Args:
        source: a file (JSON, JSONL, CSV, TSV, Parquet), a folder of them (train, validation, test by file name), a glob,
            `smallworld/TASK`, a Hugging Face data set id, or a remote path such as `s3://...`.
    """

    def __init__(
        self,
        source: str,
        max_length: int | None = None,
        max_new_tokens: int = 128,
        packing: Packing = "none",
        batch_size: int = 16,
        batch_tokens: int | None = None,
        token_budget: int | None = None,
        workers: int = 0,
        seed: int = 0,
        order_seed: int | None = None,
        **task: Any,
    ) -> None:
        super().__init__(
            {"": Task(source, **task)}, max_length, max_new_tokens, packing, batch_size, batch_tokens, token_budget,
            workers, seed, order_seed,
        )  # fmt: skip
