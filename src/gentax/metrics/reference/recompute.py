"""Recompute everything that a paper derives from its cells, and say which metric each printed figure follows.

**Range.** A cell printed as 15.2 is anything from 15.15 to 15.25. Every metric is a sum of ratios in which a cell
enters numerator and denominator at most to the first power, and no two ratios share a cell. With the other cells fixed,
such a metric is monotone in each cell while no denominator passes through 0, so trying every corner of the box of cells
gives the exact range. Where a denominator may be 0 there is no range, and no match.

**Status.** A figure is *reproduced* when a number that is printed like it lies in the range of the stated metric,
*reproduced under another metric* when only other metrics of its column agree, else *not reproduced*. A figure whose
cells are all missing is *not checkable*. Where some are missing, the metrics are tried on the targets that are left,
and a note says whether any success from 0 to 100 in the missing cells would give the figure.

**Accidents.** Trying many metrics makes accidental matches likely. So every match has the width of its range, and each
column says how often its metrics agree with the figures of *other* lines, which can only be by accident. Where several
agree, the one that explains most figures of the column comes first.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gentax.core.results import Record, json_value
from gentax.metrics.reference import (
    SLACK,
    START,
    Cells,
    PrintedFigure,
    PublishedClaim,
    PublishedRun,
    PublishedTables,
    Status,
    claims,
    figures,
    half_step,
)
from gentax.metrics.verdict import number

MOST_MISSING = 4  # targets without a cell for which any success is tried; with more, nearly every figure is possible
ANY_SUCCESS, UNKNOWN = (0.0, 100.0), (np.nan, np.nan)  # percent: what a missing cell could be

Ratios = tuple[np.ndarray, np.ndarray]  # numerators and denominators of the ratios of a sum, both (K, C)


@dataclass(frozen=True)
class ValueRange(Record):
    """A recomputed number: from the cells as printed, and the least and most that their rounding allows."""

    value: float
    low: float
    high: float


def agrees(figure: PrintedFigure, computed: ValueRange | None) -> bool:
    """Return whether some number in this range is printed as the figure is."""
    half = SLACK + (0.0 if figure.exact else half_step(figure.printed))
    return computed is not None and computed.low - half <= figure.printed <= computed.high + half


def _corners(groups: Iterable[Cells], missing: tuple[float, float]) -> list[np.ndarray]:
    """Return (T, 1 + 2^N) for each group of T cells: as printed, then every corner of the box of all N cells."""
    groups = list(groups)
    cells = [cell for group in groups for cell in group]
    low, high = ([missing[n] if c is None else c + sign * half_step(c) for c in cells] for n, sign in ((0, -1), (1, 1)))
    printed = [np.nan if cell is None else cell for cell in cells]
    high_NC = (np.arange(2 ** len(cells)) >> np.arange(len(cells))[:, None] & 1).astype(bool)
    values_NC = np.column_stack([printed, np.where(high_NC, np.array(high)[:, None], np.array(low)[:, None])])
    return np.split(values_NC, np.cumsum([len(group) for group in groups])[:-1])


@dataclass(frozen=True)
class PrintedMetric:
    """A number that is a sum of ratios of printed cells."""

    name: str
    formula: str
    ratios: Callable[..., Ratios]  # from the cells (T, C) of the roles that its parameters name
    stated: bool = False  # by the paper

    @property
    def roles(self) -> list[str]:
        return list(inspect.signature(self.ratios).parameters)

    def range(self, figure: PrintedFigure, missing: tuple[float, float] = UNKNOWN) -> ValueRange | None:
        """Return its range, missing cells within `missing`; None without a role or where a denominator may be 0."""
        by_role = figure.by_role()
        if not figure.targets or not set(self.roles) <= set(by_role):
            return None
        numerator_KC, denominator_KC = self.ratios(*_corners([by_role[role] for role in self.roles], missing))
        edges_KC = denominator_KC[:, 1:]
        if not ((edges_KC > SLACK).all(1) | (edges_KC < -SLACK).all(1)).all():
            return None
        value_C = (numerator_KC / denominator_KC).sum(0)
        return ValueRange(float(value_C[0]), float(value_C[1:].min()), float(value_C[1:].max()))


@dataclass(frozen=True)
class RankScore:
    """One reading of the OOD rank score; a source is tied with the best of its group, not with the one before it."""

    name: str
    formula: str
    rank: Callable[[list[int], int], float]  # from the sizes of the groups ahead and of one's own
    stated: bool = True

    def range(self, figure: PrintedFigure, missing: tuple[float, float] = UNKNOWN) -> ValueRange | None:
        """Return the score, and its extremes over the corners of the cells of each target."""
        limits = []
        for of_target in figure.targets.values():  # they share no cell, so the limits of the sum are sums of limits
            (success_SC,) = _corners([of_target], missing)
            printed, *ranks = (
                self._rank_of_first(success_S.tolist(), figure.scalars["tie"]) for success_S in success_SC.T
            )
            limits.append((printed, min(ranks), max(ranks)))
        return ValueRange(*(float(sum(of)) for of in zip(*limits, strict=True))) if limits else None

    def _rank_of_first(self, success: list[float], tie: float) -> float:
        if np.isnan(success).any():
            return float("nan")
        ahead: list[int] = []
        left = sorted(success, reverse=True)
        while True:
            group = [x for x in left if x >= left[0] - tie - SLACK]
            if success[0] in group:
                return self.rank(ahead, len(group))
            ahead.append(len(group))
            left = left[len(group) :]


# --- the metrics that are tried on each printed column: a, p and i are success after the arm, the plain run, before ---


def _sum(cells: np.ndarray) -> np.ndarray:
    return np.asarray(cells.sum(0, keepdims=True))


def _percent(top: np.ndarray, bottom: np.ndarray) -> Ratios:
    return 100 * _sum(top), _sum(bottom)


def _mean_percent(top: np.ndarray, bottom: np.ndarray) -> Ratios:
    return 100 * top / len(top), bottom


def _mean(points: np.ndarray) -> Ratios:
    return _sum(points), np.full_like(points[:1], len(points))


def _tax_rate_removed(arm: Any, plain: Any, init: Any, arm_gain: Any, plain_gain: Any) -> Ratios:
    """Points lost on all targets, times the gain at home of the other run, so that one ratio carries both rates."""
    lost_plain = (_sum(init) - _sum(plain)) * arm_gain
    return 100 * (lost_plain - (_sum(init) - _sum(arm)) * plain_gain), lost_plain


def _two_changes(after1: Any, before1: Any, over1: Any, after0: Any, before0: Any, over0: Any) -> Ratios:
    """The change of the policy with warm-up less that of the policy without."""
    return 100 * np.concatenate([after1 - before1, before0 - after0]), np.concatenate([over1, over0])


# fmt: off
M = PrintedMetric
OOD_CHANGE = (
    M("OOD change", "Σ(a − p) / Σp", lambda arm, plain: _percent(arm - plain, plain), stated=True),
    M("tax removed", "Σ(a − p) / Σ(i − p)", lambda arm, plain, init: _percent(arm - plain, init - plain)),
    M("tax saved", "Σ(a − p) / Σi", lambda arm, plain, init: _percent(arm - plain, init)),
    M("minus the arm's tax", "Σ(a − i) / Σi", lambda arm, init: _percent(arm - init, init)),
    M("change over the arm", "Σ(a − p) / Σa", lambda arm, plain: _percent(arm - plain, arm)),
    M("tax removed over the arm's tax", "Σ(a − p) / Σ(i − a)",
      lambda arm, plain, init: _percent(arm - plain, init - arm)),
    M("mean change", "mean of (a − p) / p", lambda arm, plain: _mean_percent(arm - plain, plain)),
    M("mean share removed", "mean of (a − p) / (i − p)",
      lambda arm, plain, init: _mean_percent(arm - plain, init - plain)),
    M("mean change over the start", "mean of (a − p) / i",
      lambda arm, plain, init: _mean_percent(arm - plain, init)),
    M("tax rate removed", "1 − (Σ(i − a) / ΔID of the arm) / (Σ(i − p) / ΔID plain)", _tax_rate_removed),
    M("mean points", "mean of a − p", lambda arm, plain: _mean(arm - plain)),
    M("sum of points", "Σ(a − p)", lambda arm, plain: (_sum(arm - plain), np.ones_like(arm[:1]))),
)
RANK = (  # the paper's words can be read in three ways
    RankScore("rank score 1, 1, 2", "Σ of ranks, the next rank after a tie", lambda ahead, own: len(ahead) + 1),
    RankScore("rank score 1, 1, 3", "Σ of ranks, one more than are ahead", lambda ahead, own: sum(ahead) + 1),
    RankScore("rank score 1½, 1½, 3", "Σ of mean ranks", lambda ahead, own: sum(ahead) + (own + 1) / 2),
)
RELATIVE = (
    M("relative change", "(after − i) / i", lambda after, init: _mean_percent(after - init, init), stated=True),
    M("relative change of the cell beside it", "(c − i) / i, c printed in the same table",
      lambda beside, init: _mean_percent(beside - init, init)),
    M("relative change of the crossed cell", "(c − i) / i, c with source and target crossed",
      lambda crossed, init: _mean_percent(crossed - init, init)),
    M("change over the end", "(after − i) / after", lambda after, init: _mean_percent(after - init, after)),
    M("points", "after − i", lambda after, init: _mean(after - init)),
)
DIFFERENCE = (
    M("difference of relative changes", "(a₂ − i₂) / i₂ − (a₁ − i₁) / i₁",
      lambda after0, init0, after1, init1: _two_changes(after1, init1, init1, after0, init0, init0), stated=True),
    M("difference by the cells beside it", "(c₂ − i₂) / i₂ − (c₁ − i₁) / i₁, c printed in the same table",
      lambda beside0, init0, beside1, init1: _two_changes(beside1, init1, init1, beside0, init0, init0)),
    M("difference over the end", "(a₂ − i₂) / a₂ − (a₁ − i₁) / a₁",
      lambda after0, init0, after1, init1: _two_changes(after1, init1, after1, after0, init0, after0)),
    M("difference of points", "(a₂ − i₂) − (a₁ − i₁)",
      lambda after0, init0, after1, init1: _mean((after1 - init1) - (after0 - init0))),
)
CELL = (  # what the table on warm-up prints next to its figures: the cell, which the main table has too
    M("the main table's cell", "after(s, t)", lambda after: _mean(after), stated=True),
    M("the crossed cell", "after(t, s)", lambda crossed: _mean(crossed)),
)
GAIN = (
    M("mean gain", "mean of after − before", lambda before, after: _mean(after - before), stated=True),
    M("sum of gains", "Σ(after − before)", lambda before, after: (_sum(after - before), np.ones_like(after[:1]))),
    M("relative gain", "Σ(after − before) / Σbefore", lambda before, after: _percent(after - before, before)),
    M("mean relative gain", "mean of (after − before) / before",
      lambda before, after: _mean_percent(after - before, before)),
)
# gentax's own, of a row: a fraction, points, points per point
MEASURES = {
    "tax": M("tax", "1 − Σafter / Σinit", lambda init, after: (_sum(init - after), _sum(init))),
    "mean_drop": M("mean drop", "mean of init − after", lambda init, after: _mean(init - after)),
    "tax_rate": M("tax rate", "mean drop / ΔID",
                  lambda init, after, gain: ((init - after).mean(0, keepdims=True), gain)),
}
# fmt: on

# --- figures, and what is found of them ---


@dataclass(frozen=True)
class MetricMatch(ValueRange):
    """The range of a metric that agrees with a figure."""

    metric: str


@dataclass(frozen=True)
class Judgement(Record):
    """The outcome for one figure."""

    where: tuple[str, ...]
    printed: float
    status: Status
    stated: ValueRange | None  # the stated metric (its first reading), over the targets that have cells
    matches: tuple[MetricMatch, ...]  # the best explanation first
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
        follow = [*best.most_common(), ("nothing that was tried", len(self.figures) - best.total())]
        parts = [f"{count} follow{'s' if count == 1 else ''} {name}" for name, count in follow if count]
        finding = f"Of {len(self.figures)} figures {', '.join(parts)}."
        if not self.pairs:
            return finding
        complete = sum(not j.missing for j in self.figures)
        return (
            f"{finding} Some metric agrees with the figure of another line in {self.elsewhere} of {self.pairs} pairs, "
            f"so about {self.elsewhere / self.pairs * complete:.1f} of {complete} would by accident."
        )


def _judge(name: str, printed: Sequence[PrintedFigure], metrics: Sequence[PrintedMetric | RankScore]) -> PrintedColumn:
    """Try metrics on figures, which are one column of a paper."""
    ranges = {metric.name: [metric.range(figure.present()) for figure in printed] for metric in metrics}
    complete = [n for n, figure in enumerate(printed) if not figure.missing]
    counts, accidents = [], set[tuple[int, int]]()
    for metric in metrics:
        of = ranges[metric.name]
        known = [n for n in complete if of[n] is not None]
        agree = {(n, m) for n in known for m in complete if agrees(printed[m], of[n])}
        own = {n for n, m in agree if n == m}
        elsewhere = {(n, m) for n, m in agree if n != m}
        accidents |= elsewhere
        sizes = len(own), len(known), len({(n, m) for n, m in elsewhere if m in known}), len(known) * (len(known) - 1)
        counts.append(MetricCount(metric.name, metric.formula, metric.stated, *sizes))
    judged = [
        _judgement(figure, {m: of[n] for m, of in ranges.items()}, metrics, counts) for n, figure in enumerate(printed)
    ]
    return PrintedColumn(name, tuple(judged), len(accidents), len(complete) * (len(complete) - 1), tuple(counts))


def _judgement(
    figure: PrintedFigure,
    ranges: Mapping[str, ValueRange | None],
    metrics: Sequence[PrintedMetric | RankScore],
    counts: Sequence[MetricCount],
) -> Judgement:
    found = {count.metric: count.agrees for count in counts}

    def rank(metric: PrintedMetric | RankScore) -> tuple[bool, int, float]:
        of = ranges[metric.name]
        return not metric.stated, -found[metric.name], of.high - of.low if of else 0.0

    agreeing = sorted((m for m in metrics if agrees(figure, ranges[m.name])), key=rank)
    known = [(m.name, ranges[m.name]) for m in agreeing]
    matches = tuple(MetricMatch(of.value, of.low, of.high, name) for name, of in known if of is not None)
    stated = bool(agreeing) and agreeing[0].stated
    missing, some = figure.missing, bool(figure.present().targets)
    if not some:
        status = Status.UNCHECKABLE
    elif stated and not missing:
        status = Status.REPRODUCED
    else:  # over fewer targets the stated metric is another one
        status = Status.OTHER if matches else Status.NOT
    possible = None
    if some and 0 < len(missing) <= MOST_MISSING:
        possible = tuple(m.name for m in metrics if agrees(figure, m.range(figure, ANY_SUCCESS)))
    first = ranges[metrics[0].name]
    note = _note(figure, first, possible, counts) if missing else ""
    shown = ranges[agreeing[0].name] if stated else first
    return Judgement(figure.where, figure.printed, status, shown, matches, missing, possible, note)


def _note(
    figure: PrintedFigure, stated: ValueRange | None, possible: tuple[str, ...] | None, counts: Sequence[MetricCount]
) -> str:
    missing, left = figure.missing, tuple(figure.present().targets)
    cells = ", ".join(missing) if len(missing) < 6 else f"{len(missing)} of {len(missing) + len(left)} targets"
    if not left:
        return f"needs {figure.needs or f'cells for {cells}'}"
    note = f"no cell for {cells}: cannot be recomputed"
    if possible is None:
        return note
    agreement = {count.metric: f"{count.metric} (agrees with {count.agrees} of {count.figures})" for count in counts}
    would = "; ".join(agreement[name] for name in possible) or "no metric"
    best = max(counts, key=lambda count: count.agrees).metric
    never = "" if best in possible else f", never as {agreement[best]}"
    over = f"{counts[0].metric} over {', '.join(left)} is {number(stated.value)}; " if stated else ""
    return f"{note}; {over}some success from 0 to 100 % there gives it as {would}{never}"


# --- all of a paper ---


RowMeasures = dict[str, ValueRange | None]  # by the names of MEASURES; None where a denominator may be 0


@dataclass(frozen=True)
class Recomputed:
    """A paper's rows under gentax's measures, its printed figures judged, and its claims counted.

    The measures of a row are over the targets that have a number; their ranges cover rounding alone.
    """

    study: PublishedTables
    rows: list[tuple[PublishedRun, RowMeasures]]
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
        rows = [json_value({key: getattr(row, key) for key in keys} | measures) for row, measures in self.rows]
        columns, claims = json_value(self.columns), json_value(self.claims)
        return {**study, "counts": counts, "columns": columns, "rows": rows, "claims": claims}


def recompute(study: PublishedTables) -> Recomputed:
    """Recompute the rows, figures and claims of a paper."""
    families: list[Sequence[PrintedMetric | RankScore]] = [OOD_CHANGE, RANK, RELATIVE, DIFFERENCE, CELL, GAIN]
    columns = zip(figures(study).items(), families, strict=True)
    judged = [_judge(name, of_column, metrics) for (name, of_column), metrics in columns if of_column]
    rows = []
    for row in study.rows:
        targets = {t: (row.init[t], after) for t, after in row.after.items()}
        figure = PrintedFigure((row.name,), np.nan, targets, ("init", "after"), {"gain": row.delta_id})
        rows.append((row, {name: metric.range(figure) for name, metric in MEASURES.items()}))
    return Recomputed(study, rows, judged, claims(study))


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
        for c in found.study.changes:
            change = c["after"] - c["before"]
            numbers = [number(x, 2) for x in (c["before"], c["after"], change)]
            what = (f"{c['model']} {c['trained']} → {c['tested']}", c.get("against", START), c["unit"])
            rows.append((*what, *numbers, f"{number(100 * change / c['before'])} %"))
        heads = ("trained → tested", "against", "unit", "before", "after", "change", "relative")
        yield Table("Before and after", heads, rows)
    if found.claims:
        rows = []
        for claim in found.claims:
            counts = (f"{claim.holds} of {len(claim.cases)}", str(claim.needed)) if claim.cases else (NONE, NONE)
            rows.append((claim.text, claim.status.value, *counts))
        notes = [f"{claim.text}: not in {'; '.join(claim.against)}." for claim in found.claims if claim.against]
        notes += [f"{claim.text}: needs {claim.lacks}." for claim in found.claims if claim.lacks]
        notes += [f"{claim.text}: {claim.remark}." for claim in found.claims if claim.remark]
        yield Table("Claims", ("claim", "state", "holds in", "needed"), rows, notes)


def _figures_table(column: PrintedColumn) -> Table:
    def digits_of(printed: float) -> int:
        return len(str(printed).partition(".")[2])

    digits = max(digits_of(judged.printed) for judged in column.figures)
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
        rows.append((line, number(judged.printed, digits_of(judged.printed)), stated, state, *best))
        if judged.note:
            notes.append(f"{line}: {judged.note}.")
    heads = ("line", "printed", "as stated", "state", "metric that agrees", "its value", "width")
    return Table(column.name, heads, rows, notes)


def _range(computed: ValueRange | None, digits: int) -> str:
    if computed is None:
        return NONE
    return f"{number(computed.value, digits)} ({number(computed.low, digits)} to {number(computed.high, digits)})"
