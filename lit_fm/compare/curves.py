"""The curves of a comparison: over examples in the prompt, over backbones, over steps; each SVG, or empty."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_fm.compare.methods import Comparison, Method
from lit_fm.compare.sketch import GRID, INK, SERIES, Sketch, margin
from lit_fm.compare.table import whole
from lit_fm.compare.verdict import figure, points, words
from lit_fm.plan.quantity import short

CURVE = 50
"""Points of a loss curve, each the mean of as many steps."""
DASHES: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))


def axis(sketch: Sketch, found: Comparison) -> None:
    """The metric upwards, in percent where it is a share."""
    from matplotlib.ticker import FuncFormatter

    sketch.axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{points(found.metric, value):.4g}"))
    unit = " (%)" if "%" in figure(found.metric, 0) else ""
    sketch.axes.set_title(words(found.metric) + unit, loc="left", fontsize=9, color=INK)


def told(found: Comparison, method: Method, more: str = "") -> str:
    """What a pointer on a method shows."""
    low, high = (f"{points(found.metric, end):.1f}" for end in (method.low, method.high))
    return f"{method.label}: {figure(found.metric, method.mean)} [{low}, {high}]{more}"


def by_shots(found: Comparison) -> str:
    """A curve for each backbone and way to choose examples; a line across for each method that learns."""
    lines: dict[tuple[str, str], list[Method]] = defaultdict(list)
    zero = [m for m in found.methods if m.shots == 0]
    for m in found.methods:
        if m.shots:
            lines[m.backbone, _way(m)].append(m)
    if not lines:
        return ""
    learnt = [m for m in found.methods if m.shots is None]
    title = f"{words(found.metric)} by the number of examples in the prompt, with fine-tuned methods as lines across"
    with Sketch(title, "shots", right=margin([m.label for m in learnt] + ["prompting"])) as sketch:
        names = []
        for i, ((backbone, way), methods) in enumerate(sorted(lines.items())):
            own = [z for z in zero if z.backbone == backbone and way.startswith(_way(z))]
            curve = sorted([*sorted(own, key=lambda z: len(_way(z)))[-1:], *methods], key=lambda m: m.shots or 0)
            xs, ys = [m.shots or 0 for m in curve], [m.mean for m in curve]
            color = SERIES[2 + i % 5]
            sketch.axes.fill_between(
                xs, [m.low for m in curve], [m.high for m in curve], color=color, alpha=0.18, linewidth=0
            )
            sketch.axes.plot(xs, ys, "s-", color=color, markersize=4, linewidth=1.6, zorder=4)
            for m in curve:
                [point] = sketch.axes.plot([m.shots or 0], [m.mean], "s", color=color, markersize=5, zorder=5)
                sketch.tell(point, told(found, m))
            several = len({key[0] for key in lines}) > 1
            names.append((" ".join(filter(None, ("prompting", way, backbone if several else ""))), ys[-1], color))
        for m in learnt:
            line = sketch.axes.axhline(m.mean, color=SERIES[0], linewidth=1, linestyle=(0, (4, 2)))
            sketch.tell(line, told(found, m))
            names.append((m.label, m.mean, SERIES[0]))
        shots = sorted({m.shots or 0 for m in found.methods if m.shots is not None})
        sketch.axes.set_xticks(shots, list(map(str, shots)))
        sketch.axes.set_xlim(-0.02 * shots[-1], shots[-1])
        sketch.axes.set_xlabel("examples in the prompt")
        axis(sketch, found)
        sketch.beside(names)
    return sketch.svg


def _way(method: Method) -> str:
    """What a name says besides the number of shots: a label, how they were chosen, other settings."""
    return re.sub(r"(zero|\d+)-shot(, )?", "", method.name).strip(", ")


def by_scale(found: Comparison) -> str:
    """A line for each method, over backbones that differ in size (as figure 1 of Lester et al. 2021)."""
    lines: dict[str, list[tuple[float, Method]]] = defaultdict(list)
    for m in found.methods:
        if size := m.number("backbone_parameters"):
            lines[m.name].append((size, m))
    sizes = sorted({size for line in lines.values() for size, _ in line})
    if len(sizes) < 2:
        return ""
    with Sketch(
        f"{words(found.metric)} of each method against the size of its backbone", "scale", right=0.27
    ) as sketch:
        names = []
        for i, (name, line) in enumerate(sorted(lines.items())):
            line.sort(key=lambda pair: pair[0])
            color, dash = SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]
            sketch.axes.plot(
                [x for x, _ in line], [m.mean for _, m in line], color=color, linestyle=dash, linewidth=1.5
            )
            for x, m in line:
                sketch.axes.plot([x, x], [m.low, m.high], color=color, linewidth=1, alpha=0.5)
                [point] = sketch.axes.plot([x], [m.mean], "o", color=color, markersize=4.5)
                sketch.tell(point, told(found, m, f", backbone of {short(x)} parameters"))
            names.append((name, line[-1][1].mean, color))
        sketch.axes.set_xscale("log")
        sketch.axes.set_xticks(sizes, list(map(short, sizes)))
        sketch.axes.minorticks_off()
        sketch.axes.set_xlim(sizes[0] / 1.3, sizes[-1])
        sketch.axes.set_xlabel("parameters of the backbone")
        axis(sketch, found)
        sketch.beside(names)
    return sketch.svg


def losses(found: Comparison) -> str:
    """Of the first seed of each method that learnt, smoothed."""
    drawn = [m for m in found.methods if len(m.runs[0].losses) > 1]
    if not drawn:
        return ""
    with Sketch(
        "Training loss of each method over optimizer steps", "losses", right=margin([m.label for m in drawn])
    ) as sketch:
        names, all_ = [], []
        for i, m in enumerate(drawn):
            steps, values = smooth(m.runs[0].losses)
            color, dash = SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]
            [line] = sketch.axes.plot(steps, values, color=color, linestyle=dash, linewidth=1.3)
            sketch.tell(line, f"{m.label}: {values[-1]:.4g} after {whole(m.runs[0].losses[-1][0] + 1)} steps")
            names.append((m.label, float(values[-1]), color))
            all_ += [v for v in values if v > 0]
        if min(all_) * 20 < max(all_):
            sketch.axes.set_yscale("log")
            sketch.axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            sketch.axes.minorticks_off()
        sketch.axes.set_xlim(0, max(m.runs[0].losses[-1][0] for m in drawn))
        sketch.axes.set_title("loss, nats per target", loc="left", fontsize=9, color=INK)
        sketch.axes.set_xlabel("optimizer steps")
        sketch.axes.grid(True, color=GRID)
        sketch.beside(names)
    return sketch.svg


def smooth(line: list[tuple[int, float]]) -> tuple[Any, Any]:
    """At most so many points, each the mean of as many steps."""
    parts = np.array_split(np.array(line, float), min(CURVE, max(2, len(line) // 3)))
    return np.array([p[:, 0].mean() for p in parts]), np.array([p[:, 1].mean() for p in parts])
