"""Runs in processes of their own, some at a time: what has ended is left alone, what was cut off goes on."""

import json
import os
import signal
import sys
import threading
import time
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from lit_fm.energy import SHARED
from lit_fm.explain import last_reason
from lit_fm.resume import at_work
from lit_fm.screen import console, measured


class Cell(NamedTuple):
    """One run.

    Args:
        name: of the run.
        verb: `fit` or `icl`.
        parent: the folder of its folder.
    """

    name: str
    verb: str
    args: list[str]
    parent: Path

    @property
    def ended(self) -> Path | None:
        """Its folder, if it has ended."""
        if self.verb == "fit":
            found = sorted(self.parent.glob("*/summary.json"))
        else:
            found = [path for path in sorted(self.parent.glob("*/icl.json")) if json.loads(path.read_text())["ended"]]
        return found[-1].parent if found else None

    @property
    def log(self) -> Path:
        """What it says."""
        return self.parent / "log.txt"


def run_cells(cells: list[Cell], workers: int) -> dict[str, str]:
    """Run those that have not ended; the reasons of those that failed, by name.

    Where this process is stopped, its runs are: they save, and the same command goes on.
    """
    waiting = [cell for cell in cells if not cell.ended]
    done = len(cells) - len(waiting)
    console.print(f"{len(cells)} runs, {done} of which have ended; {min(workers, len(waiting))} at a time.")
    # Both of these hold for the process that runs are forked from, where all that takes long to import is imported once.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    if workers > 1:
        os.environ[SHARED] = "yes"
    context = get_context("forkserver")
    context.set_forkserver_preload(["lit_fm.trainer_cli"])
    slots, failed = list(range(workers)), {}
    at_once: dict[Any, tuple[Any, Cell, int, float]] = {}
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while waiting or at_once:
            while waiting and slots:
                cell, slot = waiting.pop(0), slots.pop(0)
                cell.parent.mkdir(parents=True, exist_ok=True)
                process = context.Process(target=_carry_out, args=(cell, slot))
                process.start()
                at_once[process.sentinel] = process, cell, slot, time.perf_counter()
            for sentinel in wait(list(at_once)):
                process, cell, slot, begun = at_once.pop(sentinel)
                process.join()
                slots.append(slot)
                done += 1
                took = f"[{done} of {len(cells)}] {cell.name}: {time.perf_counter() - begun:.0f} s"
                if folder := cell.ended:
                    console.print(f"{took}{_reached(folder)}", markup=False)
                else:
                    failed[cell.name] = last_reason(cell.log)
                    console.print(f"{took}, failed: {failed[cell.name]}", markup=False)
    finally:
        signal.signal(signal.SIGTERM, before)
        for process, *_ in at_once.values():
            process.terminate()
        for process, *_ in at_once.values():
            process.join()
    return failed


def _reached(folder: Path) -> str:
    """What a fit was measured by first."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = summary.get("measured", [])[:1]
    return "".join(f", {name.replace('_', ' ')} {measured(name, summary[name.replace('/', '_')])}" for name in names)


def _carry_out(cell: Cell, slot: int) -> None:
    """In the run's own process: its words go to its log, it has a device of its own, and it ends with its parent."""
    with cell.log.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    while any(at_work(folder) for folder in cell.parent.glob("*/")):  # it outlived a comparison that was killed
        time.sleep(0.5)
    if cell.ended:
        return
    take_device(slot)
    from lit_fm.cli import main

    main([cell.verb, *cell.args])


def take_device(slot: int) -> None:
    """Leave this process the device of its place alone, where there are several."""
    import torch

    if devices := torch.cuda.device_count():  # counted without touching them
        known = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(devices)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = known[slot % len(known)]


def _end_with(parent: Any) -> None:
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
