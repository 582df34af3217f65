"""Rows from files of this or another machine, Hugging Face or smallworld, by split."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from lit_fm.data import smallworld
from lit_fm.data.files import SUFFIXES, Row, count_rows, iterate_file, suffix_of
from lit_fm.data.remote import fetched, listing
from lit_fm.nearest import did_you_mean

log = logging.getLogger(__name__)
PLAIN = {".txt", ".md", ".text", ""}
"""Files of running text: read by a corpus, not as rows."""
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
SPLITS |= {"eval": "validation", "test": "test"}
HUB_ROWS = 1000  # in memory at once


def splits(
    source: str, size: int | None = None, seed: int = 0, stray_quotes: bool = False
) -> dict[str, Callable[[], Iterator[Row]]]:
    """What gives the rows of each split anew, one at a time; a source without splits is all `train`.

    Args:
        source: a file (JSON, JSONL, CSV, TSV, Parquet; text may be packed: `.gz`), a folder of files or a pattern
            (`data/*.jsonl`), whose splits their names begin with or their folders are called, an address that fsspec
            reads (`s3://...`), `smallworld/TASK`, or a Hugging Face data set id, with `:CONFIG` where it has several.
            `smallworld/TASK:2000` makes so many rows for training.
        size: how many rows smallworld makes for training, whatever its name says.
        stray_quotes: quotes in CSV and TSV are characters like any other.

    Raises:
        FileNotFoundError, ValueError: nothing there, or a kind of file that is not read; while read, a broken line.
    """
    if source.startswith(smallworld.PREFIX):
        task, number = re.fullmatch(r"(.*?)(?::(\d+))?", source.removeprefix(smallworld.PREFIX)).groups()  # type: ignore[union-attr]
        size = size or (int(number) if number else None)
        sizes = dict.fromkeys(smallworld.SIZES) | {"train": size}
        return {split: partial(_small, task, split, n, seed) for split, n in sizes.items()}
    found = files_of(source)
    return hub(source) if found is None else {s: partial(_all, files, stray_quotes) for s, files in found.items()}


def _small(*asked: Any) -> Iterator[Row]:
    yield from smallworld.rows(*asked)


def _all(files: list[Path], stray_quotes: bool, skipped: Iterator[bool] | None = None) -> Iterator[Row]:
    for file in files:
        yield from iterate_file(file, stray_quotes, skipped)


def count_of(rows: Callable[[], Iterator[Row]]) -> int:
    """How many rows a split has."""
    if isinstance(rows, partial) and rows.func is _all:
        return sum(count_rows(file, rows.args[1]) for file in rows.args[0])
    return sum(1 for _ in rows())


def take(rows: Callable[..., Iterator[Row]], numbers: np.ndarray) -> Iterator[tuple[int, Row]]:
    """Rows of a split by their rising numbers, from 0, each with its number. The others are not even parsed, if that can
    be."""
    wanted = set(numbers.tolist())
    skipped = (number not in wanted for number in count())
    from_files = isinstance(rows, partial) and rows.func is _all
    for number, row in enumerate(rows(skipped=skipped) if from_files else rows()):
        if number in wanted:
            yield number, row
            if number == numbers[-1]:
                return


def files_of(source: str, suffixes: Iterable[str] = SUFFIXES) -> dict[str, list[Path]] | None:
    """The files of a source by split; None where it names none, but may be a Hugging Face id."""
    suffixes = set(suffixes)
    readable = ", ".join(sorted(suffixes - {""}))
    path = Path(source).expanduser()
    remote = "://" in source
    if remote and (several := within(source, suffixes)):
        return several
    if remote or path.is_file():
        if suffix_of(Path(source.partition("?")[0])) not in suffixes:
            hint = ", or call it .txt if it is plain text" if ".txt" in suffixes else ""
            raise ValueError(f"data.source: {source} is not {readable}: convert it to one of them{hint}.")
        return {"train": [fetched(source) if remote else path]}
    wild = next((i for i, part in enumerate(path.parts) if re.search(r"[*?[]", part)), None)
    if path.is_dir() or wild is not None:
        base = Path(*path.parts[:wild])
        matching = base.glob(str(Path(*path.parts[wild:]))) if wild is not None else base.rglob("*")
        files = [f for f in sorted(matching) if f.is_file() and suffix_of(f) in suffixes - {""}]
        files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(base).parts)]
        if not files:
            raise FileNotFoundError(f"data.source: {source} has no {readable} file.")
        return _by_split(files, base)
    if suffix_of(path) in suffixes - {""} or source.startswith((".", "/", "~")) or source.count("/") != 1:
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        hint = near if "did you mean" in near else "check the path."
        raise FileNotFoundError(f"data.source: there is no file or folder {source!r}: {hint}")
    return None


def _by_split(files: list[Path], base: Path) -> dict[str, list[Path]]:
    """As the folders below the base are called, or else as the names of the files begin; all `train` where none does."""
    found: dict[str, list[Path]] = {}
    for file in files:
        *folders, name = (part.lower() for part in file.relative_to(base).parts)
        words = [re.split(r"[-_.]", name)[0], *folders]
        found.setdefault(next((SPLITS[word] for word in reversed(words) if word in SPLITS), ""), []).append(file)
    if "" in found and len(found) > 1:
        raise ValueError(
            f"data.source: which split is {found[''][0].name}? Begin its name with one of {sorted(SPLITS)}, or move it."
        )
    return {split or "train": files for split, files in found.items()}


def within(url: str, suffixes: set[str]) -> dict[str, list[Path]] | None:
    """The files of a folder or a pattern on another machine, copied here, by split; None for one file."""
    listed = listing(url)
    if listed is None:
        return None
    base, names = listed
    wanted = [name for name in names if suffix_of(Path(name)) in suffixes - {""}]
    if not wanted:
        raise FileNotFoundError(f"data.source: {url} has no {', '.join(sorted(suffixes - {''}))} file.")
    copies = {base / name: fetched(f"{url.partition('://')[0]}://{base / name}") for name in wanted}
    return {split: [copies[file] for file in files] for split, files in _by_split([*copies], base).items()}


@lru_cache(maxsize=4)
def _sets(name: str) -> dict[str, Any]:
    """The data sets of a Hugging Face id, by our names of splits; others are named and left out."""
    from datasets import load_dataset

    name, _, config = name.partition(":")
    try:
        found = load_dataset(name, config or None)
    except Exception as error:
        raise ValueError(
            f"data.source: {name!r} is no file or folder, and Hugging Face did not give a data set of that id: {error}"
        ) from error
    if unknown := sorted(set(found) - set(SPLITS)):
        log.warning("%s: the splits %s are left out; read are %s.", name, unknown, sorted(set(found) & set(SPLITS)))
    return {SPLITS[split]: rows for split, rows in found.items() if split in SPLITS}


def hub(name: str) -> dict[str, Callable[[], Iterator[Row]]]:
    """What gives the rows of each split of a Hugging Face id, from where they lie on disk.

    Raises:
        ValueError: it was not given.
    """

    def rows(found: Any) -> Iterator[Row]:
        for table in found.with_format("arrow").iter(HUB_ROWS):
            yield from table.to_pylist()

    return {split: partial(rows, found) for split, found in _sets(name).items()}


def fingerprint_of(source: str) -> list:
    """What tells whether a source has changed: hashes of its files' bytes; what smallworld makes is told by its code."""
    if source.startswith(smallworld.PREFIX):
        return [source]
    found = files_of(source, SUFFIXES | PLAIN)
    if found is None:
        return [source, *((split, rows._fingerprint) for split, rows in _sets(source).items())]
    return [[split, file.name, _hash(file)] for split, files in found.items() for file in files]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
