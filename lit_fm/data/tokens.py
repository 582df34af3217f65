"""Encoded examples on disk: flat arrays of numbers, read piece by piece, under a name made from their content.

Flat arrays instead of a table of lists: a batch is then a few reads.
"""

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

IGNORED = -100
"""The label of a token that is not learnt."""
Encoded = dict[str, np.ndarray]
Draw = tuple[int, ...]
"""Names a draw of randomness: seed, epoch, number of the example."""
SHORTENED = "shortened"  # a mark on an example of which something was left out; counted, not stored


def cache_folder() -> Path:
    """`LIT_FM_CACHE`, or `lit_fm` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lit_fm"
    return Path(os.environ.get("LIT_FM_CACHE", default)).expanduser()


def fingerprint(*parts: Any) -> str:
    """A short hash of anything that can be written as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def encoding_fingerprint(objective: Any) -> str:
    """A hash of what turns examples into tokens: the tokenizer, lit_fm's code, the objective's classes."""
    tokenizer = objective.tokenizer
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    package = Path(__file__).parents[1]
    files = {*(package / "data").rglob("*.py"), *(package / "objectives").glob("*.py")}
    own = [
        c
        for c in type(objective).__mro__
        if c.__module__.split(".")[0] not in ("builtins", "abc", "torch", "lightning")
    ]
    files |= {Path(inspect.getfile(c)) for c in own}
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()
    written = tokenizer.backend_tokenizer.to_str()
    return fingerprint(
        written, tokenizer.chat_template, special, tokenizer.eos_token_id, type(objective).__qualname__, code
    )


class TokenStore(Sequence[Encoded]):
    """Examples as dicts of one-dimensional arrays; the columns may differ in length from example to example.

    Read piece by piece, so that no more than the piece is in memory, however large the store.
    """

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / "about.json").read_text())
        self._types = {c: np.dtype(kind) for c, kind in self.about["columns"].items()}
        self._files = {c: (folder / f"{c}.bin").open("rb") for c in self._types}
        self._ends = {c: np.load(folder / f"{c}.ends.npy") for c in self._types}

    def __len__(self) -> int:
        return self.about["examples"]

    def __getitem__(self, index: Any) -> Any:
        return {c: self.piece(c, int(ends[index]), int(ends[index + 1])) for c, ends in self._ends.items()}

    def piece(self, column: str, start: int, stop: int) -> np.ndarray:
        """Values `start` to `stop` of a column, all examples in a row."""
        kind = self._types[column]  # pread keeps no position: forked workers share the file
        read = os.pread(self._files[column].fileno(), (stop - start) * kind.itemsize, start * kind.itemsize)
        return np.frombuffer(read, dtype=kind)

    def size(self, column: str) -> int:
        """How many values a column has in all examples."""
        return int(self._ends[column][-1]) if column in self._ends else 0

    def lengths(self, column: str = "input_ids") -> np.ndarray:
        """How long the column is in each example."""
        return np.diff(self._ends[column])


def stored(key: str, make: Callable[[], tuple[Iterable[Encoded], dict[str, Any]]]) -> TokenStore:
    """The store of this key, made if there is none.

    Args:
        key: a hash of all that the content depends on.
        make: gives the examples and, once they are consumed, what to remember about them.
    """
    folder = cache_folder() / "tokens" / key
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        try:
            _write(draft, *make())
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have been faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return TokenStore(folder)


def _gathered(items: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Lists of items to write at once: of a million values or so, as one item may be a line or a whole book."""
    several, values = [], 0
    for item in items:
        several.append(item)
        values += sum(map(len, item.values()))
        if values > 1_000_000:
            yield several
            several, values = [], 0
    if several:
        yield several


def _write(folder: Path, items: Iterable[Encoded], about: dict[str, Any]) -> None:
    lengths: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    count = 0
    with ExitStack() as files:
        opened: dict[str, Any] = {}
        for several in _gathered(items):
            count += len(several)
            for name in {name: None for item in several for name in item}:
                columns = [item[name] for item in several if name in item]
                if name not in opened:
                    opened[name] = files.enter_context((folder / f"{name}.bin").open("wb"))
                    lengths[name], kinds[name] = [], columns[0].dtype.str
                opened[name].write(np.concatenate(columns).astype(kinds[name], copy=False))
                lengths[name] += map(len, columns)
    for name, sizes in lengths.items():
        np.save(folder / f"{name}.ends.npy", np.cumsum([0, *sizes], dtype=np.int64))
    (folder / "about.json").write_text(json.dumps({**about, "columns": kinds, "examples": count}))
