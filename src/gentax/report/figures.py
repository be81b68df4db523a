"""The figures of pages and the plots that commands write: each function draws measurements and returns a Figure.

`style.inline_svg` puts a figure into a page, `style.save` writes it to a file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes as Panel
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from gentax.core.console import one_line
from gentax.core.errors import UsageError
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.verdict import number, signed
from gentax.report import Report, base_success, random_success
from gentax.report.style import LIGHT, LINES, any_script, new_figure, new_panel, shade
from gentax.report.text import row_name

CURVE_POINTS = 400  # of a learning curve at most; longer ones are thinned evenly
LABELLED = 24  # points of a plot that have their names; of more, those on the frontier
WIDTH = 4.9  # inches of a figure that has a row of the page: its text stays legible at 400 pixels
WIDEST = 7.6  # inches of a plot in a file
DASHES = ("", "5 2", "1.5 1.5", "6 1.5 1.5 1.5", "9 2")  # lengths in widths of the line; the first is solid
MARKERS = "osD^v"  # after five domains the colours repeat with another marker
CELL = (1.15, 0.62)  # inches of a cell of the matrix
_AXIS_LABEL: dict[str, Any] = {"color": LIGHT["soft"], "size": 9}
_TITLE: dict[str, Any] = {"color": LIGHT["ink"], "size": 10.0, "loc": "left", "parse_math": False}


class CurveSeries(NamedTuple):
    """One metric of one arm."""

    seeds: Sequence[tuple[Sequence[float], Sequence[float]]]  # steps and values of each run
    style: int  # of the line (see `line_style`)
    validation: bool  # measured now and then on tasks that are not trained on: drawn as rings


class CurvePanel(NamedTuple):
    """A panel of learning curves."""

    title: str
    series: Sequence[CurveSeries]
    percent: bool  # whether values are fractions, to be shown as percent
    full_range: bool  # whether the axis goes from 0 to 100 % whatever the values


def line_style(n: int) -> tuple[str, str]:
    """Return the colour's name and the dashes of the n-th line: no two of the first 25 share both.

    Neighbours differ in both, so that lines are told apart without their colours.
    """
    return LINES[n % len(LINES)], DASHES[(n + n // len(LINES)) % len(DASHES)]


@dataclass(frozen=True)
class DomainPoint:
    """A domain on two axes."""

    name: str
    x: Estimate
    y: Estimate
    plain: str | None = None  # of a domain in wrappers: the name of the point without them, from which an arrow leads

    @property
    def label(self) -> str:
        """The text next to the point: of a domain in wrappers the wrappers alone, since the arrow says the rest."""
        return self.name if self.plain is None else self.name.removeprefix(f"{self.plain} ")


def learning_curves(metrics: Sequence[CurvePanel], titles: bool = False) -> Figure:
    """Draw metrics of training runs against steps, each in a panel: pale every seed, full their mean.

    Args:
        metrics: one for each panel.
        titles: whether panels have their titles.
    """
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(2.9 * columns, (1.85 + 0.25 * titles) * rows), layout="constrained")
    for n, metric in enumerate(metrics, 1):
        panel = new_panel(figure, rows, columns, n)
        if titles:
            panel.set_title(one_line(metric.title, 40), **_TITLE)
        _draw_learning(panel, metric)
    return figure


def _draw_learning(panel: Panel, metric: CurvePanel) -> None:
    percent = metric.percent
    panel.grid(axis="y", color=LIGHT["line"], linewidth=0.6)
    for seeds, style, validation in metric.series:
        colour, dashes = line_style(style)
        look: dict[str, Any] = {"color": LIGHT[colour], "dashes": [float(x) for x in dashes.split()] or (None, None)}
        runs = [(np.asarray(x, float), np.asarray(y, float) * (100 if percent else 1)) for x, y in seeds]
        x, y = _mean_over_seeds(runs)
        if validation:
            look |= {"marker": "o", "markerfacecolor": LIGHT["card"], "markersize": 4.5, "zorder": 4}
            panel.plot(_thin(x), _thin(y), linewidth=0.9, **look)
            continue
        smooth = len(x) >= 20
        for run in runs if smooth or len(runs) > 1 else ():
            panel.plot(*map(_thin, run), color=LIGHT[colour], alpha=0.3, linewidth=0.8)
        y = _running_mean(y, max(3, len(x) // 12)) if smooth else y
        panel.plot(_thin(x), _thin(y), "." if len(x) == 1 else "", linewidth=1.6, zorder=3, **look)
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    if percent:
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter("{x:g} %")
    if metric.full_range:
        panel.set_ylim(-3, 103)
        panel.set_yticks([0, 50, 100])


def _mean_over_seeds(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps of all runs and the mean of those that have a value there."""
    x, inverse = np.unique(np.concatenate([x for x, _ in runs]), return_inverse=True)
    return x, np.bincount(inverse, np.concatenate([y for _, y in runs])) / np.bincount(inverse)


