"""smallworld: a seeded generator of tasks with exact answers and of running text, at any size, with no licence.

A source is named `smallworld/TASK` (instruction rows), `smallworld/TASK:fields` (what they are made of) or
`smallworld/CORPUS` (documents). Train, validation and test differ in content: each text is hashed, and the hash decides
the only split that it may appear in. What a task holds out stands in no corpus either.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from lit_fm.data.smallworld.general import GENERAL, Writer
from lit_fm.data.smallworld.legal import LEGAL
from lit_fm.data.smallworld.medical import MEDICAL
from lit_fm.data.smallworld.tasks import TASKS, split_of
from lit_fm.nearest import did_you_mean

PREFIX = "smallworld/"
SIZES = {"train": 6000, "validation": 200, "test": 200}
CORPORA: dict[str, list[tuple[Writer, int]]] = {"general": GENERAL, "medical": MEDICAL, "legal": LEGAL}


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


def rows(name: str, split: str, size: int | None = None, seed: int = 0, template: int = 0) -> list[dict]:
    """Different instruction rows of one task and split, with the fields `prompt`, `completion` and perhaps `choices`.

    Args:
        name: `TASK`, or `TASK:fields` for what prompt and completion are made of, to write templates over.
    """
    name, _, view = name.partition(":")
    if name not in TASKS or view not in ("", "fields"):
        known = [*TASKS, *(f"{task}:fields" for task in TASKS)]
        asked = f"{name}:{view}" if view else name
        raise ValueError(f"smallworld has no task {asked!r}: {did_you_mean(asked, known)}")
    task = TASKS[name]
    items = _unique(task.draw, lambda fields: task.content.format(**fields), split, seed)
    drawn = _take(items, SIZES[split] if size is None else size, f"smallworld/{name} ({split})")
    return drawn if view else [task.row(fields, template) for fields in drawn]


def documents(corpus: str, split: str, size: int, seed: int = 0) -> list[str]:
    """Different documents of one corpus and split."""
    if corpus not in CORPORA:
        raise ValueError(f"smallworld has no corpus {corpus!r}: {did_you_mean(corpus, CORPORA)}")
    writers = [writer for writer, _ in CORPORA[corpus]]
    weights = [weight for _, weight in CORPORA[corpus]]

    def draw(rng: Random) -> str:
        return rng.choices(writers, weights)[0](rng)

    return _take(_unique(draw, str, split, seed), size, f"smallworld/{corpus} ({split})")
