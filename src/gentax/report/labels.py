"""Where names of points go, so that they cover neither one another nor what is drawn.

Each name in turn takes the place about its point that covers least; a name that had to go far is tied to its point by
a thin line. Greedy, in the order given, without random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes as Panel

from gentax.metrics.statistics import Estimate

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels
REACH = (9.0, 18.0, 30.0, 46.0)  # pixels from a point to the nearest edge of its name
TIED = 20.0  # pixels beyond which a name is tied to its point
_ROUND = [math.radians(degrees) for degrees in (45, 135, 315, 225, 0, 180, 90, 270)]


class Label(NamedTuple):
    """A name, the point it belongs to with its intervals, its colour, and where an arrow to the point begins."""

    name: str
    x: Estimate
    y: Estimate
    ink: str
    start: tuple[float, float] | None = None


def place(panel: Panel, labels: Sequence[Label], size: float = 9.5) -> None:
    """Write each name beside its point. Names are never parsed as mathematics."""
    panel.figure.draw_without_rendering()  # fixes the layout, and so the transform from data to pixels
    pixels = panel.transData.transform
    inside = panel.get_window_extent()
    frame = (inside.x0, inside.y0, inside.x1, inside.y1)
    points = 72 / panel.figure.dpi  # in a pixel: the figure may be saved at another resolution
    at = [pixels((x.value, y.value)) for _, x, y, *_ in labels]
    taken: list[Box] = [(px - 6, py - 6, px + 6, py + 6) for px, py in at]
    bars: list[Box] = []
    for (_, x, y, _, start), (px, py) in zip(labels, at, strict=True):
        (left, _), (right, _) = pixels((max(x.low, x.value / 10), y.value)), pixels((x.high, y.value))
        (_, low), (_, high) = pixels((x.value, y.low)), pixels((x.value, y.high))
        bars += [(left, py - 1, right, py + 1), (px - 1, low, px + 1, high)]
        if start is not None:
            bars += _along(pixels(start), (px, py))
    for (name, x, y, ink, _), (px, py) in zip(labels, at, strict=True):
        text = panel.annotate(
            name, (x.value, y.value), (0, 0), textcoords="offset points", size=size, color=ink,
            ha="center", va="center", parse_math=False, zorder=5,
        )  # fmt: skip
        extent = text.get_window_extent()
        width, height = extent.width + 4, extent.height + 2
        best, away = min(
            ((_about(px, py, angle, reach, width, height), reach) for reach in REACH for angle in _ROUND),
            key=lambda found: _cost(found[0], taken, bars, frame) + found[1],
        )
        taken.append(best)
        dx, dy = (best[0] + best[2]) / 2 - px, (best[1] + best[3]) / 2 - py
        text.set_position((dx * points, dy * points))
        if away > TIED:
            dx, dy = min(max(px, best[0]), best[2]) - px, min(max(py, best[1]), best[3]) - py
            panel.annotate(
                "", (x.value, y.value), (dx * points, dy * points), textcoords="offset points", zorder=2,
                arrowprops={"arrowstyle": "-", "color": ink, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
            )  # fmt: skip


def _along(begin: tuple[float, float], end: tuple[float, float], parts: int = 30) -> list[Box]:
    """Return small boxes that follow a line."""
    places = [
        (begin[0] + (end[0] - begin[0]) * i / parts, begin[1] + (end[1] - begin[1]) * i / parts)
        for i in range(parts + 1)
    ]
    return [(x - 2, y - 2, x + 2, y + 2) for x, y in places]


def _about(px: float, py: float, angle: float, reach: float, width: float, height: float) -> Box:
    """Return the box of a name in the direction `angle` of its point, its nearest edge `reach` away."""
    across, up = math.cos(angle), math.sin(angle)
    x = px + across * reach + (width / 2) * (0 if abs(across) < 0.1 else math.copysign(1, across))
    y = py + up * reach + (height / 2) * (0 if abs(up) < 0.1 else math.copysign(1, up))
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _cost(box: Box, taken: Sequence[Box], bars: Sequence[Box], frame: Box) -> float:
    """Return how bad a place is: names and points covered weigh most, then leaving the panel, then bars crossed."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    out = area - _common(box, frame)
    return sum(_common(box, other) for other in taken) + 3 * out + sum(_common(box, bar) > 0 for bar in bars) * 15


def _common(a: Box, b: Box) -> float:
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(tall, 0.0)
