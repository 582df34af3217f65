"""Conversations: turns as OpenAI writes them (role, content), or ShareGPT (from, value); all become the former."""

import json
from typing import Any

from lit_fm.data.files import Row, objects
from lit_fm.nearest import did_you_mean

USER, ASSISTANT = "user", "assistant"
ROLES = {USER: USER, "human": USER, "system": "system", "developer": "developer"}
ROLES |= dict.fromkeys((ASSISTANT, "gpt", "chatgpt", "chatbot", "bot", "model", "function_call"), ASSISTANT)
ROLES |= {"tool": "tool", "observation": "tool", "function": "function"}
_REWRITTEN = {"from", "value", "role", "content", "tool_calls", "function_call"}
UNANSWERED = "no assistant turn"
UNWANTED = "an answer that was not wanted"


def conversation(row: Row, number: int, fields: tuple[str, ...], answered: bool = True) -> dict[str, Any] | str:
    """The `messages` of a row, and the `tools` beside them; or the reason why there is nothing to learn.

    Args:
        fields: of the turns; behind it `chosen`, whose answer follows, or `label`, which says whether it is wanted.

    Raises:
        ValueError: turns that cannot be read, with the number of the row.
    """
    turns, *more = fields
    if answered and "label" in more and not wanted(row, number):
        return UNWANTED
    messages = _turns(row, turns, number, USER)
    if "chosen" in more:
        chosen = _turns(row, "chosen", number, ASSISTANT)
        whole = any(turn["role"] == USER for turn in chosen)  # some repeat the question with the answer
        messages = chosen if whole else [*messages, *chosen]
    if system := row.get("system"):
        own = [turn["content"] for turn in messages if turn["role"] == "system"]
        if own and own[0] != system:
            raise ValueError(f"row {number}: 'system' and a turn of the system say different things: keep one of them.")
        messages = messages if own else [{"role": "system", "content": str(system)}, *messages]
    if answered and not any(turn["role"] == ASSISTANT for turn in messages):
        return UNANSWERED
    tools = _tools(row.get("tools"), number)
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


def wanted(row: Row, number: int) -> bool:
    """What a row's label says of its answer.

    Raises:
        ValueError: it is neither true nor false.
    """
    if not isinstance(row.get("label"), bool):
        raise ValueError(f"row {number}: 'label' is {row.get('label')!r}, expected true or false.")
    return row["label"]


def _turns(row: Row, field: str, number: int, role: str) -> list[dict[str, Any]]:
    """The turns of a field: a list, one turn, or its text alone."""
    turns: Any = row.get(field)
    if isinstance(turns, str) and field in ("chosen", "prompt"):
        turns = {"role": role, "content": turns}
    if isinstance(turns, dict):
        turns = [turns]
    if not objects(turns) or not all({"role", "from"} & set(turn) for turn in turns):
        raise ValueError(f"row {number}: expected {field} with role and content, got {str(turns)[:80]}.")
    return [_turn(turn, number) for turn in turns]


def _turn(turn: dict[str, Any], number: int) -> dict[str, Any]:
    said, value = (turn["from"], turn.get("value")) if "from" in turn else (turn["role"], turn.get("content"))
    if said not in ROLES:
        raise ValueError(f"row {number}: a turn of {said!r}: {did_you_mean(str(said), ROLES)}")
    calls = turn.get("tool_calls") or turn.get("function_call") or []
    if said == "function_call":
        calls, value = _parsed(value, number, "a function call"), None
    made: dict[str, Any] = {"role": ROLES[said], "content": _content(value, number)}
    made |= {name: value for name, value in turn.items() if value is not None and name not in _REWRITTEN}
    if calls:
        made["tool_calls"] = [_call(call, number) for call in (calls if isinstance(calls, list) else [calls])]
    return made


def _content(value: Any, number: int) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    parts = value if isinstance(value, list) else [value]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = f"a part of type {part['type']!r}" if isinstance(part, dict) and "type" in part else str(part)[:60]
            raise ValueError(f"row {number}: a message's content has {kind}, expected text: only text is learnt.")
    return "".join(part["text"] for part in parts)


def _parsed(value: Any, number: int, what: str) -> Any:
    """What a string of JSON holds; anything else as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"row {number}: {what} is not JSON ({error}): {value[:60]!r}") from error


def _call(call: Any, number: int) -> dict[str, Any]:
    """A call in OpenAI's shell, its arguments as an object."""
    call = call if isinstance(call, dict) and "function" in call else {"function": call}
    function = call["function"]
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"row {number}: a call of a tool is {str(function)[:60]}, expected a name and arguments.")
    arguments = _parsed(function.get("arguments") or {}, number, f"the arguments of {function['name']!r}")
    if not isinstance(arguments, dict):
        raise ValueError(f"row {number}: the arguments of {function['name']!r} are {arguments!r}, expected an object.")
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}


def _tools(value: Any, number: int) -> list[dict[str, Any]]:
    """The tools that a row offers, each in OpenAI's shell."""
    tools = _parsed(value or [], number, "'tools'") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError(f"row {number}: 'tools' is {str(tools)[:60]}, expected a list of functions.")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
