"""The program in forks of the test's process, which has imported already what it needs; and what came of it."""

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only

from lit_fm.checkpoint_io import read


def started(folder, arguments, hook=None, out=Path("out.txt")):
    """The program in a fork of this process, which has imported what it needs; the fork's number."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        os.setsid()
        os.chdir(folder)
        sys.stdout = sys.stderr = out.open("a", buffering=1)
        torch.set_num_threads(1)
        if hook:
            hook()
        from lit_fm.cli import main

        main(arguments)
        os._exit(0)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(child, kill_at=None, within=120.0):
    """Waits for it, and yields while it is at work; its exit status; negative: the number of the signal that ended it."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if kill_at and time.monotonic() > kill_at:
            os.kill(child, signal.SIGKILL)
        yield
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("it hangs")


def finish(*tasks):
    """Runs generators side by side, and gives what they return."""
    found, waiting = {}, dict(enumerate(tasks))
    while waiting:
        for number, task in list(waiting.items()):
            try:
                next(task)
            except StopIteration as end:
                found[number] = end.value
                del waiting[number]
        time.sleep(0.005)
    return [found[number] for number in range(len(tasks))]


def outcome(folder, steps):
    """Weights, optimizer and schedule behind the last step, by their checkpoint, and what was measured on the way."""
    (last,) = folder.glob(f"runs/*/*/checkpoints/step={steps}.ckpt")
    run, state = last.parents[1], read(last)
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    return state["state_dict"], state["optimizer_states"][0]["state"], state["lr_schedulers"], losses


def differs(one, other, where=""):
    """Where two outcomes differ first; empty if they are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return "" if torch.equal(one, other) else where
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{where}: {set(one) ^ set(other)}"
        return next(filter(None, (differs(one[key], other[key], f"{where}/{key}") for key in one)), "")
    if isinstance(one, list | tuple):
        return differs(dict(enumerate(one)), dict(enumerate(other)), where)
    return "" if one == other else f"{where}: {one!r} {other!r}"


def ran(folder, arguments, hook=None, kill_at=None):
    """Its exit status, and what it wrote."""
    folder.mkdir(exist_ok=True)
    before = (folder / "out.txt").stat().st_size if (folder / "out.txt").exists() else 0
    (code,) = finish(
        ended(started(folder, arguments.split() if isinstance(arguments, str) else arguments, hook), kill_at)
    )
    return code, (folder / "out.txt").read_bytes()[before:].decode()


def launched(folder, arguments, world, hook=None):
    """The program on several ranks, as torchrun would start them: the process of each. Rank R writes to out-R.txt."""
    folder.mkdir(exist_ok=True)
    port, arguments = free_port(), arguments.split() if isinstance(arguments, str) else arguments

    def begin(rank):
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
            "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        rank_zero_only.rank = rank  # read when it was imported
        if hook:
            hook(rank)

    return [
        started(folder, arguments, lambda rank=rank: begin(rank), folder / f"out-{rank}.txt") for rank in range(world)
    ]


def ranked(folder, arguments, world, hook=None):
    """The same to its end: the exit status of each rank, and what the first one wrote."""
    codes = finish(*(ended(child) for child in launched(folder, arguments, world, hook)))
    return codes, (folder / "out-0.txt").read_text()


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def dies_at(step):
    """When the first micro-batch of this optimizer step begins."""

    def hook():
        from lit_fm.objectives.training import Training

        real = Training.training_step

        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, batch, batch_idx)

        Training.training_step = training_step

    return hook
