"""Memory by the rule of thumb, for the classroom; `plan` measures it."""

from dataclasses import dataclass

STORED = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
"""Bytes a parameter, where it only lies there."""
PARTS = {"learnable weights": 4, "gradients": 4, "optimizer state": 8, "activations": 8}
"""Bytes a parameter to train in float32 with Adam, whose state is two moments. The last part, with all that is held for a
moment, in truth hangs on batch, length and width."""
TRAINED = sum(PARTS.values())


@dataclass(frozen=True)
class Memory:
    """In bytes.

    Args:
        stored: by the weights' dtype.
        trained: to train all of them in float32 with Adam.
    """

    stored: dict[str, float]
    trained: float


def rule_of_thumb(parameters: float) -> Memory:
    """What so many parameters take.

    Raises:
        ValueError: not a positive number of parameters.
    """
    if not parameters > 0:
        raise ValueError(f"expected a positive number of parameters, got {parameters!r}. Correct it.")
    return Memory({dtype: size * parameters for dtype, size in STORED.items()}, TRAINED * parameters)
