"""smallworld: a seeded generator of tasks with exact answers and of running text, at any size, with no licence.

A source is named `smallworld/TASK` (instruction rows) or `smallworld/CORPUS` (documents). Train, validation and test
differ in content: each text is hashed, and the hash decides the only split that it may appear in. What a task holds out
stands in no corpus either.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from lit_fm.data.smallworld.corpora import CORPORA
from lit_fm.data.smallworld.tasks import TASKS, content, split_of
from lit_fm.nearest import did_you_mean

PREFIX = "smallworld/"
SIZES = {"train": 6000, "validation": 200, "test": 200}


def _unique(draw: Callable[[Random], Any], key: Callable[[Any], str], split: str, seed: int) -> Iterator[Any]:
    rng, seen, misses = Random(f"{seed}/{split}"), set(), 0
    while misses < 10_000:  # a small task runs out of new content
        item = draw(rng)
        text = key(item)
        if text in seen or split_of(text) != split:
            misses += 1
            continue
        seen.add(text)
        misses = 0
        yield item


def _take(items: Iterator[Any], n: int, what: str) -> list[Any]:
    taken = [item for _, item in zip(range(n), items, strict=False)]
    if len(taken) < n:
        raise ValueError(f"{what} has only {len(taken)} different items, {n} were asked for: ask for fewer.")
    return taken


def rows(task: str, split: str, size: int | None = None, seed: int = 0) -> list[dict]:
    """Different instruction rows of one task and split, with the fields `prompt`, `completion` and perhaps `choices`."""
    if task not in TASKS:
        raise ValueError(f"smallworld has no task {task!r}: {did_you_mean(task, TASKS)}")
    items = _unique(TASKS[task], content, split, seed)
    return _take(items, SIZES[split] if size is None else size, f"smallworld/{task} ({split})")


def documents(corpus: str, split: str, size: int, seed: int = 0) -> list[str]:
    """Different documents of one corpus and split."""
    if corpus not in CORPORA:
        raise ValueError(f"smallworld has no corpus {corpus!r}: {did_you_mean(corpus, CORPORA)}")
    writers, weights = zip(*CORPORA[corpus], strict=True)

    def draw(rng: Random) -> str:
        return rng.choices(writers, weights)[0](rng)

    return _take(_unique(draw, str, split, seed), size, f"smallworld/{corpus} ({split})")
