"""Which field of a row is which: paths that a person gives."""

from collections.abc import Iterable, Iterator
from typing import Any

from lit_fm.data.files import Row
from lit_fm.nearest import did_you_mean

EMPTY = "an empty list in data.columns"


class Columns:
    """Fields by their paths in a row, beside all that the row has.

    Args:
        paths: by field, a name, `a.b`, `a.0.b`, or `items[].b`: then each item of the list gives a row.

    Raises:
        ValueError: items of two lists.
    """

    def __init__(self, paths: dict[str, str]) -> None:
        parted = {field: path.partition("[]") for field, path in paths.items()}
        lists = sorted({name for name, many, _ in parted.values() if many})
        if len(lists) > 1 or any("[]" in rest for *_, rest in parted.values()):
            raise ValueError(f"data.columns: {paths} take the items of several lists: write [] behind one of them.")
        self.items = lists[0] if lists else None
        self._whole = {field: name for field, (name, many, _) in parted.items() if not many}
        self._each = {field: rest.removeprefix(".") for field, (_, many, rest) in parted.items() if many}
        self.used = {*paths.values(), *(name.split(".")[0] for name, *_ in parted.values())}

    def over(self, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row | str]]:
        """Numbered rows with these fields, each with the number of the row that it is of; or why that gives none.

        Raises:
            ValueError: a path that a row has not.
        """
        for number, row in rows:
            whole = {**row, **{field: _at(row, path, field, number) for field, path in self._whole.items()}}
            if self.items is None:
                yield number, whole
                continue
            items = _at(row, self.items, next(iter(self._each)), number)
            if not isinstance(items, list):
                raise ValueError(f"data.columns: row {number}: {self.items!r} is {str(items)[:60]}, expected a list.")
            if not items:
                yield number, EMPTY
            for item in items:
                yield number, {**whole, **{field: _at(item, path, field, number) for field, path in self._each.items()}}


def _at(row: Any, path: str, field: str, number: int) -> Any:
    if isinstance(row, dict) and path in row:  # names with a dot are names first
        return row[path]
    for part in path.split(".") if path else ():
        if isinstance(row, list) and part.isdecimal() and int(part) < len(row):
            row = row[int(part)]
        elif isinstance(row, dict) and part in row:
            row = row[part]
        else:
            known = row if isinstance(row, dict) else range(len(row)) if isinstance(row, list) else ()
            raise ValueError(
                f"data.columns: row {number} has no field {path!r} for {field!r}: {did_you_mean(part, map(str, known))}"
            )
    return row
