"""Running text: documents, cut into blocks of one length of which no token is lost; several corpora mixed by weights."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lit_fm.backbone import context_length, load_config
from lit_fm.data.base import ObjectiveData
from lit_fm.data.documents import documents
from lit_fm.data.parts import Parts
from lit_fm.data.rows import fingerprint_of
from lit_fm.data.shares import Shares, until_one_runs_out
from lit_fm.data.tokens import Encoded, TokenStore, encoding_fingerprint, fingerprint, stored

SPLITS = ("train", "validation", "test")
CHUNK = 2_000_000  # characters that are tokenised at a time


class Blocks:
    """Blocks of `size` tokens out of a column of a store, as the objective frames them.

    Args:
        overlap: tokens that a block shares with the next one: 1 where the first of a block is no target, so that each
            token is one once.
    """

    def __init__(
        self, store: TokenStore, column: str, size: int, frame: Callable[[np.ndarray], Encoded], overlap: int
    ) -> None:
        self.store, self.column, self.size, self.frame, self.overlap = store, column, size, frame, overlap
        self.tokens = store.size(column)

    def __len__(self) -> int:
        return max(1, -(-(self.tokens - self.overlap) // self.size))

    def __getitem__(self, number: int) -> Encoded:
        stop = min((number + 1) * self.size + self.overlap, self.tokens)
        return self.frame(self.store.piece(self.column, number * self.size, stop).astype(np.int64))

    def lengths(self) -> np.ndarray:
        """Tokens in each block."""
        whole = np.full(len(self), self.size + self.overlap)
        whole[-1] = self.tokens - (len(self) - 1) * self.size
        return whole


class TextCorpus(ObjectiveData):
    """Documents to learn as running text, one after the other. Corpora larger than memory are read from disk.

    Args:
        source: a text file (documents parted by empty lines, or by lines where it has none), JSON, JSONL, CSV, TSV or
            Parquet (one a row, in `column`), a folder or pattern of such files (train, validation, test by name), an
            address that fsspec reads, a Hugging Face data set id, or `smallworld/CORPUS`; or several, by name.
        weights: the share of each named source among the tokens of training; 0 only measures it. Without weights, all.
        documents: how many smallworld makes for training.
        block_size: tokens that are learnt in a block.
        borders: documents in a block do not see each other; refused for a backbone that cannot do so exactly.
        stray_quotes: quotes in CSV and TSV are characters like any other.
        held_out: how many documents are kept for validation, and again for test, of each source without such splits.
    """

    def __init__(
        self,
        source: str | dict[str, str],
        weights: dict[str, float] | None = None,
        documents: int = 10_000,
        block_size: int = 256,
        borders: bool = False,
        column: str = "text",
        stray_quotes: bool = False,
        held_out: int = 200,
        batch_size: int = 16,
        token_budget: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed, token_budget)
        if block_size < 1 or held_out < 1 or documents < 1:
            raise ValueError(
                f"data.block_size {block_size}, data.held_out {held_out} and data.documents {documents} must be at least "
                "1: raise them."
            )
        self.sources = source if isinstance(source, dict) else {"text": source}
        if weights is not None and (
            set(weights) != set(self.sources) or min(weights.values()) < 0 or not any(weights.values())
        ):
            raise ValueError(
                f"data.weights {weights}: expected a weight of at least 0 for each of {sorted(self.sources)}, one of them "
                "above 0."
            )
        self.weights, self.documents, self.block_size = weights, documents, block_size
        self.borders, self.column, self.stray_quotes, self.held_out = borders, column, stray_quotes, held_out
        self._stores: dict[str, TokenStore] = {}

    @property
    def bordered(self) -> int:  # type: ignore[override]
        return self.block_size if self.borders else 0

    # Documents to tokens, once, on disk.

    def documents_by_split(self, source: str) -> Iterator[tuple[str, str]]:
        """Each document with its split: the source's own, or held out from what it has to train on."""
        sizes = {"train": self.documents, "validation": self.held_out, "test": self.held_out}
        found = documents(source, self.column, sizes, self.seed, self.stray_quotes)
        lacking = [split for split in ("validation", "test") if split not in found]
        n, held = self.held_out, {}
        if lacking:
            count = sum(1 for _ in found["train"]()) if "train" in found else 0
            if count <= n * len(lacking):
                raise ValueError(
                    f"data.source: {source} has {count} documents to train on (in a text file, empty lines part them), and "
                    f"{n * len(lacking)} are held out: lower data.held_out."
                )
            chosen = np.random.default_rng(self.seed).choice(count, n * len(lacking), replace=False)
            held = {int(number): lacking[i // n] for i, number in enumerate(chosen)}
        for split in SPLITS:
            for number, text in enumerate(found[split]() if split in found else ()):
                yield held.get(number, split) if split == "train" else split, text

    def _encode_text(self, source: str, about: dict[str, Any]) -> Iterator[Encoded]:
        """Token ids by split, some documents at a time."""
        waiting: dict[str, list[str]] = {split: [] for split in SPLITS}
        size, content = dict.fromkeys(SPLITS, 0), hashlib.sha256()
        kind = np.min_scalar_type(max(self.objective.tokenizer.get_vocab().values()))
        for split, text in self.documents_by_split(source):
            counts = about["splits"][split]
            counts["rows"] += 1
            if not text.strip():
                counts["dropped"]["empty text"] = counts["dropped"].get("empty text", 0) + 1
                continue
            written = text.encode()
            content.update(written)
            counts["examples"] += 1
            counts["bytes"] += len(written)
            waiting[split].append(text)
            size[split] += len(text)
            if size[split] > CHUNK:
                yield {split: self.objective.running(waiting[split]).astype(kind)}
                waiting[split], size[split] = [], 0
        for split, texts in waiting.items():
            if texts:
                yield {split: self.objective.running(texts).astype(kind)}
        about["content"] = content.hexdigest()[:24]

    def _store(self, name: str) -> TokenStore:
        source = self.sources[name]
        if name not in self._stores:
            settings = type(self).__name__, self.documents, self.held_out, self.column, self.seed, self.stray_quotes
            key = fingerprint(fingerprint_of(source), settings, encoding_fingerprint(self.objective))
            empty = {"rows": 0, "examples": 0, "bytes": 0, "dropped": {}, "kind": "text"}
            about: dict[str, Any] = {"splits": {split: {**empty, "dropped": {}} for split in SPLITS}, "content": ""}
            self._stores[name] = stored(key, lambda: (self._encode_text(source, about), about))
        return self._stores[name]

    # Tokens to blocks.

    def _frame(self, ids: np.ndarray) -> Encoded:
        return self.objective.block(ids, self.borders)

    def prepare(self, split: str) -> Any:
        objective = self.objective
        if objective.adaptation.tasks:
            raise ValueError("adaptation.tasks: running text is of no task: use InstructionData, or leave them out.")
        context = context_length(load_config(objective.backbone))
        frame = objective.block_frame + objective.adaptation.virtual_tokens
        if context and self.block_size + frame > context:
            raise ValueError(
                f"data.block_size is {self.block_size}{f' and {frame} special or virtual ones' if frame else ''}, but the "
                f"backbone takes {context} tokens: lower it."
            )
        parts, reported = {}, {}
        for name in self.sources:
            store = self._store(name)
            if not store.size(split):
                raise ValueError(f"data.source: {self.sources[name]} has no text for {split}: give more documents.")
            parts[name] = Blocks(store, split, self.block_size, self._frame, objective.block_overlap)
            label = split if len(self.sources) == 1 else f"{split}: {name}"
            about = {**store.about["splits"][split], "content": store.about["content"], "tokens": store.size(split)}
            # A document's first token is no target where it cannot see the one before.
            targets = store.size(split) - objective.block_overlap - (about["examples"] - 1 if self.borders else 0)
            reported[label] = {**about, "targets_per_byte": targets / about["bytes"]}
        if split == "train" and self.weights:
            shares = self._shares(parts)
            for about, taken, count in zip(reported.values(), shares.taken, shares.counts, strict=True):
                about["taken"] = f"{taken:,} of {count:,} blocks, {taken / len(shares):.1%} of all"
        return Parts(parts), reported

    def shares(self) -> Shares:
        return self._shares(self.items["train"].parts)

    def _shares(self, parts: dict[str, Blocks]) -> Shares:
        counts = [len(blocks) for blocks in parts.values()]
        weights = [self.weights[name] for name in self.sources] if self.weights else None
        return Shares(counts, until_one_runs_out(counts, weights) if weights else None, self.seed)
