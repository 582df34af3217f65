"""What kind of example a row is, by its fields."""

from collections.abc import Iterable
from typing import Any

from lit_fm.data.rows import Rows
from lit_fm.data.templates import render
from lit_fm.nearest import did_you_mean

# Kind of row: the fields that make the prompt, and the one that is the answer. The first kind that fits is taken.
PAIRS = {
    "prompt/completion": (("prompt",), "completion"),
    "instruction/input/output": (("instruction", "input"), "output"),
    "instruction/context/response": (("instruction", "context"), "response"),
    "question/answer": (("question",), "answer"),
}
OPTIONAL = {"input", "context"}
LISTS = ("choices", "tokens", "tags")
"""Fields that stay beside prompt and answer: the possible answers; words, and the class of each."""


def _rename(row: dict[str, Any], columns: dict[str, str], number: int) -> dict[str, Any]:
    for field, column in columns.items():
        if column not in row:
            raise ValueError(
                f"data.columns: row {number} has no field {column!r} for {field!r}: {did_you_mean(column, row)}"
            )
    return {**row, **{field: row[column] for field, column in columns.items()}}


def kind_of(row: dict[str, Any], answered: bool = True, asked: Iterable[str] = ()) -> str:
    """The kind of example that a row is, by its fields; only by those of the prompt where no answer is needed.

    Args:
        asked: fields that the kind must have, since someone named them.

    Raises:
        ValueError: none fits; says which fields there are and how to name them.
    """
    if "messages" in row and set(asked) <= {"messages"}:
        return "messages"
    for kind, (prompt, answer) in PAIRS.items():
        fits = (answer in row or not answered) and all(field in row or field in OPTIONAL for field in prompt)
        if fits and set(asked) <= {*prompt, answer}:
            return kind
    if "tokens" in row and ("tags" in row or not answered) and set(asked) <= {"tokens", "tags"}:
        return "tokens/tags"
    known = ", ".join([*PAIRS, "tokens/tags", "messages"])
    raise ValueError(
        f"the rows have the fields {sorted(row)}, and no known kind has those ({known}). Say "
        "which are prompt and answer: --data.columns.prompt FIELD --data.columns.completion FIELD, or write a "
        "--data.template such as '{{FIELD}} ||| {{FIELD}}'."
    )


def _text(row: dict[str, Any], field: str, number: int, required: bool = True) -> str:
    if field not in row and field not in OPTIONAL and required:
        raise ValueError(f"row {number} has no field {field!r}; it has {sorted(row)}.")
    value = row.get(field)
    if isinstance(value, list | dict):
        raise ValueError(f"row {number}: {field!r} holds a {type(value).__name__}, expected text: use a data.template.")
    return "" if value is None or value != value else str(value)  # what is not equal to itself is a missing number


def examples(
    rows: Rows, template: str | None = None, columns: dict[str, str] | None = None, answered: bool = True
) -> tuple[str, Rows]:
    """The kind that was recognised, and each row as an example: `prompt` + `completion`, or `messages`.

    Args:
        answered: off: rows to predict, which may lack the answer.

    Raises:
        ValueError: a row that lacks a field of the kind (with its number), or a kind that is not known.
    """
    if not rows:
        return "nothing", []
    known = {
        "messages",
        "tokens",
        "tags",
        "task",
        *(field for prompt, answer in PAIRS.values() for field in (*prompt, answer)),
    }
    if unknown := set(columns or ()) - known:
        raise ValueError(
            f"data.columns: {sorted(unknown)[0]!r} is no field of a kind: {did_you_mean(min(unknown), known)}"
        )
    named = {} if columns is None else columns
    if not answered:
        named = {field: column for field, column in named.items() if column in rows[0]}
    rows = [_rename(row, named, i) for i, row in enumerate(rows, 1)] if named else rows
    if template:
        return "template", [{**render(template, row, answered, i), **_beside(row, i)} for i, row in enumerate(rows, 1)]
    kind = kind_of(rows[0], answered, set(named) - {"task"})
    if kind == "messages":
        return kind, [{"messages": _turns(row, i), **_task(row)} for i, row in enumerate(rows, 1)]
    if kind == "tokens/tags":
        return kind, [_words(row, i) for i, row in enumerate(rows, 1)]
    prompt, answer = PAIRS[kind]
    made = []
    for i, row in enumerate(rows, 1):
        asked = [text for field in prompt if (text := _text(row, field, i))]
        pair = {"prompt": "\n\n".join(asked), "completion": _text(row, answer, i, required=answered)}
        made.append({**pair, **_beside(row, i)})
    unused = sorted(set(rows[0]) - {*prompt, answer, "task", *LISTS} - set(named.values()))
    return kind + (f" (not used: {', '.join(unused)})" if unused else ""), made


def _beside(row: dict[str, Any], number: int) -> dict[str, Any]:
    """What a row brings along."""
    found = {name: row[name] for name in LISTS if row.get(name) is not None}
    for name, value in found.items():
        if not isinstance(value, list):
            raise ValueError(f"row {number}: {name!r} is {str(value)[:60]}, expected a list.")
    return {**found, **_task(row)}


def _task(row: dict[str, Any]) -> dict[str, str]:
    """The name of the task that a row is of, where it says one."""
    return {"task": str(row["task"])} if row.get("task") is not None else {}


def _words(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Words and tags; as text, the words with spaces between."""
    found = _beside(row, number)
    if "tokens" not in found:
        raise ValueError(f"row {number} has no field 'tokens'; it has {sorted(row)}.")
    return {**found, "prompt": " ".join(map(str, found["tokens"]))}


def _turns(row: dict[str, Any], number: int) -> list[dict[str, Any]]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns or not all(isinstance(t, dict) and "role" in t for t in turns):
        raise ValueError(f"row {number}: expected messages with role and content, got {str(turns)[:80]}.")
    for turn in turns:
        if not isinstance(turn.get("content"), str | None):
            raise ValueError(f"row {number}: a message's content is {str(turn['content'])[:60]}, expected text.")
    return [{**turn, "content": turn.get("content") or ""} for turn in turns]
