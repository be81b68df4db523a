"""Claims as tests: is a measure of a study above or below another one, or a number? Supported, refuted or undecided.

A measure is a weighted sum of success (a drop, a gain) or a ratio of two such sums (a tax). A claim is on the
difference of two measures, or of one and a number, estimated in one piece on the tasks that both sides played, with the
variance that every interval of gentax has: tasks that share their content are one cluster, training seeds are a
component of their own. It is decided where the interval of the difference lies wholly on one side of 0, which is a
two-sided test at 5 %. The p-value is 1 - the level of the interval that just touches 0, corrected for the number of
claims by Holm's (1979) procedure, so that in at most 5 % of studies any claim is decided against the truth.

Differences of sums are linear, differences of ratios over one denominator are a ratio. Any other difference of ratios
is linear to first order in success (the delta method).

Not here: how a claim is written (`studies.claim_parser`), and claims of equality: state both sides of a margin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from gentax.core.errors import UsageError
from gentax.metrics.episode_scores import error_free_tasks, select_labels, select_tasks
from gentax.metrics.statistics import (
    LEVEL,
    Estimate,
    InterimAnalyses,
    Labels,
    Scores,
    Undefined,
    Weights,
    holm,
    required_sample_size,
    required_seeds,
    required_tasks,
)
from gentax.metrics.statistics.intervals import SMALLEST_P, coverage, fieller, rate_ratio_limits
from gentax.metrics.statistics.power import SEED_SPREAD
from gentax.metrics.statistics.variance import interaction_variance, variance_components
from gentax.metrics.tax import DomainScores

BASE, RANDOM = "init", "chance"  # roles without training seeds: the policy before training, random play
SCALES = {"points": 100.0, "percent": 100.0}  # of the units in which success is not printed as a fraction
SMALLEST_DIFFERENCE, SMALLEST_VARIANCE = 1e-3, 1e-9  # points; of a task: below, no sample size is worth printing
_STEPS = 30  # of the bisection for a p-value

Limits = Callable[[float], tuple[float, float] | None]  # of an interval, by its level; None: it is not finite


class ClaimOutcome(StrEnum):
    """What the data say of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class SuccessMeasure:
    """`offset + numerator`, or `offset + numerator / denominator`: weighted sums of success, which is 0 to 1."""

    unit: str  # of what is printed: "points", "percent", "fraction" or "points per point"
    over: tuple[str, ...]  # the domains it is about
    numerator: Weights
    denominator: Weights | None = None
    offset: float = 0.0
    undefined: str = ""  # why it has no value where the denominator is not told apart from 0

    @property
    def is_tax(self) -> bool:
        """Whether it is 1 - a ratio of two rates, which has an interval of its own (`statistics.rate_ratio`)."""
        return self.offset == 1.0 and self.denominator is not None

    def value(self, scores: Scores) -> float:
        """Return the estimate on the scale of success."""
        bottom = 1.0 if self.denominator is None else scores.mean(self.denominator)
        return self.offset + scores.mean(self.numerator) / bottom

    def gradient(self, scores: Scores) -> Weights:
        """Return its derivative by each mean score."""
        if self.denominator is None:
            return self.numerator
        bottom = scores.mean(self.denominator)
        ratio = scores.mean(self.numerator) / bottom
        return combined((1 / bottom, self.numerator), (-ratio / bottom, self.denominator))


def combined(*terms: tuple[float, Weights]) -> Weights:
    """Return Σ factor x weights."""
    keys = dict.fromkeys(key for _, weights in terms for key in weights)
    return {key: sum(factor * weights.get(key, 0.0) for factor, weights in terms) for key in keys}


def mean_of(role: str, domains: Sequence[str], factor: float = 1.0) -> Weights:
    """Return the weights of a role's mean success over domains, times `factor`."""
    return {(role, domain): factor / len(domains) for domain in domains}


def difference_of(more: str, less: str, domains: Sequence[str]) -> Weights:
    """Return the weights of the mean over domains of one role's success minus another's."""
    return {**mean_of(more, domains), **mean_of(less, domains, -1.0)}


