"""Several parts of data as one."""

from typing import Any

import numpy as np

from lit_fm.data.tokens import Encoded


class Parts:
    """The items of several parts, numbered one after the other. Each part has a length, numbered items, and `lengths()`."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts
        self._items = list(parts.values())
        self._starts = np.cumsum([0, *map(len, self._items)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Encoded:
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._items[part][number - int(self._starts[part])]

    def lengths(self) -> np.ndarray:
        """Tokens in each item."""
        return np.concatenate([items.lengths() for items in self._items])
