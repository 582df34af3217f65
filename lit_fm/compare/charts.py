"""The pictures of a comparison. Each is SVG, or empty where the runs hold nothing to draw."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_fm.compare.methods import Comparison, Method
from lit_fm.compare.sketch import GRID, INK, SERIES, SOFT, Sketch
from lit_fm.compare.table import duration, forgotten, whole
from lit_fm.compare.verdict import figure, points, words
from lit_fm.plan.quantity import short

NONE_LEARNS = 0.25
"""Where methods that learn nothing stand on the axis of parameters: so many decades left of the fewest."""
CURVE = 120
"""Points of a loss curve, each the mean of the steps around it."""
DASHES: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))


def charts(found: Comparison, chosen: Method | None) -> dict[str, tuple[str, str]]:
    """Heading and SVG of each picture by name."""
    made = {
        "parameters": ("Quality against learnable parameters", against_parameters(found, chosen)),
        "seconds": ("Quality against time", against_seconds(found, chosen)),
        "shots": ("Examples in the prompt, and fine-tuned methods beside it", by_shots(found)),
        "scale": ("Quality against the size of the backbone", by_scale(found)),
        "forgetting": ("Forgetting: change on tasks that were not trained", forgetting(found, chosen)),
        "losses": ("Training loss", losses(found)),
    }
    return {name: (heading, svg) for name, (heading, svg) in made.items() if svg}


def _axis(sketch: Sketch, found: Comparison, low: float | None = None) -> None:
    from matplotlib.ticker import FuncFormatter

    sketch.axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{points(found.metric, value):.4g}"))
    unit = " (%)" if "%" in figure(found.metric, 0) else ""
    sketch.axes.set_title(words(found.metric) + unit, loc="left", fontsize=9.5, color=INK)


def _told(found: Comparison, method: Method, more: str = "") -> str:
    low, high = (f"{points(found.metric, end):.1f}" for end in (method.low, method.high))
    return f"{method.label}: {figure(found.metric, method.mean)} [{low}, {high}]{more}"


def _color(method: Method, chosen: Method | None) -> str:
    """Of what is recommended, of prompting, and of what learns."""
    return SERIES[1] if method is chosen else SERIES[2] if method.shots is not None else SERIES[0]


def _scatter(found: Comparison, chosen: Method | None, sketch: Sketch, xs: dict[int, float], more: Any) -> None:
    drawn = [m for m in found.methods if id(m) in xs]
    for m in drawn:
        color, x = _color(m, chosen), xs[id(m)]
        sketch.axes.plot([x, x], [m.low, m.high], color=color, linewidth=1, alpha=0.55, solid_capstyle="butt")
        marker = "D" if m is chosen else "s" if m.shots is not None else "o"
        [point] = sketch.axes.plot([x], [m.mean], marker, color=color, markersize=7 if m is chosen else 5, zorder=4)
        sketch.tell(point, _told(found, m, more(m)))
    _axis(sketch, found)
    low, high = sketch.axes.get_ylim()
    sketch.axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    sketch.label([(m.label, (xs[id(m)], m.mean), _color(m, chosen)) for m in drawn])


def against_parameters(found: Comparison, chosen: Method | None) -> str:
    """Logarithmic; what learns nothing stands at the left edge."""
    learnt = {id(m): m.number("learnable_parameters") for m in found.methods}
    some = [n for n in learnt.values() if n]
    if not some or len(found.methods) < 2:
        return ""
    zero = 10 ** (np.floor(np.log10(min(some))) - NONE_LEARNS - 0.25)
    with Sketch(f"{words(found.metric)} of each method against its learnable parameters", "parameters") as sketch:
        ticks = [10.0**e for e in range(int(np.floor(np.log10(min(some)))), int(np.ceil(np.log10(max(some)))) + 1)]
        sketch.axes.set_xscale("log")
        none = any(n == 0 for n in learnt.values())
        sketch.axes.set_xlim((zero / 2 if none else min(some) / 2), max(some) * 3)
        sketch.axes.set_xticks([*([zero] if none else []), *ticks], [*(["0"] if none else []), *map(short, ticks)])
        sketch.axes.minorticks_off()
        sketch.axes.set_xlabel("learnable parameters")
        if none:
            sketch.axes.axvline(zero * 10 ** (NONE_LEARNS), color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)))
        xs = {key: n or zero for key, n in learnt.items() if n is not None}
        _scatter(found, chosen, sketch, xs, lambda m: f", {whole(learnt[id(m)] or 0)} parameters learn")
    return sketch.svg


def against_seconds(found: Comparison, chosen: Method | None) -> str:
    """Logarithmic where times are far apart."""
    taken = {id(m): s for m in found.methods if (s := m.number("seconds"))}
    if len(taken) < 2:
        return ""
    with Sketch(f"{words(found.metric)} of each method against the time that its run took", "seconds") as sketch:
        low, high = min(taken.values()), max(taken.values())
        if high > 8 * low:
            sketch.axes.set_xscale("log")
            sketch.axes.set_xlim(low / 1.6, high * 2)
            ticks = [t for d in range(-1, 7) for t in (10.0**d, 3 * 10.0**d) if low / 1.6 <= t <= high * 2]
            sketch.axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
            sketch.axes.minorticks_off()
        else:
            sketch.axes.set_xlim(0, high * 1.25)
        sketch.axes.set_xlabel("seconds")
        _scatter(found, chosen, sketch, taken, lambda m: f", {duration(taken[id(m)])}")
    return sketch.svg


def by_shots(found: Comparison) -> str:
    """A curve for each backbone and way to choose examples; a line across for each method that learns."""
    lines: dict[tuple[str, str], list[Method]] = defaultdict(list)
    zero = [m for m in found.methods if m.shots == 0]
    for m in found.methods:
        if m.shots:
            lines[m.backbone, m.name.partition("-shot")[2].strip(", ")].append(m)
    if not lines:
        return ""
    learnt = [m for m in found.methods if m.shots is None]
    title = f"{words(found.metric)} by the number of examples in the prompt, with fine-tuned methods as lines across"
    with Sketch(title, "shots", right=0.27) as sketch:
        names = []
        for i, ((backbone, way), methods) in enumerate(sorted(lines.items())):
            curve = sorted([*(z for z in zero if z.backbone == backbone), *methods], key=lambda m: m.shots or 0)
            xs, ys = [m.shots or 0 for m in curve], [m.mean for m in curve]
            color = SERIES[2 + i % 5]
            sketch.axes.fill_between(
                xs, [m.low for m in curve], [m.high for m in curve], color=color, alpha=0.18, linewidth=0
            )
            sketch.axes.plot(xs, ys, "s-", color=color, markersize=4, linewidth=1.6, zorder=4)
            for m in curve:
                [point] = sketch.axes.plot([m.shots or 0], [m.mean], "s", color=color, markersize=5, zorder=5)
                sketch.tell(point, _told(found, m))
            several = len({key[0] for key in lines}) > 1
            names.append((" ".join(filter(None, ("prompting", way, backbone if several else ""))), ys[-1], color))
        for m in learnt:
            line = sketch.axes.axhline(m.mean, color=SERIES[0], linewidth=1, linestyle=(0, (4, 2)))
            sketch.tell(line, _told(found, m))
            names.append((m.label, m.mean, SERIES[0]))
        shots = sorted({m.shots or 0 for m in found.methods if m.shots is not None})
        sketch.axes.set_xticks(shots, list(map(str, shots)))
        sketch.axes.set_xlim(-0.02 * shots[-1], shots[-1])
        sketch.axes.set_xlabel("examples in the prompt")
        _axis(sketch, found)
        sketch.beside(names)
    return sketch.svg


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
                sketch.tell(point, _told(found, m, f", backbone of {short(x)} parameters"))
            names.append((name, line[-1][1].mean, color))
        sketch.axes.set_xscale("log")
        sketch.axes.set_xticks(sizes, list(map(short, sizes)))
        sketch.axes.minorticks_off()
        sketch.axes.set_xlim(sizes[0] / 1.3, sizes[-1])
        sketch.axes.set_xlabel("parameters of the backbone")
        _axis(sketch, found)
        sketch.beside(names)
    return sketch.svg


def forgetting(found: Comparison, chosen: Method | None) -> str:
    """A bar for the mean change of each method, and a mark at its worst task."""
    known = [(m, change) for m in found.methods if (change := forgotten(m, "mean")) is not None]
    if not known:
        return ""
    known.sort(key=lambda pair: pair[1])
    height = max(1.9, 0.75 + 0.22 * len(known))
    title = "Mean change of each method on tasks that were not trained, in points, and on its worst task"
    with Sketch(title, "forgetting", height=height, left=0.3, right=0.04) as sketch:
        for y, (m, change) in enumerate(known):
            [bar] = sketch.axes.barh([y], [100 * change], color=_color(m, chosen), height=0.6, alpha=0.85)
            sketch.tell(bar, f"{m.label}: {100 * change:+.1f} points on average; {_tasks(m)}")
            if (worst := forgotten(m, "worst")) is not None:
                sketch.axes.plot([100 * worst], [y], "|", color=INK, markersize=9, markeredgewidth=1.6, zorder=4)
        sketch.axes.axvline(0, color=SOFT, linewidth=1)
        sketch.axes.set_yticks(range(len(known)), [m.label for m, _ in known])
        sketch.axes.tick_params(axis="y", length=0)
        sketch.axes.grid(False, axis="y")
        sketch.axes.set_xlabel("points, mean (bar) and worst task (mark)")
    return sketch.svg


def _tasks(method: Method) -> str:
    tasks = method.runs[0].forgetting.get("tasks") or {}
    return ", ".join(f"{name} {100 * about['change']:+.1f}" for name, about in tasks.items() if "change" in about)


def losses(found: Comparison) -> str:
    """Of the first seed of each method that learnt, smoothed."""
    drawn = [m for m in found.methods if len(m.runs[0].losses) > 1]
    if not drawn:
        return ""
    with Sketch("Training loss of each method over optimizer steps", "losses", right=0.27) as sketch:
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
        sketch.axes.set_xlim(0, max(m.runs[0].losses[-1][0] for m in drawn))
        sketch.axes.set_title("loss, nats per target", loc="left", fontsize=9.5, color=INK)
        sketch.axes.set_xlabel("optimizer steps")
        sketch.axes.grid(True, color=GRID)
        sketch.beside(names)
    return sketch.svg


def smooth(line: list[tuple[int, float]]) -> tuple[Any, Any]:
    """At most so many points, each the mean of as many steps."""
    parts = np.array_split(np.array(line, float), min(CURVE, max(2, len(line) // 3)))
    return np.array([p[:, 0].mean() for p in parts]), np.array([p[:, 1].mean() for p in parts])
