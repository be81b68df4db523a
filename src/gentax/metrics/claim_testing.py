"""Claims as tests: is a measure of a study above or below another one, or a number? Supported, refuted or undecided.

A claim is on one measure of `tax` and a number, or on the difference of two measures, estimated in one piece on the
tasks that both sides played, with the variance that every interval of gentax has. It is decided where the interval lies
wholly on one side of the number, or of 0, which is a two-sided test at 5 %. The p-value is 1 - the level of the
interval that just touches it, corrected for the number of claims by Holm's (1979) procedure, so that in at most 5 % of
studies any claim is decided against the truth.

Not here: how a claim is written (`studies.claim_parser`), and claims of equality: state both sides of a margin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np

from gentax.core.errors import UsageError
from gentax.core.results import Record
from gentax.metrics.episode_scores import error_free_scores
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
from gentax.metrics.statistics.intervals import p_value_of
from gentax.metrics.statistics.power import SEED_SPREAD
from gentax.metrics.statistics.scores import interaction_variance, variance_components
from gentax.metrics.tax import BASE, RANDOM, DomainScores, SuccessMeasure, combined

SCALES = {"points": 100.0, "percent": 100.0}  # of the units in which success is not a fraction
SMALLEST_DIFFERENCE, SMALLEST_VARIANCE = 1e-3, 1e-9  # points; of a task: below, no sample size is worth printing


class ClaimOutcome(StrEnum):
    """What the data say of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


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
class RequiredSample(Record):
    """What would decide a claim with 80 % power, were the difference what it was estimated to be."""

    seeds: int | None  # with the tasks there are; None for over 100
    tasks: int | None  # of each domain, with the seeds there are; None for over a million
    spread_assumed: bool  # whether the spread of training seeds is assumed, since there is one


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
    """A claim on some scores: its estimate, its p-value, and what would decide it at a level."""

    claim: Claim
    estimate: Estimate | Undefined
    limit: float
    p: float = 1.0
    required: Callable[[float], RequiredSample] | None = None


def assess(
    claims: Sequence[Claim], policies: Mapping[str, DomainScores], clusters: Mapping[str, Labels] | None = None
) -> list[ClaimResult]:
    """Test the claims of a study together.

    Args:
        claims: all that the study states, since they are corrected for their number.
        policies: role -> domain -> success (S, K) or (K,) in [0, 1] on the same tasks; NaN marks an error. A task that
            ended in an error under any role that a claim is about is left out of that claim.
        clusters: domain -> a label (K,) for each task; tasks with the same label share their content.

    A claim whose measure has no value, or whose scores cannot be used, is undecided and says why.
    """
    tests = [_test(claim, policies, clusters) for claim in claims]
    corrected = holm({n: test.p for n, test in enumerate(tests)})
    decided = {n for n, p in corrected.items() if p < 1 - LEVEL}
    next_level = 1 - (1 - LEVEL) / max(1, len(tests) - len(decided))  # of Holm's next step
    results = []
    for n, test in enumerate(tests):
        outcome, needed = ClaimOutcome.UNDECIDED, None
        if n in decided and test.estimate:
            as_claimed = (test.estimate.value > test.limit) == test.claim.above
            outcome = ClaimOutcome.SUPPORTED if as_claimed else ClaimOutcome.REFUTED
        elif test.required:
            needed = test.required(next_level)
        results.append(
            ClaimResult(test.claim, outcome, test.estimate, test.limit, test.p, corrected[n], len(tests), needed)
        )
    return results


def _test(claim: Claim, policies: Mapping[str, DomainScores], clusters: Mapping[str, Labels] | None) -> _Test:
    measure, limit = claim.left, claim.limit * SCALES.get(claim.left.unit, 1.0)
    sides = [claim.left, claim.right] if claim.right else [claim.left]
    try:
        scores = _select(sides, policies, clusters)
    except UsageError as error:
        return _Test(claim, Undefined(str(error)), limit)
    if claim.right:
        for side in sides:
            if not (of_side := side.estimate(scores)):
                return _Test(claim, of_side, limit)
        measure = claim.left.minus(claim.right, scores)
    estimate, limits = measure.estimate(scores), measure.limits(scores)
    if not estimate:
        return _Test(claim, estimate, limit)
    contrast, distance = measure.numerator, estimate.value - limit
    if measure.denominator is not None:  # a ratio is at the limit where its numerator is the limit's share of the other
        contrast = combined((1.0, contrast), (measure.offset - limit, measure.denominator))
        distance = scores.mean(contrast)

    def left_out(level: float) -> float:
        """Return how far the limit lies outside the interval; negative inside."""
        found = limits(level)
        return -1.0 if found is None else max(found[0] - limit, limit - found[1])

    required = partial(_required, scores, contrast, abs(distance), estimate.seeds)
    return _Test(claim, estimate, limit, p_value_of(left_out), required)


def _select(
    sides: Sequence[SuccessMeasure], policies: Mapping[str, DomainScores], clusters: Mapping[str, Labels] | None
) -> Scores:
    """Return the scores that a claim is about, of the tasks on which none of them is an error."""
    keys = dict.fromkeys(key for side in sides for key in [*side.numerator, *(side.denominator or ())])
    roles: dict[str, dict[str, np.ndarray]] = {}
    for role, domain in keys:
        roles.setdefault(role, {})[domain] = policies[role][domain]
    return error_free_scores(roles, clusters)[0]


def _required(scores: Scores, contrast: Weights, distance: float, seeds: int, level: float) -> RequiredSample:
    """Return the seeds and tasks with which an interval at `level` would leave out the limit, with 80 % power.

    `contrast` is the sum of success whose sign decides the claim, `distance` how far it is from 0.
    """
    # Half of the weights are of one side of a difference: then it is one of success rates, in points.
    factor = 2 / sum(map(abs, contrast.values()))
    weights = combined((factor, contrast))
    points = min(100 * factor * distance, 100.0)
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
