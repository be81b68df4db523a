"""The generalization tax: what training on a domain changed there, what it changed elsewhere, and the price of a point.

Success rates are in percent, differences of them in points, taxes are fractions. A `SuccessMeasure` is a weighted sum
of success or a ratio of two, with its interval; reports, arms and claims take theirs from the functions below. `init`
is the base policy, `after` the same policy after training on the source; both played the same test tasks with the same
sampling seeds. Arms and sources are compared in `arms`.

A target is *touched* when its text, states or experts entered training in any form; remedies are judged on the
untouched ones. Random play's success on the same tasks, where it is known, gives success *above chance* and the tax on
that: a policy that collapsed to random play has kept nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gentax.core import UsageError
from gentax.core.results import Record, Tabular, TextTable, repr_as_str
from gentax.metrics.episode_scores import MAX_ERROR_SHARE, error_free_scores
from gentax.metrics.statistics import (
    LEVEL,
    Estimate,
    InterimAnalyses,
    Labels,
    Pilot,
    Scores,
    Undefined,
    Weights,
    above_chance,
    above_chance_tax,
    estimate_pilot,
    group_sequential_holm,
    holm,
    p_value,
    success_rate,
)
from gentax.metrics.statistics.intervals import coverage, fieller, rate_ratio_limits
from gentax.metrics.statistics.scores import rounded, variance_components

NOT_TOUCHED = Undefined("no target is known to be touched")
ALL_TOUCHED = Undefined("every target is touched")
LIKE_CHANCE = Undefined("the base policy's success on the targets is not told apart from that of random play")
NO_CHANCE = Undefined("random play's success is not known")
BASE, RANDOM = "init", "chance"  # roles without training seeds: the policy before training, random play

DomainScores = Mapping[str, np.ndarray]  # domain -> (K,) or (S, K)
Limits = tuple[float, float]


@dataclass(frozen=True)
class SuccessMeasure:
    """`offset + numerator`, or `offset + numerator / denominator`: weighted sums of mean success."""

    unit: str  # "points", "percent", "fraction" or "points per point"
    over: tuple[str, ...]  # the domains it is about
    numerator: Weights
    denominator: Weights | None = None
    offset: float = 0.0
    undefined: str = ""  # why it has no value where the denominator is not told apart from 0
    of_rates: bool = False  # numerator and denominator are sums of success, each of one sign

    def value(self, scores: Scores) -> float:
        """Return the estimate alone."""
        bottom = 1.0 if self.denominator is None else scores.mean(self.denominator)
        return self.offset + scores.mean(self.numerator) / bottom

    def estimate(self, scores: Scores, level: float = LEVEL) -> Estimate | Undefined:
        """Estimate it with its interval; undefined where its denominator is not told apart from 0."""
        if self.denominator is not None:
            margin = variance_components(scores, [self.denominator]).margin([1.0], level)
            if abs(scores.mean(self.denominator)) <= margin:
                return Undefined(self.undefined)
        limits = self.limits(scores)(level)
        if limits is None:
            return Undefined(self.undefined)
        low, high = limits
        if self.denominator is None and not self.offset:  # no sum of success lies beyond its weights
            low = max(low, sum(w for w in self.numerator.values() if w < 0))
            high = min(high, sum(w for w in self.numerator.values() if w > 0))
        covered = coverage(scores, {**self.numerator, **(self.denominator or {})})
        return Estimate(self.value(scores), low, high, unit=self.unit, level=level, **covered)

    def limits(self, scores: Scores) -> Callable[[float], Limits | None]:
        """Return the limits of its interval as a function of the level; None where the interval is not finite.

        Of a sum ± its margin, of a ratio of rates `rate_ratio_limits`, of any other ratio Fieller's.
        """
        if self.denominator is None:
            value, of_sum = self.value(scores), variance_components(scores, [self.numerator])

            def around(level: float) -> Limits:
                margin = float(of_sum.margin([1.0], level))
                return value - margin, value + margin

            return around
        sign = -1.0 if self.of_rates and min(self.numerator.values()) < 0 else 1.0
        forms = [combined((sign, self.numerator)), self.denominator]
        top, bottom = map(scores.mean, forms)
        known = variance_components(scores, forms)

        def of_ratio(level: float) -> Limits | None:
            found = (rate_ratio_limits if self.of_rates else fieller)(top, bottom, known, level)
            if found is None:
                return None
            low, high = sorted(self.offset + sign * limit for limit in found)
            return low, high

        return of_ratio

    def minus(self, other: SuccessMeasure, scores: Scores) -> SuccessMeasure:
        """Return self - other: exact where they are sums or share a denominator, else to first order in success."""
        unit = "points" if self.unit == "percent" else self.unit
        if self.denominator == other.denominator:
            top, offset = combined((1.0, self.numerator), (-1.0, other.numerator)), self.offset - other.offset
            return replace(self, unit=unit, numerator=top, offset=offset, of_rates=False)
        gradient = combined((1.0, self._gradient(scores)), (-1.0, other._gradient(scores)))
        offset = self.value(scores) - other.value(scores) - scores.mean(gradient)
        return replace(self, unit=unit, numerator=gradient, denominator=None, offset=offset, of_rates=False)

    def _gradient(self, scores: Scores) -> Weights:
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


def sum_of(role: str, domains: Sequence[str], factor: float = 1.0) -> Weights:
    """Return the weights of the sum of a role's success over domains, times `factor`."""
    return {(role, domain): factor for domain in domains}


