"""Pictures that stand in a page: SVG whose colours are the page's, with real text, and numbers under the pointer."""

import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from lit_fm.plan.labels import Labels

INK, SOFT, GRID = "#000001", "#000002", "#000003"
SERIES = tuple(f"#0000a{i}" for i in range(7))
"""Colours that stand for the page's own, which change with light and dark."""
THEME = {INK: "var(--ink)", SOFT: "var(--soft)", GRID: "var(--grid)", "#999999": "var(--soft)"} | {
    color: f"var(--c{i})" for i, color in enumerate(SERIES)
}
SIZE = 4.5, 3.3
"""Inches, of 72 points each: as wide as a phone, so that text there has the size that it is drawn in."""
LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lit_fm",  # ids that are the same every time
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
SMALL = 8.3
LEADER = {"arrowstyle": "-", "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}


class Sketch:
    """A figure to draw in, as `with Sketch(title) as sketch`, and then `sketch.svg`.

    Args:
        title: what it shows, for those who cannot see it.
        right: the share of the width that is left for names beside the axes.
    """

    def __init__(
        self, title: str, name: str, right: float = 0.03, height: float = SIZE[1], left: float = 0.13, top: float = 0.3
    ) -> None:
        self.title, self.name, self.told = title, name, dict[str, str]()
        self.place = (left, 0.5 / height, 1 - left - right, 1 - (0.5 + top) / height)
        self.height, self.svg = height, ""

    def __enter__(self) -> "Sketch":
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._context = matplotlib.rc_context(LOOK)
        self._context.__enter__()
        self.figure = Figure(figsize=(SIZE[0], self.height), dpi=72)
        FigureCanvasAgg(self.figure)  # which can tell how large a text is
        self.axes = self.figure.add_axes(self.place)
        return self

    def __exit__(self, *error: Any) -> None:
        if not error[0]:
            file = io.StringIO()
            self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            self.svg = self._themed(file.getvalue())
        self._context.__exit__(*error)

    def tell(self, artist: Any, text: str) -> None:
        """What is shown while a pointer is on it."""
        self.told[key := f"told{len(self.told)}"] = text
        artist.set_gid(key)

    def beside(self, names: Sequence[tuple[str, float, str]], pitch: float = 10.5) -> None:
        """Names at the right edge, each as near to its height (name, y, colour) as the others allow."""
        self.figure.draw_without_rendering()
        bottom, top = self.axes.bbox.y0, self.axes.bbox.y1
        wanted = sorted((self._pixel(y), name, color, y)
                        for name, y, color in names)  # fmt: skip
        places = spread([w[0] for w in wanted], pitch, bottom, max(top, bottom + pitch * len(wanted)))
        for (_, name, color, y), place in zip(wanted, places, strict=True):
            at = (place - bottom) / (top - bottom)
            self.axes.annotate(
                name, (1, y), (1.045, at), self.axes.get_yaxis_transform(), "axes fraction", fontsize=SMALL, color=color,
                va="center", annotation_clip=False,
                arrowprops={"color": color, **LEADER},
            )  # fmt: skip

    def _pixel(self, y: float) -> float:
        return float(self.axes.transData.transform((self.axes.get_xlim()[0], y))[1])

    def label(self, names: Sequence[tuple[str, tuple[float, float], str]]) -> None:
        """Names at their points, none over another."""
        labels = Labels(self.figure, self.axes, [at for _, at, _ in names])
        for name, at, color in sorted(names, key=lambda item: item[1]):
            labels.put(name, at, color, SMALL)

    def _themed(self, svg: str) -> str:
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
        svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{self.name}-", svg)
        svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', self._head, svg, count=1)
        for key, text in self.told.items():
            svg = svg.replace(f'<g id="{self.name}-{key}">', f'<g id="{self.name}-{key}"><title>{escape(text)}</title>')
        svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
        return re.sub("|".join(THEME), lambda found: THEME[found[0]], svg)

    def _head(self, found: re.Match[str]) -> str:
        return (
            f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="{found[1]}" role="img" aria-label="{escape(self.title, quote=True)}">'
        )


def margin(names: Iterable[str]) -> float:
    """The share of a picture's width that names take beside the axes."""
    return min(0.45, 0.08 + 0.0165 * max(map(len, names)))


def spread(wanted: Sequence[float], pitch: float, low: float, high: float) -> list[float]:
    """Rising places as near to those that are wanted as `pitch` between neighbours allows, from `low` to `high`."""
    groups: list[list[float]] = []  # of each: the sum of where its members would have it begin, and their number
    for place in wanted:
        groups.append([place, 1.0])
        while (
            len(groups) > 1
            and _start(groups[-1], pitch, low, high) < _start(groups[-2], pitch, low, high) + pitch * groups[-2][1]
        ):
            total, number = groups.pop()
            groups[-1][0] += total - number * pitch * groups[-1][1]
            groups[-1][1] += number
    return [_start(g, pitch, low, high) + pitch * i for g in groups for i in range(int(g[1]))]


def _start(group: list[float], pitch: float, low: float, high: float) -> float:
    return max(low, min(group[0] / group[1], high - pitch * (group[1] - 1)))
