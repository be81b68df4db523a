"""Candidate metrics for a printed figure, and how far the rounding of its cells can move each of them.

A cell printed as 15.2 is anything from 15.15 to 15.25. Every metric is a sum of ratios in which a cell enters numerator
and denominator at most to the first power, and no two ratios share a cell. With the other cells fixed, such a metric is
monotone in each cell while no denominator passes through 0, so trying every corner of the box of cells gives the exact
range. Where a denominator may be 0 there is no range, and no match.

One family of metrics per printed column: what the paper states first, then the other differences and ratios that its
words could mean. In the formulae a, p and i are the success on a target of the arm, of the plain run and before RL.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from gentax.core import UsageError
from gentax.core.results import Record

MOST_CELLS = 20  # whose corners are tried, a million
SLACK = 1e-9  # of floating point, when a figure lies on the edge of a range or a denominator reaches 0
NO_LIMITS = (np.nan, np.nan)

Ratios = tuple[np.ndarray, np.ndarray]  # numerators and denominators of the ratios of a sum, both (K, C)
Group = tuple[float | None, ...]  # printed cells; None is a missing one


def half_step(printed: float) -> float:
    """Return the largest rounding error of a printed number, by its last digit.

    >>> half_step(15.2), half_step(7.0), half_step(10.25), half_step(-18)
    (0.05, 0.05, 0.005, 0.5)
    """
    return 5 / 10 ** (len(str(printed).partition(".")[2]) + 1)


@dataclass(frozen=True)
class Range(Record):
    """A recomputed number: from the cells as printed, and the least and most that their rounding allows."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class PrintedCells:
    """The printed cells that a figure is computed from.

    Of a rank score, a group has the success after RL on the source in question, then on the others.
    """

    groups: Mapping[str, Group]  # target -> a cell for each role
    roles: tuple[str, ...] = ()
    scalars: Mapping[str, float] = field(default_factory=dict)  # role -> one number for all targets, such as ΔID

    @property
    def missing(self) -> tuple[str, ...]:
        """The targets of which some cell is missing."""
        return tuple(t for t, group in self.groups.items() if None in group)

    def present(self) -> PrintedCells:
        """Return the cells of the targets of which none is missing."""
        return replace(self, groups={t: group for t, group in self.groups.items() if None not in group})

    def by_role(self) -> dict[str, Group]:
        """Return the cells of each role, one for each target, or a single one."""
        of_targets = {role: tuple(group[n] for group in self.groups.values()) for n, role in enumerate(self.roles)}
        return of_targets | {role: (value,) for role, value in self.scalars.items()}


def corners(groups: Iterable[Group], missing: tuple[float, float]) -> list[np.ndarray]:
    """Return (T, 1 + 2^N) for each group of T cells: as printed, then every corner of the box of all N cells.

    A cell that is None may be anything within `missing`.
    """
    groups = list(groups)
    box_N3 = np.array([_limits(cell, missing) for group in groups for cell in group], float).reshape(-1, 3)
    count = len(box_N3)
    if count > MOST_CELLS:
        raise UsageError(f"a figure of {count} cells has too many corners to try; {MOST_CELLS} at most")
    high_NC = (np.arange(2**count)[None, :] >> np.arange(count)[:, None] & 1).astype(bool)
    values_NC = np.concatenate([box_N3[:, 1:2], np.where(high_NC, box_N3[:, 2:], box_N3[:, :1])], axis=1)
    return np.split(values_NC, np.cumsum([len(group) for group in groups])[:-1])


def _limits(cell: float | None, missing: tuple[float, float]) -> tuple[float, float, float]:
    """Return the least, printed and largest value of a cell."""
    if cell is None:
        return missing[0], np.nan, missing[1]
    return cell - half_step(cell), cell, cell + half_step(cell)