def difference_of(more: str, less: str, domains: Sequence[str], factor: float = 1.0) -> Weights:
    """Return the weights of the sum over domains of one role's success minus another's, times `factor`."""
    return {**sum_of(more, domains, factor), **sum_of(less, domains, -factor)}


def success(role: str, domains: Sequence[str]) -> SuccessMeasure:
    """Success, percent: the mean over domains."""
    return SuccessMeasure("percent", tuple(domains), sum_of(role, domains, 100 / len(domains)))


def gain(role: str, source: str) -> SuccessMeasure:
    """ΔID(s) = after(s, s) - init(s), points."""
    return SuccessMeasure("points", (source,), difference_of(role, BASE, [source], 100.0))


def drop(role: str, targets: Sequence[str]) -> SuccessMeasure:
    """The mean over targets of drop(s, t) = init(t) - after(s, t), points; positive is a loss."""
    return SuccessMeasure("points", tuple(targets), difference_of(BASE, role, targets, 100 / len(targets)))


def tax(role: str, targets: Sequence[str]) -> SuccessMeasure:
    """tax(s) = 1 - Σₜ after(s, t) / Σₜ init(t), a fraction: 0 is free, 1 is all lost, negative is transfer."""
    why = "the base policy's success on the targets is not told apart from 0"
    after, before = sum_of(role, targets, -1.0), sum_of(BASE, targets)
    return SuccessMeasure("fraction", tuple(targets), after, before, offset=1.0, undefined=why, of_rates=True)


def tax_rate(role: str, targets: Sequence[str], source: str) -> SuccessMeasure:
    """The mean over t of drop(s, t) / ΔID(s), points lost on a target per point gained on the source."""
    lost, gained = difference_of(BASE, role, targets, 1 / len(targets)), difference_of(role, BASE, [source])
    why = "the interval of ΔID contains 0"
    return SuccessMeasure("points per point", (*targets, source), lost, gained, undefined=why)


def ood_change(role: str, targets: Sequence[str], plain: str) -> SuccessMeasure:
    """Σₜ (arm - plain) / Σₜ plain, a fraction (the formula that arXiv 2601.18217 states)."""
    why = f"the success of {plain} on the targets is not told apart from 0"
    arm, before = sum_of(role, targets), sum_of(plain, targets)
    return SuccessMeasure("fraction", tuple(targets), arm, before, offset=-1.0, undefined=why, of_rates=True)


def tax_removed(role: str, targets: Sequence[str], plain: str) -> SuccessMeasure:
    """Σₜ (arm - plain) / Σₜ (init - plain), a fraction: the share of the plain tax that the arm removed."""
    top, bottom = difference_of(role, plain, targets), difference_of(BASE, plain, targets)
    why = f"the tax of {plain} is not told apart from 0"
    return SuccessMeasure("fraction", tuple(targets), top, bottom, undefined=why)


@dataclass(frozen=True)
class ErrorBounds(Record):
    """Bounds on the tax and the drops, had the episodes that ended in an error been played to their end.

    The best case has all of them as failures before training and successes after it; the worst case the reverse.
    """

    best_case: Estimate | Undefined  # the tax
    worst_case: Estimate | Undefined
    drop: Mapping[str, tuple[float, float]]  # points, best and worst, on the targets with excluded episodes

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"drop": {d: [rounded(x) for x in both] for d, both in self.drop.items()}}


