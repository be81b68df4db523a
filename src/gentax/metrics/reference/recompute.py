"""Recompute everything that a paper derives from its cells, and say which metric each printed figure follows.

A figure is *reproduced* when a number that is printed like it lies in the range of the stated metric (see
`candidates`), *reproduced under another metric* when only other metrics of the family agree, else *not reproduced*. A
figure whose cells are all missing is *not checkable*. Where some cells are missing, the metrics are tried on the
targets that are left, and the note says whether any success from 0 to 100 in the missing cells would give the figure.

Trying many metrics makes accidental matches likely, so every match is reported with the width of its range, the other
metrics that agree, and, for the column, how often each metric agrees with the figures of *other* lines, which can only
be by accident. Where several agree, the one that explains most figures of the column comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gentax.metrics.reference import candidates as c
from gentax.metrics.reference.candidates import SLACK, Cells, Family, Range, Standings, half_step
from gentax.metrics.reference.claims import Claim, Status, claims
from gentax.metrics.reference.published import Gain, PrintedChange, PrintedRank, Published, Row, WarmUp
from gentax.metrics.verdict import number

ANY_SUCCESS = (0.0, 100.0)  # percent: what a missing cell could be
MOST_MISSING = 4  # targets without a cell for which that is tried; with more, nearly every figure is possible


@dataclass(frozen=True)
class Figure:
    """A printed figure and the cells it should follow from."""

    where: tuple[str, ...]  # its line and column
    printed: float
    cells: Cells | Standings
    needs: str = ""  # what a figure without any cell would need
    exact: bool = False  # a count, which is not rounded

    def agrees(self, found: Range | None) -> bool:
        """Return whether some number in this range is printed as the figure is."""
        half = 0.0 if self.exact else half_step(self.printed)
        return found is not None and found.low - half - SLACK <= self.printed <= found.high + half + SLACK


class Match(NamedTuple):
    """A metric that agrees with a figure."""

    metric: Any
    range: Range


@dataclass(frozen=True)
class Judgement:
    """The outcome for one figure."""

    figure: Figure
    status: Status
    stated: Range | None  # the stated metric (its first reading), over the targets that have cells
    matches: tuple[Match, ...]  # the best explanation first
    possible: tuple[str, ...] | None  # metrics that agree for some success in the missing cells; None: not tried
    note: str  # what is missing and what that leaves open; empty where nothing is

    def to_json(self) -> dict[str, Any]:
        return {
            "where": list(self.figure.where),
            "printed": self.figure.printed,
            "status": self.status.value,
            "stated": self.stated.to_json() if self.stated else None,
            "matches": [{"metric": m.metric.name, **m.range.to_json()} for m in self.matches],
            "missing": list(self.figure.cells.missing),
            "possible": None if self.possible is None else list(self.possible),
            "note": self.note,
        }


@dataclass(frozen=True)
class Tried:
    """How a metric did on the figures of a column that have all their cells."""

    metric: Any
    stated: bool
    agrees: int  # figures it agrees with
    figures: int  # that it could be tried on
    elsewhere: int  # agreements of its values with the figures of other lines: accidents
    pairs: int  # that were tried for accidents

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "metric": self.metric.name, "formula": self.metric.formula}


@dataclass(frozen=True)
class Column:
    """A printed column: its figures judged, and the metrics that were tried on it."""

    name: str
    judgements: tuple[Judgement, ...]
    tried: tuple[Tried, ...]
    figures: int  # that have all their cells
    elsewhere: int  # pairs of a line and the figure of another on which at least one metric agrees
    pairs: int

    @property
    def finding(self) -> str:
        """Say which metrics the figures follow, each by its best explanation, and how many would by accident."""
        best = Counter(j.matches[0].metric.name for j in self.judgements if j.matches)
        follow = [*best.most_common(), ("nothing that was tried", len(self.judgements) - best.total())]
        parts = [f"{count} follow{'s' if count == 1 else ''} {name}" for name, count in follow if count]
        finding = f"Of {len(self.judgements)} figures {', '.join(parts)}."
        if not self.pairs:
            return finding
        chance = f"about {self.elsewhere / self.pairs * self.figures:.1f} of {self.figures} would by accident"
        return (
            f"{finding} Some metric agrees with the figure of another line in {self.elsewhere} of {self.pairs} pairs, "
            f"so {chance}."
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "figures": [j.to_json() for j in self.judgements],
            "elsewhere": self.elsewhere,
            "pairs": self.pairs,
            "metrics": [t.to_json() for t in self.tried],
        }


@dataclass(frozen=True)
class RowMeasures:
    """One printed row under gentax's own measures, over the targets that have a number.

    The ranges cover rounding alone: the papers print no spread, so nothing can be said of seeds and tasks.
    """

    row: Row
    tax: Range | None  # a fraction
    mean_drop: Range | None  # points
    tax_rate: Range | None  # points lost on a target per point gained at home; None when the gain may be 0

    @classmethod
    def of(cls, row: Row) -> RowMeasures:
        roles = {"init": tuple(row.init[t] for t in row.targets), "after": tuple(row.ood.values())}
        cells = Cells(row.targets, roles, {"gain": row.delta_id}).present()
        return cls(row, *(metric.range(cells) for metric in (c.TAX, c.MEAN_DROP, c.TAX_RATE)))

    def to_json(self) -> dict[str, Any]:
        row = {key: getattr(self.row, key) for key in ("policy", "source", "arm", "rl_steps", "delta_id", "table")}
        ranges = {key: getattr(self, key) for key in ("tax", "mean_drop", "tax_rate")}
        return {
            **row,
            "ood": dict(self.row.ood),
            "missing": list(self.row.missing),
            **{key: found.to_json() if found else None for key, found in ranges.items()},
        }


@dataclass(frozen=True)
class Recomputed:
    """A paper's rows under gentax's measures, its printed figures judged, and its claims counted."""

    study: Published
    rows: tuple[RowMeasures, ...]
    columns: tuple[Column, ...]
    claims: tuple[Claim, ...]

    @property
    def figures(self) -> Counter[Status]:
        """How many printed figures had each outcome."""
        return Counter(j.status for column in self.columns for j in column.judgements)

    @property
    def summary(self) -> str:
        """Summarize the figures and the claims in a line."""
        parts = []
        for what, counts in (("printed figures", self.figures), ("claims", Counter(one.status for one in self.claims))):
            outcomes = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
            parts.append(f"{counts.total()} {what}: {outcomes}")
        return f"arXiv {self.study.key}. " + ". ".join(parts) + "."

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.study.key,
            "citation": self.study.citation,
            "note": self.study.note,
            "counts": {status.value: self.figures[status] for status in Status},
            "columns": [column.to_json() for column in self.columns],
            "rows": [row.to_json() for row in self.rows],
            "claims": [claim.to_json() for claim in self.claims],
        }


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
    return Recomputed(study, tuple(map(RowMeasures.of, study.rows)), columns, claims(study))


def judge(name: str, figures: Sequence[Figure], family: Family) -> Column:
    """Try the metrics of `family` on each of `figures`, which are one column of a paper."""
    ranges = {metric.name: [metric.range(figure.cells.present()) for figure in figures] for metric in family.metrics}
    tried = tuple(_tried(metric, ranges[metric.name], figures, metric in family.stated) for metric in family.metrics)
    judgements = [
        _judge_figure(figure, {metric: of[n] for metric, of in ranges.items()}, family, tried)
        for n, figure in enumerate(figures)
    ]
    complete = [n for n, figure in enumerate(figures) if not figure.cells.missing]
    pairs = [(n, figures[m]) for n in complete for m in complete if n != m]
    elsewhere = sum(any(figure.agrees(of[n]) for of in ranges.values()) for n, figure in pairs)
    return Column(name, tuple(judgements), tried, len(complete), elsewhere, len(pairs))


def _tried(metric: Any, ranges: list[Range | None], figures: Sequence[Figure], stated: bool) -> Tried:
    lines = [(r, f) for r, f in zip(ranges, figures, strict=True) if r is not None and not f.cells.missing]
    others = [(r, figure) for n, (r, _) in enumerate(lines) for m, (_, figure) in enumerate(lines) if n != m]
    counts = [sum(figure.agrees(r) for r, figure in of) for of in (lines, others)]
    return Tried(metric, stated, counts[0], len(lines), counts[1], len(others))


def _judge_figure(
    figure: Figure, ranges: dict[str, Range | None], family: Family, tried: tuple[Tried, ...]
) -> Judgement:
    agrees = {t.metric.name: t.agrees for t in tried}

    def matches(metrics: tuple[Any, ...]) -> list[Match]:
        agreeing = [Match(metric, r) for metric in metrics if (r := ranges[metric.name]) and figure.agrees(r)]
        return sorted(agreeing, key=lambda match: (-agrees[match.metric.name], match.range.width))

    stated, others = matches(family.stated), matches(family.others)
    missing, some = figure.cells.missing, bool(figure.cells.present().targets)
    if not some:
        status = Status.UNCHECKABLE
    elif stated and not missing:
        status = Status.REPRODUCED
    else:  # over fewer targets the stated metric is another one
        status = Status.OTHER if stated or others else Status.NOT
    possible = None
    if some and 0 < len(missing) <= MOST_MISSING:
        filled = [(metric.name, metric.range(figure.cells, ANY_SUCCESS)) for metric in family.metrics]
        possible = tuple(name for name, r in filled if figure.agrees(r))
    first = ranges[family.stated[0].name]
    return Judgement(
        figure=figure,
        status=status,
        stated=stated[0].range if stated else first,
        matches=(*stated, *others),
        possible=possible,
        note=_note(figure, first, possible, tried) if missing else "",
    )


def _note(figure: Figure, stated: Range | None, possible: tuple[str, ...] | None, tried: tuple[Tried, ...]) -> str:
    missing, left = figure.cells.missing, figure.cells.present().targets
    cells = ", ".join(missing) if len(missing) < 6 else f"{len(missing)} of {len(missing) + len(left)} targets"
    if not left:
        return f"needs {figure.needs or f'cells for {cells}'}"
    note = f"no cell for {cells}: cannot be recomputed"
    if possible is None:
        return note
    counts = {t.metric.name: f"{t.metric.name} (agrees with {t.agrees} of {t.figures})" for t in tried}
    would = "; ".join(counts[name] for name in possible) or "no metric"
    best = max(tried, key=lambda t: t.agrees).metric.name
    never = "" if best in possible else f", never as {counts[best]}"
    over = f"{tried[0].metric.name} over {', '.join(left)} is {number(stated.value)}; " if stated else ""
    return f"{note}; {over}some success from 0 to 100 % there gives it as {would}{never}"


# --- the cells of each printed figure ---


def _ood_change(study: Published, line: PrintedChange) -> Figure:
    arm, plain = study.row(line.policy, line.source, line.arm), study.row(line.policy, line.source)
    roles = {
        "arm": tuple(arm.ood.get(t) for t in plain.targets),
        "plain": tuple(plain.ood.values()),
        "init": tuple(plain.init[t] for t in plain.targets),
    }
    gains = {"arm_gain": arm.delta_id, "plain_gain": plain.delta_id}
    return Figure((line.arm, line.policy, line.source), line.printed, Cells(plain.targets, roles, gains))


def _rank(study: Published, line: PrintedRank) -> Figure:
    """Collect, for each target of each policy, the plain runs that were tested on it, the line's own source first."""
    targets, groups = [], []
    for policy in line.policies:
        own = study.row(policy, line.source)
        rivals = [row for row in study.select(policy=policy, arm="plain", rl_steps=study.rl_steps) if row is not own]
        for target in own.targets:
            targets.append(f"{policy} {target}")
            groups.append((own.ood[target], *(row.ood[target] for row in rivals if target in row.ood)))
    standings = Standings(tuple(targets), tuple(groups), study.rank_tie)
    return Figure((" + ".join(line.policies), line.source), line.printed, standings, exact=True)


