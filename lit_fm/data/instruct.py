"""Instruction data: prompts with answers, or conversations, from a person's own files."""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from lit_fm.backbone import context_length, load_config
from lit_fm.data.base import ObjectiveData
from lit_fm.data.examples import examples
from lit_fm.data.rows import Rows, read
from lit_fm.data.templates import PLAIN_CHAT

LONGEST = 1024


class InstructionData(ObjectiveData):
    """Prompt and answer in each row, for any objective: the loss is on the answer alone.

    Args:
        source: a file (JSON, JSONL, CSV, Parquet), a folder of them (train, validation, test by file name),
            `smallworld/TASK`, or a Hugging Face data set id.
        validation, test: files with these splits. What is given nowhere is cut off `source`, by `seed`.
        validation_share, test_share: how much of the rows is cut off.
        columns: which of your fields is `prompt`, `completion` (or another field of a known kind).
        template: Jinja over the fields of a row, `|||` between prompt and answer, instead of a known kind.
        choices: the possible answers, for rows that do not bring their own; masked models choose among them. As a
            mapping, the words that stand for them (verbalizers): `{"0": terrible, "1": great}`.
        rows: learn from at most so many, drawn by `seed`; also how many smallworld makes.
        max_length: in tokens; as long as the backbone takes, up to 1,024, where nothing is said. A longer prompt
            loses its left, an answer that does not fit drops the row; both are counted and shown.
        max_new_tokens: the longest answer that `predict` writes.
    """

    has_answers = True

    def __init__(
        self,
        source: str,
        validation: str | None = None,
        test: str | None = None,
        validation_share: float = 0.05,
        test_share: float = 0.1,
        columns: dict[str, str] | None = None,
        template: str | None = None,
        choices: list[str] | dict[str, str] | None = None,
        rows: int | None = None,
        max_length: int | None = None,
        max_new_tokens: int = 128,
        batch_size: int = 16,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if not 0 <= validation_share < 1 or not 0 <= test_share < 1 or validation_share + test_share >= 1:
            raise ValueError(
                f"data.validation_share {validation_share} and data.test_share {test_share} must leave rows to learn from."
            )
        for name, value in (("rows", rows), ("max_length", max_length), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < (2 if name == "max_length" else 1):
                raise ValueError(f"data.{name} is {value}: raise it.")
        self.source, self.files = source, {"validation": validation, "test": test}
        self.shares = {"validation": validation_share, "test": test_share}
        self.columns, self.template, self.choices, self.rows = columns, template, choices, rows
        self._max_length, self.max_new_tokens = max_length, max_new_tokens
        self._made: dict[str, Rows] = {}
        self._kinds: set[str] = set()

    def _examples(self, source: str, answered: bool = True) -> dict[str, Rows]:
        made = {}
        for split, rows in read(source, self.rows, self.seed).items():
            kind, made[split] = examples(rows, self.template, self.columns, answered)
            self._kinds.add(kind)
            made[split] = [self._chosen(example, number) for number, example in enumerate(made[split], 1)]
        if not any(made.values()):
            raise ValueError(f"data.source: {source} has no rows.")
        return made

    def _chosen(self, example: dict, number: int) -> dict:
        """An example with its choices, by the words that stand for them.

        Raises:
            ValueError: its answer is none of them.
        """
        choices = example.get("choices") or self.choices
        answer = example.get("completion", "").strip()
        if not choices or "messages" in example:
            return example
        if answer and answer not in [str(choice) for choice in choices]:
            raise ValueError(f"row {number}: the answer {answer!r} is none of the choices {list(choices)}: correct it.")
        if isinstance(choices, dict):
            return {**example, "completion": choices.get(answer, ""), "choices": list(choices.values())}
        return {**example, "choices": choices}

    def _given(self, split: str, answered: bool = True) -> Rows | None:
        """Examples of a file of its own: of its split of that name, where it has several."""
        if not (file := self.files.get(split)):
            return None
        found = self._examples(file, answered)
        if len(found) > 1 and split not in found:
            raise ValueError(f"data.{split}: {file} has the splits {sorted(found)}, and none is {split}: give a file.")
        return found[split] if len(found) > 1 else next(iter(found.values()))

    def examples(self, split: str, answered: bool = True) -> Rows:
        """The examples of a split, as text; read once. `answered`: off for rows to predict, which may lack the answer."""
        if not answered:
            given = self._given(split, answered)
            return self.examples(split) if given is None else given
        if split not in self._made:
            given = self._given(split)
            self._made.update(self._cut() if given is None else {split: given})
        return self._made[split]

    def _cut(self) -> dict[str, Rows]:
        """The splits of the source; those that it lacks, and no file gives, are cut off its training rows."""
        found = self._examples(self.source)
        train = found.get("train", [])
        order = np.random.default_rng(self.seed).permutation(len(train))
        for split, share in self.shares.items():
            if split not in found and not self.files[split]:
                count = min(len(train) // 3, max(1, round(len(train) * share))) if share else 0
                taken, order = order[:count], order[count:]
                found[split] = [train[i] for i in taken]
        found["train"] = [train[i] for i in np.sort(order[: self.rows])]
        own = [
            split for split in ("train", "validation", "test") if split not in self._made and not self.files.get(split)
        ]
        return {split: found.get(split, []) for split in own}

    @property
    def max_length(self) -> int:  # type: ignore[override]
        """In tokens.

        Raises:
            ValueError: more was asked for than the backbone takes.
        """
        context = context_length(load_config(self.objective.backbone))
        context = context and context - self.objective.adaptation.virtual_tokens
        if self._max_length and context and self._max_length > context:
            raise ValueError(
                f"data.max_length is {self._max_length}, but {self.objective.backbone} takes {context} tokens at most: "
                "lower it."
            )
        return self._max_length or min(LONGEST, context or LONGEST)

    def setup(self, stage: str) -> None:
        self.objective.see(lambda: self.examples("train"))
        super().setup(stage)

    def prepare(self, split: str) -> Any:
        made = self.examples(split)
        if made and "messages" in made[0] and not self.objective.tokenizer.chat_template:
            self.objective.tokenizer.chat_template = PLAIN_CHAT  # exported with the tokenizer, for those who serve it
        if not made:
            return None
        store, about = self.encode(split, made, self.max_length, ", ".join(sorted(self._kinds)))
        return store, {split: about}

    def predict_dataloader(self) -> Any:
        trainer: Any = self.trainer
        rows = [{"row": i, **example} for i, example in enumerate(self.examples("test", answered=False), 1)]
        if not rows:
            raise ValueError("there is nothing to predict: the data has no test split; give --data.test FILE.")
        mine = rows[trainer.global_rank :: trainer.world_size]
        return DataLoader(mine, batch_size=64, collate_fn=list)  # type: ignore[arg-type]
