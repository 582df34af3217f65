"""Text of an example: a template over a raw row, or a conversation; always as segments, some of them learnt."""

from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lit_fm.data.segments import Segments

# For a tokenizer that brings no chat template. The end token follows each answer, as it must when the model is used.
# Line breaks stand in `{{ }}` since transformers trims those behind a block.
PLAIN_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
_SANDBOX = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, keep_trailing_newline=True, finalize=lambda value: "" if value is None else value
)


@lru_cache
def _compiled(template: str) -> tuple[Template, Template]:
    prompt, bar, answer = template.partition("|||")
    if not bar or not answer.strip():
        raise ValueError(
            f"template {template!r} has no answer: write the prompt, then |||, then the answer, such as "
            "'{{question}} ||| {{answer}}'."
        )
    try:
        return _SANDBOX.from_string(prompt.strip()), _SANDBOX.from_string(answer.strip())
    except TemplateError as error:
        raise ValueError(f"template {template!r} is not valid Jinja: {error}. Correct it.") from error


def render(template: str, row: dict[str, Any], answered: bool = True, number: int = 1) -> dict[str, Any]:
    """A prompt/completion example from a row by a Jinja template with `|||` between prompt and answer.

    Text of the row is put in as it is, never read as Jinja.

    Raises:
        ValueError: no answer part, broken Jinja, or a field that the row has not.
    """
    prompt, answer = _compiled(template)
    try:
        completion = answer.render(row).strip() if answered else ""
        return {"prompt": prompt.render(row).strip(), "completion": completion}
    except Exception as error:  # an expression in a template can raise anything
        raise ValueError(
            f"template {template!r}, row {number}: {error}; the row has the fields {sorted(row)}."
        ) from error


def prompt_text(prompt: str) -> str:
    """A prompt as the answer follows it: on a new line, unless the prompt ends in white space."""
    return prompt + "\n" if prompt and not prompt[-1].isspace() else prompt


def pair_segments(example: dict[str, Any]) -> Segments:
    """Prompt, then the answer to learn."""
    return [(prompt_text(example["prompt"]), False), (example["completion"], True)]


def chat_text(messages: list[dict], tokenizer: Any, add_generation_prompt: bool = False) -> str:
    """A conversation by the tokenizer's own chat template, or the plain one."""
    template = None if tokenizer.chat_template else PLAIN_CHAT
    return tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
    )


def chat_segments(messages: list[dict], tokenizer: Any) -> Segments:
    """A conversation in which every answer of the assistant is learnt, with the token that ends it.

    Where the chat template rewrites earlier turns (some leave out what was thought), only the last answer stands in the
    text as it was given: the segments then are two.
    """
    answers = [i for i, m in enumerate(messages) if i and m["role"] == "assistant" and m["content"].strip()]
    segments: Segments = []
    done = ""
    for i in answers:
        before, answer = _turn(messages, i, tokenizer)
        if not before.startswith(done):
            before, answer = _turn(messages, answers[-1], tokenizer)
            return [(before, False), (answer, True)]
        segments += [(before[len(done) :], False), (answer, True)]
        done = before + answer
    return segments


def _turn(messages: list[dict], i: int, tokenizer: Any) -> tuple[str, str]:
    """The text before the assistant's turn `i`, and that turn with the token that ends it."""
    before = chat_text(messages[:i], tokenizer, add_generation_prompt=True)
    upto = chat_text(messages[: i + 1], tokenizer)
    if not upto.startswith(before):
        raise TemplateError("what it puts before an answer is not what it asks an answer with")
    answer = upto[len(before) :]
    end = answer.rfind(tokenizer.eos_token) if tokenizer.eos_token else -1
    return before, answer[: end + len(tokenizer.eos_token)] if end >= 0 else answer