def _thin(x: np.ndarray) -> np.ndarray:
    return x[np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))]


def forest_plot(
    rows: Sequence[tuple[str, Estimate | Undefined]],
    label: str,
    scale: float,
    free_within: float | None = None,
    gain: bool = False,
) -> Figure:
    """Draw estimates as dots with their intervals, one row each, against 0.

    Args:
        rows: (name, estimate); a row whose estimate is undefined says so.
        label: of the axis.
        scale: what estimates are multiplied by.
        free_within: half the width of the band around 0 that counts as free, after scaling.
        gain: whether estimates are gains, not losses.
    """
    figure, panel = new_figure(WIDTH, 0.5 + 0.31 * len(rows))
    panel.axvline(0, color=LIGHT["soft"], linewidth=1)
    if free_within is not None:
        panel.axvspan(-free_within, free_within, color=LIGHT["faint"], zorder=0)
    for y, (_, estimate) in enumerate(rows):
        if isinstance(estimate, Undefined):
            panel.text(0, y, "  undefined", color=LIGHT["soft"], va="center", style="italic")
        else:
            low, value, high = (scale * x for x in (estimate.low, estimate.value, estimate.high))
            lost = estimate.negated() if gain else estimate
            panel.plot([low, high], [y, y], color=_ink(lost), linewidth=2.2, solid_capstyle="round", zorder=3)
            _dot(panel, value, y, lost)
    _name_rows(panel, [name for name, _ in rows], label)
    return figure


def forecast_plot(rows: Sequence[tuple[str, Estimate, Estimate]]) -> Figure:
    """Draw what was forecast (a band and a diamond) and measured (a bar and a dot) of taxes, as percent.

    Args:
        rows: (name, forecast, measured), fractions.
    """
    figure, panel = new_figure(WIDTH, 0.75 + 0.36 * len(rows))
    panel.axvline(0, color=LIGHT["soft"], linewidth=1)
    for y, (_, forecast, measured) in enumerate(rows):
        low, value, high = (100 * x for x in (forecast.low, forecast.value, forecast.high))
        panel.barh(y, high - low, 0.62, low, color=LIGHT["faint"], edgecolor=LIGHT["line"])
        panel.plot([value], [y], "D", color=LIGHT["soft"], markerfacecolor=LIGHT["card"], markersize=6, zorder=3)
        low, value, high = (100 * x for x in (measured.low, measured.value, measured.high))
        panel.plot([low, high], [y, y], color=LIGHT["ink"], linewidth=1.6, zorder=3)
        panel.plot([value], [y], "o", color=LIGHT["ink"], markersize=6, zorder=4)
    _name_rows(panel, [name for name, _, _ in rows], "tax, %: diamond and band forecast, dot and bar measured")
    return figure


def _name_rows(panel: Panel, names: Sequence[str], label: str) -> None:
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_yticks(range(len(names)), [one_line(name, 34) for name in names], parse_math=False)
    panel.tick_params(axis="y", colors=LIGHT["ink"], labelsize=10)
    panel.grid(axis="x", color=LIGHT["line"], linewidth=0.6)
    panel.set_xlabel("\n".join(textwrap.wrap(label, 62)), **_AXIS_LABEL)


