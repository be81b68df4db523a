"""Recompute everything that a paper derives from its cells, and say which metric each printed figure follows.

A figure is *reproduced* when a number that is printed like it lies in the range of the stated metric (see
`candidates`), *reproduced under another metric* when only other metrics of the family agree, else *not reproduced*. A
figure whose cells are all missing is *not checkable*. Where some are missing, the metrics are tried on the targets that
are left, and a note says whether any success from 0 to 100 in the missing cells would give the figure.

Trying many metrics makes accidental matches likely. So every match has the width of its range, and each column says
how often its metrics agree with the figures of *other* lines, which can only be by accident. Where several agree, the
one that explains most figures of the column comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gentax.core.results import Record, json_value
from gentax.metrics.reference import candidates as c
from gentax.metrics.reference.candidates import SLACK, MetricFamily, PrintedCells, Range, half_step
from gentax.metrics.reference.claims import Claim, Status, claims
from gentax.metrics.reference.published import Gain, PrintedChange, PrintedRank, Published, PublishedRun, WarmUp
from gentax.metrics.verdict import number

ANY_SUCCESS = (0.0, 100.0)  # percent: what a missing cell could be
MOST_MISSING = 4  # targets without a cell for which that is tried; with more, nearly every figure is possible


@dataclass(frozen=True)
class Figure:
    """A printed figure and the cells it should follow from."""

    where: tuple[str, ...]  # its line and column
    printed: float
    cells: PrintedCells
    needs: str = ""  # what a figure without any cell would need
    exact: bool = False  # a count, which is not rounded

    def agrees(self, computed: Range | None) -> bool:
        """Return whether some number in this range is printed as the figure is."""
        half = 0.0 if self.exact else half_step(self.printed)
        return computed is not None and computed.low - half - SLACK <= self.printed <= computed.high + half + SLACK


@dataclass(frozen=True)
class Match(Range):
    """The range of a metric that agrees with a figure."""

    metric: str


@dataclass(frozen=True)
class Judgement(Record):
    """The outcome for one figure."""

    where: tuple[str, ...]
    printed: float
    status: Status
    stated: Range | None  # the stated metric (its first reading), over the targets that have cells
    matches: tuple[Match, ...]  # the best explanation first
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
class Column(Record):
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


@dataclass(frozen=True)
class RunMeasures:
    """One printed row under gentax's own measures, over the targets that have a number.

    The ranges cover rounding alone: the papers print no spread, so nothing can be said of seeds and tasks.
    """

    row: PublishedRun
    tax: Range | None  # a fraction
    mean_drop: Range | None  # points
    tax_rate: Range | None  # points lost on a target per point gained at home; None when the gain may be 0

    @classmethod
    def of(cls, row: PublishedRun) -> RunMeasures:
        groups = {t: (row.init[t], after) for t, after in row.after.items()}
        cells = PrintedCells(groups, ("init", "after"), {"gain": row.delta_id})
        return cls(row, *(metric.range(cells) for metric in (c.TAX, c.MEAN_DROP, c.TAX_RATE)))

    def to_json(self) -> dict[str, Any]:
        keys = ("policy", "source", "arm", "rl_steps", "delta_id", "table", "ood", "missing")
        row = {key: json_value(getattr(self.row, key)) for key in keys}
        return row | {key: json_value(getattr(self, key)) for key in ("tax", "mean_drop", "tax_rate")}


@dataclass(frozen=True)
class Recomputed:
    """A paper's rows under gentax's measures, its printed figures judged, and its claims counted."""

    study: Published
    rows: tuple[RunMeasures, ...]
    columns: tuple[Column, ...]
    claims: tuple[Claim, ...]

    @property
    def counts(self) -> Counter[Status]:
        """How many printed figures had each outcome."""
        return Counter(j.status for column in self.columns for j in column.figures)

    @property
    def summary(self) -> str:
        """Summarize the figures and the claims in a line."""
        parts = []
        for what, counts in (
            ("printed figures", self.counts),
            ("claims", Counter(claim.status for claim in self.claims)),
        ):
            outcomes = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
            parts.append(f"{counts.total()} {what}: {outcomes}")
        return f"arXiv {self.study.key}. " + ". ".join(parts) + "."

    def to_json(self) -> dict[str, Any]:
        study = {"study": self.study.key, "citation": self.study.citation, "note": self.study.note}
        counts = {status.value: self.counts[status] for status in Status}
        return {**study, "counts": counts, **{k: json_value(getattr(self, k)) for k in ("columns", "rows", "claims")}}


def recompute(study: Published) -> Recomputed:
    """Recompute the rows, figures and claims of `study`."""
    warm = [(line, n) for line in study.warm_up for n in (0, 1)]
    families = (
        ("OOD change, %", [_ood_change(study, line) for line in study.ood_change], c.OOD_CHANGE),
        ("OOD rank score", [_rank(study, line) for line in study.rank_score], c.RANK),
        ("SFT warm-up: change, %", [_relative(study, *line) for line in warm], c.RELATIVE),
        ("SFT warm-up: difference, points", [_difference(study, line) for line in study.warm_up], c.DIFFERENCE),
        ("SFT warm-up: cell, %", [_cell(study, w, n) for w, n in warm if w.cells[n] is not None], c.CELL),
        ("Gain, points", [_gain(study, gain) for gain in study.gains], c.GAIN),
    )
    columns = tuple(judge(name, figures, family) for name, figures, family in families if figures)
    return Recomputed(study, tuple(map(RunMeasures.of, study.rows)), columns, claims(study))


def judge(name: str, figures: Sequence[Figure], family: MetricFamily) -> Column:
    """Try the metrics of `family` on each of `figures`, which are one column of a paper."""
    metrics = family.stated + family.others
    ranges = {metric.name: [metric.range(figure.cells.present()) for figure in figures] for metric in metrics}
    complete = [n for n, figure in enumerate(figures) if not figure.cells.missing]
    pairs = [(n, figures[m]) for n in complete for m in complete if n != m]
    counts = []
    for metric in metrics:
        of_metric = ranges[metric.name]
        known = [n for n in complete if of_metric[n] is not None]
        own = sum(figures[n].agrees(of_metric[n]) for n in known)
        accidents = sum(figures[m].agrees(of_metric[n]) for n in known for m in known if n != m)
        sizes = (own, len(known), accidents, len(known) * (len(known) - 1))
        counts.append(MetricCount(metric.name, metric.formula, metric in family.stated, *sizes))
    judged = [
        _judge_figure(figure, {metric: of[n] for metric, of in ranges.items()}, family, counts)
        for n, figure in enumerate(figures)
    ]
    elsewhere = sum(any(figure.agrees(of[n]) for of in ranges.values()) for n, figure in pairs)
    return Column(name, tuple(judged), elsewhere, len(pairs), tuple(counts))


def _judge_figure(
    figure: Figure, ranges: dict[str, Range | None], family: MetricFamily, counts: Sequence[MetricCount]
) -> Judgement:
    agrees = {count.metric: count.agrees for count in counts}

    def matches(metrics: Sequence[c.Metric | c.RankScore]) -> list[Match]:
        known = [(metric.name, ranges[metric.name]) for metric in metrics]
        agreeing = [Match(r.value, r.low, r.high, name) for name, r in known if r is not None and figure.agrees(r)]
        return sorted(agreeing, key=lambda match: (-agrees[match.metric], match.width))

    stated, others = matches(family.stated), matches(family.others)
    missing, some = figure.cells.missing, bool(figure.cells.present().groups)
    if not some:
        status = Status.UNCHECKABLE
    elif stated and not missing:
        status = Status.REPRODUCED
    else:  # over fewer targets the stated metric is another one
        status = Status.OTHER if stated or others else Status.NOT
    possible = None
    if some and 0 < len(missing) <= MOST_MISSING:
        metrics = family.stated + family.others
        possible = tuple(m.name for m in metrics if figure.agrees(m.range(figure.cells, ANY_SUCCESS)))
    first = ranges[family.stated[0].name]
    note = _note(figure, first, possible, counts) if missing else ""
    shown = Range(stated[0].value, stated[0].low, stated[0].high) if stated else first
    return Judgement(figure.where, figure.printed, status, shown, (*stated, *others), missing, possible, note)


def _note(figure: Figure, stated: Range | None, possible: tuple[str, ...] | None, counts: Sequence[MetricCount]) -> str:
    missing, left = figure.cells.missing, tuple(figure.cells.present().groups)
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


# --- the cells of each printed figure ---


def _ood_change(study: Published, line: PrintedChange) -> Figure:
    arm, plain = study.row(line.policy, line.source, line.arm), study.row(line.policy, line.source)
    groups = {t: (arm.ood.get(t), cell, plain.init[t]) for t, cell in plain.ood.items()}
    gains = {"arm_gain": arm.delta_id, "plain_gain": plain.delta_id}
    cells = PrintedCells(groups, ("arm", "plain", "init"), gains)
    return Figure((line.arm, line.policy, line.source), line.printed, cells)


def _rank(study: Published, line: PrintedRank) -> Figure:
    """Collect, for each target of each policy, the plain runs that were tested on it, the line's own source first."""
    groups = {}
    for policy in line.policies:
        own = study.row(policy, line.source)
        rivals = [row for row in study.select(policy=policy, arm="plain", rl_steps=study.rl_steps) if row is not own]
        for target, cell in own.ood.items():
            groups[f"{policy} {target}"] = (cell, *(row.ood[target] for row in rivals if target in row.ood))
    cells = PrintedCells(groups, scalars={"tie": study.rank_tie})
    return Figure((" + ".join(line.policies), line.source), line.printed, cells, exact=True)


