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

    While training goes on a wish waits for the end of a step. Before and behind it there is nothing to save: the process
    ends at once.

    Args:
        stop_after: seconds that training may take.
    """

    def __init__(self, stop_after: float | None = None) -> None:
        self.received: int | None = None
        self.stop_after, self.deadline = stop_after, float("inf")
        self.waits = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals over from whoever has them."""
        for name in WISHES[:3]:
            if threading.current_thread() is threading.main_thread() and (number := getattr(signal, name, None)):
                self._before.setdefault(number, signal.signal(number, self._receive))

    def begin(self) -> None:
        """Training begins: wishes wait, and its time is counted."""
        self.listen()
        self.waits = True
        self.deadline = time.monotonic() + (self.stop_after or float("inf"))

    def end(self) -> None:
        """Training is over: what was asked for since its last step is done now."""
        self.waits = False
        if self.received is not None:
            raise SystemExit(exit_code([float(i == self.received) for i in range(len(WISHES))]))

    def give_back(self) -> None:
        """Let others have the signals again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: Any) -> None:
        wish = WISHES.index(signal.Signals(number).name)
        if os.getpid() != self._process:  # a worker that collates batches: its parent decides
            if wish != 2:
                os._exit(128 + number)
            return
        if not self.waits or wish == self.received == 2:  # Ctrl-C again: at once
            raise SystemExit(exit_code([float(i == wish) for i in range(len(WISHES))]))
        self.received = wish

    def votes(self) -> list[float]:
        """By wish, what this rank asks for."""
        wish = self.received
        if wish is None and time.monotonic() > self.deadline:
            wish = 3
        return [float(i == wish) for i in range(len(WISHES))]


def exit_code(votes: list[float]) -> int:
    """Of what all ranks asked for together; 128 and the signal's number, or the code that asks to be queued again."""
    code = next(code for vote, code in zip(votes, _CODES, strict=True) if vote)
    return REQUEUE if "SLURM_JOB_ID" in os.environ and code != 130 else code
