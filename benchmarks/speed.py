"""Speed and memory beside a bare PyTorch loop and other trainers: `python benchmarks/speed.py`; prints README's table.

The same network, batches and precision (float32) for all, each in a process of its own, in turns (A B C A B C ...), and the
medians of the rounds. What other processes take of the cores meanwhile is in the last column: above 0.3, times mean little,
and CPU seconds say more. The peers that `--peers DIR` has environments of (`DIR/trl/bin/python`) run in those;
transformers' Trainer runs here.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path

import psutil
import torch
from programs import PROGRAMS
from work import TINY, Size, prepare

HERE = Path(__file__).resolve().parent
WORKS = {
    "lora": "LoRA r=16 on all linear layers, loss on the answer",
    "clm": "causal language modelling, all weights",
    "mlm": "masked language modelling, all weights",
    "span": "span corruption, all weights",
}
PEERS = {"trl": "TRL, padded", "llamafactory": "LLaMA-Factory, packed", "litgpt": "LitGPT, one at a time"}
"""What those with environments of their own are called there and in the table; they do the first work."""
BUSY = 0.3
HEAD = """| work | by | useful tokens/s | lit_fm: times | a CPU second | first step, s | \
CPU s | peak MiB | others |
|---|---|---|---|---|---|---|---|---|"""


def jobs(work: str, folder: Path, peers: Path | None, length: int, compiled: bool) -> tuple[dict[str, list], list[str]]:
    """Commands by name, and who is missing."""
    fit = ["fit", "--config", folder / "fit.yaml", "--trainer.callbacks", "[{class_path: told.Told}]"]
    made = {
        "lit_fm": [sys.executable, HERE / "stamps.py", "lit_fm", *fit],
        "bare PyTorch loop": [sys.executable, HERE / "bare.py", folder],
    }
    if work == "tiny":
        return made, []
    if compiled:
        made["lit_fm, compiled"] = [*made["lit_fm"], "--model.compile", "true"]
    made["HF Trainer, padded" if work == "lora" else "HF Trainer"] = [
        sys.executable,
        HERE / "peers.py",
        "hf",
        folder,
    ]
    missing: list[str] = []
    for name, title in PEERS.items() if work == "lora" else ():
        python = peers / name / "bin" / "python" if peers else Path()
        if not python.is_file():
            missing.append(title)
        elif name in PROGRAMS:
            made[title] = PROGRAMS[name](python, folder, length)
        else:
            made[title] = [python, HERE / "peers.py", name, folder]
    return made, missing


def busy() -> float:
    """CPU seconds that the machine has spent on anything."""
    spent = psutil.cpu_times()
    return sum(spent) - spent.idle - spent.iowait - getattr(spent, "guest", 0) - getattr(spent, "guest_nice", 0)


def quiet(patience: float) -> None:
    """Wait until others leave the cores alone, but no longer than that."""
    end = time.time() + patience
    while time.time() < end:
        before, begun = busy(), time.time()
        time.sleep(1.5)
        if (busy() - before) / (time.time() - begun) < BUSY:
            return


def run(command: list, home: Path, threads: int, tokens: int) -> dict:
    """One job: its stamps, what it told, and the peak of its processes' memory (resident, summed up).

    Args:
        tokens: useful ones of the whole work, for who tells none.

    Raises:
        RuntimeError: it failed.
    """
    for name in ("stamps", "told"):
        (home / name).unlink(missing_ok=True)
    env = {
        **os.environ, "STAMPS": str(home / "stamps"), "TOLD": str(home / "told"), "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "true",
    }  # fmt: skip
    peak, spent, before, begun = 0, {}, busy(), time.time()
    with (home / "log").open("w") as log:
        job = subprocess.Popen([str(word) for word in command], cwd=home, env=env, stdout=log, stderr=log)
        root = psutil.Process(job.pid)
        while job.poll() is None:
            resident = 0
            try:
                for process in [root, *root.children(recursive=True)]:
                    resident += process.memory_info().rss
                    spent[process.pid] = sum(process.cpu_times()[:2])
            except psutil.Error:  # one has ended meanwhile
                pass
            peak = max(peak, resident)
            time.sleep(0.05)
    if job.returncode:
        raise RuntimeError(f"{command[1]} failed:\n" + "\n".join((home / "log").read_text().splitlines()[-15:]))
    wall = time.time() - begun
    stamps = [tuple(map(float, line.split())) for line in (home / "stamps").read_text().splitlines()]
    if (home / "told").exists():
        told = json.loads((home / "told").read_text())
    else:  # a program makes its own batches of the same tokens
        told = {"tokens": [tokens / len(stamps)] * len(stamps), "losses": [None]}
    if len(stamps) != len(told["tokens"]):
        raise RuntimeError(f"{command[1]} made {len(stamps)} steps, expected {len(told['tokens'])}")
    steady = sum(told["tokens"][1:])
    return {
        "speed": steady / (stamps[-1][0] - stamps[0][0]),
        "cpu_speed": steady / (stamps[-1][1] - stamps[0][1]),
        "step": statistics.median(b[1] - a[1] for a, b in pairwise(stamps)),
        "first": stamps[0][0] - begun,
        "first_cpu": stamps[0][1],
        "memory": peak / 2**20,
        "others": max(0.0, (busy() - before - sum(spent.values())) / wall),
        "tokens": round(sum(told["tokens"])),
        "loss": told["losses"][0],
    }


def measured(
    work: str, asked: argparse.Namespace, home: Path, peers: Path | None
) -> tuple[dict[str, list[dict]], list]:
    """The rounds of each job, and who is missing.

    Raises:
        RuntimeError: two did not do the same work.
    """
    size = Size(asked.hidden, asked.layers, asked.length, asked.examples, asked.steps)
    with contextlib.redirect_stdout(sys.stderr):
        folder = prepare(home, work, TINY if work == "tiny" else size, asked.source)
    every, missing = jobs(work, folder, peers, asked.length, asked.compile)
    tokens = sum(batch["tokens"] for batch in torch.load(folder / "batches.pt"))
    found: dict[str, list[dict]] = {name: [] for name in every}
    for number in range(asked.rounds):
        for name, command in every.items():
            quiet(asked.patience)
            found[name].append(run(command, home, asked.threads, tokens))
            last = found[name][-1]
            print(f"{work} {number + 1}: {name} {last['speed']:,.0f} tokens/s", file=sys.stderr, flush=True)
    firsts = {name: rounds[0] for name, rounds in found.items()}
    if len({first["tokens"] for first in firsts.values()}) > 1:
        raise RuntimeError(f"{work}: not the same tokens: { {name: f['tokens'] for name, f in firsts.items()} }")
    own = firsts["lit_fm"]["loss"]
    for name, first in firsts.items():
        if name not in PEERS.values() and abs(first["loss"] - own) > 2e-3 * own:  # which shuffle
            raise RuntimeError(f"{work}: the first loss of {name} is {first['loss']}, not {own}")
    return found, missing


def median(rounds: list[dict], key: str) -> float:
    """Of the rounds that others left alone, if there are any."""
    calm = [one for one in rounds if one["others"] < BUSY] or rounds
    return statistics.median(one[key] for one in calm)


def table(work: str, found: dict[str, list[dict]]) -> None:
    """Print a work's rows. Ratios are of time, or of CPU time where others were on the cores."""
    noisy = any(median(rounds, "others") >= BUSY for rounds in found.values())
    fair = "cpu_speed" if noisy else "speed"
    own = median(found["lit_fm"], fair)
    for name, rounds in found.items():
        cells = (
            f"{median(rounds, 'speed'):,.0f}", f"{own / median(rounds, fair):.2f}{' (CPU)' if noisy else ''}",
            f"{median(rounds, 'cpu_speed'):,.0f}", f"{median(rounds, 'first'):.1f}", f"{median(rounds, 'first_cpu'):.1f}",
            f"{median(rounds, 'memory'):,.0f}", f"{median(rounds, 'others'):.2f}",
        )  # fmt: skip
        print(f"| {work} | {name} | {' | '.join(cells)} |", flush=True)


