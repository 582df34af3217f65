"""SIGTERM, SIGUSR1 and Ctrl-C as wishes: all ranks agree on one at the end of a step, save, and exit."""

import os
import signal
import threading
import time
from typing import Any

WISHES = ("SIGTERM", "SIGUSR1", "SIGINT", "the time given by run.stop_after")
_CODES = (143, 138, 130, 75)
REQUEUE = 75
"""The exit code under SLURM, and where the time given ran out: start the same command again (EX_TEMPFAIL)."""


class Wishes:
    """What this rank was asked: one number for each of `WISHES`, above 0 where it was.

    Args:
        stop_after: seconds that training may take, from now on.
    """

    def __init__(self, stop_after: float | None = None) -> None:
        self.received: int | None = None
        self.deadline = time.monotonic() + stop_after if stop_after else None
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals over from whoever has them."""
        for name in WISHES[:3]:
            if threading.current_thread() is threading.main_thread() and (number := getattr(signal, name, None)):
                self._before[number] = signal.signal(number, self._receive)

    def give_back(self) -> None:
        """Let others have the signals again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: Any) -> None:
        wish = WISHES.index(signal.Signals(number).name)
        if wish == self.received == 2:  # Ctrl-C again: at once
            raise KeyboardInterrupt
        self.received = wish

    def votes(self) -> list[float]:
        """By wish, what this rank asks for."""
        wish = self.received
        if wish is None and self.deadline and time.monotonic() > self.deadline:
            wish = 3
        return [float(i == wish) for i in range(len(WISHES))]


def exit_code(votes: list[float]) -> int:
    """Of what all ranks asked for together; 128 and the signal's number, or the code that asks to be queued again."""
    code = next(code for vote, code in zip(votes, _CODES, strict=True) if vote)
    return REQUEUE if "SLURM_JOB_ID" in os.environ and code != 130 else code
