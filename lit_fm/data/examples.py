"""What kind of example a row is, by its fields, and the example that it gives."""

import datetime
import decimal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from lit_fm.data.columns import Columns
from lit_fm.data.conversation import UNWANTED, conversation, wanted
from lit_fm.data.files import Row
from lit_fm.data.templates import Templates
from lit_fm.nearest import did_you_mean

Example = dict[str, Any]
# Kind of row: the fields that make the prompt, and the one that is the answer. The first kind that fits is taken.
PAIRS = {
    "prompt/completion/label": (("prompt",), "completion"),
    "prompt/completion": (("prompt",), "completion"),
    "instruction/input/output": (("instruction", "input"), "output"),
    "instruction/context/response": (("instruction", "context"), "response"),
    "definition/input/output": (("definition", "input"), "output"),
    "question/answer": (("question",), "answer"),
    "input/output": (("input",), "output"),
    "input/target": (("input",), "target"),
}
MAY_LACK = {"instruction/input/output": "input", "instruction/context/response": "context"}
# Kind of row: where its turns are, and what says which answer is learnt.
CONVERSATIONS = {
    "conversations/chosen/rejected": ("conversations", "chosen", "rejected"),
    "messages/chosen/rejected": ("messages", "chosen", "rejected"),
    "prompt/chosen/rejected": ("prompt", "chosen", "rejected"),
    "messages/label": ("messages", "label"),
    "conversations/label": ("conversations", "label"),
    "conversations": ("conversations",),
    "messages": ("messages",),
}
TAGGED = "tokens/tags"
FIELDS: dict[str, set[str]] = {
    **{kind: {*needed, "system", "tools"} for kind, needed in CONVERSATIONS.items()},
    **{kind: {*prompt, answer} | ({"label"} & set(kind.split("/"))) for kind, (prompt, answer) in PAIRS.items()},
    TAGGED: {"tokens", "tags"},
}
"""The fields that each kind uses, in the order in which kinds are tried."""
LISTS = ("choices", "tokens", "tags")
"""Fields that stay beside prompt and answer: the possible answers; words, and the class of each."""
BESIDE = {"task", *LISTS}
SAID = {"chosen": ": the chosen answer is learnt", "label": ": answers with the label true are learnt"}


def kind_of(row: Row, answered: bool = True, asked: Iterable[str] = ()) -> str:
    """The kind of example that a row is, by its fields; only by those of the prompt where no answer is needed.

    Args:
        asked: fields that the kind must have, since someone named them.

    Raises:
        ValueError: none fits; says which fields there are and how to name them.
    """
    for kind, fields in FIELDS.items():
        fits = _needed(kind, answered) <= set(row) and set(asked) <= fields | {"task", "choices"}
        if fits and (not kind.endswith("/label") or isinstance(row.get("label"), bool)):
            return kind
    raise ValueError(
        f"the rows have the fields {sorted(row)}, and no known kind has those ({', '.join(FIELDS)}). Say "
        "which are prompt and answer: --data.columns.prompt FIELD --data.columns.completion FIELD, or write a "
        "--data.template such as '{{FIELD}} ||| {{FIELD}}'."
    )


def _needed(kind: str, answered: bool) -> set[str]:
    if kind in CONVERSATIONS:
        return set(CONVERSATIONS[kind])
    prompt, answer = PAIRS.get(kind, (("tokens",), "tags"))
    return {*prompt, *([answer] if answered else ())} - {MAY_LACK.get(kind)}


def examples(
    rows: Iterable[tuple[int, Row]],
    templates: Templates | None = None,
    columns: dict[str, str] | None = None,
    answered: bool = True,
    kind: str | None = None,
    split: str = "train",
) -> tuple[str, Iterator[tuple[int, Example | str]]]:
    """The kind that was recognised, and lazily each row's number and the row as an example, or why it gives none.

    Args:
        rows: with their numbers.
        templates: makes the example, instead of a known kind.
        columns: which field of a row is which field of a kind: a name, `a.b`, `a.0`, or `items[].b` for an example of
            each item. Templates may use any name.
        answered: off: rows to predict, which may lack the answer.
        kind: one of `FIELDS`, where the fields of the first row do not tell it.

    Raises:
        ValueError: a kind or a field that is not known; while they are made, a row that does not fit (with its number).
    """
    columns = dict(columns or {})
    _check(kind, columns, templates)
    rows = iter(rows)
    if (first := next(rows, None)) is None:
        return "nothing", iter(())
    found = Columns({field: path for field, path in columns.items() if answered or _holds(first[1], field, path)})
    numbered: Iterator[tuple[int, Row | str]] = iter(chain([first], rows))
    numbered = found.over(chain([first], rows)) if columns else numbered
    if templates:
        return "template", _made(numbered, partial(_rendered, templates, split, answered))
    seen: list[tuple[int, Row | str]] = []
    while not seen or isinstance(seen[-1][1], str):
        if (item := next(numbered, None)) is None:
            return "nothing", iter(seen)
        seen.append(item)
    row: Row = seen[-1][1]
    kind = kind or kind_of(row, answered, columns)
    return _said(kind, row, found.used), _made(chain(seen, numbered), _maker(kind, answered))