def success(role: str, domains: Sequence[str]) -> SuccessMeasure:
    """Success, percent: the mean over domains."""
    return SuccessMeasure("percent", tuple(domains), mean_of(role, domains))


def gain(role: str, source: str) -> SuccessMeasure:
    """ΔID: what training changed on its source, points."""
    return SuccessMeasure("points", (source,), difference_of(role, BASE, [source]))


def drop(role: str, targets: Sequence[str]) -> SuccessMeasure:
    """The mean drop over targets, points; positive is a loss."""
    return SuccessMeasure("points", tuple(targets), difference_of(BASE, role, targets))


def tax(role: str, targets: Sequence[str]) -> SuccessMeasure:
    """1 - Σ after / Σ before over targets."""
    why = "the base policy's success on the targets is not told apart from 0"
    return SuccessMeasure("fraction", tuple(targets), mean_of(role, targets, -1.0), mean_of(BASE, targets), 1.0, why)


def tax_rate(role: str, targets: Sequence[str], source: str) -> SuccessMeasure:
    """Points lost on the mean target per point gained on the source."""
    bottom = difference_of(role, BASE, [source])
    over = (*targets, source)
    return SuccessMeasure(
        "points per point", over, difference_of(BASE, role, targets), bottom, 0.0, "the gain may be 0"
    )


def tax_removed(role: str, targets: Sequence[str], baseline: str) -> SuccessMeasure:
    """Σ (arm - baseline) / Σ (before - baseline) over targets: the share of the baseline's tax that is gone."""
    top, bottom = difference_of(role, baseline, targets), difference_of(BASE, baseline, targets)
    return SuccessMeasure(
        "fraction", tuple(targets), top, bottom, 0.0, "the tax of the baseline is not told apart from 0"
    )


@dataclass(frozen=True)
class Claim:
    """`left` is above (or below) `right`, or `limit` where there is no `right`."""

    text: str
    left: SuccessMeasure
    right: SuccessMeasure | None = None
    limit: float = 0.0  # on the scale of success
    above: bool = False
    source: str = ""  # the domain trained on, where the text names none of several

    @property
    def over(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.left.over, *(self.right.over if self.right else ())]))

    @property
    def of_training(self) -> bool:
        """Whether it is about a policy that was trained."""
        sides = [self.left, self.right] if self.right else [self.left]
        return any(role not in (BASE, RANDOM) for side in sides for role, _ in side.numerator)


@dataclass(frozen=True)
class RequiredSample:
    """What would decide a claim with 80 % power, were the difference what it was estimated to be."""

    seeds: int | None  # with the tasks there are; None for over 100
    tasks: int | None  # of each domain, with the seeds there are; None for over a million
    spread_assumed: bool  # whether the spread of training seeds is assumed, since there is one

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class ClaimResult:
    """A claim and what the data say of it."""

    claim: Claim
    outcome: ClaimOutcome
    estimate: Estimate | Undefined  # of the left side, or of left - right
    limit: float  # that it is compared with, in its unit
    p: float  # of "they are equal", two-sided
    corrected_p: float  # for the number of claims (Holm)
    claims: int  # that number
    needed: RequiredSample | None = None  # where it is undecided and has an estimate

    def to_json(self) -> dict[str, Any]:
        return {
            "claim": self.claim.text,
            "source": self.claim.source or None,
            "outcome": self.outcome.value,
            "estimate": self.estimate.to_json(),
            "undefined": None if self.estimate else str(self.estimate),
            "limit": self.limit,
            "p": float(f"{self.p:.4g}"),
            "corrected_p": float(f"{self.corrected_p:.4g}"),
            "correction": {"method": "Holm", "claims": self.claims},
            "domains": list(self.claim.over),
            "needed": self.needed and self.needed.to_json(),
        }


@dataclass(frozen=True)
class _Test:
    """A claim on some scores: its estimate, its p-value, and the linear sum of success whose sign decides it."""

    claim: Claim
    estimate: Estimate | Undefined
    limit: float
    p: float = 1.0
    scores: Scores | None = None
    contrast: Weights | None = None
    distance: float = 0.0  # of the contrast from where the claim turns


