"""Running text: documents, cut into blocks of one length of which no token is lost."""

from pathlib import Path
from typing import Any

import numpy as np

from lit_fm.backbone import context_length, load_config
from lit_fm.data import smallworld
from lit_fm.data.base import ObjectiveData
from lit_fm.data.examples import SUFFIXES, read_file
from lit_fm.data.tokens import Encoded


class Blocks:
    """Blocks of `size` targets out of tokens in a row; neighbours share one token, so each token is a target once."""

    def __init__(self, tokens: np.ndarray, size: int) -> None:
        self.tokens, self.size = tokens, size

    def __len__(self) -> int:
        return max(1, -(-(len(self.tokens) - 1) // self.size))

    def __getitem__(self, number: int) -> Encoded:
        ids = np.asarray(self.tokens[number * self.size : (number + 1) * self.size + 1])
        return {"input_ids": ids, "labels": ids}

    def lengths(self) -> np.ndarray:
        """Tokens in each block."""
        whole = np.full(len(self), self.size + 1)
        whole[-1] = len(self.tokens) - (len(self) - 1) * self.size
        return whole


class TextCorpus(ObjectiveData):
    """Documents to learn as running text, one after the other, an end token between them.

    Args:
        source: a text file (documents parted by empty lines), JSON, JSONL, CSV or Parquet (one a row, in `column`), or
            `smallworld/CORPUS`.
        documents: how many smallworld makes for training.
        block_size: tokens that are learnt in a block.
        held_out: how many documents are kept for validation, and again for test.
    """

    def __init__(
        self,
        source: str,
        documents: int = 10_000,
        block_size: int = 256,
        column: str = "text",
        held_out: int = 200,
        batch_size: int = 16,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if block_size < 1 or held_out < 1:
            raise ValueError(
                f"data.block_size {block_size} and data.held_out {held_out} must be at least 1: raise them."
            )
        self.source, self.documents, self.block_size = source, documents, block_size
        self.column, self.held_out = column, held_out
        self._texts: dict[str, list[str]] = {}

    def texts(self, split: str) -> list[str]:
        """The documents of a split."""
        if self.source.startswith(smallworld.PREFIX):
            size = self.documents if split == "train" else self.held_out
            return smallworld.documents(self.source.removeprefix(smallworld.PREFIX), split, size, self.seed)
        if not self._texts:
            found = self._read()
            order = np.random.default_rng(self.seed).permutation(len(found))
            n = self.held_out
            if len(found) <= 2 * n:
                raise ValueError(
                    f"data.source: {self.source} has {len(found)} documents, and {2 * n} are held out: lower data.held_out."
                )
            cuts = {"validation": order[:n], "test": order[n : 2 * n], "train": np.sort(order[2 * n :])}
            self._texts = {name: [found[i] for i in numbers] for name, numbers in cuts.items()}
        return self._texts[split]

    def _read(self) -> list[str]:
        path = Path(self.source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"data.source: there is no file {self.source!r}, and smallworld/CORPUS is the other way."
            )
        if path.suffix.lower() not in SUFFIXES:
            return [part for part in path.read_text(encoding="utf-8").split("\n\n") if part.strip()]
        rows = read_file(path)
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get(self.column, 0), str | None):
                raise ValueError(
                    f"{path}, row {number}: {self.column!r} is no text; the row has {sorted(row)}: set data.column."
                )
        return [row[self.column] or "" for row in rows]

    def prepare(self, split: str) -> Any:
        context = context_length(load_config(self.objective.backbone))
        if context and self.block_size > context:
            raise ValueError(
                f"data.block_size is {self.block_size}, but the backbone takes {context} tokens: lower it."
            )
        store, about = self.encode(split, [{"text": text} for text in self.texts(split)], None, "text")
        blocks = Blocks(store.flat("input_ids"), self.block_size)
        return blocks, {**about, "tokens": len(blocks.tokens)}