def tradeoff_plot(points: Sequence[tuple[str, Estimate, Estimate]], free_within: float) -> Figure:
    """Draw each arm's gain on the source (points) against its tax on the targets (as percent), with intervals.

    A dotted line joins the frontier: the arms that no other beats in both.

    Args:
        points: (name, gain, tax as a fraction).
        free_within: half the width of the band around a tax of 0 that counts as free, percent.
    """
    figure, panel = new_figure(WIDTH, 3.3)
    panel.axhspan(-free_within, free_within, color=LIGHT["faint"], zorder=0)
    panel.axhline(0, color=LIGHT["soft"], linewidth=0.8, zorder=1)
    panel.axvline(0, color=LIGHT["soft"], linewidth=0.8, zorder=1)
    labelled = []
    for name, x, tax in points:
        y = replace(tax, value=100 * tax.value, low=100 * tax.low, high=100 * tax.high)
        panel.plot([x.low, x.high], [y.value, y.value], color=_ink(tax), linewidth=1.4, zorder=3)
        panel.plot([x.value, x.value], [y.low, y.high], color=_ink(tax), linewidth=1.4, zorder=3)
        _dot(panel, x.value, y.value, tax)
        if len(points) <= LABELLED or not _dominated(x, tax, points):
            labelled.append((name, x, y, LIGHT["ink"]))
    edge = sorted((x.value, 100 * tax.value) for _, x, tax in points if not _dominated(x, tax, points))
    panel.plot(*zip(*edge, strict=True), color=LIGHT["fine"], linewidth=1.1, dashes=(2, 2), zorder=2)
    panel.margins(0.1, 0.12)
    panel.grid(color=LIGHT["line"], linewidth=0.6)
    panel.yaxis.set_major_formatter("{x:g} %")
    panel.set_xlabel("gain on source, points (right is better)", **_AXIS_LABEL)
    panel.set_ylabel("tax on targets (down is better)", **_AXIS_LABEL)
    _label_points(panel, labelled, edge)
    return figure


def _dominated(gain: Estimate, tax: Estimate, points: Sequence[tuple[str, Estimate, Estimate]]) -> bool:
    """Return whether another point has at least that gain for at most that tax, and is better in one of them."""
    mine = gain.value, tax.value
    return any(x.value >= mine[0] and y.value <= mine[1] and (x.value, y.value) != mine for _, x, y in points)


def axes_plot(
    points: Sequence[DomainPoint], x_label: str, y_label: str, size: tuple[float, float] = (WIDEST, 5.0)
) -> Figure:
    """Draw named points with intervals both ways, x on a logarithmic axis; an arrow leads to a domain in wrappers.

    Raises:
        UsageError: no point, or a point with an x of 0.
    """
    if not points or min(point.x.value for point in points) <= 0:
        raise UsageError("a plot of the axes needs domains, and states with text in them")
    figure, panel = new_figure(*size)
    panel.set_xscale("log")
    panel.grid(color=LIGHT["line"], linewidth=0.6)
    plain = {point.name: point for point in points if point.plain is None}
    order = {name: number for number, name in enumerate(plain)}
    labelled = []
    for point in points:
        n = order.get(point.plain or point.name, 0)
        ink, marker = LIGHT[LINES[n % len(LINES)]], MARKERS[n // len(LINES) % len(MARKERS)]
        x = replace(point.x, low=max(point.x.low, point.x.value / 10))  # a bar to 0 has no end on a logarithmic axis
        y = point.y
        face = LIGHT["page"] if point.plain else ink
        panel.plot([x.low, x.high], [y.value, y.value], color=ink, linewidth=1, alpha=0.45)
        panel.plot([x.value, x.value], [y.low, y.high], color=ink, linewidth=1, alpha=0.45)
        panel.plot([x.value], [y.value], marker, color=ink, markersize=6.5, markerfacecolor=face, zorder=3)
        if point.plain in plain:
            start = plain[point.plain]
            panel.annotate(
                "", (x.value, y.value), (start.x.value, start.y.value), zorder=2,
                arrowprops={"arrowstyle": "->", "color": ink, "shrinkA": 5, "shrinkB": 5},
            )  # fmt: skip
        labelled.append((point.label, x, y, ink))
    panel.margins(0.12, 0.12)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "2357" else "")
    panel.set_xlabel(x_label, **_AXIS_LABEL)
    panel.set_ylabel(y_label, **_AXIS_LABEL)
    _label_points(panel, labelled)
    return figure


