"""Recompute everything that a paper derives from its cells, and say which metric each printed figure follows.

**Range.** A cell printed as 15.2 is anything from 15.15 to 15.25. Every metric is a sum of ratios in which a cell
enters numerator and denominator at most to the first power, and no two ratios share a cell. With the other cells fixed,
such a metric is monotone in each cell while no denominator passes through 0, so trying every corner of the box of cells
gives the exact range. Where a denominator may be 0 there is no range, and no match.

**Status.** A figure is *reproduced* when a number that is printed like it lies in the range of the stated metric,
*reproduced under another metric* when only other metrics of its column agree, else *not reproduced*. Where a target
lacks a cell, the metrics are tried on the targets that have all of theirs. If none agrees, the figure is *not
checkable*, unless no success from 0 to 100 in the missing cells gives it by the stated metric.

**Accidents.** Of many metrics some agree by accident. So every match has the width of its range, and each column says
how often its metrics agree with the figures of *other* lines, which can only be by accident. Where several agree, the
one that explains most figures of the column comes first.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, NamedTuple

import numpy as np

from gentax.core.results import Record, json_value
from gentax.metrics.arms import tie_groups
from gentax.metrics.reference import (
    SLACK,
    START,
    WARM_UP_DIFFERENCE,
    Cells,
    Number,
    PrintedFigure,
    PublishedClaim,
    PublishedRun,
    PublishedTables,
    Status,
    claims,
    decimals,
    figures,
    half_step,
)
from gentax.metrics.verdict import number

MOST_MISSING = 4  # targets without a cell for which any success is tried; with more, nearly every figure is possible
ANY_SUCCESS, UNKNOWN = (0.0, 100.0), (np.nan, np.nan)  # percent: what a missing cell could be


@dataclass(frozen=True)
class ValueRange(Record):
    """A recomputed number: from the cells as printed, and the least and most that their rounding allows."""

    value: float
    low: float
    high: float
    metric: str


def agrees(figure: PrintedFigure, computed: ValueRange | None) -> bool:
    """Return whether some number in this range is printed as the figure is."""
    half = SLACK + (0.0 if figure.exact else half_step(figure.printed))
    return computed is not None and computed.low - half <= figure.printed <= computed.high + half


def _corners(groups: Sequence[Cells], missing: tuple[float, float]) -> list[np.ndarray]:
    """Return (T, 1 + 2^N) for each group of T cells: as printed, then every corner of the box of all N cells."""
    cells = [cell for group in groups for cell in group]
    printed = [np.nan if cell is None else cell for cell in cells]
    limits = [missing if cell is None else (cell - half_step(cell), cell + half_step(cell)) for cell in cells]
    values_NC = np.array([printed, *product(*limits)]).T
    return np.split(values_NC, np.cumsum([len(group) for group in groups])[:-1])


@dataclass(frozen=True)
class PrintedMetric:
    """A number that is computed from printed cells."""

    name: str
    formula: str
    compute: Callable[..., np.ndarray]  # (C,) from the cells (T, C) of the roles that its parameters name
    stated: bool = False  # by the paper

    def range(self, figure: PrintedFigure, missing: tuple[float, float] = UNKNOWN) -> ValueRange | None:
        """Return its range, missing cells within `missing`; None without a role or where a denominator may be 0."""
        by_role = figure.by_role()
        parameters = inspect.signature(self.compute).parameters
        roles = list(by_role) if "targets" in parameters else list(parameters)
        if not figure.targets or not set(roles) <= set(by_role):
            return None
        corners = _corners([by_role[role] for role in roles], missing)
        value_C = self.compute(**dict(zip(roles, corners, strict=True)))
        if np.isnan(value_C[1:]).any():
            return None
        return ValueRange(float(value_C[0]), float(value_C[1:].min()), float(value_C[1:].max()), self.name)


# --- the metrics tried on each printed column, from success: a after (the arm), p after the plain run, i before ---


def _ratios(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return the sum of ratios, (C,) from (K, C) or (C,); NaN where rounding allows a denominator of 0."""
    top_KC, bottom_KC = np.atleast_2d(top), np.atleast_2d(bottom)
    edges_KC = bottom_KC[:, 1:]
    known = ((edges_KC > SLACK).all(1) | (edges_KC < -SLACK).all(1)).all()
    return np.asarray((top_KC / bottom_KC).sum(0) if known else np.full(top_KC.shape[1], np.nan))


