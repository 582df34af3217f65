"""Time and memory of a step against length, size, batch and ranks: `python benchmarks/curves.py`, six minutes on two cores.

Each point is a `profile` of a small Llama with random weights, on running text, and a `plan` of the same. Time should
grow as the operations do that the plan counts, and memory be what it says.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from speed import busy, quiet

CONFIG = "pretrain/tiny-clm.yaml"
BASE = {"length": 256, "width": 256, "batch": 4, "ranks": 1}
LAYERS, STEPS = 4, 8
AXES = {
    "length": ("tokens in a row", (64, 128, 256, 512)),
    "width": ("width", (128, 256, 384, 512)),
    "batch": ("rows in a step", (1, 2, 4, 8, 16)),
    "ranks": ("ranks of FSDP2", (1, 2)),
}


class Point(NamedTuple):
    """Of one rank."""

    flops: float
    planned: float
    """Bytes."""
    seconds: float
    """Of the median step."""
    measured: float
    others: float
    """Cores that others took meanwhile."""


def call(*words: object) -> str:
    """What a verb prints.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "lit_fm", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}:\n{done.stderr[-800:]}")
    return done.stdout


def point(home: Path, at: dict[str, int], patience: float) -> Point:
    """One profile, and one plan."""
    model = home / f"width-{at['width']}"
    if not model.exists():
        call("twin", "tiny-clm", "--out", model, "--width", at["width"], "--layers", LAYERS)
    ranks = ["--config", "trainer/fsdp.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", at["ranks"]]
    shared = [
        "--config", CONFIG, "--model.backbone", model, "--data.batch_size", at["batch"], "--data.block_size", at["length"],
        "--data.documents", 4000, *(ranks if at["ranks"] > 1 else ()),
    ]  # fmt: skip
    plan = json.loads(call("plan", *shared, "--length", at["length"], "--json"))
    out = home / "-".join(map(str, at.values()))
    quiet(patience)
    call("profile", *shared, "--steps", STEPS, "--out", out)
    found = json.loads((out / "profile.json").read_text())
    seconds = sorted(found["seconds_of_each"])[STEPS // 2]
    return Point(plan["flops"], plan["bytes"], seconds, max(found["peak_bytes"].values()), found["cores_of_others"])


def table(axis: str, points: dict[int, Point]) -> None:
    """The points of an axis, and how fast each thing grows: the slope between the ends, of logarithms."""
    title, (first, *_), (least, *_, most) = AXES[axis][0], points.values(), points
    print(
        f"\n| {title} | GFLOP | ms: expected | measured | MiB: planned | measured | others |\n|---|---|---|---|---|---|---|"
    )
    for value, p in points.items():
        expected = first.seconds * p.flops / first.flops
        cells = (
            f"{value:,}", f"{p.flops / 1e9:,.1f}", f"{expected * 1e3:,.0f}", f"{p.seconds * 1e3:,.0f}",
            f"{p.planned / 2**20:,.0f}",
            f"{p.measured / 2**20:,.0f} ({p.measured / p.planned - 1:+.1%})", f"{p.others:.1f}",
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    if axis == "ranks":
        return
    slopes = {
        name: math.log(getattr(points[most], name) / getattr(points[least], name)) / math.log(most / least)
        for name in Point._fields[:4]
    }
    print(
        f"\nFrom {least:,} to {most:,}: operations grow with the power {slopes['flops']:.2f}, time with "
        f"{slopes['seconds']:.2f}; planned memory with {slopes['planned']:.2f}, measured with {slopes['measured']:.2f}."
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"{', '.join(AXES)}; all where none is named")
    parser.add_argument("--patience", type=float, default=30, help="seconds to wait for quiet cores before each point")
    asked = parser.parse_args()
    if unknown := set(asked.axes) - set(AXES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(AXES)}")
    begun = busy()
    with tempfile.TemporaryDirectory() as home:
        for axis in asked.axes or AXES:
            table(axis, {value: point(Path(home), {**BASE, axis: value}, asked.patience) for value in AXES[axis][1]})
    print(f"\n{busy() - begun:,.0f} CPU seconds in all.")


if __name__ == "__main__":
    main()
