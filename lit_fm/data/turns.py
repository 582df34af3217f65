"""Where in the text of a conversation the assistant's turns lie, whatever the chat template makes of them."""

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

from jinja2 import TemplateError

Turns = list[dict[str, Any]]
Span = tuple[int, int]
_MARKS = re.compile("[\ud800-\udfff]")  # halves of characters, which no text that was read can hold


@lru_cache(maxsize=8)
def special_tokens(tokenizer: Any, size: int) -> tuple[str, ...]:
    """Those that may end a turn, longest first, of a tokenizer with so many tokens: it may get more."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = {*added, *tokenizer.all_special_tokens} - ({tokenizer.bos_token} - {tokenizer.eos_token})
    return tuple(sorted(filter(str.strip, tokens), key=len, reverse=True))


@lru_cache(maxsize=8)
def _behind(tokens: tuple[str, ...]) -> re.Pattern:
    return re.compile(rf"\s*({'|'.join(map(re.escape, tokens)) or '(?!)'})")


def end_of(text: str, tokens: tuple[str, ...]) -> str:
    """The special token that a text ends in, white space aside."""
    text = text.rstrip()
    return next(filter(text.endswith, tokens), "") if text.endswith(tokens) else ""


def _content(turn: dict[str, Any]) -> str:
    return (turn.get("content") or "").strip()


def _called(turn: dict[str, Any]) -> list[str]:
    return [call["function"]["name"] for call in turn.get("tool_calls") or ()]


def says(turn: dict[str, Any]) -> bool:
    """Whether a turn has content or calls a tool."""
    return bool(turn.get("tool_calls") or _content(turn))


def _answer(turn: dict[str, Any]) -> str:
    """The content behind what was thought."""
    return _content(turn).rpartition("</think>")[2].strip()


def _marked(turn: dict[str, Any], mark: str, within: bool) -> dict[str, Any]:
    """A turn with marks around its content, within the white space at its ends or not, and before names of functions."""
    marked = dict(turn)
    content = turn.get("content") or ""
    if core := _content(turn) if within else content:
        marked["content"] = content.replace(core, mark + core + mark, 1)
    if calls := turn.get("tool_calls"):
        named = [{**call["function"], "name": mark + call["function"]["name"]} for call in calls]
        marked["tool_calls"] = [{**call, "function": function} for call, function in zip(calls, named, strict=True)]
    return marked


class Conversation:
    """One conversation as text, and where the assistant's turns are in it.

    Args:
        text: of the whole, by the chat template.
        ends: special tokens that may end a turn.
        write: gives the text of messages, with or without what asks for an answer; may raise a `TemplateError`.
    """

    def __init__(self, messages: Turns, text: str, ends: tuple[str, ...], write: Callable[[Turns, bool], str]) -> None:
        self.messages, self.text, self._ends, self._write = messages, text, ends, write
        self._turns = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
        # A weight of 0 is OpenAI's way to say that a turn is only read.
        self._spoken = [i for i in self._turns if says(messages[i]) and messages[i].get("weight") != 0]

    def generated(self, marked: list[Span]) -> list[Span]:
        """What the template marks as generated, with the end tokens behind; none if that is not all that is said."""
        spans: list[Span] = []
        for start, stop in marked:
            if spans and start <= spans[-1][1]:  # a turn in parts
                start = spans.pop()[0]
            spans.append((start, stop))
        if len(spans) == len(self._turns):
            spans = [span for span, i in zip(spans, self._turns, strict=True) if i in self._spoken]
        spans = [(a, b) for a, b in spans if self.text[a:b].strip() not in ("", *self._ends)]
        said = "".join(self.text[a:b] for a, b in spans)
        if any(self._lacks(i, said) for i in self._spoken):
            return []
        return [(a, b if end_of(self.text[a:b], self._ends) else self._closed(b)) for a, b in spans]

    def spans(self) -> list[Span]:
        """Start and stop of what the assistant says.

        Raises:
            TemplateError: a turn is left out, or where it begins or ends cannot be told.
        """
        found: list[Span] = []
        for i in self._spoken:
            done = found[-1][1] if found else 0
            start, stop = self._span(i, done)
            said = self.text[start:stop]
            if why := self._lacks(i, said) or ("changes the order of turns" if not done <= start <= stop else ""):
                raise TemplateError(f"it {why}")
            if said.strip() not in ("", *self._ends):  # all of it may have been thoughts, and left out
                found.append((start, stop))
        return found

    def _lacks(self, i: int, said: str) -> str:
        turn = self.messages[i]
        if any(name not in said for name in _called(turn)):
            return "leaves out a tool call"
        return "" if _called(turn) or _answer(turn) in said else "leaves out a turn of the assistant"

    def _prefix(self, count: int, ask: bool = False) -> str:
        """The text of the first turns. Empty where there is none: some templates refuse a part of a conversation."""
        try:
            return self._write(self.messages[:count], ask) if count else ""
        except TemplateError:
            return ""

    def _closed(self, stop: int) -> int:
        """Behind the special token that follows, or where nothing follows, at the end."""
        if behind := _behind(self._ends).match(self.text, stop):
            return behind.end()
        return stop if self.text[stop:].strip() else len(self.text)

    def _span(self, i: int, done: int) -> tuple[int, int]:
        before = self._prefix(i, ask=True)
        start = len(before) if before and self.text.startswith(before) else self._start(i, done)
        turn = self.messages[i]
        if _called(turn):
            return start, self._end_of_calls(i)
        said = start + len(self.text[start:]) - len(self.text[start:].lstrip())
        stop = said + len(_content(turn))
        if not self.text.startswith(_content(turn), said) or not _behind(self._ends).match(self.text, stop):
            stop = self._marks[i][-1]  # something stands before it, which may begin alike
        space = turn["content"][len(turn["content"].rstrip()) :]
        return start, self._closed(stop + len(space) if self.text.startswith(space, stop) else stop)

    def _start(self, i: int, done: int) -> int:
        """Behind the last text that asks for an answer before what is said, or where there is none, at what is said."""
        first, *others = self._marks[i]
        headers = {self._header, self._header.partition("<think>")[0]} - {""}  # a thought may be opened, or not
        found = [at + len(h) for h in headers if (at := self.text.rfind(h, done, first)) >= 0]
        if not found and not others:
            raise TemplateError("it cannot be told where a turn of the assistant begins")
        return max(found, default=first)

    def _end_of_calls(self, i: int) -> int:
        """Behind the token that ends a turn when it is the last: before the next turn, if it is not."""
        upto = self.text if i == len(self.messages) - 1 else self._prefix(i + 1)
        end = end_of(upto, self._ends)
        if upto and self.text.startswith(upto):
            return len(upto.rstrip()) if end else self._closed(len(upto))
        places = self._marks[i][: 2 * bool(_content(self.messages[i])) + len(_called(self.messages[i]))]
        tokens = re.compile(re.escape(end)) if end else _behind(self._ends)  # some end in what begins the next turn
        found = tokens.search(self.text, places[-1])
        behind = _content(self.messages[i + 1])
        if not found or (behind and behind in self.text[places[-1] : found.end()]):
            raise TemplateError("it cannot be told where a tool call ends")
        return found.end()

    @cached_property
    def _header(self) -> str:
        """What asks for an answer."""
        asked = self._prefix(len(self.messages), ask=True)
        return asked[len(self.text) :] if asked.startswith(self.text) else ""

    @cached_property
    def _marks(self) -> dict[int, list[int]]:
        """Where in the text what is said begins and ends, by turn."""
        for within in (True, False):  # some templates trim what they are given, some cut it behind a thought
            marked = list(self.messages)
            for i in self._spoken:
                marked[i] = _marked(marked[i], chr(0xD800 + i), within)
            text = self._write(marked, False)
            if _MARKS.sub("", text) == self.text:
                break
        else:
            raise TemplateError("what it makes of a turn cannot be followed")
        places: dict[int, list[int]] = {}
        for before, mark in enumerate(_MARKS.finditer(text)):
            places.setdefault(ord(mark[0]) - 0xD800, []).append(mark.start() - before)
        if len(places) < len(self._spoken):
            raise TemplateError("it leaves out a turn of the assistant")
        return places
