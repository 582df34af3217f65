"""One trial of a sweep: a fit in a process of its own, whose memory ends with it, and what came of it."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lit_fm.durable import write_text
from lit_fm.explain import last_reason
from lit_fm.resume import at_work
from lit_fm.screen import console
from lit_fm.sweep.space import typed

STOPPED = (143, 138, 130, 75)
"""Exit codes of a fit that was asked to stop, and goes on when it is started again."""


def summary_of(folder: Path, number: int) -> dict[str, Any] | None:
    """What came of a trial whose fit has ended; None of others."""
    found = sorted((folder / "trials" / f"{number:03d}").glob("*/summary.json"))
    return json.loads(found[-1].read_text(encoding="utf-8")) if found else None


def log_of(folder: Path, number: int) -> Path:
    """What its fit said."""
    return folder / "trials" / f"{number:03d}.txt"


def carried_out(folder: Path, number: int, settings: dict[str, Any]) -> int:
    """Fit with the settings, or go on where a sweep that was killed left this trial; the exit code."""
    waits = False
    while any(at_work(run) for run in (folder / "trials" / f"{number:03d}").glob("*/")):  # outlived its sweep
        if not waits:
            console.print(f"Trial {number} is at work still: waiting for its end.")
        waits = True
        time.sleep(0.5)
    if summary_of(folder, number):
        return 0
    own = {"run.root": str(folder / "trials"), "run.name": f"{number:03d}", "run.resume": "auto"}
    command = [
        sys.executable,
        "-m",
        "lit_fm",
        "fit",
        "--config",
        str(folder / "base.yaml"),
        *typed({**settings, **own}),
    ]
    with log_of(folder, number).open("a", encoding="utf-8") as out:
        # In a session of its own: Ctrl-C comes once, from here.
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    handed_on = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, lambda n, _: child.send_signal(n)) for number in handed_on}
    try:
        code = child.wait()
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    if code < 0:
        note(folder, number, f"killed by {signal.Signals(-code).name}")
    return code


def measure(folder: Path, number: int, metric: str) -> float | None:
    """The metric of a trial that has ended; None where it is not finite.

    Raises:
        ValueError: its summary has no such number.
    """
    summary = summary_of(folder, number) or {}
    value: Any = summary
    for word in metric.split("."):
        value = value.get(word) if isinstance(value, dict) else None
    if not isinstance(value, int | float):
        known = ", ".join(name for name, one in summary.items() if isinstance(one, int | float))
        hint = ", or validate before the end, by trainer.val_check_interval" if metric.startswith("val_") else ""
        raise ValueError(
            f"metric {metric!r} is not in the summary.json of trial {number}; it has {known}: choose one of these{hint}."
        )
    return float(value) if math.isfinite(value) else None


def note(folder: Path, number: int, reason: str) -> None:
    """Write why a trial failed where its fit could not."""
    with log_of(folder, number).open("a", encoding="utf-8") as log:
        log.write(f"error: {reason}\n")


def why(folder: Path, number: int) -> str:
    """The reason that a trial which failed gave last."""
    return last_reason(log_of(folder, number))


def keep(folder: Path, name: str, text: str) -> None:
    """A file of the sweep's own.

    Raises:
        ValueError: the folder holds another sweep.
    """
    path = folder / name
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder} holds a sweep with other settings ({name} differs): give another folder by --out.")
    write_text(path, text)
