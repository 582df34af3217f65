"""Text of an example: a template over a raw row, or a conversation; always as segments, some of them learnt."""

from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lit_fm.data.segments import Segments

# For a tokenizer that brings no chat template. The end token follows each answer, as it must when the model is used.
PLAIN_CHAT = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
_SANDBOX = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


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


def render(template: str, row: dict[str, Any], answered: bool = True) -> dict[str, Any]:
    """A prompt/completion example from a row by a Jinja template with `|||` between prompt and answer.

    Text of the row is put in as it is, never read as Jinja.

    Raises:
        ValueError: no answer part, broken Jinja, or a field that the row has not.
    """
    prompt, answer = _compiled(template)
    try:
        completion = answer.render(row).strip() if answered else ""
        return {"prompt": prompt.render(row).strip(), "completion": completion}
    except TemplateError as error:
        raise ValueError(f"template {template!r}: {error}; the row has the fields {sorted(row)}.") from error


def pair_segments(example: dict[str, Any]) -> Segments:
    """Prompt, then the answer to learn. A newline goes between them where neither side brings white space."""
    prompt, completion = example["prompt"], example["completion"]
    glued = prompt and completion and not prompt[-1].isspace() and not completion[0].isspace()
    return [(prompt + "\n" if glued else prompt, False), (completion, True)]


def chat_text(messages: list[dict], tokenizer: Any, add_generation_prompt: bool = False) -> str:
    """A conversation by the tokenizer's own chat template, or the plain one."""
    template = None if tokenizer.chat_template else PLAIN_CHAT
    return tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
    )


def chat_segments(messages: list[dict], tokenizer: Any) -> Segments:
    """A conversation in which every answer of the assistant is learnt, with the token that ends it.

    Raises:
        ValueError: the chat template rewrites earlier turns, so that the answers cannot be found in its text.
    """
    segments: Segments = []
    done = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = chat_text(messages[:i], tokenizer, add_generation_prompt=True)
        upto = chat_text(messages[: i + 1], tokenizer)
        if not before.startswith(done) or not upto.startswith(before):
            raise ValueError(
                "the chat template of this tokenizer rewrites earlier turns, so the answers cannot be told from the rest: "
                "give the tokenizer another chat_template, or use prompt/completion rows."
            )
        answer = upto[len(before) :]
        end = answer.rfind(tokenizer.eos_token) if tokenizer.eos_token else -1
        answer = answer[: end + len(tokenizer.eos_token)] if end >= 0 else answer
        segments += [(before[len(done) :], False), (answer, True)]
        done = before + answer
    return segments
