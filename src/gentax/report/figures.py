"""Figures as inline SVG, drawn with matplotlib's Figure objects (no pyplot, no global state).

Text that comes from data is never parsed as mathematics (`parse_math=False`). The same data give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gentax.metrics.statistics import Estimate, Undefined
from gentax.report.palette import LIGHT
from gentax.report.svg import inline
from gentax.report.text import one_line

POINTS = 400  # of a curve drawn at most; longer ones are thinned evenly
WIDTH = 4.9  # inches of a plot that has a row of the page: its text stays legible at 400 pixels
LINES = ("line1", "line2", "line3", "line4", "line5")


def curve_panel(
    title: str,
    series: Sequence[tuple[Sequence[float], Sequence[float], int, bool]],
    percent: bool = False,
    whole: bool = False,
) -> Markup:
    """Draw one metric of a group of runs against training steps.

    Args:
        series: (steps, values, index of the run's colour, whether it is measured now and then, and so marked).
        percent: whether values are fractions to be shown as percent.
        whole: whether the axis goes from 0 to 100 % whatever the values.
    """
    figure, panel = _panel(2.9, 1.85)
    for steps, values, colour, marked in series:
        x, y = np.asarray(steps, float), np.asarray(values, float) * (100 if percent else 1)
        keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
        x, y, ink = x[keep], y[keep], LIGHT[LINES[colour % len(LINES)]]
        if marked:
            panel.plot(x, y, "o--", color=ink, markersize=5, linewidth=0.9, markerfacecolor=LIGHT["card"], zorder=4)
        elif len(x) >= 20:
            panel.plot(x, y, color=ink, alpha=0.3, linewidth=0.8)
            panel.plot(x, _running_mean(y, max(3, len(x) // 12)), color=ink, linewidth=1.6, zorder=3)
        else:
            panel.plot(x, y, color=ink, linewidth=1.4)
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    if percent:
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter("{x:g} %")
    if whole:
        panel.set_ylim(-3, 103)
        panel.set_yticks([0, 50, 100])
    return inline(figure, title)


def forest(
    rows: Sequence[tuple[str, Estimate | Undefined]], label: str, scale: float, free: float | None = None
) -> Markup:
    """Draw estimates as dots with their intervals, one row each, against 0.

    Args:
        rows: (name, estimate); rows whose estimate is undefined say so.
        scale: what estimates are multiplied with.
        free: half the width of the band about 0 that counts as free, after scaling.
    """
    figure, panel = _panel(WIDTH, 0.5 + 0.31 * len(rows))
    panel.axvline(0, color=LIGHT["soft"], linewidth=1)
    if free is not None:
        panel.axvspan(-free, free, color=LIGHT["faint"], zorder=0)
    for y, (_, estimate) in enumerate(rows):
        if isinstance(estimate, Undefined):
            panel.text(0, y, "  undefined", color=LIGHT["soft"], va="center", style="italic")
            continue
        low, value, high = (scale * x for x in (estimate.low, estimate.value, estimate.high))
        ink = _ink(estimate)
        panel.plot([low, high], [y, y], color=ink, linewidth=2.2, solid_capstyle="round", zorder=3)
        face = LIGHT["card"] if low <= 0 <= high else ink
        panel.plot([value], [y], "o", color=ink, markerfacecolor=face, markersize=7, markeredgewidth=1.6, zorder=4)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_yticks(range(len(rows)), [""] * len(rows))
    for y, (name, _) in enumerate(rows):
        where = panel.get_yaxis_transform()
        panel.text(
            -0.015,
            y,
            one_line(name, 34),
            transform=where,
            ha="right",
            va="center",
            color=LIGHT["ink"],
            parse_math=False,
        )
    panel.grid(axis="x", color=LIGHT["line"], linewidth=0.6)
    panel.set_xlabel(label, color=LIGHT["soft"], size=9)
    return inline(figure, label)


def gain_and_tax(points: Sequence[tuple[str, Estimate, Estimate]], free: float) -> Markup:
    """Draw each arm's gain at home (points) against its tax elsewhere (fractions, drawn as percent), with intervals.

    Args:
        points: (name, gain, tax).
        free: half the width of the band about a tax of 0 that counts as free, percent.
    """
    figure, panel = _panel(WIDTH, 3.3)
    panel.axhspan(-free, free, color=LIGHT["faint"], zorder=0)
    panel.axhline(0, color=LIGHT["soft"], linewidth=0.8, zorder=1)
    panel.axvline(0, color=LIGHT["soft"], linewidth=0.8, zorder=1)
    placed = []
    for name, x, tax in points:
        y = replace(tax, value=100 * tax.value, low=100 * tax.low, high=100 * tax.high)
        ink = _ink(tax)
        panel.plot([x.low, x.high], [y.value, y.value], color=ink, linewidth=1.4, zorder=3)
        panel.plot([x.value, x.value], [y.low, y.high], color=ink, linewidth=1.4, zorder=3)
        face = LIGHT["card"] if tax.holds(0) else ink
        panel.plot([x.value], [y.value], "o", color=ink, markerfacecolor=face, markersize=7.5, zorder=4)
        placed.append((one_line(name, 24), x, y))
    panel.margins(0.1, 0.12)
    panel.grid(color=LIGHT["line"], linewidth=0.6)
    panel.yaxis.set_major_formatter("{x:g} %")
    panel.set_xlabel("gain at home, points (right is better)", color=LIGHT["soft"], size=9)
    panel.set_ylabel("tax elsewhere (down is better)", color=LIGHT["soft"], size=9)
    _name_points(panel, placed)
    return inline(figure, "Gain at home against tax elsewhere")


def scatter(points: Sequence[tuple[str, Estimate, Estimate]], x_label: str, y_label: str) -> Markup:
    """Draw named points with interval bars both ways; x on a logarithmic axis when it spans more than a factor of 8."""
    figure, panel = _panel(WIDTH, 3.3)
    smallest = min(x.value for _, x, _ in points)
    if smallest > 0 and max(x.value for _, x, _ in points) > 8 * smallest:
        panel.set_xscale("log")
    for _, x, y in points:
        bars = {"xerr": [[x.value - x.low], [x.high - x.value]], "yerr": [[y.value - y.low], [y.high - y.value]]}
        ink = LIGHT["line1"]
        panel.errorbar([x.value], [y.value], fmt="o", color=ink, ecolor=ink, elinewidth=1.2, markersize=6, **bars)
    panel.margins(0.18, 0.15)
    panel.grid(color=LIGHT["line"], linewidth=0.6)
    panel.set_xlabel(x_label, color=LIGHT["soft"], size=9)
    panel.set_ylabel(y_label, color=LIGHT["soft"], size=9)
    _name_points(panel, [(one_line(name, 24), x, y) for name, x, y in points])
    return inline(figure, f"{y_label} against {x_label}")


def finite(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of the rows that have a finite `key`; a row without `step` counts from 1."""
    steps, values = [], []
    for number, row in enumerate(rows, 1):
        value = row.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            steps.append(float(row.get("step", number)))
            values.append(float(value))
    return steps, values


def _ink(lost: Estimate) -> str:
    """Return the colour of a loss: by its sign where the interval leaves out 0."""
    return LIGHT["soft"] if lost.holds(0) else LIGHT["loss"] if lost.value > 0 else LIGHT["gain"]


def _panel(width: float, height: float) -> tuple[Figure, Panel]:
    figure = Figure(figsize=(width, height), layout="constrained")
    panel = figure.add_subplot()
    figure.patch.set_visible(False)
    panel.patch.set_visible(False)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(LIGHT["line"])
    panel.tick_params(colors=LIGHT["soft"], length=0, labelsize=9)
    panel.grid(axis="y", color=LIGHT["line"], linewidth=0.6)
    panel.set_axisbelow(True)
    return figure, panel


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Return the centred running mean; at the ends over what there is."""
    ones = np.ones(min(width, len(y)))
    return np.convolve(y, ones, "same") / np.convolve(np.ones(len(y)), ones, "same")


def _name_points(panel: Panel, points: Sequence[tuple[str, Estimate, Estimate]]) -> None:
    """Write each name at the first of four corners of its point that no name or point is in yet."""
    panel.figure.draw_without_rendering()  # fixes the transform from data to pixels
    at = [panel.transData.transform((x.value, y.value)) for _, x, y in points]
    frame = panel.get_window_extent().extents
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in at]
    corners = (("left", "bottom", 1, 1), ("right", "bottom", -1, 1), ("left", "top", 1, -1), ("right", "top", -1, -1))
    for (name, x, y), (px, py) in zip(points, at, strict=True):
        width, height = 6.5 * len(name), 14.0
        boxes = []
        for _, _, dx, dy in corners:
            left = px + 7 if dx > 0 else px - 7 - width
            low = py + 4 if dy > 0 else py - 4 - height
            boxes.append((left, low, left + width, low + height))
        out = [width * height - _overlap(box, frame) for box in boxes]  # what leaves the panel may be cut off
        best = min(range(4), key=lambda i: (sum(_overlap(boxes[i], other) for other in taken) + out[i], i))
        taken.append(boxes[best])
        across, up, dx, dy = corners[best]
        panel.annotate(
            name, (x.value, y.value), (7 * dx, 4 * dy), textcoords="offset points", ha=across, va=up,
            color=LIGHT["ink"], parse_math=False,
        )  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(tall, 0.0)
