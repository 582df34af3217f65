"""Large numbers as people write them: 70e9, 70B, 1.4T."""

import math
import re

LARGEST = 1e40
"""Beyond all that there will be, and far from where powers of it overflow."""
SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def number(written: str | float, name: str) -> float:
    """The number that is meant.

    Args:
        written: a number, or one in words such as `70e9` or `70B`.
        name: what it is of, for the error.

    Raises:
        ValueError: it is no number, or none from 1 to 1e40.
    """
    text = re.sub(r"(?<=\d)[,_](?=\d{3})", "", str(written).strip())
    factor = SUFFIXES.get(text[-1:].upper(), 1.0)
    try:
        value = math.nan if isinstance(written, bool) else float(text if factor == 1 else text[:-1]) * factor
    except ValueError:
        value = math.nan
    if not 1 <= value <= LARGEST:
        raise ValueError(
            f"{name}: expected a number from 1 to {LARGEST:.0e}, such as 70e9, 70B or 1.4T, got {written!r}. Correct it."
        )
    return value


def short(value: float) -> str:
    """Three digits at most, with the suffix that leaves the fewest zeros: 70B, 1.4T."""
    value = float(f"{value:.3g}")  # first, so that 999.9 million is 1B
    for suffix, factor in reversed(SUFFIXES.items()):
        if value >= factor:
            scaled = value / factor
            return f"{scaled:,.0f}{suffix}" if 1000 <= scaled < 1e7 else f"{scaled:.3g}{suffix}"
    return f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in MiB, or in GiB where that leaves fewer digits."""
    return f"{count / 2**20:,.1f} MiB" if count < 10 * 2**30 else f"{count / 2**30:,.1f} GiB"
