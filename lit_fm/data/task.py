"""A task: the rows of one source as examples."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from lit_fm.data.examples import Example, examples
from lit_fm.data.files import Row
from lit_fm.data.rows import count_of, fingerprint_of, splits, take
from lit_fm.data.templates import Templates
from lit_fm.evaluate.metrics import check_names


class Task:
    """Where the rows are, how they are read, and what measures the answers.

    Args:
        source: a file (JSON, JSONL, CSV, TSV, Parquet), a folder of them (train, validation, test by file name), a glob,
            `smallworld/TASK` (`smallworld/TASK:2000` makes so many rows), a Hugging Face data set id, or a remote
            file, folder or glob such as `s3://...`.
        validation, test: files with these splits. What is given nowhere is cut off `source`, by seed.
        validation_share, test_share: how much of the rows is cut off.
        kind: what the rows are, where the guess by their fields is wrong.
        columns: which of your fields is `prompt`, `completion` (or another field of the kind): a name, a path such as
            `answers.0.text`, or `questions[].text` for an example of each item of a list.
        template: Jinja over the fields of a row, `|||` between prompt and answer, instead of a kind; several, of which one
            is drawn for each row; or a PromptSource file.
        train_templates, evaluation_templates: names (or numbers from 1) of those for training, and for validation and
            test; what is named for evaluation alone is held out of training.
        choices: the possible answers, for rows that do not bring their own; masked models choose among them. As a
            mapping, the words that stand for them (verbalizers): `{"0": terrible, "1": great}`.
        rows: learn from at most so many, drawn by seed; also how many smallworld makes.
        stray_quotes: quotes in CSV and TSV are plain characters.
        metrics: what answers are measured by: of exact_match, accuracy, macro_f1, entity_f1, f1, rouge, bleu, chrf,
            tool_call, number, and choice_accuracy and choice_accuracy_normalised (which choice is the likeliest, and which
            per byte). The objective's own where nothing is said, with choice_accuracy where all rows bring choices.
    """

    seed = 0

    def __init__(
        self,
        source: str,
        validation: str | None = None,
        test: str | None = None,
        validation_share: float = 0.05,
        test_share: float = 0.1,
        kind: str | None = None,
        columns: dict[str, str] | None = None,
        template: str | list[str] | None = None,
        train_templates: list[str] | None = None,
        evaluation_templates: list[str] | None = None,
        choices: list[str] | dict[str, str] | None = None,
        rows: int | None = None,
        stray_quotes: bool = False,
        metrics: list[str] | None = None,
    ) -> None:
        if not 0 <= validation_share < 1 or not 0 <= test_share < 1 or validation_share + test_share >= 1:
            raise ValueError(
                f"data.validation_share {validation_share} and data.test_share {test_share} must leave rows to learn from."
            )
        if rows is not None and rows < 1:
            raise ValueError(f"data.rows is {rows}: raise it.")
        if not template and (train_templates or evaluation_templates):
            raise ValueError(
                "data.train_templates and data.evaluation_templates choose among data.template: give that."
            )
        check_names(metrics or ())
        self.source, self.files = source, {"validation": validation, "test": test}
        self.shares = {"validation": validation_share, "test": test_share}
        self.kind, self.columns, self.choices, self.rows = kind, columns, choices, rows
        self.template, self.chosen_templates = template, (train_templates, evaluation_templates)
        self.stray_quotes, self.metrics = stray_quotes, metrics or None
        self.beyond = 0
        """Rows to learn from that are left out, since there are more than `rows`."""
        self.seen: set[str] = set()
        """The kinds that were recognised."""

    # What a subclass may say, to read from elsewhere.

    def read(self, source: str, size: int | None = None) -> dict[str, Callable[[], Iterator[Row]]]:
        """What gives the rows of each split of a source anew; all are `train` where it has no splits of its own.

        Args:
            size: how many rows to make, for a source that makes them.
        """
        return splits(source, size, self.seed, self.stray_quotes)

    def fingerprint(self, source: str) -> Any:
        """Tells whether a source has changed, as what JSON can hold."""
        return fingerprint_of(source)

    # What follows from it.

    def identity(self) -> list[Any]:
        """Tells its examples from those of others: what the files hold, and all that they are made with."""
        files = [self.fingerprint(source) for source in (self.source, *self.files.values()) if source]
        written = self.templates and self.templates.written
        how = self.kind, self.columns, written, self.chosen_templates, self.choices, self.rows, self.stray_quotes
        return [files, how, self.files, self.shares, self.seed]

    @cached_property
    def templates(self) -> Templates | None:
        return Templates(self.template, *self.chosen_templates, seed=self.seed) if self.template else None

    @cached_property
    def _own(self) -> dict[str, Any]:
        """The source's own splits."""
        return self.read(self.source, self.rows)

    def _given(self, split: str) -> Any:
        """The rows of a file of its own: of its split of that name, where it has several."""
        if not (file := self.files.get(split)):
            return None
        found = self.read(file)
        if len(found) > 1 and split not in found:
            raise ValueError(f"data.{split}: {file} has the splits {sorted(found)}, and none is {split}: give a file.")
        return found.get(split) or next(iter(found.values()))

    @cached_property
    def _cut(self) -> dict[str, np.ndarray]:
        """Numbers of the training rows of the source for each split that is cut off them, and of those that stay."""
        lacking = [
            split for split in self.shares if split not in self._own and not self.files[split] and self.shares[split]
        ]
        if "train" not in self._own or not (lacking or self.rows):
            return {}
        count = count_of(self._own["train"])
        order, numbers = np.random.default_rng(self.seed).permutation(count), {}
        for split in lacking:
            size = min(count // 3, max(1, round(count * self.shares[split])))
            numbers[split], order = np.sort(order[:size]), order[size:]
        self.beyond = max(0, len(order) - (self.rows or len(order)))
        return {**numbers, "train": np.sort(order[: self.rows])}

    def raw(self, split: str) -> Iterator[tuple[int, Row]]:
        """The rows of a split, with their numbers in their file from 1."""
        if given := self._given(split):
            yield from enumerate(given(), 1)
        elif split in self._cut:
            yield from ((number + 1, row) for number, row in take(self._own["train"], self._cut[split]))
        elif split in self._own:
            yield from enumerate(self._own[split](), 1)

    def has(self, split: str) -> bool:
        """Whether there are rows for a split."""
        if self.files.get(split):
            return True
        return (split == "train" or len(self._cut[split]) > 0) if split in self._cut else split in self._own

    def talks(self, split: str) -> bool:
        """Whether the examples of a split are conversations, by the first one of its files."""
        rows = self._given(split) or next(iter(self._own.values()))
        _, made = examples(enumerate(rows(), 1), self.templates, self.columns, kind=self.kind)
        return "messages" in next((example for _, example in made if not isinstance(example, str)), {})

    def examples(self, split: str, answered: bool = True) -> Iterator[Example | str]:
        """Each row of a split as an example, or the reason why it gives none.

        Args:
            answered: off: rows to predict, which may lack the answer.
        """
        kind, made = examples(self.raw(split), self.templates, self.columns, answered, self.kind, split)
        self.seen.add(kind)
        for number, example in made:
            yield example if isinstance(example, str) else self._with_choices(example, number)

    def _with_choices(self, example: Example, number: int) -> Example:
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
            right = [choices[a.strip()] for a in example.get("references", ()) if a.strip() in choices]
            more = {"references": right} if right else {}
            return {**example, "completion": choices.get(answer, ""), "choices": list(choices.values()), **more}
        return {**example, "choices": choices}
