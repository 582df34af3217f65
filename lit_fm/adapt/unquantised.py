"""No bitsandbytes where no weight is quantised: peft loads it to look for layers in 4 or 8 bits, which takes a second."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "bitsandbytes"


@contextmanager
def unquantised() -> Iterator[None]:
    """Within, peft finds no bitsandbytes, unless something has loaded it: whoever quantises does before."""
    if NAME in sys.modules:
        yield
        return
    from transformers.utils import is_bitsandbytes_available

    is_bitsandbytes_available()  # transformers remembers its answer, which is to be the true one
    _ask_again()
    sys.modules[NAME] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[NAME]
        _ask_again()


def _ask_again() -> None:
    """Let peft forget whether it is there."""
    if peft := sys.modules.get("peft.import_utils"):
        peft.is_bnb_available.cache_clear()
        peft.is_bnb_4bit_available.cache_clear()