@dataclass(frozen=True)
class AboveChance(Record):
    """Success (percent) on a domain as a share of what random play on the same tasks leaves to be won."""

    random: Estimate  # percent: plain success of random play
    init: Estimate | Undefined
    after: Estimate | Undefined


@dataclass(frozen=True)
class TaxReport(Tabular, Record):
    """What training on `source` cost. Every estimate is paired by task; mappings go from domain to estimate."""

    source: str
    targets: tuple[str, ...]
    seeds: int  # training seeds
    tasks: Mapping[str, int]  # tasks that entered
    excluded_tasks: Mapping[str, int]  # tasks left out because an episode ended in an error
    init: Mapping[str, Estimate]  # percent
    after: Mapping[str, Estimate]  # percent
    drop: Mapping[str, Estimate]  # points, targets only
    drop_p: Mapping[str, float]  # p-values of "nothing changed", corrected for the number of targets (Holm)
    significant: frozenset[str]  # targets whose change is significant, corrected for targets and interim analyses
    delta_id: Estimate | Undefined  # points
    tax: Estimate | Undefined  # fraction
    tax_rate: Estimate | Undefined  # points lost elsewhere per point gained at home
    level: float = LEVEL  # of every interval here, over all interim analyses
    analysis: int = 1  # the number of this interim analysis
    analyses: int = 1  # how many were planned
    runtime: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)  # of `base` and `tuned`, if known
    clusters: Mapping[str, int] = field(default_factory=dict)  # distinct contents among the tasks
    unknown_content: tuple[str, ...] = ()  # domains that do not say what their tasks are made of
    touched: frozenset[str] = frozenset()  # targets that entered training in any form
    tax_untouched: Estimate | Undefined = NOT_TOUCHED  # over the other targets
    tax_touched: Estimate | Undefined = NOT_TOUCHED
    above_chance: Mapping[str, AboveChance] = field(default_factory=dict)  # by domain, where random play is known
    tax_above_chance: Estimate | Undefined = NO_CHANCE  # over the targets where random play is known
    bounds: ErrorBounds | None = None  # where episodes ended in an error
    pilot: Pilot | None = None  # variance and correlations, for planning

    @property
    def untouched(self) -> tuple[str, ...]:
        """The targets that nothing of entered training."""
        return tuple(t for t in self.targets if t not in self.touched)

    @property
    def undefined(self) -> dict[str, str]:
        """Why a measure has no value, by the name of the measure."""
        measures = {name: getattr(self, name) for name in self._measures}
        return {name: value.reason for name, value in measures.items() if isinstance(value, Undefined)}

    @property
    def _measures(self) -> list[str]:
        touched = ["tax_untouched", "tax_touched"] if self.touched else []
        return ["delta_id", "tax", "tax_rate", *touched, *(["tax_above_chance"] if self.above_chance else [])]

    def table(self) -> TextTable:
        """Return success and drops as a table."""
        rows: list[list[object]] = []
        for d in self.init:
            name = f"{d} (touched)" if d in self.touched else d
            chance = [f"{self.above_chance[d].random.value:.1f}" if d in self.above_chance else "?"]
            row = [name, *(chance if self.above_chance else []), self.init[d], self.after[d]]
            rows.append([*row, self.drop.get(d, "source")])
        columns = ["domain", *(["random"] if self.above_chance else []), "base", "tuned", "drop in points"]
        return TextTable(f"Success %, with {100 * self.level:g} % intervals", columns, rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each measure of each domain, and one for each measure over all of them.

        Columns: source, measure (`init`, `after`, `drop`, `tax` and so on), domain, role (`source`, `target` or
        `touched target`), value with its interval, unit, level of the interval, tasks, training seeds, the corrected
        p-value of a drop, and why a measure is undefined.
        """

        def row(measure: str, of: Estimate | Undefined, domain: str | None = None) -> dict[str, Any]:
            estimate = of if isinstance(of, Estimate) else None
            role = "source" if domain == self.source else "touched target" if domain in self.touched else "target"
            return {
                "source": self.source,
                "measure": measure,
                "domain": domain,
                "role": role if domain else None,
                "value": estimate and estimate.value,
                "low": estimate and estimate.low,
                "high": estimate and estimate.high,
                "unit": estimate and estimate.unit,
                "level": self.level,
                "tasks": self.tasks[domain] if domain else estimate and estimate.n,
                "seeds": self.seeds,
                "p_corrected": self.drop_p.get(domain or "") if measure == "drop" else None,
                "undefined": None if estimate else str(of.reason),  # type: ignore[union-attr]
            }

        rows = [row(name, getattr(self, name)) for name in self._measures]
        for domain in self.init:
            of: dict[str, Any] = {"init": self.init[domain], "after": self.after[domain], "drop": self.drop.get(domain)}
            if (chance := self.above_chance.get(domain)) is not None:
                of |= {"random": chance.random, "init_above_chance": chance.init, "after_above_chance": chance.after}
            rows += [row(name, estimate, domain) for name, estimate in of.items() if estimate is not None]
        return rows

    def lost(self, domain: str) -> Estimate | None:
        """Return the points lost on a target, or on the source, where a gain is negative; None where unknown."""
        if domain != self.source:
            return self.drop[domain]
        return self.delta_id.negated() if self.delta_id else None

    _repr_pretty_ = repr_as_str

    def __str__(self) -> str:
        lines = [f"tax of {self.source}: {self.tax}", f"gain on {self.source}, points: {self.delta_id}"]
        return "\n".join([str(self.table()), *lines, f"points lost elsewhere per point gained: {self.tax_rate}"])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; an undefined measure is null and `undefined` says why."""
        unknown = {"tax_untouched", "tax_touched", "tax_above_chance"} - set(self._measures)
        values = {key: value for key, value in super().to_json().items() if key not in unknown}
        drop_p = {d: float(f"{p:.4g}") for d, p in self.drop_p.items()}
        return values | {"drop_p": drop_p, "undefined": self.undefined}


def tax_report(
    source: str,
    init: DomainScores,
    after: DomainScores,
    max_error_share: float = MAX_ERROR_SHARE,
    analyses: InterimAnalyses = InterimAnalyses(1),  # noqa: B008, it is frozen
    analysis: int = 1,
    *,
    clusters: Mapping[str, Labels] | None = None,
    touched: Set[str] = frozenset(),
    chance: DomainScores | None = None,
) -> TaxReport:
    """Measure what training on `source` changed there and on every other domain.

    Deterministic: the intervals are closed formulae, so there is no random seed.

    Args:
        source: the domain trained on. When it is not among the domains evaluated, ΔID and the tax rate are undefined.
        init: domain -> success (K,) in [0, 1] of the base policy, the mean over samples of each test task.
        after: domain -> success (S, K), or (K,), of the policy after RL, training seeds by the same tasks.
            NaN marks a task on which an episode ended in an error, here and in `init`, and nothing else.
        max_error_share: the share of a domain's tasks that may be excluded for errors.
        analyses: the planned interim analyses, over which the intervals hold together at their level.
        analysis: the number of this one, from 1.
        clusters: domain -> a label (K,) for each task; tasks with the same label share their content. A task labelled
            "" is a cluster of its own, as are all in a domain that is left out.
        touched: domains that entered training in any form; those that are no target here are ignored.
        chance: domain -> success (K,) of random play on the same tasks, for some domains or all; NaN marks an error.

    A measure without a value is an `Undefined`, which says why: the tax where the base's success on the targets may be
    0, the tax rate where ΔID may be 0. A negative ΔID has a rate, of a loss at home. Rates of 0 and 1 have intervals
    like any other; with one training seed intervals cover tasks only.

    Raises:
        UsageError: no target, tasks that do not pair, too many errors, scores outside [0, 1].
    """
    if set(init) != set(after):
        raise UsageError(f"init has the domains {sorted(init)}, after has {sorted(after)}: they must be the same")
    targets = tuple(sorted(set(init) - {source}))
    if not targets:
        raise UsageError(f"no target: the tax of {source} needs at least one other domain")
    chance = _usable_chance({d: x for d, x in (chance or {}).items() if d in init}, [init, after], max_error_share)
    level = analyses.level_at(analysis)

    def overall(estimate: Any) -> Any:
        """Label an estimate with the level that all interim analyses hold together."""
        return replace(estimate, level=analyses.level) if isinstance(estimate, Estimate) else estimate

    bounds = _error_bounds(targets, init, after, clusters, level, overall)
    scores, excluded = error_free_scores({"init": init, "after": after, "chance": chance}, clusters, max_error_share)
    labels = scores.clusters or {}

    def rates(role: str) -> dict[str, Estimate]:
        return {d: overall(success_rate(x, level, labels.get(d))) for d, x in scores.roles[role].items()}

    at_home = source in scores.roles["init"]
    not_evaluated = Undefined(f"{source} was not evaluated")
    p_values = {t: p_value(scores, difference_of(BASE, "after", [t])) for t in targets}
    touched = frozenset(touched) & set(targets)
    untouched = tuple(t for t in targets if t not in touched)

    def measured(measure: Callable[..., SuccessMeasure], *over: Any) -> Any:
        return overall(measure("after", *over).estimate(scores, level))

    def above(role: str, domain: str) -> Any:
        of_role, chance_1K = scores.roles[role][domain], scores.roles["chance"][domain]
        found = above_chance(of_role, chance_1K[0], level, labels.get(domain))
        return overall(found or Undefined("random play may always succeed"))

    with_chance = [t for t in targets if t in scores.roles["chance"]]
    return TaxReport(
        source=source,
        targets=targets,
        seeds=min(len(x) for x in scores.roles["after"].values()),
        tasks={d: x.shape[1] for d, x in scores.roles["init"].items()},
        excluded_tasks=excluded,
        init=rates("init"),
        after=rates("after"),
        drop={t: measured(drop, [t]) for t in targets},
        drop_p=holm(p_values),
        significant=group_sequential_holm(p_values, analyses, analysis),
        delta_id=measured(gain, source) if at_home else not_evaluated,
        tax=measured(tax, targets),
        tax_rate=measured(tax_rate, targets, source) if at_home else not_evaluated,
        level=analyses.level,
        analysis=analysis,
        analyses=analyses.count,
        clusters={d: scores.clusters_of(d).count for d in scores.roles["init"]},
        unknown_content=tuple(sorted(d for d, contents in labels.items() if not any(contents))),
        touched=touched,
        tax_untouched=(measured(tax, untouched) if untouched else ALL_TOUCHED) if touched else NOT_TOUCHED,
        tax_touched=measured(tax, sorted(touched)) if touched else NOT_TOUCHED,
        above_chance={d: AboveChance(of, above("init", d), above("after", d)) for d, of in rates("chance").items()},
        tax_above_chance=overall(above_chance_tax(scores, with_chance, level) or LIKE_CHANCE)
        if with_chance
        else NO_CHANCE,
        bounds=bounds,
        pilot=estimate_pilot(scores, targets),
    )


def _usable_chance(
    chance: DomainScores, policies: Sequence[DomainScores], max_error_share: float
) -> dict[str, np.ndarray]:
    """Return random play's scores where its own errors do not leave too few tasks to the policies."""

    def leaves_enough(domain: str) -> bool:
        broken = [np.isnan(np.atleast_2d(of[domain])).any(0) for of in (chance, *policies)]
        return not broken[0].any() or np.any(broken, axis=0).mean() <= max_error_share

    return {domain: chance_K for domain, chance_K in chance.items() if leaves_enough(domain)}


def _error_bounds(
    targets: Sequence[str],
    init: DomainScores,
    after: DomainScores,
    clusters: Mapping[str, Labels] | None,
    level: float,
    overall: Any,
) -> ErrorBounds | None:
    """Return the tax with all episodes that ended in an error imputed one way, and the other way."""
    broken = [t for t in targets if np.isnan(init[t]).any() or np.isnan(after[t]).any()]
    if not broken:
        return None
    labels = None if clusters is None else {d: labels for d, labels in clusters.items() if d in targets}

    def imputed(before: float, later: float) -> Scores:
        filled = [
            {t: np.where(np.isnan(of[t]), value, of[t]) for t in targets}
            for of, value in ((init, before), (after, later))
        ]
        return Scores.of(init=filled[0], after=filled[1], clusters=labels)

    best, worst = imputed(0.0, 1.0), imputed(1.0, 0.0)
    drops = {t: difference_of(BASE, "after", [t]) for t in broken}
    points = {t: (100 * best.mean(lost), 100 * worst.mean(lost)) for t, lost in drops.items()}
    low, high = (overall(tax("after", targets).estimate(scores, level)) for scores in (best, worst))
    return ErrorBounds(low, high, points)