@any_script()
def matrices_plot(names: Sequence[str], matrices: Mapping[str, np.ndarray]) -> Figure:
    """Draw each matrix as a heat map with its numbers.

    Args:
        names: of the domains, the rows and columns.
        matrices: title, `NAME: description`, -> values (D, D) of at least 0; the diagonal is left empty.

    Raises:
        UsageError: no matrix.
    """
    if not matrices:
        raise UsageError("a plot of matrices needs at least one")
    shown = [one_line(name, 24) for name in names]
    margin = 0.4 + 0.08 * max(map(len, shown), default=0)  # inches for the names of rows and columns
    side = max(0.5 * len(names), 1.6)
    columns = 2 if len(matrices) > 1 and 2 * (side + margin) < WIDEST else 1  # legible at the width of a phone
    rows = -(-len(matrices) // columns)
    titles = [_wrapped_title(title, side + margin) for title in matrices]
    head = 0.2 * max(title.count("\n") + 1 for title in titles) + 0.7 * margin + 0.3
    figure = Figure(figsize=((side + margin) * columns + 0.2, (side + head) * rows), layout="constrained")
    for n, (title, values_DD) in enumerate(zip(titles, matrices.values(), strict=True), 1):
        _heat_map(figure.add_subplot(rows, columns, n), title, shown, np.asarray(values_DD, float))
    figure.draw_without_rendering()  # fixes the layout; then the titles move left, above the names of the rows
    figure.set_layout_engine("none")
    for n, panel in enumerate(figure.axes):
        left = n % columns / columns * figure.bbox.width + 0.07 * figure.dpi
        panel.set_title(titles[n], x=(left - panel.bbox.x0) / panel.bbox.width, **_TITLE)
    return figure


def success_matrix(report: Report) -> Figure:
    """Draw the matrix of a report: success on every domain, and the change against the base."""
    domains, init, random = report.columns(), base_success(report.results), random_success(report.results)
    names = ["base", *(one_line(row_name(result, report.results), 30) for result in report.results)]
    names += ["random play"] if random else []
    label = 0.5 + 0.085 * max(map(len, names))
    figure, panel = new_figure(label + CELL[0] * len(domains), 0.75 + CELL[1] * len(names))
    panel.set_xlim(0, len(domains))
    panel.set_ylim(len(names), 0)

    def cell(row: int, column: int, success: float, drop: Estimate | None = None, source: bool = False) -> None:
        face = "faint" if drop is None else "card" if drop.contains(0) else shade(drop.value)
        edge = LIGHT["ink"] if source else LIGHT["line"]
        panel.add_patch(Rectangle((column + 0.03, row + 0.05), 0.94, 0.9, facecolor=LIGHT[face], edgecolor=edge))
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": LIGHT["ink"]}
        panel.text(column + 0.5, row + (0.5 if drop is None else 0.36), number(success), size=11, **style)
        if drop is not None:
            undecided = " ?" if drop.contains(0) else ""
            panel.text(column + 0.5, row + 0.7, signed(-drop.value) + undecided, size=8.5, **style)

    for column, domain in enumerate(domains):
        if domain in init:
            cell(0, column, init[domain].value)
        for row, result in enumerate(report.results, 1):
            tax = result.tax
            if domain in tax.after:
                cell(row, column, tax.after[domain].value, tax.lost(domain), source=domain == tax.source)
        if domain in random:
            cell(len(names) - 1, column, random[domain].value)
    panel.set_yticks([n + 0.5 for n in range(len(names))], names, parse_math=False)
    panel.set_xticks([n + 0.5 for n in range(len(domains))], [one_line(d, 14) for d in domains], parse_math=False)
    panel.xaxis.tick_top()
    panel.tick_params(colors=LIGHT["ink"])
    panel.spines[:].set_visible(False)
    panel.set_xlabel(
        "success on test tasks, %; below it the change in points (?: not told apart from 0)", **_AXIS_LABEL
    )
    return figure


def _ink(lost: Estimate) -> str:
    """Return the colour of a loss: by its sign where the interval leaves out 0."""
    return LIGHT["soft"] if lost.contains(0) else LIGHT["loss"] if lost.value > 0 else LIGHT["gain"]


def _dot(panel: Panel, x: float, y: float, lost: Estimate) -> None:
    """Draw an estimate of a loss, filled where its interval leaves out 0."""
    face = LIGHT["card"] if lost.contains(0) else _ink(lost)
    panel.plot([x], [y], "o", color=_ink(lost), markerfacecolor=face, markersize=7, markeredgewidth=1.6, zorder=4)


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Return the centred running mean; at the ends over the values there are."""
    ones = np.ones(min(width, len(y)))
    return np.convolve(y, ones, "same") / np.convolve(np.ones(len(y)), ones, "same")


@any_script()
def _label_points(
    panel: Panel, labels: Sequence[tuple[str, Estimate, Estimate, str]], line: Sequence[tuple[float, float]] = ()
) -> None:
    """Write (name, x, y, colour) next to their points, clear of one another, the points, their bars and a line."""
    panel.figure.draw_without_rendering()  # fixes the layout, and with it the transform from data to pixels
    panel.figure.set_layout_engine("none")
    texts, occupied = [], []  # occupied: places along the bars, and around the markers
    for name, x, y, ink in labels:
        centre = panel.transData.transform((x.value, y.value))
        around = [tuple(panel.transData.inverted().transform(centre + d)) for d in ((9, 5), (7, 7), (-7, 7), (-7, -7))]
        style = {"color": ink, "size": 9.5, "parse_math": False, "zorder": 5}
        texts.append(panel.text(*around[0], one_line(name, 36), **style))
        occupied += [*around[1:], *((place, y.value) for place in np.linspace(x.low, x.high, 9))]
        occupied += [(x.value, place) for place in np.linspace(y.low, y.high, 9)]
    for (x0, y0), (x1, y1) in pairwise(line):
        occupied += zip(np.linspace(x0, x1, 9), np.linspace(y0, y1, 9), strict=True)
    xs, ys = zip(*occupied, strict=True)
    arrow = {"arrowstyle": "-", "color": LIGHT["soft"], "linewidth": 0.6, "shrinkB": 4}
    adjust_text(
        texts, xs, ys, target_x=[x.value for _, x, _, _ in labels], target_y=[y.value for _, _, y, _ in labels],
        ax=panel, avoid_self=False, expand=(1.15, 1.5), min_arrow_len=18, arrowprops=arrow,
        iter_lim=400,  # not a limit of time: the same data give the same picture on a slow machine
    )  # fmt: skip


def _heat_map(panel: Panel, title: str, names: Sequence[str], values_DD: np.ndarray) -> None:
    colours = LinearSegmentedColormap.from_list("gain", [LIGHT[name] for name in ("card", "gain2", "gain4")])
    apart = ~np.eye(len(names), dtype=bool)
    top = max(1.0, float(values_DD[apart].max(initial=0.0)))  # up to 1, a colour means the same in every matrix
    panel.imshow(np.where(apart, values_DD, np.nan), cmap=colours, vmin=0, vmax=top)
    for row, column in zip(*np.nonzero(apart), strict=True):
        text = f"{values_DD[row, column]:.2f}"
        panel.text(column, row, text, ha="center", va="center", color=LIGHT["ink"], size=9)
    ticks = range(len(names))
    panel.set_xticks(ticks, names, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    panel.set_yticks(ticks, names, parse_math=False)
    panel.tick_params(colors=LIGHT["ink"], length=0, labelsize=9)
    panel.spines[:].set_visible(False)
    panel.set_title(title, **_TITLE)


def _wrapped_title(title: str, width: float) -> str:
    """Break a title into lines of at most `width` inches, its name on the first."""
    name, _, about = one_line(title, 160).partition(": ")
    letters = max(12, int(width / (0.57 * _TITLE["size"] / 72)))  # a mean letter is little more than half its height
    return "\n".join([*textwrap.wrap(name, letters), *textwrap.wrap(about, letters)])
