"""Tries every metric of a column on every printed figure of it, and says which figures follow which metric.

A figure is *reproduced* when a number that is printed like it lies in the range of the stated metric (see `ranges`),
*reproduced under another metric* when only others of the registry agree, else *not reproduced*. A figure of which
every cell is missing is *not checkable*. Where some cells are missing, the metrics are tried on the targets that are
left, and it is said whether any success from 0 to 100 in the missing cells would give the figure.

Trying many metrics makes accidents likely, so three things are said with every match: how wide the range is, which
other metrics agree, and, for the column, how often each metric agrees with the figures of *other* lines, which can
only be by accident. Where several agree, the one that explains most figures of the column is named first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gentax.metrics.reference.metrics import Candidate, Family
from gentax.metrics.reference.ranges import Cells, Range, half_step
from gentax.metrics.reference.ranks import Standings
from gentax.metrics.verdict import number

ANY_SUCCESS = (0.0, 100.0)  # percent: what a missing cell could be
MOST_MISSING = 4  # targets without a cell for which that is tried; with more, nearly every figure is possible


class Status(StrEnum):
    """What became of a printed figure or claim."""

    REPRODUCED = "reproduced"
    OTHER = "reproduced under another metric"
    NOT = "not reproduced"
    UNCHECKABLE = "not checkable"


@dataclass(frozen=True)
class Figure:
    """A printed figure and the cells it should follow from."""

    where: tuple[str, ...]  # its line and column
    printed: float
    cells: Cells | Standings
    lacks: str = ""  # what a figure without any cell would need
    exact: bool = False  # a count, which is not rounded

    def agrees(self, found: Range | None) -> bool:
        """Say whether the figure can be what is printed of a number in this range."""
        return found is not None and found.agrees(self.printed, 0.0 if self.exact else half_step(self.printed))


@dataclass(frozen=True)
class Match:
    """A metric that agrees with a figure."""

    metric: Candidate
    range: Range


@dataclass(frozen=True)
class Judgement:
    """What became of one figure."""

    figure: Figure
    status: Status
    stated: Range | None  # the stated metric (its first reading), over the targets that have cells
    matches: tuple[Match, ...]  # the best explanation first
    possible: tuple[str, ...] | None  # metrics that some success in the missing cells makes agree; None: not tried
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

    metric: Candidate
    stated: bool
    agrees: int  # figures it agrees with
    figures: int  # that it could be tried on
    elsewhere: int  # agreements of its values with the figures of other lines: accidents
    pairs: int  # that were tried for accidents

    def to_json(self) -> dict[str, Any]:
        counts = {key: getattr(self, key) for key in ("stated", "agrees", "figures", "elsewhere", "pairs")}
        return {"metric": self.metric.name, "formula": self.metric.formula, **counts}


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
        none = len(self.judgements) - best.total()
        said = [_follow(count, name) for name, count in best.most_common()]
        said += [_follow(none, "nothing that was tried")] if none else []
        found = f"Of {len(self.judgements)} figures {', '.join(said)}."
        if not self.pairs:
            return found
        rate = f"{self.elsewhere} of {self.pairs} pairs"
        chance = f"about {self.elsewhere / self.pairs * self.figures:.1f} of {self.figures} would by accident"
        return f"{found} Some metric agrees with the figure of another line in {rate}, so {chance}."

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "figures": [j.to_json() for j in self.judgements],
            "elsewhere": self.elsewhere,
            "pairs": self.pairs,
            "metrics": [t.to_json() for t in self.tried],
        }


def judge(name: str, figures: Sequence[Figure], family: Family) -> Column:
    """Try the metrics of `family` on each of `figures`, which are one column of a paper."""
    ranges = {metric.name: [metric.range(figure.cells.present()) for figure in figures] for metric in family.metrics}
    tried = tuple(_tried(metric, ranges[metric.name], figures, metric in family.stated) for metric in family.metrics)
    judgements = [
        _judgement(figure, {name: found[n] for name, found in ranges.items()}, family, tried)
        for n, figure in enumerate(figures)
    ]
    whole = [n for n, figure in enumerate(figures) if not figure.cells.missing]
    pairs = [(n, figures[m]) for n in whole for m in whole if n != m]
    elsewhere = sum(any(figure.agrees(found[n]) for found in ranges.values()) for n, figure in pairs)
    return Column(name, tuple(judgements), tried, len(whole), elsewhere, len(pairs))


def _judgement(figure: Figure, ranges: dict[str, Range | None], family: Family, tried: tuple[Tried, ...]) -> Judgement:
    agrees = {t.metric.name: t.agrees for t in tried}

    def matches(metrics: tuple[Candidate, ...]) -> list[Match]:
        found = [Match(metric, ranges[metric.name]) for metric in metrics if figure.agrees(ranges[metric.name])]
        return sorted(found, key=lambda match: (-agrees[match.metric.name], match.range.width))

    stated, others = matches(family.stated), matches(family.others)
    missing, some = figure.cells.missing, bool(figure.cells.present().targets)
    if not some:
        status = Status.UNCHECKABLE
    elif stated and not missing:
        status = Status.REPRODUCED
    else:  # over fewer targets the stated metric is another one
        status = Status.OTHER if stated or others else Status.NOT
    possible = _possible(figure, family) if some and 0 < len(missing) <= MOST_MISSING else None
    return Judgement(
        figure=figure,
        status=status,
        stated=stated[0].range if stated else ranges[family.stated[0].name],
        matches=(*stated, *others),
        possible=possible,
        note=_note(figure, ranges[family.stated[0].name], possible, tried) if missing else "",
    )


def _possible(figure: Figure, family: Family) -> tuple[str, ...]:
    """Return the metrics that give the figure with some success in the missing cells."""
    filled = [(metric.name, metric.range(figure.cells, ANY_SUCCESS)) for metric in family.metrics]
    return tuple(name for name, found in filled if figure.agrees(found))


def _follow(count: int, name: str) -> str:
    return f"{count} follow{'s' if count == 1 else ''} {name}"


def _note(figure: Figure, stated: Range | None, possible: tuple[str, ...] | None, tried: tuple[Tried, ...]) -> str:
    gone, left = figure.cells.missing, figure.cells.present().targets
    cells = ", ".join(gone) if len(gone) < 6 else f"{len(gone)} of {len(gone) + len(left)} targets"
    if not left:
        return f"needs {figure.lacks or f'cells for {cells}'}"
    said = f"no cell for {cells}: cannot be recomputed"
    if possible is None:
        return said
    counts = {t.metric.name: f"{t.metric.name} (agrees with {t.agrees} of {t.figures})" for t in tried}
    would = "; ".join(counts[name] for name in possible) or "no metric"
    best = max(tried, key=lambda t: t.agrees).metric.name
    never = "" if best in possible else f", never as {counts[best]}"
    rest = f"{tried[0].metric.name} over {', '.join(left)} is {number(stated.value)}; " if stated else ""
    return f"{said}; {rest}some success from 0 to 100 % there gives it as {would}{never}"


def _tried(metric: Candidate, ranges: list[Range | None], figures: Sequence[Figure], stated: bool) -> Tried:
    lines = [(r, f) for r, f in zip(ranges, figures, strict=True) if r is not None and not f.cells.missing]
    others = [(found, figure) for n, (found, _) in enumerate(lines) for m, (_, figure) in enumerate(lines) if n != m]
    return Tried(
        metric=metric,
        stated=stated,
        agrees=sum(figure.agrees(found) for found, figure in lines),
        figures=len(lines),
        elsewhere=sum(figure.agrees(found) for found, figure in others),
        pairs=len(others),
    )
