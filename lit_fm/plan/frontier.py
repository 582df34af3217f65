"""Pictures of a law: loss over compute for several sizes, and the compute-optimal frontier, with trained models."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lit_fm.cards import read_card
from lit_fm.plan.labels import Labels
from lit_fm.plan.quantity import short
from lit_fm.plan.scaling import LAWS, PETAFLOP_DAY, Budget, Law, find_law, third
from lit_fm.zoo import entries

COMPUTE = (1e18, 1e26)
"""FLOPs that the pictures span, if the budget lies there too; models outside are left out."""
PARAMETERS = (3e7, 3e12)
SIZES = (1e8, 4e8, 1e9, 3e9, 1e10, 3e10, 7e10, 1.75e11, 5e11)
PER_PARAMETER = (1.0, 1000.0)
"""Tokens a parameter from which to which a size's curve goes."""
TICKS = (1.5, 1.6, 1.7, 1.75, 1.8, 1.85, 1.9, 1.95, 2.0, 2.1, 2.2, 2.4, 2.6, 2.8, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0)


def trained() -> dict[str, Budget]:
    """Models of the zoo whose cards tell `parameters` and `tokens`; only causal language models, of which the laws are."""
    found = {}
    for name, folder in entries().items():
        facts = read_card(folder).facts
        if facts["objective"] == "causal" and facts["parameters"] and facts["tokens"]:
            found[name] = third(facts["parameters"], facts["tokens"])
    return found


def draw_loss(law: str, models: Mapping[str, Budget], mine: Budget, path: Path) -> None:
    """Expected loss over compute: a curve for each size, the loss at the law's optimum, and the models."""
    chosen = find_law(law)
    floor = chosen.floor
    figure, axes, grid = sheet(f"Expected loss over training compute: {chosen.title}", mine)
    own = (mine.compute, above_floor(chosen, mine))
    best = [above_floor(chosen, chosen.optimum(compute=c)) for c in grid]
    axes.set_yscale("log")
    low, high = wide((min(best), max(best)), own[1], 1.2)
    margin = (high / low) ** 0.06
    axes.set_ylim(low / margin, high * margin)
    axes.plot(grid, best, color="0.15", linewidth=2, linestyle="--", label=f"optimum: {chosen.title}", zorder=3)
    ends: dict[str, tuple[float, float, Any]] = {}
    for place, size in enumerate(SIZES):
        curve = [third(size, size * ratio) for ratio in spread(*PER_PARAMETER, 80)]
        losses = [above_floor(chosen, budget) for budget in curve]
        color = tint(place / (len(SIZES) - 1))
        axes.plot([b.compute for b in curve], losses, color=color, linewidth=1.4, zorder=2)
        seen = [
            (b.compute, y)
            for b, y in zip(curve, losses, strict=True)
            if y < high * margin and b.compute > 1.2 * grid[0]
        ]
        ends |= {short(size): (*point, color) for point in seen[:1]}
    axes.yaxis.set_major_locator(fixed(apart([tick - floor for tick in TICKS if tick > floor], (high / low) ** 0.04)))
    axes.yaxis.set_minor_locator(fixed(()))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value + floor:.4g}")
    above = f"; logarithmic above {floor:.2f}" if floor else ""
    axes.set_ylabel(f"expected loss, nats a token ({chosen.loss_of}{above})")
    points = {name: (budget.compute, above_floor(chosen, budget)) for name, budget in models.items()}
    finish(figure, axes, points, own, path, ends)


def above_floor(law: Law, budget: Budget) -> float:
    """What a budget leaves to be learnt: along the optimum, a straight line where both axes are logarithmic."""
    return law.loss(budget.parameters, budget.tokens) - law.floor


