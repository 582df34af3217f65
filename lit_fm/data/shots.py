"""Solved examples before a question: learning in context."""

from collections.abc import Sequence


def few_shot(instruction: str, shots: Sequence[tuple[str, str]], question: str) -> str:
    """The instruction, each shot (prompt and answer, a space between), and the question: blank lines between them."""
    return "\n\n".join(filter(None, [instruction, *(f"{prompt} {answer}" for prompt, answer in shots), question]))
