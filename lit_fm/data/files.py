"""The rows of one file, one at a time."""

import csv
import gzip
import json
import logging
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

log = logging.getLogger(__name__)
Row = dict[str, Any]
SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"}
_HALF = re.compile(r"\\u[dD]")
PARQUET_ROWS = 1000  # in memory at once


def suffix_of(path: Path) -> str:
    """The kind of file, by its name; `.gz` behind it says only how it is packed."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """A file of UTF-8 text, with or without a mark at its start, packed by gzip or not."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def count_rows(path: Path, stray_quotes: bool = False) -> int:
    """How many rows a file has; JSON lines are counted without being parsed."""
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return sum(1 for _ in iterate_file(path, stray_quotes))
    with open_text(path) as lines:
        return sum(1 for line in readable(lines, path) if line.strip())


def iterate_file(path: Path, stray_quotes: bool = False, skipped: Iterator[bool] | None = None) -> Iterator[Row]:
    """The rows of a file. All but `.json` are read a row at a time.

    Args:
        stray_quotes: quotes in CSV and TSV are characters like any other.
        skipped: for each row, whether it is not wanted: an empty one is given where that saves work.

    Raises:
        ValueError: a kind of file that is not read, or a broken one; says the line.
    """
    readers = {".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise ValueError(f"data.source: {path} is not {', '.join(sorted(SUFFIXES))}: convert it to one of them.")
    if readers.get(suffix) is _json_lines:
        return readable(_json_lines(path, skipped), path)
    rows = readers[suffix](path) if suffix in readers else _table(path, "\t" if suffix == ".tsv" else ",", stray_quotes)
    return readable(rows if skipped is None else (row for row, _ in zip(rows, skipped, strict=False)), path)


def readable(read: Iterator, path: Path) -> Iterator:
    """What is read of a file, or one clear error where its bytes are no text."""
    try:
        yield from read
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}{_odd_line(path)} is not UTF-8 text ({error.reason}): save it as UTF-8.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}): fetch it again.") from error


def _odd_line(path: Path) -> str:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f", line {number}"
    return ""


def _json_lines(path: Path, skipped: Iterator[bool] | None = None) -> Iterator[Row]:
    decode = json.JSONDecoder().decode
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if skipped is not None and line.strip() and next(skipped):
                yield {}
                continue
            try:
                row = decode(line)
            except (ValueError, RecursionError) as error:
                if not line.strip():
                    continue
                reason = getattr(error, "msg", error)
                raise ValueError(f"{path}, line {number} is not JSON ({reason}): {line.strip()[:60]!r}") from error
            if type(row) is not dict:
                raise ValueError(f"{path}, line {number}: expected an object with named fields, got {line[:60]}.")
            if "\\" in line and _HALF.search(line):
                _refuse_halves(row, f"{path}, line {number}")
            yield row


def _refuse_halves(content: Any, where: str) -> None:
    """A character may be one half only: an escape that its other half does not follow."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds half a character ({error.object[error.start]!r}): mend the text.") from error


def _json(path: Path) -> Iterator[Row]:
    with open_text(path) as file:
        text = file.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        if text.lstrip().startswith("{") and reason == "Extra data":  # JSON lines under another name
            yield from _json_lines(path)
            return
        raise ValueError(f"{path}, line {getattr(error, 'lineno', 1)} is not JSON: {reason}.") from error
    if _HALF.search(text):
        _refuse_halves(content, str(path))
    del text
    for number, row in enumerate(_rows_in(content, path), 1):
        if not isinstance(row, dict):
            got = json.dumps(row)[:60]
            raise ValueError(f"{path}, row {number}: expected an object with named fields, got {got}.")
        yield row


def objects(value: Any) -> bool:
    """Whether it is a list of objects with named fields, and not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _rows_in(content: Any, path: Path) -> list:
    """A list; rows by their names; the one list of rows of an object; or a task of Natural Instructions."""
    if isinstance(content, list):
        return content
    fields: dict[str, Any] = content if isinstance(content, dict) else {}
    if "Definition" in fields and objects(fields.get("Instances")):
        task = {name.lower().replace(" ", "_"): fields.get(name) for name in ("Definition", *_SHOWN)}
        return [{"id": str(i), **task, **instance} for i, instance in enumerate(fields["Instances"], 1)]
    if fields and all(isinstance(row, dict) for row in fields.values()):
        return [{"id": name, **row} for name, row in fields.items()]
    lists = [name for name, value in fields.items() if objects(value)]
    if len(lists) == 1:
        if beside := sorted(set(fields) - set(lists)):
            log.info("%s: its rows are %r; %s are left out.", path, lists[0], beside)
        return fields[lists[0]]
    what = f"the lists {lists}: which are the rows?" if lists else f"one {type(content).__name__}, no rows:"
    raise ValueError(f"{path} holds {what} Use a list, an object of rows by name or with one list, or JSON lines.")


_SHOWN = ("Positive Examples", "Negative Examples")


def _table(path: Path, delimiter: str, stray_quotes: bool) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a cell may hold a document
    advice = "" if stray_quotes else " If quotes in it are plain characters: --data.stray_quotes true."
    begin = 1
    with open_text(path, newline="") as file:
        quoting: Any = csv.QUOTE_NONE if stray_quotes else csv.QUOTE_MINIMAL
        reader = csv.reader(file, delimiter=delimiter, strict=True, quoting=quoting)
        try:
            names = next(reader, [])
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{path}: the header names {sorted(twice)} twice: rename the columns.")
            begin = reader.line_num + 1
            for cells in reader:
                if len(cells) == len(names):
                    yield dict(zip(names, cells, strict=True))
                elif cells:
                    raise ValueError(
                        f"{path}, line {begin}: not as many cells ({len(cells)}) as the header has ({len(names)}): "
                        f"{str(cells)[:80]}.{advice}"
                    )
                begin = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path}, line {begin}: {error}: write quotes in quoted cells twice.{advice}") from error


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}") from error