def overhead(found: dict[str, list[dict]]) -> None:
    """Print what lit_fm and Lightning add to a step."""
    own, bare = (median(found[name], "step") * 1e3 for name in ("lit_fm", "bare PyTorch loop"))
    others = max(median(rounds, "others") for rounds in found.values())
    print(
        f"\nAround a step of {bare:.1f} CPU ms in the bare loop, lit_fm and Lightning take "
        f"{own - bare:.1f} ms more: {(own - bare) / 100:.1%} of one of 100 ms (others on the cores: {others:.2f})."
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"{', '.join(WORKS)}; all where none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--home", type=Path, help="where models and data are kept; else a temporary folder")
    parser.add_argument("--peers", type=Path, help="a folder of environments of other trainers")
    parser.add_argument(
        "--source", help="JSON lines with prompt and completion, or question and answer; else smallworld"
    )
    parser.add_argument("--compile", action="store_true", help="lit_fm with model.compile, too")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for quiet cores before each job")
    for name in ("hidden", "layers", "length", "examples", "steps"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Size(), name))
    asked = parser.parse_args()
    if unknown := set(asked.works) - set(WORKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(WORKS)}")
    peers, source = (path and Path(path).resolve() for path in (asked.peers, asked.source))
    asked.source = source and str(source)
    with tempfile.TemporaryDirectory() as temporary:
        home = (asked.home or Path(temporary)).resolve()
        print(f"{date.today()}, {platform.machine()}, {asked.threads} threads, float32, medians of {asked.rounds}:\n")
        print(HEAD)
        missing = set()
        for work in asked.works or WORKS:
            found, lacking = measured(work, asked, home, peers)
            table(work, found)
            missing |= set(lacking)
        overhead(measured("tiny", asked, home, peers)[0])
        if missing:
            print(f"Left out, since there is no environment of it: {'; '.join(sorted(missing))}.")


if __name__ == "__main__":
    main()
