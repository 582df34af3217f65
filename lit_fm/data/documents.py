"""Running text as documents, one at a time, from whatever holds it: nothing is read into memory as a whole."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from lit_fm.data import smallworld
from lit_fm.data.rows import SPLITS, SUFFIXES, hub, iterate_file
from lit_fm.nearest import did_you_mean

LONGEST = 1_000_000
"""A document of more characters is parted, at a line's end or a space."""
PLAIN = {".txt", ".md", ".text", ""}
_EMPTY_LINE = re.compile(r"\n(?:[^\S\n]*\n)+")


def documents(
    source: str, column: str = "text", size: dict[str, int] | None = None, seed: int = 0
) -> dict[str, Callable]:
    """What gives the documents of each split that a source has; of `train` where it has none.

    Args:
        source: a text file (documents parted by empty lines, or by lines where it has none), JSON, JSONL, CSV or Parquet
            (one a row, in `column`), a folder of such files (train, validation, test by file name),
            `smallworld/CORPUS`, or a Hugging Face data set id.
        size: how many smallworld makes of each split.

    Raises:
        FileNotFoundError, ValueError: nothing there, no such column, or text that is not UTF-8.
    """
    if source.startswith(smallworld.PREFIX):
        name, sizes = source.removeprefix(smallworld.PREFIX), {**smallworld.SIZES, **(size or {})}
        return {split: lambda s=split: iter(smallworld.documents(name, s, sizes[s], seed)) for split in sizes}
    path = Path(source).expanduser()
    if path.is_dir():
        found = _files(path)
        return {
            split: lambda s=split: (text for file in found[s] for text in _of_file(file, column)) for split in found
        }
    if path.is_file():
        return {"train": lambda: _of_file(path, column)}
    if path.suffix or source.startswith((".", "/", "~")) or source.count("/") != 1:
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        hint = near if "did you mean" in near else "check the path; smallworld/CORPUS is the other way."
        raise FileNotFoundError(f"data.source: there is no file or folder {source!r}: {hint}")
    return _of_hub(source, column)


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by split, as their names begin; all `train` where none begins with one."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in {*SUFFIXES, *PLAIN} - {""})
    files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not files:
        raise FileNotFoundError(f"data.source: {folder} has no text, JSON, JSONL, CSV or Parquet file.")
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(SPLITS.get(re.split(r"[-_.]", file.stem.lower())[0], ""), []).append(file)
    if "" in found and len(found) > 1:
        raise ValueError(
            f"data.source: which split is {found[''][0].name}? Begin its name with one of {sorted(SPLITS)}, or move it."
        )
    return found if "" not in found else {"train": found[""]}


def fingerprint_of(source: str) -> list:
    """What tells whether a source has changed, without reading it: names, sizes and times of its files."""
    path = Path(source).expanduser()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [source, *((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)]


def _of_file(path: Path, column: str) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        for number, row in enumerate(iterate_file(path), 1):
            yield _text(row, column, f"{path}, row {number}")
    elif suffix in PLAIN:
        yield from _paragraphs(path)
    else:
        kinds = ", ".join(sorted({*SUFFIXES, *PLAIN} - {""}))
        raise ValueError(f"data.source: {path} is none of {kinds}: convert it, or call it .txt if it is plain text.")


def _of_hub(name: str, column: str) -> dict[str, Callable]:
    found = hub(name)

    def texts(split: str) -> Iterator[str]:
        for number, row in enumerate(found[split], 1):
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
    with path.open(encoding="utf-8-sig") as file:
        try:
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
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8."
            ) from error
    if held.strip():
        yield held