@dataclass(frozen=True)
class Metric:
    """A number that is a sum of ratios of printed cells."""

    name: str
    formula: str
    ratios: Callable[..., Ratios]  # from the cells (T, C) of the roles that its parameters name

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.ratios).parameters)

    def range(self, cells: PrintedCells, missing: tuple[float, float] = NO_LIMITS) -> Range | None:
        """Return the metric's range; None when a role it needs is absent or a denominator may be 0."""
        by_role = cells.by_role()
        if not cells.groups or not set(self.roles) <= set(by_role):
            return None
        numerator_KC, denominator_KC = self.ratios(*corners([by_role[role] for role in self.roles], missing))
        edges_KC = denominator_KC[:, 1:]
        if not ((edges_KC > SLACK).all(1) | (edges_KC < -SLACK).all(1)).all():
            return None
        value_C = (numerator_KC / denominator_KC).sum(0)
        return Range(float(value_C[0]), float(value_C[1:].min()), float(value_C[1:].max()))


@dataclass(frozen=True)
class RankScore:
    """One reading of the OOD rank score; a source is tied with the best of its group, not with the one before it."""

    name: str
    formula: str
    place: Callable[[list[int], int], float]  # sizes of the groups ahead, size of one's own -> rank

    def range(self, cells: PrintedCells, missing: tuple[float, float] = NO_LIMITS) -> Range | None:
        """Return the score, and its extremes over the corners of the cells of each target."""
        if not cells.groups:
            return None
        value = low = high = 0.0
        for group in cells.groups.values():  # they share no cell, so the limits of the sum are sums of limits
            (success_SC,) = corners([group], missing)
            ranks = [self._rank(success_S.tolist(), cells.scalars["tie"]) for success_S in success_SC.T]
            value, low, high = value + ranks[0], low + min(ranks[1:]), high + max(ranks[1:])
        return Range(value, low, high)

    def _rank(self, success: list[float], tie: float) -> float:
        """Return the rank of the first of `success`."""
        if np.isnan(success).any():
            return float("nan")
        ahead: list[int] = []
        own, left = success[0], sorted(success, reverse=True)
        while own < left[0] - tie - SLACK:
            group = [x for x in left if x >= left[0] - tie - SLACK]
            ahead.append(len(group))
            left = left[len(group) :]
        return self.place(ahead, sum(x >= left[0] - tie - SLACK for x in left))


class MetricFamily(NamedTuple):
    """The metrics that are tried on one printed column."""

    stated: tuple[Metric | RankScore, ...]  # in the paper; several where its words can be read in several ways
    others: tuple[Metric | RankScore, ...] = ()


def _total(cells: np.ndarray) -> np.ndarray:
    return np.asarray(cells.sum(0, keepdims=True))


def percent_of_sums(top: np.ndarray, bottom: np.ndarray) -> Ratios:
    return 100 * _total(top), _total(bottom)


def mean_percent(top: np.ndarray, bottom: np.ndarray) -> Ratios:
    return 100 * top / len(top), bottom


def mean_points(points: np.ndarray) -> Ratios:
    return _total(points), np.full_like(points[:1], len(points))


def sum_points(points: np.ndarray) -> Ratios:
    return _total(points), np.ones_like(points[:1])


def _tax_rate_removed(arm: Any, plain: Any, init: Any, arm_gain: Any, plain_gain: Any) -> Ratios:
    """Points lost on all targets, times the gain at home of the other run, so that one ratio carries both rates."""
    lost_plain = (_total(init) - _total(plain)) * arm_gain
    return 100 * (lost_plain - (_total(init) - _total(arm)) * plain_gain), lost_plain


def _two_changes(after1: Any, before1: Any, over1: Any, after0: Any, before0: Any, over0: Any) -> Ratios:
    """The change of the policy with warm-up less that of the policy without."""
    return 100 * np.concatenate([after1 - before1, -(after0 - before0)]), np.concatenate([over1, over0])