def _check(kind: str | None, columns: dict[str, str], templates: Templates | None) -> None:
    if templates and kind:
        raise ValueError(f"data.kind {kind!r} is of no use where a template makes the examples: leave one of them out.")
    if kind and kind not in FIELDS:
        raise ValueError(f"data.kind: there is no {kind!r}: {did_you_mean(kind, FIELDS)}")
    known = BESIDE.union(FIELDS[kind] if kind else set().union(*FIELDS.values()))
    if not templates and (unknown := set(columns) - known):
        of = kind or "a kind"
        raise ValueError(f"data.columns: {min(unknown)!r} is no field of {of}: {did_you_mean(min(unknown), known)}")


def _holds(row: Row, field: str, path: str) -> bool:
    try:
        next(Columns({field: path}).over([(1, row)]))
    except ValueError:
        return False
    return True


def _said(kind: str, row: Row, mapped: set[str]) -> str:
    """A kind as a person is told it: with what is done to lists, what is learnt, and what is not used."""
    prompt, answer = PAIRS.get(kind, ((), ""))
    notes = [f"; {field}: lists joined by line breaks" for field in prompt if isinstance(row.get(field), list)]
    notes += [f"; {answer}: the first of a list is learnt, all are right"] if isinstance(row.get(answer), list) else []
    notes += [note for field, note in SAID.items() if field in kind.split("/")]
    unused = sorted(set(row) - FIELDS[kind] - BESIDE - mapped)
    return kind + "".join(notes) + (f" (not used: {', '.join(unused)})" if unused else "")


Maker = Callable[[Row, int], Example | str]


def _made(numbered: Iterable[tuple[int, Row | str]], make: Maker) -> Iterator[tuple[int, Example | str]]:
    for number, row in numbered:
        yield number, row if type(row) is str else make(row, number)  # type: ignore[arg-type]


def _maker(kind: str, answered: bool) -> Maker:
    if kind in PAIRS:
        pair = _pair(*PAIRS[kind], MAY_LACK.get(kind), answered)
        labelled = kind.endswith("/label") and answered
        return (lambda row, number: pair(row, number) if wanted(row, number) else UNWANTED) if labelled else pair
    if kind == TAGGED:
        return _words
    fields = CONVERSATIONS[kind]
    pair = _pair(("prompt",), "chosen", None, answered)

    def make(row: Row, number: int) -> Example | str:
        if (
            kind == "prompt/chosen/rejected"
            and isinstance(row.get("prompt"), str)
            and isinstance(row.get("chosen"), str)
        ):
            return pair(row, number)
        made = conversation(row, number, fields, answered)
        return made if isinstance(made, str) else {**made, **_beside(row, number)}

    return make


def _pair(prompt: tuple[str, ...], answer: str, lacking: str | None, answered: bool) -> Maker:
    """Prompt and answer; where the answer is a list, all of it are `references`."""

    def make(row: Row, number: int) -> Example:
        asked = [text for field in prompt if (text := _text(row, field, number, field != lacking))]
        said = row.get(answer)
        example: Example = {"prompt": "\n\n".join(asked), "completion": said}
        if isinstance(said, list):
            right = [text for value in said if (text := _plain(value, answer, number)).strip()]
            example |= {"completion": right[0] if right else "", "references": right}
        elif type(said) is not str:
            example["completion"] = _text(row, answer, number, answered)
        if not BESIDE.isdisjoint(row):
            example |= _beside(row, number)
        return example

    return make


def _text(row: Row, field: str, number: int, required: bool) -> str:
    value = row.get(field)
    if type(value) is str:
        return value
    if value is None and required and field not in row:
        raise ValueError(f"row {number} has no field {field!r}; it has {sorted(row)}: add it, or take the row out.")
    return "\n".join(_plain(item, field, number) for item in (value if isinstance(value, list) else [value]))


def _plain(value: Any, field: str, number: int) -> str:
    """A text, number or date as text; nothing where it is missing."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value != value:  # what is not equal to itself is a missing number
        return ""
    if not isinstance(value, str | int | float | decimal.Decimal | datetime.date | datetime.time):
        what = type(value).__name__
        raise ValueError(
            f"row {number}: {field!r} holds a {what}, expected text: name a field of it in data.columns, or use a "
            "data.template."
        )
    return str(value)


def _beside(row: Row, number: int) -> Example:
    """What a row brings along: lists, and the name of the task that it is of."""
    found = {name: row[name] for name in LISTS if row.get(name) is not None}
    for name, value in found.items():
        if not isinstance(value, list):
            raise ValueError(f"row {number}: {name!r} is {str(value)[:60]}, expected a list.")
    if "choices" in found:
        found["choices"] = [_plain(value, "choices", number) for value in found["choices"]]
    return {**found, "task": str(row["task"])} if row.get("task") is not None else found


def _words(row: Row, number: int) -> Example:
    """Words and tags; as text, the words with spaces between."""
    found = _beside(row, number)
    if "tokens" not in found:
        raise ValueError(f"row {number} has no field 'tokens'; it has {sorted(row)}: add it, or take the row out.")
    return {**found, "prompt": " ".join(map(str, found["tokens"]))}


def _rendered(templates: Templates, split: str, answered: bool, row: Row, number: int) -> Example | str:
    """What the templates make of a row; of its lists, those that the templates do not give."""
    made = templates.render(row, number, split, answered)
    lists = {name: value for name, value in row.items() if name not in LISTS or isinstance(value, list)}
    return made if isinstance(made, str) else {**_beside(lists, number), **made}
