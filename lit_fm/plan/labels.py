"""Names beside points in a picture, none over another."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np

DISTANCES = (5, 11, 18, 26, 36, 48, 62, 78, 96)
"""From the point to the name, in points."""
NEAR = 11
"""Up to so far, a name needs no line."""
DIRECTIONS = [
    *product((1, -1), (1, -1)),
    (1, 0),
    (-1, 0),
    (0, 1),
    (0, -1),
    *product((2, -2), (1, -1)),
    (1, 2),
    (-1, -2),
]


class Labels:
    """Puts each name where nothing stands yet, as near to its point as that allows; a thin line leads there from afar.

    Args:
        figure, axes: with all else in them: where things are is fixed from now on.
        points: what no name may cover. Lines are covered where nothing else is left.
    """

    def __init__(self, figure: Any, axes: Any, points: Iterable[tuple[float, float]]) -> None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        self.axes, self.renderer, self.scale = axes, figure.canvas.get_renderer(), figure.dpi / 72
        radius = 4 * self.scale
        self.points = np.array([axes.transData.transform(point) for point in points]).reshape(-1, 2)
        self.taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in self.points]
        self.lines = np.concatenate([along(axes.transData.transform(line.get_xydata())) for line in axes.lines])
        self.leaders = np.empty((0, 2))
        if legend := axes.get_legend():
            self.taken.append(legend.get_window_extent(self.renderer).extents)

    def put(self, name: str, at: tuple[float, float], color: Any, size: float) -> None:
        """A name for a point."""
        looks = {"fontsize": size, "color": color, "ha": "center", "va": "center", "zorder": 6}
        text = self.axes.annotate(name, at, xytext=(0, 0), textcoords="offset points", **looks)
        extent = text.get_window_extent(self.renderer)
        half = np.array([extent.width / 2 + self.scale, extent.height / 2])
        point = self.axes.transData.transform(at)

        def cost(place: tuple[float, tuple[int, int]]) -> tuple[float, float]:
            box = self.box(point, half, *place)
            covered = sum(overlap(box, other) for other in self.taken)
            covered += 4 * half.prod() - overlap(box, self.axes.bbox.extents)
            crossed = within(self.lines, box) / 2 + 4 * within(self.leaders, box)
            if place[0] > NEAR:
                leader = along(np.array([point, (box[0] + half[0], box[1] + half[1])]))
                crossed += 4 * sum(within(leader, other) for other in self.taken)
            return round(covered), place[0] + crossed  # rounded: what is left of a subtraction is no overlap

        away, direction = min(product(DISTANCES, DIRECTIONS), key=cost)
        left, bottom, right, top = self.box(point, half, away, direction)
        self.taken.append((left, bottom, right, top))
        start = ((left + right) / 2 - point[0]) / self.scale, ((bottom + top) / 2 - point[1]) / self.scale
        text.set_position(start)
        if away > NEAR:
            line = {
                "arrowstyle": "-",
                "color": "0.6",
                "linewidth": 0.6,
                "shrinkA": self.reach(half, start),
                "shrinkB": 2,
            }
            self.axes.annotate("", at, xytext=start, textcoords="offset points", arrowprops=line)
            self.leaders = np.concatenate(
                [self.leaders, along(np.array([point, self.scale * np.array(start) + point]))]
            )

    def box(self, point: Any, half: Any, away: float, direction: tuple[int, int]) -> tuple[float, ...]:
        """Left, bottom, right, top of a text of twice `half` whose nearest edge is so far from a point that way."""
        way = np.array(direction)
        centre = point + way / np.hypot(*way) * away * self.scale + np.sign(way) * half
        return (*(centre - half), *(centre + half))

    def reach(self, half: Any, offset: Any) -> float:
        """From the middle of a text to its edge, towards its point, in points."""
        width, height = np.abs(offset) / (half / self.scale)
        return float(np.hypot(*offset) / max(width, height)) + 1


def along(corners: Any) -> Any:
    """Points on a line through these, four pixels apart: (n, 2)."""
    lengths = np.concatenate([[0], np.hypot(*np.diff(corners, axis=0).T).cumsum()])
    steps = np.arange(0, lengths[-1], 4)
    return np.stack([np.interp(steps, lengths, values) for values in corners.T], axis=1)


def within(points: Any, box: Any) -> int:
    """How many points lie in a box."""
    x, y = points.T
    return int(((box[0] < x) & (x < box[2]) & (box[1] < y) & (y < box[3])).sum())


def overlap(one: Any, other: Any) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return across * up if across > 0 and up > 0 else 0.0
