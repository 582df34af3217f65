"""Running text as documents, one at a time, from whatever holds it: nothing is read into memory as a whole."""

from collections.abc import Iterator
from pathlib import Path

from lit_fm.data import smallworld
from lit_fm.data.rows import SUFFIXES, iterate_file
from lit_fm.nearest import did_you_mean

LONGEST = 1_000_000
"""A document of more characters is parted, at a line's end or a space."""


def documents(source: str, split: str, column: str = "text", size: int = 10_000, seed: int = 0) -> Iterator[str]:
    """The documents of a source; of one split where the source has splits of its own.

    Args:
        source: a text file (documents parted by empty lines), JSON, JSONL, CSV or Parquet (one a row, in `column`), a
            folder of such files, `smallworld/CORPUS`, or a Hugging Face data set id.
        split: only smallworld has splits; all else is all there is.
        size: how many smallworld makes.

    Raises:
        FileNotFoundError, ValueError: nothing there, no such column, or text that is not UTF-8.
    """
    if source.startswith(smallworld.PREFIX):
        return iter(smallworld.documents(source.removeprefix(smallworld.PREFIX), split, size, seed))
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in {*SUFFIXES, ".txt", ".md"})
        if not files:
            raise FileNotFoundError(f"data.source: {path} has no text, JSON, JSONL, CSV or Parquet file.")
        return (text for file in files for text in _of_file(file, column))
    if path.is_file():
        return _of_file(path, column)
    if path.suffix or source.startswith((".", "/", "~")) or source.count("/") != 1:
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        hint = near if "did you mean" in near else "check the path; smallworld/CORPUS is the other way."
        raise FileNotFoundError(f"data.source: there is no file or folder {source!r}: {hint}")
    return _of_hub(source, column)


def fingerprint_of(source: str) -> list:
    """What tells whether a source has changed, without reading it: names, sizes and times of its files."""
    path = Path(source).expanduser()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [source, *((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)]


def _of_file(path: Path, column: str) -> Iterator[str]:
    if path.suffix.lower() not in SUFFIXES:
        yield from _paragraphs(path)
        return
    for number, row in enumerate(iterate_file(path), 1):
        yield _text(row, column, f"{path}, row {number}")


def _of_hub(name: str, column: str) -> Iterator[str]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split="train")
    except Exception as error:
        raise ValueError(
            f"data.source: {name!r} is no file or folder, and Hugging Face did not give a data set of that id: {error}"
        ) from error
    for number, row in enumerate(rows, 1):
        yield _text(row, column, f"{name}, row {number}")


def _text(row: dict, column: str, where: str) -> str:
    if not isinstance(row.get(column, 0), str | None):
        raise ValueError(f"{where}: {column!r} is no text; the row has {sorted(row)}: set data.column.")
    return row[column] or ""


def _paragraphs(path: Path) -> Iterator[str]:
    """Documents of a text file, parted by empty lines; read a piece at a time, also where no line ever ends."""
    held = ""
    with path.open(encoding="utf-8-sig") as file:
        try:
            while piece := file.read(LONGEST):
                *whole, held = (held + piece).split("\n\n")
                yield from whole
                while len(held) > LONGEST:
                    cut = max(held.rfind("\n", 1, LONGEST), held.rfind(" ", 1, LONGEST)) + 1 or LONGEST
                    yield held[:cut]
                    held = held[cut:]
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8."
            ) from error
    if held:
        yield held
