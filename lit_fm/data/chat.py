"""A conversation as the text of a chat template, and where in it the assistant's turns lie: to the character."""

import re
from threading import Lock
from typing import Any

from jinja2 import TemplateError

from lit_fm.data.segments import Segments
from lit_fm.data.turns import Conversation, Span, Turns, end_of, says, special_tokens

# For a tokenizer that brings no chat template. The end token follows each answer, as it must when the model is used.
# Line breaks stand in `{{ }}` since transformers trims those behind a block.
PLAIN_CHAT = (
    "{{ bos_token }}{% if tools %}{{ 'Tools: ' }}{{ tools | tojson }}{{ '\n' }}{% endif %}"
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content or '' }}"
    "{% if message.tool_calls %}{{ ' ' if message.content else '' }}"
    "{{ message.tool_calls | map(attribute='function') | list | tojson }}{% endif %}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
_RENDERING = Lock()  # what transformers marks as generated is kept in the template, which threads share
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


def chat_text(
    messages: Turns, tokenizer: Any, add_generation_prompt: bool = False, tools: list[dict] | None = None
) -> str:
    """A conversation by the tokenizer's own chat template, or the plain one. Content that is null is none.

    Args:
        tools: functions that the assistant can call, as OpenAI's schemas.

    Raises:
        TemplateError: the template refuses the conversation, or fails at it.
    """
    try:
        with _RENDERING:
            return tokenizer.apply_chat_template(
                _without_nulls(messages), tools or None, chat_template=None if tokenizer.chat_template else PLAIN_CHAT,
                tokenize=False, add_generation_prompt=add_generation_prompt,
            )  # fmt: skip
    except TemplateError:
        raise
    except Exception as error:  # an expression in a template can raise anything
        raise TemplateError(str(error)) from error


def chat_segments(messages: Turns, tokenizer: Any, tools: list[dict] | None = None) -> Segments:
    """The text of a conversation, in which every turn of the assistant is learnt, with the token that ends it.

    Where the template says what the assistant generates, that is learnt. Elsewhere a turn begins where the text that asks
    for it ends, and ends with its content or tool calls and the special token behind. Where the template writes earlier
    turns otherwise than it did when they were the last (some leave out thoughts), marks in a second rendering tell.

    Raises:
        TemplateError: the template refuses the conversation, leaves a turn out, or a turn's ends cannot be told.
    """
    messages, tools = _without_nulls(messages), tools or None
    template = tokenizer.get_chat_template(None if tokenizer.chat_template else PLAIN_CHAT, tools)
    if _GENERATION.search(template):
        text, generated = _with_generated(messages, tokenizer, tools, template)
    else:
        text, generated = chat_text(messages, tokenizer, tools=tools), []
    ends = special_tokens(tokenizer, len(tokenizer))
    turns = Conversation(messages, text, ends, lambda part, ask: chat_text(part, tokenizer, ask, tools))
    segments: Segments = []
    done = 0
    for start, stop in turns.generated(generated) or turns.spans():
        segments += [(text[done:start], False), (text[start:stop], True)]
        done = stop
    return [segment for segment in [*segments, (text[done:], False)] if segment[0]]


def _with_generated(messages: Turns, tokenizer: Any, tools: list[dict] | None, template: str) -> tuple[str, list[Span]]:
    """The text of a conversation, and what of it the template marks as generated."""
    from transformers.utils import chat_template_utils

    render: Any = chat_template_utils.render_jinja_template
    turns = [{key: value for key, value in turn.items() if value is not None} for turn in messages]
    more = {"return_assistant_tokens_mask": True, **tokenizer.special_tokens_map}
    try:
        with _RENDERING:
            [text], [generated] = render([turns], tools, chat_template=template, **more)
    except TemplateError:
        raise
    except Exception as error:  # an expression in a template can raise anything
        raise TemplateError(str(error)) from error
    return text, generated


def last_answer(messages: Turns, tokenizer: Any, tools: list[dict] | None = None) -> str:
    """What the assistant writes in the last turn, with the token that ends it. Empty if it has not the last word."""
    if messages[-1]["role"] != "assistant" or not says(messages[-1]):
        return ""
    return next((text for text, learnt in reversed(chat_segments(messages, tokenizer, tools)) if learnt), "")


def turn_end(tokenizer: Any) -> str:
    """The special token by which the chat template ends an answer. Empty if there is none."""
    try:
        said = last_answer([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], tokenizer)
    except TemplateError:
        return ""
    return end_of(said, special_tokens(tokenizer, len(tokenizer)))


def _without_nulls(messages: Turns) -> Turns:
    """Null is no text; but beside tool calls, templates tell it from an empty one."""
    return [
        {**turn, "content": ""} if turn.get("content") is None and not turn.get("tool_calls") else turn
        for turn in messages
    ]