def _relative(study: Published, line: WarmUp, n: int) -> Figure:
    return _warm_up(line, line.policies[n], line.relative[n], _warm_up_cells(study, line, n))


def _difference(study: Published, line: WarmUp) -> Figure:
    cells = {f"{role}{n}": cell for n in (0, 1) for role, cell in _warm_up_cells(study, line, n).items()}
    return _warm_up(line, "", line.difference, cells)


def _cell(study: Published, line: WarmUp, n: int) -> Figure:
    cells = _warm_up_cells(study, line, n)
    known = {role: cell for role, cell in cells.items() if role in ("after", "crossed")}
    return _warm_up(line, line.policies[n], line.cells[n] or 0.0, known)


def _warm_up(line: WarmUp, policy: str, printed: float, cells: dict[str, float | None]) -> Figure:
    group = PrintedCells({line.target: tuple(cells.values())}, tuple(cells))
    return Figure((policy, line.source, line.target), printed, group)


def _warm_up_cells(study: Published, line: WarmUp, n: int) -> dict[str, float | None]:
    """Return the cells of one policy on one line; a role that the paper has no number for is absent."""
    policy = line.policies[n]
    cells = {"init": study.init[policy][line.target], "after": study.row(policy, line.source).ood[line.target]}
    if line.cells[n] is not None:
        cells["beside"] = line.cells[n]
    for row in study.select(policy=policy, source=line.target, arm="plain", rl_steps=study.rl_steps):
        if row.ood.get(line.source) is not None:
            cells["crossed"] = row.ood[line.source]
    return cells


def _gain(study: Published, gain: Gain) -> Figure:
    known = {
        (change.trained, change.tested): (change.before, change.after)
        for change in study.changes
        if (change.model, change.unit, change.against) == (gain.model, "%", gain.against)
    }
    groups = {t if gain.trained == s else f"{s} → {t}": known.get((s, t), (None, None)) for s, t in gain.pairs}
    shown = ", ".join(groups) if len(groups) < 6 else f"all {len(groups)} pairs of domains"
    needs = f"success with {gain.against} and after, on {shown}"
    cells = PrintedCells(groups, ("before", "after"))
    return Figure((gain.model, gain.trained, gain.over), gain.printed, cells, needs)
