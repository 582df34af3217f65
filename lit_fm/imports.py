"""Imports without garbage collection, which would go through a million new objects again and again, and find no garbage."""

import gc
import sys
from importlib import import_module
from typing import Any


def import_at_once(name: str) -> Any:
    """A module with all that it imports. The collector will not look at that again: it stays until the process ends."""
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        return import_module(name)
    finally:
        if not gc.get_freeze_count():  # the garbage of an earlier verb would be kept, too
            gc.freeze()
        gc.enable()
