"""Running text as documents, one at a time, from whatever holds it: nothing is read into memory as a whole."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from lit_fm.data import smallworld
from lit_fm.data.files import SUFFIXES, iterate_file, open_text, readable, suffix_of
from lit_fm.data.rows import PLAIN, files_of, hub

LONGEST = 1_000_000
"""A document of more characters is parted, at a line's end or a space."""
_EMPTY_LINE = re.compile(r"\n(?:[^\S\n]*\n)+")


def documents(
    source: str, column: str = "text", size: dict[str, int] | None = None, seed: int = 0, stray_quotes: bool = False
) -> dict[str, Callable]:
    """What gives the documents of each split that a source has; of `train` where it has none.

    Args:
        source: a text file (documents parted by empty lines, or by lines where it has none), JSON, JSONL, CSV, TSV or
            Parquet (one a row, in `column`), a folder or pattern of such files (train, validation, test by name), an
            address that fsspec reads, `smallworld/CORPUS`, or a Hugging Face data set id.
        size: how many smallworld makes of each split.

    Raises:
        FileNotFoundError, ValueError: nothing there, no such column, or text that is not UTF-8.
    """
    if source.startswith(smallworld.PREFIX):
        name, sizes = source.removeprefix(smallworld.PREFIX), {**smallworld.SIZES, **(size or {})}
        return {split: lambda s=split: iter(smallworld.documents(name, s, sizes[s], seed)) for split in sizes}
    found = files_of(source, SUFFIXES | PLAIN)
    if found is None:
        return _of_hub(source, column)
    return {
        split: lambda s=split: (text for file in found[s] for text in _of_file(file, column, stray_quotes))
        for split in found
    }


def _of_file(path: Path, column: str, stray_quotes: bool) -> Iterator[str]:
    if suffix_of(path) in PLAIN:
        yield from readable(_paragraphs(path), path)
        return
    for number, row in enumerate(iterate_file(path, stray_quotes), 1):
        yield _text(row, column, f"{path}, row {number}")


def _of_hub(name: str, column: str) -> dict[str, Callable]:
    found = hub(name)

    def texts(split: str) -> Iterator[str]:
        for number, row in enumerate(found[split](), 1):
            yield _text(row, column, f"{name}, row {number} of {split}")

    return {split: lambda s=split: texts(s) for split in found}


def _text(row: dict, column: str, where: str) -> str:
    if not isinstance(row.get(column, 0), str | None):
        raise ValueError(f"{where}: {column!r} is no text; the row has {sorted(row)}: set data.column.")
    return row[column] or ""


def _paragraphs(path: Path) -> Iterator[str]:
    """Documents of a text file, parted by empty lines, or by lines if its first million characters have no empty one.

    Read a piece at a time, also where no line ever ends.
    """
    held, parting = "", None
    with open_text(path) as file:
        while piece := file.read(LONGEST):
            held += piece
            if parting is None:
                parting = _EMPTY_LINE if _EMPTY_LINE.search(held.strip()) else re.compile(r"\n")
            # What stands behind the last break may go on in the next piece; so may the break.
            ends = [found.end() for found in parting.finditer(held) if found.end() < len(held)]
            if ends:
                yield from parting.split(held[: ends[-1]])[:-1]
                held = held[ends[-1] :]
            while len(held) > LONGEST:
                cut = max(held.rfind("\n", 1, LONGEST), held.rfind(" ", 1, LONGEST)) + 1 or LONGEST
                yield held[:cut]
                held = held[cut:]
    if held.strip():
        yield held