def assess(
    claims: Sequence[Claim],
    policies: Mapping[str, DomainScores],
    clusters: Mapping[str, Labels] | None = None,
    level: float = LEVEL,
) -> list[ClaimResult]:
    """Test the claims of a study together.

    Args:
        claims: all that the study states, since they are corrected for their number.
        policies: role -> domain -> success (S, K) or (K,) in [0, 1] on the same tasks; NaN marks an error. A task that
            ended in an error under any role that a claim is about is left out of that claim.
        clusters: domain -> a label (K,) for each task; tasks with the same label share their content.
        level: of the intervals, and 1 - the chance that any claim is decided against the truth.

    A claim whose measure has no value, or whose scores cannot be used, is undecided and says why.
    """
    tests = [_test(claim, policies, clusters, level) for claim in claims]
    corrected = holm({n: test.p for n, test in enumerate(tests)})
    decided = {n for n, p in corrected.items() if p < 1 - level}
    next_level = 1 - (1 - level) / max(1, len(tests) - len(decided))  # of Holm's next step
    results = []
    for n, test in enumerate(tests):
        outcome, needed = ClaimOutcome.UNDECIDED, None
        if n in decided and test.estimate:
            as_claimed = (test.estimate.value > test.limit) == test.claim.above
            outcome = ClaimOutcome.SUPPORTED if as_claimed else ClaimOutcome.REFUTED
        elif test.estimate:
            needed = _needed(test, next_level)
        results.append(
            ClaimResult(test.claim, outcome, test.estimate, test.limit, test.p, corrected[n], len(tests), needed)
        )
    return results


def _test(
    claim: Claim, policies: Mapping[str, DomainScores], clusters: Mapping[str, Labels] | None, level: float
) -> _Test:
    left, right = claim.left, claim.right
    sides = [left] if right is None else [left, right]
    unit = left.unit if right is None or left.unit != "percent" else "points"  # of a difference
    scale = SCALES.get(unit, 1.0)
    limit = claim.limit * scale
    try:
        scores = _select(sides, policies, clusters)
    except UsageError as error:
        return _Test(claim, Undefined(str(error)), limit)
    for side in sides:  # whether each ratio is defined at the level of the report
        if side.denominator is not None:
            bottom = variance_components(scores, [side.denominator]).margin([1.0], level)
            if abs(scores.mean(side.denominator)) <= bottom or (side.is_tax and scores.mean(side.denominator) <= 0):
                return _Test(claim, Undefined(side.undefined), limit)
    measure = left if right is None else _minus(left, right, scores)
    limits = _limits(measure, scores, right is None and left.is_tax)
    found = limits(level)
    if found is None:
        return _Test(claim, Undefined(left.undefined), limit)
    value, contrast = measure.value(scores), measure.numerator
    distance = value - claim.limit
    if measure.denominator is not None:  # a ratio is at the limit where its numerator is the limit's share of the other
        contrast = combined((1.0, contrast), (measure.offset - claim.limit, measure.denominator))
        distance = scores.mean(contrast)
    value, low, high = (scale * x for x in (value, *found))
    estimate = Estimate(value, low, high, unit=unit, level=level, **coverage(scores, contrast))
    return _Test(claim, estimate, limit, _p_value(limits, claim.limit), scores, contrast, abs(distance))


def _select(
    sides: Sequence[SuccessMeasure], policies: Mapping[str, DomainScores], clusters: Mapping[str, Labels] | None
) -> Scores:
    """Return the scores that a claim is about, of the tasks on which none of them is an error."""
    keys = dict.fromkeys(key for side in sides for key in [*side.numerator, *(side.denominator or ())])
    roles: dict[str, dict[str, np.ndarray]] = {}
    for role, domain in keys:
        roles.setdefault(role, {})[domain] = policies[role][domain]
    kept = error_free_tasks(roles.values())
    selected = dict(zip(roles, select_tasks(kept, roles.values()), strict=True))
    return Scores(selected, frozenset({BASE, RANDOM}), select_labels(kept, clusters))