# fmt: off
OOD_CHANGE = MetricFamily(
    stated=(Metric("OOD change", "Σ(a − p) / Σp", lambda arm, plain: percent_of_sums(arm - plain, plain)),),
    others=(
        Metric("tax removed", "Σ(a − p) / Σ(i − p)",
               lambda arm, plain, init: percent_of_sums(arm - plain, init - plain)),
        Metric("tax saved", "Σ(a − p) / Σi", lambda arm, plain, init: percent_of_sums(arm - plain, init)),
        Metric("minus the arm's tax", "Σ(a − i) / Σi", lambda arm, init: percent_of_sums(arm - init, init)),
        Metric("change over the arm", "Σ(a − p) / Σa", lambda arm, plain: percent_of_sums(arm - plain, arm)),
        Metric("tax removed over the arm's tax", "Σ(a − p) / Σ(i − a)",
               lambda arm, plain, init: percent_of_sums(arm - plain, init - arm)),
        Metric("mean change", "mean of (a − p) / p", lambda arm, plain: mean_percent(arm - plain, plain)),
        Metric("mean share removed", "mean of (a − p) / (i − p)",
               lambda arm, plain, init: mean_percent(arm - plain, init - plain)),
        Metric("mean change over the start", "mean of (a − p) / i",
               lambda arm, plain, init: mean_percent(arm - plain, init)),
        Metric("tax rate removed", "1 − (Σ(i − a) / ΔID of the arm) / (Σ(i − p) / ΔID plain)", _tax_rate_removed),
        Metric("mean points", "mean of a − p", lambda arm, plain: mean_points(arm - plain)),
        Metric("sum of points", "Σ(a − p)", lambda arm, plain: sum_points(arm - plain)),
    ),
)
RANK = MetricFamily(
    stated=(
        RankScore("rank score 1, 1, 2", "Σ of ranks, the next rank after a tie", lambda ahead, own: len(ahead) + 1),
        RankScore("rank score 1, 1, 3", "Σ of ranks, one more than are ahead", lambda ahead, own: sum(ahead) + 1),
        RankScore("rank score 1½, 1½, 3", "Σ of mean ranks", lambda ahead, own: sum(ahead) + (own + 1) / 2),
    )
)
RELATIVE = MetricFamily(
    stated=(Metric("relative change", "(after − i) / i", lambda after, init: mean_percent(after - init, init)),),
    others=(
        Metric("relative change of the cell beside it", "(c − i) / i, c printed in the same table",
               lambda beside, init: mean_percent(beside - init, init)),
        Metric("relative change of the crossed cell", "(c − i) / i, c with source and target crossed",
               lambda crossed, init: mean_percent(crossed - init, init)),
        Metric("change over the end", "(after − i) / after", lambda after, init: mean_percent(after - init, after)),
        Metric("points", "after − i", lambda after, init: mean_points(after - init)),
    ),
)
DIFFERENCE = MetricFamily(
    stated=(
        Metric("difference of relative changes", "(a₂ − i₂) / i₂ − (a₁ − i₁) / i₁",
               lambda after0, init0, after1, init1: _two_changes(after1, init1, init1, after0, init0, init0)),
    ),
    others=(
        Metric("difference by the cells beside it", "(c₂ − i₂) / i₂ − (c₁ − i₁) / i₁, c printed in the same table",
               lambda beside0, init0, beside1, init1: _two_changes(beside1, init1, init1, beside0, init0, init0)),
        Metric("difference over the end", "(a₂ − i₂) / a₂ − (a₁ − i₁) / a₁",
               lambda after0, init0, after1, init1: _two_changes(after1, init1, after1, after0, init0, after0)),
        Metric("difference of points", "(a₂ − i₂) − (a₁ − i₁)",
               lambda after0, init0, after1, init1: mean_points((after1 - init1) - (after0 - init0))),
    ),
)
# What the table on warm-up prints next to its figures: the cell, which the main table has too.
CELL = MetricFamily(
    stated=(Metric("the main table's cell", "after(s, t)", lambda after: mean_points(after)),),
    others=(Metric("the crossed cell", "after(t, s)", lambda crossed: mean_points(crossed)),),
)
GAIN = MetricFamily(
    stated=(Metric("mean gain", "mean of after − before", lambda before, after: mean_points(after - before)),),
    others=(
        Metric("sum of gains", "Σ(after − before)", lambda before, after: sum_points(after - before)),
        Metric("relative gain", "Σ(after − before) / Σbefore",
               lambda before, after: percent_of_sums(after - before, before)),
        Metric("mean relative gain", "mean of (after − before) / before",
               lambda before, after: mean_percent(after - before, before)),
    ),
)
TAX = Metric("tax", "1 − Σafter / Σinit", lambda init, after: (_total(init - after), _total(init)))
MEAN_DROP = Metric("mean drop", "mean of init − after", lambda init, after: mean_points(init - after))
TAX_RATE = Metric("tax rate", "mean drop / ΔID",
                  lambda init, after, gain: ((init - after).mean(0, keepdims=True), gain))
# fmt: on