def _percent(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return _ratios(100 * top.sum(0), bottom.sum(0))


def _mean_percent(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return _ratios(100 * top / len(top), bottom)


def _mean(points: np.ndarray) -> np.ndarray:
    return np.asarray(points.sum(0) / len(points))


def _tax_rate_removed(a: Any, p: Any, i: Any, gain_a: Any, gain_p: Any) -> np.ndarray:
    """Points lost on all targets, times the gain at home of the other run, so that one ratio carries both rates."""
    lost_plain = (i.sum(0) - p.sum(0)) * gain_a
    return _ratios(100 * (lost_plain - (i.sum(0) - a.sum(0)) * gain_p), lost_plain)


def _two_changes(a2: Any, i2: Any, over2: Any, a1: Any, i1: Any, over1: Any) -> np.ndarray:
    """The change of the policy with warm-up less that of the policy without."""
    return _ratios(100 * np.concatenate([a2 - i2, i1 - a1]), np.concatenate([over2, over1]))


def _summed(rank: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """Return the sum over targets of the rank of their first source, which `rank` takes from tie groups (C, S)."""
    return lambda **targets: np.sum(
        [rank(tie_groups(success_SC.T)) for success_SC in targets.values()], axis=0, dtype=float
    )


# fmt: off
M = PrintedMetric
OOD_CHANGE = (
    M("OOD change", "Σ(a − p) / Σp", lambda a, p: _percent(a - p, p), stated=True),
    M("tax removed", "Σ(a − p) / Σ(i − p)", lambda a, p, i: _percent(a - p, i - p)),
    M("tax saved", "Σ(a − p) / Σi", lambda a, p, i: _percent(a - p, i)),
    M("minus the arm's tax", "Σ(a − i) / Σi", lambda a, i: _percent(a - i, i)),
    M("change over the arm", "Σ(a − p) / Σa", lambda a, p: _percent(a - p, a)),
    M("tax removed over the arm's tax", "Σ(a − p) / Σ(i − a)", lambda a, p, i: _percent(a - p, i - a)),
    M("mean change", "mean of (a − p) / p", lambda a, p: _mean_percent(a - p, p)),
    M("mean share removed", "mean of (a − p) / (i − p)", lambda a, p, i: _mean_percent(a - p, i - p)),
    M("mean change over the start", "mean of (a − p) / i", lambda a, p, i: _mean_percent(a - p, i)),
    M("tax rate removed", "1 − (Σ(i − a) / ΔID of the arm) / (Σ(i − p) / ΔID plain)", _tax_rate_removed),
    M("mean points", "mean of a − p", lambda a, p: _mean(a - p)),
    M("sum of points", "Σ(a − p)", lambda a, p: (a - p).sum(0)),
)
RANK = (  # the paper's words can be read in three ways
    M("rank score 1, 1, 2", "Σ of ranks, the next rank after a tie", _summed(lambda g: g[:, 0] + 1), stated=True),
    M("rank score 1, 1, 3", "Σ of ranks, one more than are ahead",
      _summed(lambda g: (g < g[:, :1]).sum(1) + 1), stated=True),
    M("rank score 1½, 1½, 3", "Σ of mean ranks",
      _summed(lambda g: ((g < g[:, :1]).sum(1) + (g <= g[:, :1]).sum(1) + 1) / 2), stated=True),
)
RELATIVE = (
    M("relative change", "(after − i) / i", lambda a, i: _mean_percent(a - i, i), stated=True),
    M("relative change of the cell beside it", "(c − i) / i, c printed in the same table",
      lambda beside, i: _mean_percent(beside - i, i)),
    M("relative change of the crossed cell", "(c − i) / i, c with source and target crossed",
      lambda crossed, i: _mean_percent(crossed - i, i)),
    M("change over the end", "(after − i) / after", lambda a, i: _mean_percent(a - i, a)),
    M("points", "after − i", lambda a, i: _mean(a - i)),
)
DIFFERENCE = (
    M("difference of relative changes", "(a₂ − i₂) / i₂ − (a₁ − i₁) / i₁",
      lambda a1, i1, a2, i2: _two_changes(a2, i2, i2, a1, i1, i1), stated=True),
    M("difference by the cells beside it", "(c₂ − i₂) / i₂ − (c₁ − i₁) / i₁, c printed in the same table",
      lambda beside1, i1, beside2, i2: _two_changes(beside2, i2, i2, beside1, i1, i1)),
    M("difference over the end", "(a₂ − i₂) / a₂ − (a₁ − i₁) / a₁",
      lambda a1, i1, a2, i2: _two_changes(a2, i2, a2, a1, i1, a1)),
    M("difference of points", "(a₂ − i₂) − (a₁ − i₁)", lambda a1, i1, a2, i2: _mean((a2 - i2) - (a1 - i1))),
)
CELL = (  # what the table on warm-up prints next to its figures: the cell, which the main table has too
    M("the main table's cell", "after(s, t)", lambda a: _mean(a), stated=True),
    M("the crossed cell", "after(t, s)", lambda crossed: _mean(crossed)),
)
GAIN = (
    M("mean gain", "mean of after − before", lambda i, a: _mean(a - i), stated=True),
    M("sum of gains", "Σ(after − before)", lambda i, a: (a - i).sum(0)),
    M("relative gain", "Σ(after − before) / Σbefore", lambda i, a: _percent(a - i, i)),
    M("mean relative gain", "mean of (after − before) / before", lambda i, a: _mean_percent(a - i, i)),
)
# gentax's own, of a row: a fraction, points, points per point
MEASURES = {
    "tax": M("tax", "1 − Σafter / Σinit", lambda i, a: _ratios((i - a).sum(0), i.sum(0))),
    "mean_drop": M("mean drop", "mean of init − after", lambda i, a: _mean(i - a)),
    "tax_rate": M("tax rate", "mean drop / ΔID", lambda i, a, gain: _ratios(_mean(i - a), gain)),
}
# fmt: on

# --- figures, and what is found of them ---


@dataclass(frozen=True)
class Judgement(Record):
    """The outcome for one figure."""

    where: tuple[str, ...]
    printed: Number
    status: Status
    stated: ValueRange | None  # the stated metric (its first reading), over the targets that have cells
    matches: tuple[ValueRange, ...]  # the best explanation first
    missing: tuple[str, ...]  # targets
    possible: tuple[str, ...] | None  # metrics that agree for some success in the missing cells; None: not tried
    note: str  # what is missing and what that leaves open; empty where nothing is


@dataclass(frozen=True)
class MetricCount(Record):
    """How a metric did on the figures of a column that have all their cells."""

    metric: str
    formula: str
    stated: bool
    agrees: int  # figures it agrees with
    figures: int  # that it could be tried on
    elsewhere: int  # agreements of its values with the figures of other lines: accidents
    pairs: int  # that were tried for accidents


@dataclass(frozen=True)
class PrintedColumn(Record):
    """A printed column: its figures judged, and the metrics that were tried on it."""

    name: str
    figures: tuple[Judgement, ...]
    elsewhere: int  # pairs of a line and the figure of another on which at least one metric agrees
    pairs: int
    metrics: tuple[MetricCount, ...]

    @property
    def finding(self) -> str:
        """Say which metrics the figures follow, each by its best explanation, and how many would by accident."""
        best = Counter(j.matches[0].metric for j in self.figures if j.matches)
        unchecked = sum(j.status is Status.UNCHECKABLE for j in self.figures)
        follow = [*best.most_common(), ("nothing that was tried", len(self.figures) - best.total() - unchecked)]
        parts = [f"{count} follow{'s' if count == 1 else ''} {name}" for name, count in follow if count]
        parts += [f"{unchecked} cannot be checked"] if unchecked else []
        finding = f"Of {len(self.figures)} figures {', '.join(parts)}."
        if not self.pairs:
            return finding
        complete = sum(not j.missing for j in self.figures)
        return (
            f"{finding} Some metric agrees with the figure of another line in {self.elsewhere} of {self.pairs} pairs, "
            f"so about {self.elsewhere / self.pairs * complete:.1f} of {complete} would by accident."
        )


def _judge(name: str, printed: Sequence[PrintedFigure], metrics: Sequence[PrintedMetric]) -> PrintedColumn:
    """Try metrics on figures, which are one column of a paper."""
    complete = [n for n, figure in enumerate(printed) if not figure.missing]
    counts, accidents = [], set[tuple[int, int]]()
    for metric in metrics:
        of = [metric.range(figure.present()) for figure in printed]
        known = [n for n in complete if of[n]]
        own = sum(agrees(printed[n], of[n]) for n in known)
        elsewhere = {(n, m) for n, m in permutations(known, 2) if agrees(printed[m], of[n])}
        accidents |= elsewhere
        sizes = own, len(known), len(elsewhere), len(known) * (len(known) - 1)
        counts.append(MetricCount(metric.name, metric.formula, metric.stated, *sizes))
    judged = tuple(_judgement(figure, counts, metrics) for figure in printed)
    return PrintedColumn(name, judged, len(accidents), len(complete) * (len(complete) - 1), tuple(counts))


def _judgement(figure: PrintedFigure, counts: Sequence[MetricCount], metrics: Sequence[PrintedMetric]) -> Judgement:
    by_name = {count.metric: count for count in counts}
    ranges = [metric.range(figure.present()) for metric in metrics]
    matches = [of for of in ranges if of and agrees(figure, of)]
    matches.sort(key=lambda of: (not by_name[of.metric].stated, -by_name[of.metric].agrees, of.high - of.low))
    stated = bool(matches) and by_name[matches[0].metric].stated
    shown = matches[0] if stated else ranges[0]
    missing, possible, note = figure.missing, None, ""
    if missing:
        cells = ", ".join(missing) if len(missing) < 6 else f"{len(missing)} of {len(figure.targets)} targets"
        note = f"no cell for {cells}"
    if 0 < len(missing) <= MOST_MISSING and len(missing) < len(figure.targets):
        possible = tuple(m.name for m in metrics if agrees(figure, m.range(figure, ANY_SUCCESS)))
        would = ", ".join(possible) or "none"
        note += f"; of the metrics tried these would give the figure with some success from 0 to 100 % there: {would}"
    if matches:  # over fewer targets the stated metric is another one
        status = Status.REPRODUCED if stated and not missing else Status.OTHER
    elif not missing or (possible is not None and not any(by_name[name].stated for name in possible)):
        status = Status.NOT
    else:
        status = Status.UNCHECKABLE
    return Judgement(figure.where, figure.printed, status, shown, tuple(matches), missing, possible, note)


# --- all of a paper ---


@dataclass(frozen=True)
class Recomputed:
    """A paper's rows under gentax's measures, its printed figures judged, and its claims counted.

    The measures of a row are over the targets that have a number; their ranges cover rounding alone.
    """

    study: PublishedTables
    rows: list[tuple[PublishedRun, dict[str, ValueRange | None]]]  # by the names of MEASURES; None: undefined
    columns: list[PrintedColumn]
    claims: list[PublishedClaim]

    @property
    def counts(self) -> Counter[Status]:
        """How many printed figures had each outcome."""
        return Counter(j.status for column in self.columns for j in column.figures)

    @property
    def summary(self) -> str:
        """Summarize the figures and the claims in a line."""
        parts = []
        for what, counts in (("printed figures", self.counts), ("claims", Counter(c.status for c in self.claims))):
            outcomes = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
            parts.append(f"{counts.total()} {what}: {outcomes}")
        return f"arXiv {self.study.key}. " + ". ".join(parts) + "."

    def to_json(self) -> dict[str, Any]:
        study = {"study": self.study.key, "citation": self.study.citation, "note": self.study.note}
        counts = {status.value: self.counts[status] for status in Status}
        keys = ("policy", "source", "arm", "rl_steps", "delta_id", "table", "ood", "missing")
        rows = [{key: getattr(row, key) for key in keys} | measures for row, measures in self.rows]
        parts = {"columns": self.columns, "rows": rows, "claims": self.claims}
        return {**study, "counts": counts, **json_value(parts)}


def recompute(study: PublishedTables) -> Recomputed:
    """Recompute the rows, figures and claims of a paper."""
    families: list[Sequence[PrintedMetric]] = [OOD_CHANGE, RANK, RELATIVE, DIFFERENCE, CELL, GAIN]
    printed = zip(figures(study).items(), families, strict=True)
    columns = {name: _judge(name, of_column, metrics) for (name, of_column), metrics in printed if of_column}
    rows = []
    for row in study.rows:
        targets = {t: (row.init[t], after) for t, after in row.after.items()}
        figure = PrintedFigure((row.name,), row.delta_id, targets, ("i", "a"), {"gain": row.delta_id})
        rows.append((row, {name: metric.range(figure) for name, metric in MEASURES.items()}))
    differences = columns[WARM_UP_DIFFERENCE].figures if study.warm_up else ()
    limits = [(of.low, of.high) if (of := judged.stated) else None for judged in differences]
    return Recomputed(study, rows, list(columns.values()), claims(study, limits))


# --- as tables of text, for the command line and for the page in the documentation ---

NONE = "—"


class Table(NamedTuple):
    """A table of text, and remarks below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = ()


def tables(found: Recomputed) -> Iterator[Table]:
    """Yield the tables of one paper: its figures column by column, then rows, changes and claims."""
    rows: list[tuple[str, ...]]
    for column in found.columns:
        yield _figures_table(column)
        rows = []
        for m in column.metrics:
            by_accident = number(m.elsewhere / m.pairs * m.figures) if m.pairs else NONE
            rows.append((m.metric, "yes" if m.stated else "", f"{m.agrees} of {m.figures}", by_accident, m.formula))
        yield Table(f"{column.name}: metrics tried", ("metric", "stated", "agrees", "by accident", "formula"), rows)
    if found.rows:
        rows = []
        for row, of in found.rows:
            measures = (_range(of["tax"], 3), _range(of["mean_drop"], 1), _range(of["tax_rate"], 3))
            rows.append((row.name, number(row.delta_id), *measures, ", ".join(row.missing) or NONE))
        yield Table("Rows under gentax's measures", ("row", "ΔID", "tax", "mean drop", "tax rate", "no cell"), rows)
    if found.study.changes:
        rows = []
        for line in found.study.changes:
            change = line["after"] - line["before"]
            numbers = [number(x, 2) for x in (line["before"], line["after"], change)]
            what = (f"{line['model']} {line['trained']} → {line['tested']}", line.get("against", START), line["unit"])
            rows.append((*what, *numbers, f"{number(100 * change / line['before'])} %"))
        heads = ("trained → tested", "against", "unit", "before", "after", "change", "relative")
        yield Table("Before and after", heads, rows)
    if found.claims:
        rows = []
        for c in found.claims:
            counts = (f"{c.holds} of {c.cases}", str(c.needed)) if c.cases else (NONE, NONE)
            rows.append((c.claim, c.status.value, *counts))
        notes = [f"{c.claim}: not in {'; '.join(c.against)}." for c in found.claims if c.against]
        notes += [f"{c.claim}: needs {c.needs}." for c in found.claims if c.needs]
        notes += [f"{c.claim}: {c.remark}." for c in found.claims if c.remark]
        yield Table("Claims", ("claim", "state", "holds in", "needed"), rows, notes)


def _figures_table(column: PrintedColumn) -> Table:
    digits = max(decimals(judged.printed) for judged in column.figures)
    rows, notes = [], [column.finding]
    for judged in column.figures:
        line = " ".join(part for part in judged.where if part)
        state = "under another metric" if judged.status is Status.OTHER else judged.status.value
        best = (NONE, NONE, NONE)
        if judged.matches:
            match, *others = judged.matches
            best = (match.metric, _range(match, digits), number(match.high - match.low, digits))
            if others:
                listed = ", ".join(f"{m.metric} {_range(m, digits)}" for m in others)
                notes.append(f"{line} also agrees with {listed}.")
        stated = NONE if judged.missing else _range(judged.stated, digits)
        rows.append((line, number(judged.printed, decimals(judged.printed)), stated, state, *best))
        if judged.note:
            notes.append(f"{line}: {judged.note}.")
    heads = ("line", "printed", "as stated", "state", "metric that agrees", "its value", "width")
    return Table(column.name, heads, rows, notes)


def _range(computed: ValueRange | None, digits: int) -> str:
    if computed is None:
        return NONE
    return f"{number(computed.value, digits)} ({number(computed.low, digits)} to {number(computed.high, digits)})"
