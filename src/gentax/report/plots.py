"""Plots that stand alone, as SVG, PNG or PDF: domains on the two axes, and matrices of domains by domains.

Figures for a page are in `figures`; these have a ground of their own and their text as shapes, so that they look the
same wherever they are put. Names come from outside: they are made visible and never parsed as mathematics. The same
data give the same bytes.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes as Panel
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from gentax.core.errors import UsageError
from gentax.core.files import whole_file
from gentax.metrics.statistics import Estimate
from gentax.report.labels import Label, place
from gentax.report.palette import LIGHT
from gentax.report.text import one_line

SUFFIXES = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}  # with what would differ each time
LINES = ("line1", "line2", "line3", "line4", "line5")
TITLE = 10.0  # points
_TITLE: dict[str, Any] = {"color": LIGHT["ink"], "size": TITLE, "loc": "left", "parse_math": False}
WIDEST = 7.6  # inches
MARKS = "osD^v"  # the colours come round after five domains: then the mark is another


@dataclass(frozen=True)
class Point:
    """A domain on the axes."""

    name: str
    x: Estimate
    y: Estimate
    start: str | None = None  # name of the point that an arrow to this one begins at: the domain without its wrappers

    @property
    def label(self) -> str:
        """What is written beside it: of a domain in wrappers the wrappers alone, since the arrow says the rest."""
        return self.name if self.start is None else self.name.removeprefix(f"{self.start} ")


def check_picture(path: str | Path | None) -> None:
    """Refuse a file that no plot can be written to, before anything is played for it. Raises UsageError."""
    if path is None:
        return
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"a plot is written as {', '.join(SUFFIXES)}, by the end of its name, not as {str(path)!r}")
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder; --plot takes a file")


def plot_axes(points: Sequence[Point], path: str | Path, x_label: str, y_label: str) -> None:
    """Draw named points with interval bars both ways, x on a logarithmic axis, and arrows between those that belong.

    Raises:
        UsageError: a suffix that is none of `SUFFIXES`, no point, a point without text (x of 0).
    """
    check_picture(path)
    if not points or min(point.x.value for point in points) <= 0:
        raise UsageError("a plot of the axes needs domains, and states with text in them")
    figure, panel = _blank(7.6, 5.0)
    panel.set_xscale("log")
    panel.grid(color=LIGHT["line"], linewidth=0.6)
    starts = {point.name: point for point in points if point.start is None}
    order = {name: number for number, name in enumerate(starts)}
    labels = []
    for point in points:
        number = order.get(point.start or point.name, 0)
        ink, mark = LIGHT[LINES[number % len(LINES)]], MARKS[number // len(LINES) % len(MARKS)]
        _draw(panel, point, ink, mark)
        begin = None
        if point.start in starts:
            begin = starts[point.start].x.value, starts[point.start].y.value
            panel.annotate(
                "", (point.x.value, point.y.value), begin, zorder=2,
                arrowprops={"arrowstyle": "->", "color": ink, "shrinkA": 5, "shrinkB": 5},
            )  # fmt: skip
        labels.append(Label(one_line(point.label, 36), point.x, point.y, ink, begin))
    panel.margins(0.12, 0.12)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(_few_digits)
    panel.tick_params(which="both", colors=LIGHT["soft"], length=0, labelsize=9)
    panel.set_xlabel(x_label, color=LIGHT["soft"])
    panel.set_ylabel(y_label, color=LIGHT["soft"])
    with any_script():
        place(panel, labels)
        save(figure, path)


def plot_matrices(names: Sequence[str], matrices: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draw each matrix as a heat map with its numbers, rows and columns called `names`.

    Args:
        names: of the domains.
        matrices: title, `NAME: what it is`, -> values (D, D) of at least 0, row by column; the diagonal is left empty.
        path: with one of `SUFFIXES`.

    Raises:
        UsageError: a suffix that is none of `SUFFIXES`, no matrix.
    """
    check_picture(path)
    if not matrices:
        raise UsageError("a plot of matrices needs at least one")
    shown = [one_line(name, 24) for name in names]
    margin = 0.4 + 0.08 * max(map(len, shown), default=0)  # inches for the names of the rows, and below the columns
    side = max(0.5 * len(names), 1.6)
    columns = 2 if len(matrices) > 1 and 2 * (side + margin) < WIDEST else 1  # legible at the width of a phone
    rows = -(-len(matrices) // columns)
    titles = [_titled(title, side + margin) for title in matrices]
    high = 0.2 * max(title.count("\n") + 1 for title in titles) + 0.7 * margin + 0.3
    figure = Figure(figsize=((side + margin) * columns + 0.2, (side + high) * rows), layout="constrained")
    figure.patch.set_facecolor(LIGHT["page"])
    for number, (title, values_DD) in enumerate(zip(titles, matrices.values(), strict=True), 1):
        _heat(figure.add_subplot(rows, columns, number), title, shown, np.asarray(values_DD, float))
    with any_script():
        figure.draw_without_rendering()  # fixes the layout; then the titles move left, over the names of the rows
        figure.set_layout_engine("none")
        for number, panel in enumerate(figure.axes):
            left = number % columns / columns * figure.bbox.width + 0.07 * figure.dpi
            panel.set_title(titles[number], x=(left - panel.bbox.x0) / panel.bbox.width, **_TITLE)
        save(figure, path)


def _draw(panel: Panel, point: Point, ink: str, mark: str) -> None:
    """Draw a point with its bars, hollow where it is one in wrappers."""
    x, y = point.x, point.y
    low = max(x.low, x.value / 10)  # a bar down to 0 has no end on a logarithmic axis
    bars = {"xerr": [[x.value - low], [x.high - x.value]], "yerr": [[y.value - y.low], [y.high - y.value]]}
    face = LIGHT["page"] if point.start else ink
    _, _, lines = panel.errorbar(
        [x.value], [y.value], fmt=mark, color=ink, elinewidth=1, markersize=6.5, markerfacecolor=face, zorder=3, **bars
    )
    for line in lines:
        line.set_alpha(0.45)


def _heat(panel: Panel, title: str, names: Sequence[str], values_DD: np.ndarray) -> None:
    colours = LinearSegmentedColormap.from_list("gain", [LIGHT[name] for name in ("card", "gain2", "gain4")])
    apart = ~np.eye(len(names), dtype=bool)
    top = max(1.0, float(values_DD[apart].max(initial=0.0)))  # the same colour says the same, up to 1
    panel.imshow(np.where(apart, values_DD, np.nan), cmap=colours, vmin=0, vmax=top)
    for (row, column), value in np.ndenumerate(values_DD):
        if row == column:
            continue
        panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=LIGHT["ink"], size=9)
    marks = range(len(names))
    panel.set_xticks(marks, names, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    panel.set_yticks(marks, names, parse_math=False)
    panel.tick_params(colors=LIGHT["ink"], length=0, labelsize=9)
    panel.spines[:].set_visible(False)
    panel.set_facecolor(LIGHT["page"])
    panel.set_title(title, **_TITLE)


def _titled(title: str, width: float) -> str:
    """Break a title into lines of at most `width` inches, its name on the first."""
    name, _, about = one_line(title, 160).partition(": ")
    letters = max(12, int(width / (0.57 * TITLE / 72)))  # the mean letter of the font is little more than half as wide
    return "\n".join([*textwrap.wrap(name, letters), *textwrap.wrap(about, letters)])


def _few_digits(x: float, _: int) -> str:
    """Write the ticks 2, 3, 5 and 7 between powers of ten, and leave the others bare."""
    return f"{x:g}" if f"{x:e}"[0] in "2357" else ""


def _blank(width: float, height: float) -> tuple[Figure, Panel]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_facecolor(LIGHT["page"])
    panel = figure.add_subplot()
    panel.set_facecolor(LIGHT["page"])
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(LIGHT["line"])
    panel.tick_params(colors=LIGHT["soft"], length=0, labelsize=9)
    panel.set_axisbelow(True)
    return figure, panel


@contextmanager
def any_script() -> Iterator[None]:
    """Draw a box, without a warning, for a letter that the font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure, whole or not at all; the same figure gives the same bytes."""
    suffix = Path(path).suffix.lower()
    with whole_file(path) as aside, matplotlib.rc_context({"svg.hashsalt": "gentax"}):
        figure.savefig(aside, format=suffix[1:], dpi=150, metadata=SUFFIXES[suffix])
