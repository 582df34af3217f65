"""The pictures of a comparison. Each is SVG, or empty where the runs hold nothing to draw."""

from dataclasses import replace
from typing import Any

import numpy as np

from lit_fm.compare import curves
from lit_fm.compare.curves import axis, told
from lit_fm.compare.methods import Comparison, Method
from lit_fm.compare.sketch import INK, SERIES, SOFT, Sketch, margin
from lit_fm.compare.table import duration, forgotten, whole
from lit_fm.compare.verdict import points, words
from lit_fm.plan.quantity import short

NONE_LEARNS = 0.25
"""Where methods that learn nothing stand on the axis of parameters: so many decades left of the fewest."""
MOST = 16
"""Methods in a picture."""


def charts(found: Comparison, chosen: Method | None) -> dict[str, tuple[str, str]]:
    """Heading and SVG of each picture by name. Of several backbones, only one picture shows more than one."""
    part, of, chosen = few(found, chosen)
    made = {
        "parameters": (f"Quality against learnable parameters{of}", against_parameters(part, chosen)),
        "seconds": (f"Quality against time{of}", against_seconds(part, chosen)),
        "scale": ("Quality against the size of the backbone", curves.by_scale(found)),
        "shots": (f"Examples in the prompt, with fine-tuned methods as lines across{of}", curves.by_shots(part)),
        "forgetting": (f"Forgetting: change on tasks that were not trained{of}", forgetting(part, chosen)),
        "losses": (f"Training loss{of}", curves.losses(part)),
    }
    return {name: (heading, svg) for name, (heading, svg) in made.items() if svg}


def few(found: Comparison, chosen: Method | None) -> tuple[Comparison, str, Method | None]:
    """As many methods as a picture holds, the best ones of one backbone with the chosen one; what these are, and it."""
    backbone = (chosen or found.best).backbone
    several = len({m.backbone for m in found.methods}) > 1
    own = [m for m in found.methods if m.backbone == backbone]
    kept = {id(m): replace(m, label=m.name) if several else m for i, m in enumerate(own) if i < MOST or m is chosen}
    of = (f", on {backbone}" if several else "") + (f", the best {len(kept)}" if len(kept) < len(own) else "")
    return found._replace(methods=list(kept.values())), of, kept.get(id(chosen))


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
        sketch.tell(point, told(found, m, more(m)))
    axis(sketch, found)
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


def forgetting(found: Comparison, chosen: Method | None) -> str:
    """A bar for the mean change of each method, and a mark at its worst task."""
    known = [(m, change) for m in found.methods if (change := forgotten(m, "mean")) is not None]
    if not known:
        return ""
    known.sort(key=lambda pair: pair[1])
    height = max(1.9, 0.75 + 0.22 * len(known))
    title = "Mean change of each method on tasks that were not trained, in points, and on its worst task"
    with Sketch(
        title, "forgetting", height=height, left=margin([m.label for m, _ in known]), right=0.04, top=0.08
    ) as sketch:
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
    return ", ".join(f"{name} {points(about['metric'], about['change']):+.1f}" for name, about in tasks.items())