def _relative(study: Published, line: WarmUp, n: int) -> Figure:
    roles = {role: (cell,) for role, cell in _warm_up_cells(study, line, n).items()}
    return Figure((line.policies[n], line.source, line.target), line.relative[n], Cells((line.target,), roles))


def _difference(study: Published, line: WarmUp) -> Figure:
    roles = {f"{role}{n}": (cell,) for n in (0, 1) for role, cell in _warm_up_cells(study, line, n).items()}
    return Figure(("", line.source, line.target), line.difference, Cells((line.target,), roles))


def _cell(study: Published, line: WarmUp, n: int) -> Figure:
    roles = {role: (cell,) for role, cell in _warm_up_cells(study, line, n).items() if role in ("after", "crossed")}
    return Figure((line.policies[n], line.source, line.target), line.cells[n] or 0.0, Cells((line.target,), roles))


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
        (change.trained, change.tested): change
        for change in study.changes
        if (change.model, change.unit, change.against) == (gain.model, "%", gain.against)
    }
    changes = [known.get(pair) for pair in gain.pairs]
    roles = {role: tuple(getattr(one, role) if one else None for one in changes) for role in ("before", "after")}
    names = tuple(t if gain.trained == s else f"{s} → {t}" for s, t in gain.pairs)
    shown = ", ".join(names) if len(names) < 6 else f"all {len(names)} pairs of domains"
    needs = f"success with {gain.against} and after, on {shown}"
    return Figure((gain.model, gain.trained, gain.over), gain.printed, Cells(names, roles), needs)
