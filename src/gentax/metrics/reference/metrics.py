"""The metrics that are tried on a printed figure: those the paper states first, then what else it may have meant.

A registry of names, formulae and functions, one family for each printed column. Nothing here knows which figure
follows which metric: `judge` finds out. The metrics are differences and ratios that a reader could take the words of
the paper for; a metric made up to hit one figure would only match by accident.

Words of the formulae: a(t), p(t) and i(t) are the success on target t of the arm, of the plain run and at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gentax.metrics.reference.ranges import Cells, Range, Terms, Values, spread

Part = Callable[..., np.ndarray]  # the cells (T, C) of each role, in the order in which they are named -> (T, C)


class Candidate(Protocol):
    """A metric that is tried on a figure."""

    @property
    def name(self) -> str: ...

    @property
    def formula(self) -> str: ...

    def range(self, cells: Any, unknown: tuple[float, float] | None = None) -> Range | None:
        """Return what it comes to, `unknown` being the limits of missing cells; None when it cannot be said."""
        ...


@dataclass(frozen=True)
class Metric:
    """A number that is a sum of ratios of printed cells."""

    name: str
    formula: str
    roles: tuple[str, ...]  # the cells it needs
    terms: Callable[[Values], Terms]

    def range(self, cells: Cells, unknown: tuple[float, float] | None = None) -> Range | None:
        """Return what the metric comes to; None when a role it needs is not there or a denominator may be 0."""
        if not cells.targets or not set(self.roles) <= {*cells.roles, *cells.whole}:
            return None
        return spread(self.terms, cells, self.roles, unknown)


@dataclass(frozen=True)
class Family:
    """The metrics that are tried on one printed column."""

    stated: tuple[Candidate, ...]  # what the paper says; more than one where its words can be read in more than one way
    others: tuple[Candidate, ...]

    @property
    def metrics(self) -> tuple[Candidate, ...]:
        return self.stated + self.others


def of_sums(name: str, formula: str, roles: str, top: Part, bottom: Part) -> Metric:
    """Build a percentage: the sum over targets of `top` over that of `bottom`."""

    def terms(values: Values) -> Terms:
        cells = [values[role] for role in roles.split()]
        return 100 * top(*cells).sum(0, keepdims=True), bottom(*cells).sum(0, keepdims=True)

    return Metric(name, formula, tuple(roles.split()), terms)


def of_means(name: str, formula: str, roles: str, top: Part, bottom: Part) -> Metric:
    """Build a percentage: the mean over targets of `top` over `bottom`."""

    def terms(values: Values) -> Terms:
        cells = [values[role] for role in roles.split()]
        return 100 * top(*cells) / len(cells[0]), bottom(*cells)

    return Metric(name, formula, tuple(roles.split()), terms)


def of_points(name: str, formula: str, roles: str, points: Part, mean: bool = True) -> Metric:
    """Build a number of points: the mean, or the sum, over targets of `points`."""

    def terms(values: Values) -> Terms:
        points_TC = points(*(values[role] for role in roles.split()))
        top_1C = points_TC.sum(0, keepdims=True)
        return top_1C, np.full_like(top_1C, len(points_TC) if mean else 1)

    return Metric(name, formula, tuple(roles.split()), terms)


def _rate_terms(values: Values) -> Terms:
    """Points lost on all targets, times the gain at home of the other run, so that one ratio carries both rates."""
    arm, plain, init = (values[role].sum(0, keepdims=True) for role in ("arm", "plain", "init"))
    arm_gain, plain_gain = values["arm_gain"], values["plain_gain"]
    lost_plain = (init - plain) * arm_gain
    return 100 * (lost_plain - (init - arm) * plain_gain), lost_plain


OOD_CHANGE = Family(
    stated=(
        of_sums("OOD change", "Σ(a − p) / Σp", "arm plain", lambda a, p: a - p, lambda a, p: p),
    ),
    others=(
        of_sums("tax removed", "Σ(a − p) / Σ(i − p)", "arm plain init", lambda a, p, i: a - p, lambda a, p, i: i - p),
        of_sums("tax saved", "Σ(a − p) / Σi", "arm plain init", lambda a, p, i: a - p, lambda a, p, i: i),
        of_sums("minus the arm's tax", "Σ(a − i) / Σi", "arm init", lambda a, i: a - i, lambda a, i: i),
        of_sums("change over the arm", "Σ(a − p) / Σa", "arm plain", lambda a, p: a - p, lambda a, p: a),
        of_sums(
            "tax removed over the arm's tax", "Σ(a − p) / Σ(i − a)", "arm plain init",
            lambda a, p, i: a - p, lambda a, p, i: i - a,
        ),
        of_means("mean change", "mean of (a − p) / p", "arm plain", lambda a, p: a - p, lambda a, p: p),
        of_means(
            "mean share removed", "mean of (a − p) / (i − p)", "arm plain init",
            lambda a, p, i: a - p, lambda a, p, i: i - p,
        ),
        of_means(
            "mean change over the start", "mean of (a − p) / i", "arm plain init",
            lambda a, p, i: a - p, lambda a, p, i: i,
        ),
        Metric(
            "tax rate removed", "1 − (Σ(i − a) / ΔID of the arm) / (Σ(i − p) / ΔID plain)",
            ("arm", "plain", "init", "arm_gain", "plain_gain"), _rate_terms,
        ),
        of_points("mean points", "mean of a − p", "arm plain", lambda a, p: a - p),
        of_points("sum of points", "Σ(a − p)", "arm plain", lambda a, p: a - p, mean=False),
    ),
)  # fmt: skip

RELATIVE = Family(
    stated=(of_means("relative change", "(after − i) / i", "after init", lambda a, i: a - i, lambda a, i: i),),
    others=(
        of_means(
            "relative change of the cell beside it", "(c − i) / i, c printed in the same table", "beside init",
            lambda c, i: c - i, lambda c, i: i,
        ),
        of_means(
            "relative change of the crossed cell", "(c − i) / i, c with source and target crossed", "crossed init",
            lambda c, i: c - i, lambda c, i: i,
        ),
        of_means("change over the end", "(after − i) / after", "after init", lambda a, i: a - i, lambda a, i: a),
        of_points("points", "after − i", "after init", lambda a, i: a - i),
    ),
)  # fmt: skip


def _two_changes(after: str, over: str) -> Callable[[Values], Terms]:
    """Return the terms of the change of the warmed-up policy less that of the other, both over `over`."""

    def terms(values: Values) -> Terms:
        tops = [values[f"{after}{n}"] - values[f"init{n}"] for n in (1, 0)]
        return 100 * np.concatenate([tops[0], -tops[1]]), np.concatenate([values[f"{over}{n}"] for n in (1, 0)])

    return terms


DIFFERENCE = Family(
    stated=(
        Metric(
            "difference of relative changes", "(a₂ − i₂) / i₂ − (a₁ − i₁) / i₁",
            ("after0", "init0", "after1", "init1"), _two_changes("after", "init"),
        ),
    ),
    others=(
        Metric(
            "difference by the cells beside it", "(c₂ − i₂) / i₂ − (c₁ − i₁) / i₁, c printed in the same table",
            ("beside0", "init0", "beside1", "init1"), _two_changes("beside", "init"),
        ),
        Metric(
            "difference over the end", "(a₂ − i₂) / a₂ − (a₁ − i₁) / a₁",
            ("after0", "init0", "after1", "init1"), _two_changes("after", "after"),
        ),
        of_points(
            "difference of points", "(a₂ − i₂) − (a₁ − i₁)", "after0 init0 after1 init1",
            lambda a0, i0, a1, i1: (a1 - i1) - (a0 - i0),
        ),
    ),
)  # fmt: skip

# What the table on warm-up prints beside its figures: the cell, which the main table has too.
CELL = Family(
    stated=(of_points("the main table's cell", "after(s, t)", "after", lambda a: a),),
    others=(of_points("the crossed cell", "after(t, s)", "crossed", lambda c: c),),
)

GAIN = Family(
    stated=(of_points("mean gain", "mean of after − before", "before after", lambda b, a: a - b),),
    others=(
        of_points("sum of gains", "Σ(after − before)", "before after", lambda b, a: a - b, mean=False),
        of_sums("relative gain", "Σ(after − before) / Σbefore", "before after", lambda b, a: a - b, lambda b, a: b),
        of_means(
            "mean relative gain", "mean of (after − before) / before", "before after",
            lambda b, a: a - b, lambda b, a: b,
        ),
    ),
)  # fmt: skip
