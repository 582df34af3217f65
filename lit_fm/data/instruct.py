"""Instruction data: prompts with answers, or conversations, from a person's own files."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from lit_fm.backbone import context_length, load_config
from lit_fm.data.base import ObjectiveData
from lit_fm.data.examples import Rows, examples, read
from lit_fm.data.tokens import SHORTENED, Encoded, code_fingerprint, fingerprint, stored

LONGEST = 1024
CHUNK = 1000


class InstructionData(ObjectiveData):
    """Prompt and answer in each row; the loss is on the answer alone.

    Args:
        source: a file (JSON, JSONL, CSV, Parquet), a folder of them (train, validation, test by file name),
            `smallworld/TASK`, or a Hugging Face data set id.
        validation, test: files with these splits. What is given nowhere is cut off `source`, by `seed`.
        validation_share, test_share: how much of the rows is cut off.
        columns: which of your fields is `prompt`, `completion` (or another field of a known kind).
        template: Jinja over the fields of a row, `|||` between prompt and answer, instead of a known kind.
        rows: learn from at most so many, drawn by `seed`; also how many smallworld makes.
        max_length: in tokens; as long as the backbone takes, up to 1,024, where nothing is said. A longer prompt
            loses its left, an answer that does not fit drops the row; both are counted and shown.
        max_new_tokens: the longest answer that `predict` writes.
    """

    def __init__(
        self,
        source: str,
        validation: str | None = None,
        test: str | None = None,
        validation_share: float = 0.05,
        test_share: float = 0.1,
        columns: dict[str, str] | None = None,
        template: str | None = None,
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
        self.source, self.files = source, {"validation": validation, "test": test}
        self.shares = {"validation": validation_share, "test": test_share}
        self.columns, self.template, self.rows = columns, template, rows
        self._max_length, self.max_new_tokens = max_length, max_new_tokens
        self._raw: dict[str, Rows] = {}
        self.kind = ""

    def _read(self) -> dict[str, Rows]:
        """Raw rows of each split; read once."""
        if self._raw:
            return self._raw
        found = read(self.source, self.rows, self.seed)
        for split, file in self.files.items():
            if file:
                found[split] = [row for rows in read(file).values() for row in rows]
        train = found.get("train", [])
        if not any(found.values()):
            raise ValueError(f"data.source: {self.source} has no rows.")
        order = np.random.default_rng(self.seed).permutation(len(train))
        for split in (s for s in self.shares if s not in found):
            count = min(len(train) // 3, max(1, round(len(train) * self.shares[split]))) if self.shares[split] else 0
            taken, order = order[:count], order[count:]
            found[split] = [train[i] for i in taken]
        found["train"] = [train[i] for i in np.sort(order[: self.rows])]
        self._raw = found
        return found

    def examples(self, split: str, answered: bool = True) -> Rows:
        """The examples of a split, as text."""
        rows = self._read().get(split, [])
        self.kind, made = examples(rows, self.template, self.columns, answered)
        return made

    @property
    def max_length(self) -> int:
        """In tokens.

        Raises:
            ValueError: more was asked for than the backbone takes.
        """
        context = context_length(load_config(self.objective.backbone))
        if self._max_length and context and self._max_length > context:
            raise ValueError(
                f"data.max_length is {self._max_length}, but {self.objective.backbone} takes {context} tokens at most: "
                "lower it."
            )
        return self._max_length or min(LONGEST, context or LONGEST)

    def prepare(self, split: str) -> Any:
        made = self.examples(split)
        if not made:
            return None
        objective, limit = self.objective, self.max_length
        tokenizer = fingerprint(objective.tokenizer.backend_tokenizer.to_str(), objective.tokenizer.chat_template)
        content = fingerprint(made)
        key = fingerprint(content, tokenizer, type(objective).__qualname__, limit, code_fingerprint())
        about: dict[str, Any] = {
            "dropped": {},
            "shortened": 0,
            "kind": self.kind,
            "content": content,
            "rows": len(made),
        }
        store = stored(key, lambda: (self._encode(made, limit, about), about))
        if not len(store):
            reasons = ", ".join(f"{n} x {why}" for why, n in store.about["dropped"].items())
            raise ValueError(f"data.source: none of {len(made)} {split} rows can be learnt from ({reasons}).")
        return store, {k: store.about[k] for k in (*about, "examples")}

    def _encode(self, made: Rows, limit: int, about: dict[str, Any]) -> Iterator[Encoded]:
        dropped: Counter[str] = Counter()
        for start in range(0, len(made), CHUNK):
            for item in self.objective.encode(made[start : start + CHUNK], limit):
                if isinstance(item, str):
                    dropped[item] += 1
                else:
                    about["shortened"] += item.pop(SHORTENED, None) is not None
                    yield item
        about["dropped"] = dict(dropped)

    def predict_dataloader(self) -> Any:
        trainer: Any = self.trainer
        rows = [{"row": i, **example} for i, example in enumerate(self.examples("test", answered=False), 1)]
        mine = rows[trainer.global_rank :: trainer.world_size]
        return DataLoader(mine, batch_size=64, collate_fn=list)  # type: ignore[arg-type]