def draw_frontier(law: str, models: Mapping[str, Budget], mine: Budget, path: Path) -> None:
    """Optimal parameters over compute by each law, the chosen one thick; the models; and lines of as many tokens."""
    find_law(law)
    figure, axes, grid = sheet("Compute-optimal parameters, and models that were trained", mine)
    styles = dict(zip(LAWS, ("-", (0, (5, 1)), (0, (3, 2)), "-.", ":", (0, (1, 1))), strict=True))
    for place, (name, one) in enumerate(LAWS.items()):
        sizes = [one.optimum(compute=c).parameters for c in grid]
        width = 2.6 if name == law else 1.3
        axes.plot(grid, sizes, color=f"C{place}", linestyle=styles[name], linewidth=width, label=one.title, zorder=2)
    axes.set_yscale("log")
    low, high = wide(PARAMETERS, mine.parameters, 3)
    axes.set_ylim(low, high)
    edges = {}
    for tokens in (1e10, 1e11, 1e12, 1e13):
        line = [third(tokens=tokens, compute=c) for c in (grid[0], grid[-1])]
        axes.plot([b.compute for b in line], [b.parameters for b in line], color="0.85", linewidth=0.8, zorder=1)
        end = third(tokens=tokens, parameters=2 * low)
        edges[f"{short(tokens)} tokens"] = (end.compute, end.parameters, "0.55")
    axes.set_ylabel("parameters")
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    points = {name: (b.compute, b.parameters) for name, b in models.items()}
    finish(figure, axes, points, (mine.compute, mine.parameters), path, edges, "upper left")


def sheet(title: str, mine: Budget) -> tuple[Any, Any, list[float]]:
    """A figure with compute along it, in FLOPs and in petaflop/s-days, and FLOPs from end to end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # Not pyplot: a figure of its own needs no display.

    figure = Figure(figsize=(11, 7.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # which can tell how large a text is
    axes = figure.subplots()
    axes.set_xscale("log")
    ends = wide(COMPUTE, mine.compute, 3)
    axes.set_xlim(*ends)
    axes.set_xlabel("training compute, FLOPs")
    above = axes.secondary_xaxis(
        "top", functions=(partial(np.multiply, 1 / PETAFLOP_DAY), partial(np.multiply, PETAFLOP_DAY))
    )
    above.set_xlabel("petaflop/s-days")
    above.spines["top"].set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.suptitle(title)
    return figure, axes, spread(*ends, 200)


def finish(
    figure: Any,
    axes: Any,
    points: Mapping[str, tuple[float, float]],
    mine: tuple[float, float],
    path: Path,
    ends: Mapping[str, tuple[float, float, Any]],
    corner: str = "upper right",
) -> None:
    """Put in the models, the budget that was asked for, and all names, none over another; save."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    inside = {n: (x, y) for n, (x, y) in points.items() if left <= x <= right and low <= y <= high}
    if inside:
        xs, ys = zip(*inside.values(), strict=True)
        axes.scatter(xs, ys, s=22, color="0.2", edgecolor="white", linewidth=0.6, label="trained models", zorder=4)
    axes.scatter(*mine, s=170, marker="*", color="C3", edgecolor="white", label="this budget", zorder=5)
    axes.legend(loc=corner, frameon=False)
    labels = Labels(figure, axes, [*inside.values(), mine])
    for name, (x, y, color) in ends.items():
        labels.put(name, (x, y), color, 9)
    for name, at in sorted(inside.items(), key=lambda item: item[1]):
        labels.put(name, at, "0.15", 8)
    figure.savefig(path, format="png")


def wide(ends: tuple[float, float], value: float, margin: float) -> tuple[float, float]:
    """These ends, moved so that the value is as far inside as this factor."""
    return min(ends[0], value / margin), max(ends[1], value * margin)


def spread(low: float, high: float, number: int) -> list[float]:
    """So many values, each the same factor from the next."""
    return [float(value) for value in np.geomspace(low, high, number)]


def apart(values: Sequence[float], factor: float) -> list[float]:
    """Of rising values, those that are at least so many times the one before."""
    kept = [values[0]]
    for value in values:
        kept += [value] * (value >= factor * kept[-1])
    return kept


def tint(share: float) -> Any:
    """Of a size, from the smallest (0) to the largest (1): dark enough on white."""
    from matplotlib import colormaps

    return colormaps["viridis"](0.85 * (1 - share))


def fixed(ticks: Sequence[float]) -> Any:
    """Ticks just there."""
    from matplotlib.ticker import FixedLocator

    return FixedLocator(ticks)
