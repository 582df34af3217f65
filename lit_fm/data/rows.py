"""Rows from files, folders, Hugging Face or smallworld."""

import csv
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_fm.data import smallworld
from lit_fm.nearest import did_you_mean

log = logging.getLogger(__name__)
Rows = list[dict[str, Any]]
SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".parquet"}
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
SPLITS |= {"eval": "validation", "test": "test"}


def read(source: str, size: int | None = None, seed: int = 0) -> dict[str, Rows]:
    """All rows of a source by split; a source without splits is all `train`.

    Args:
        source: a file (JSON, JSONL, CSV, Parquet), a folder of them, `smallworld/TASK`, or a Hugging Face data set id.
        size: how many rows smallworld makes for training.

    Raises:
        FileNotFoundError, ValueError: nothing there, a kind of file that is not read, a broken line (with its number).
    """
    if source.startswith(smallworld.PREFIX):
        task = source.removeprefix(smallworld.PREFIX)
        return {s: smallworld.rows(task, s, size if s == "train" else None, seed) for s in smallworld.SIZES}
    path = Path(source).expanduser()
    if path.is_file():
        return {"train": read_file(path)}
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() in SUFFIXES or source.startswith((".", "/", "~")) or source.count("/") != 1:
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        hint = near if "did you mean" in near else "check the path."
        raise FileNotFoundError(f"data.source: there is no file or folder {source!r}: {hint}")
    return _read_hub(source)


def _read_folder(folder: Path) -> dict[str, Rows]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"data.source: {folder} has no {', '.join(sorted(SUFFIXES))} file.")
    named: dict[Path, str | None] = {}
    for file in files:
        word = re.split(r"[-_.]", file.stem.lower())[0]
        named[file] = SPLITS.get(word)
    unknown = [file.name for file, split in named.items() if split is None]
    if unknown and len(unknown) < len(named):
        raise ValueError(
            f"data.source: which split is {unknown[0]}? Begin its name with one of {sorted(SPLITS)}, or move it."
        )
    found: dict[str, Rows] = {}
    for file, split in named.items():
        found.setdefault(split or "train", []).extend(read_file(file))
    return found


def _read_hub(name: str) -> dict[str, Rows]:
    return {split: rows.to_list() for split, rows in hub(name).items()}


def hub(name: str) -> dict[str, Any]:
    """The data sets of a Hugging Face id, by our names of splits; others are named and left out.

    Raises:
        ValueError: it was not given.
    """
    from datasets import load_dataset

    try:
        found = load_dataset(name)
    except Exception as error:
        raise ValueError(
            f"data.source: {name!r} is no file or folder, and Hugging Face did not give a data set of that id: {error}"
        ) from error
    if unknown := sorted(set(found) - set(SPLITS)):
        log.warning("%s: the splits %s are left out; read are %s.", name, unknown, sorted(set(found) & set(SPLITS)))
    return {SPLITS[split]: rows for split, rows in found.items() if split in SPLITS}


def read_file(path: Path) -> Rows:
    """The rows of one file."""
    return list(iterate_file(path))


def iterate_file(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file, one at a time."""
    readers = {".json": _read_json, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".csv": _read_csv}
    readers[".parquet"] = _read_parquet
    if path.suffix.lower() not in readers:
        raise ValueError(f"data.source: {path} is not {', '.join(sorted(SUFFIXES))}: convert it to one of them.")
    try:
        for i, row in enumerate(readers[path.suffix.lower()](path), 1):
            if not isinstance(row, dict):
                raise ValueError(f"{path}, row {i}: expected an object with named fields, got {json.dumps(row)[:60]}.")
            yield row
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8."
        ) from error


def _read_jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _whole(json.loads(line), line, f"{path}, line {number}")
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"{path}, line {number} is not JSON ({error.msg}): {line.strip()[:60]!r}"
                    ) from error


def _whole(content: Any, text: str, where: str) -> Any:
    """What was read, unless a character in it is one half only (an escape that its other half does not follow)."""
    if "\\ud" in text.lower():
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where} holds half a character ({error.object[error.start]!r}): mend the text."
            ) from error
    return content


def _read_json(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{") and "\n" in text.strip() and error.msg == "Extra data":
            return _read_jsonl(path)  # JSON lines under another name
        raise ValueError(f"{path}, line {error.lineno} is not JSON: {error.msg}.") from error
    _whole(content, text, str(path))
    if isinstance(content, dict) and content and all(isinstance(row, dict) for row in content.values()):
        return iter([{"id": name, **row} for name, row in content.items()])  # rows by their names
    if not isinstance(content, list):
        raise ValueError(
            f"{path} holds one {type(content).__name__}, no rows: use a list, an object of rows by name, or JSON lines."
        )
    return iter(content)


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        csv.field_size_limit(sys.maxsize)  # a cell may hold a document
        reader = csv.DictReader(file, strict=True)
        try:
            names = list(reader.fieldnames or ())
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{path}: the header names {sorted(twice)} twice: rename the columns.")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: not as many cells as the header has: {row}")
                yield row
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: {error}. Quote cells that hold quotes or commas."
            ) from error


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except ArrowException as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}") from error