def _minus(left: SuccessMeasure, right: SuccessMeasure, scores: Scores) -> SuccessMeasure:
    """Return left - right as one measure: exact where they are sums or share a denominator, else to first order."""
    offset = left.offset - right.offset
    if left.denominator == right.denominator:
        top = combined((1.0, left.numerator), (-1.0, right.numerator))
        return replace(left, numerator=top, offset=offset)
    gradient = combined((1.0, left.gradient(scores)), (-1.0, right.gradient(scores)))
    value = left.value(scores) - right.value(scores)
    return replace(left, numerator=gradient, denominator=None, offset=value - scores.mean(gradient))


def _limits(measure: SuccessMeasure, scores: Scores, is_tax: bool) -> Limits:
    """Return the limits of a measure by their level; those of a tax are the ones that it has everywhere."""
    value, offset, top = measure.value(scores), measure.offset, scores.mean(measure.numerator)
    if measure.denominator is None:
        known = variance_components(scores, [measure.numerator])

        def of_sum(level: float) -> tuple[float, float]:
            half = float(known.margin([1.0], level))
            return value - half, value + half

        return of_sum
    bottom, joint = (
        scores.mean(measure.denominator),
        variance_components(scores, [measure.numerator, measure.denominator]),
    )

    def of_ratio(level: float) -> tuple[float, float] | None:
        found = fieller(top, bottom, joint, level)
        return None if found is None else (offset + found[0], offset + found[1])

    if not is_tax:
        return of_ratio
    kept = variance_components(scores, [combined((-1.0, measure.numerator)), measure.denominator])

    def of_tax(level: float) -> tuple[float, float] | None:
        found = rate_ratio_limits(-top, bottom, kept, level)
        return None if found is None else (1 - found[1], 1 - found[0])

    return of_tax


def _p_value(limits: Limits, at: float) -> float:
    """Return 1 - the highest level at which the interval leaves out `at`, by bisection on its logarithm."""

    def leaves_out(log_p: float) -> bool:
        found = limits(float(-np.expm1(log_p)))
        return found is not None and not found[0] <= at <= found[1]

    low, high = float(np.log(SMALLEST_P)), -1e-9
    if not leaves_out(high):
        return 1.0
    if leaves_out(low):
        return SMALLEST_P
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if leaves_out(middle) else (middle, high)
    return float(np.exp(high))


def _needed(test: _Test, level: float) -> RequiredSample:
    """Return the seeds and tasks with which the interval at `level` would leave out the limit, with 80 % power."""
    assert test.scores is not None
    assert test.contrast is not None
    scores, seeds = test.scores, test.estimate.seeds if test.estimate else 1
    # Half of the weights are of one side of a difference: then it is one of success rates, in points.
    factor = 2 / sum(map(abs, test.contrast.values()))
    weights = combined((factor, test.contrast))
    points = min(100 * factor * test.distance, 100.0)
    if points < SMALLEST_DIFFERENCE:
        return RequiredSample(None, None, seeds < 2)
    tasks = min(scores.roles[role][domain].shape[1] for role, domain in weights)
    components = variance_components(scores, [weights])
    variance_P = components.variance([1.0])
    of_seeds, of_tasks = variance_P[components.of_seeds_P].sum(), variance_P[~components.of_seeds_P].sum()
    variance = min(max(tasks * float(of_tasks), SMALLEST_VARIANCE), 2.0)
    if seeds < 2:
        sample = required_sample_size(points, 1, InterimAnalyses(1, level), variance)
        return RequiredSample(required_seeds(points, tasks, 1, SEED_SPREAD, variance, level=level), sample, True)
    mixed = sum(
        w**2 * float(interaction_variance(scores.roles[role][domain], scores.clusters_of(domain)))
        for (role, domain), w in weights.items()
    )
    spread, alone = (100 * float(np.sqrt(seeds * max(x, 0.0))) for x in (of_seeds, of_seeds - mixed))
    return RequiredSample(
        required_seeds(points, tasks, 1, spread, variance, level=level),
        required_tasks(points, seeds, alone, variance, seeds * tasks * mixed, level=level),
        False,
    )
