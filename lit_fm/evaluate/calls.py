"""Calls of tools in what a network writes: as JSON, in `<tool_call>` tags or bare, or written like calls in Python."""

import ast
import json
import re
import warnings
from typing import Any

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_UNREADABLE = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)


def calls_of(text: str) -> list[tuple[str, str]] | None:
    """The calls in a text, in an order of their own: name, and arguments as JSON with sorted keys.

    Either the text is nothing but calls, or they stand in tags. Text is read, never run: arguments are literals.

    Returns:
        No calls where the text has none; None where what stands in tags is none.
    """
    tagged = _TAGGED.findall(text)
    found = [_calls(part.strip()) for part in tagged or [text.strip()]]
    if None in found:
        return None if tagged else []
    return sorted(call for calls in found for call in calls or ())


def _calls(text: str) -> list[tuple[str, str]] | None:
    try:
        read = _written_as_json(text) if text[:1] in ("{", "[") else None
        return _written_as_python(text) if read is None else read
    except _UNREADABLE:
        return None


def _written_as_json(text: str) -> list[tuple[str, str]] | None:
    try:
        content = json.loads(text)
    except json.JSONDecodeError:  # a list of calls as in Python, perhaps
        return None
    calls = content if isinstance(content, list) else [content]
    return [_from_object(call) for call in calls]


def _from_object(call: Any) -> tuple[str, str]:
    """Of `{"name": ..., "arguments": {...}}`, also inside `{"function": ...}`; arguments may be JSON in a string."""
    call = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError("no call")
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    return call["name"], _plain({} if arguments is None else arguments)


def _written_as_python(text: str) -> list[tuple[str, str]]:
    with warnings.catch_warnings(action="ignore"):  # of strange escapes in what is only read
        tree = ast.parse(text, mode="eval").body
    return [_from_tree(node) for node in (tree.elts if isinstance(tree, ast.List) else [tree])]


def _from_tree(node: ast.expr) -> tuple[str, str]:
    """Of `name(value, name=value)`: arguments without a name go by their number."""
    name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    if not isinstance(node, ast.Call) or not re.fullmatch(r"\w+(\.\w+)*", name):
        raise ValueError("no call")
    named = {str(i): value for i, value in enumerate(node.args)} | {part.arg: part.value for part in node.keywords}
    if None in named:
        raise ValueError("arguments out of a mapping")
    return name, _plain({key: ast.literal_eval(value) for key, value in named.items()})


def _plain(arguments: Any) -> str:
    """The same for arguments that are equal: keys are sorted, 5.0 is 5."""
    if not isinstance(arguments, dict):
        raise ValueError("no arguments by name")
    return json.dumps(json.loads(json.dumps(arguments), parse_float=_number), sort_keys=True)


def _number(text: str) -> int | float:
    return int(float(text)) if float(text).is_integer() else float(text)
