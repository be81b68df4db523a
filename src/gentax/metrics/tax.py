"""The generalization tax: what training on a domain changed there, what it changed elsewhere, and the price of a point.

Success rates are in percent, differences of them in points, taxes are fractions. `init` is the base policy, `after`
the same policy after training on the source; both played the same test tasks with the same sampling seeds. Arms are
compared in `arms`, sources ranked in `ranks`.

A target is *touched* when its text, states or experts entered training in any form. What a remedy is worth is said of
the untouched ones. Random play's success on the same tasks, where it is known, gives success *above chance* and the
tax on that: a policy that collapsed to random play has kept nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gentax.core import UsageError
from gentax.core.console import TextTable, repr_pretty_as_str
from gentax.metrics.episode_scores import ERROR_SHARE, kept_tasks, only, only_labels
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
    holm,
    linear,
    p_value,
    pilot_of,
    ratio,
    share,
    success_rate,
)

NOT_TOUCHED = Undefined("no target is known to be touched")
NO_CHANCE = Undefined("random play's success is not known")


@dataclass(frozen=True)
class ErrorBounds:
    """What the tax and the drops might be, had episodes ended that ended in an error instead.

    `least`: all of them failures before and successes after training; `most`: the reverse.
    """

    least: Estimate | Undefined  # the tax
    most: Estimate | Undefined
    drop: Mapping[str, tuple[float, float]]  # points, least and most, on the targets where episodes were left out

    def to_json(self) -> dict[str, Any]:
        drop = {d: [float(f"{x:.10g}") for x in both] for d, both in self.drop.items()}
        return {"least": self.least.to_json(), "most": self.most.to_json(), "drop": drop}


@dataclass(frozen=True)
class AboveChance:
    """Success (percent) on a domain as a share of what random play on the same tasks leaves to be won."""

    random: Estimate  # percent: plain success of random play
    init: Estimate | Undefined
    after: Estimate | Undefined

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).to_json() for name in ("random", "init", "after")}


@dataclass(frozen=True)
class TaxReport:
    """What training on `source` cost. Every estimate is paired by task; mappings go from domain to estimate."""

    source: str
    targets: tuple[str, ...]
    seeds: int  # training seeds
    tasks: Mapping[str, int]  # tasks that entered
    left_out: Mapping[str, int]  # tasks left out because an episode ended in an error
    init: Mapping[str, Estimate]  # percent
    after: Mapping[str, Estimate]  # percent
    drop: Mapping[str, Estimate]  # points, targets only
    drop_p: Mapping[str, float]  # p-values of "nothing changed", corrected for looking at all targets (Holm)
    stands: frozenset[str]  # targets whose change stands at 5 %, corrected for all targets and all looks
    delta_id: Estimate | Undefined  # points
    tax: Estimate | Undefined  # fraction
    tax_rate: Estimate | Undefined  # points lost elsewhere per point gained at home
    level: float = LEVEL  # of every interval here, over all looks
    look: int = 1  # the look at growing data that this is
    looks: int = 1  # how many there might have been
    runtime: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)  # of `base` and `tuned`, if known
    clusters: Mapping[str, int] = field(default_factory=dict)  # tasks of different content
    content_unknown: tuple[str, ...] = ()  # domains that do not say what their tasks are made of
    touched: frozenset[str] = frozenset()  # targets that entered training in any form
    tax_untouched: Estimate | Undefined = NOT_TOUCHED  # over the other targets
    tax_touched: Estimate | Undefined = NOT_TOUCHED
    above_chance: Mapping[str, AboveChance] = field(default_factory=dict)  # by domain, where random play is known
    tax_above_chance: Estimate | Undefined = NO_CHANCE  # over the targets where random play is known
    bounds: ErrorBounds | None = None  # where episodes ended in an error
    pilot: Pilot | None = None  # what the scores tell about how many tasks it takes

    @property
    def untouched(self) -> tuple[str, ...]:
        """The targets that nothing of entered training."""
        return tuple(t for t in self.targets if t not in self.touched)

    @property
    def undefined(self) -> dict[str, str]:
        """Why a measure has no value, by the name of the measure."""
        found = {name: getattr(self, name) for name in ("delta_id", "tax", "tax_rate", *self._also)}
        return {name: value.reason for name, value in found.items() if isinstance(value, Undefined)}

    @property
    def _also(self) -> list[str]:
        """The measures that there are beside the usual ones."""
        apart = ["tax_untouched", "tax_touched"] if self.touched else []
        return [*apart, "tax_above_chance"] if self.above_chance else apart

    def table(self) -> TextTable:
        """Return success before and after on every domain, that of random play, and the drops, as a table."""
        rows: list[list[object]] = []
        for d in self.init:
            name = f"{d} (touched)" if d in self.touched else d
            chance = [f"{self.above_chance[d].random.value:.1f}" if d in self.above_chance else "?"]
            row = [name, *(chance if self.above_chance else []), self.init[d], self.after[d]]
            rows.append([*row, self.drop.get(d, "source")])
        columns = ["domain", *(["random"] if self.above_chance else []), "before", "after", "drop in points"]
        return TextTable(f"Success %, with {100 * self.level:g} % intervals", columns, rows)

    def lost(self, domain: str) -> Estimate | None:
        """Return the points lost on a target, or on the source, where a gain is below 0; None where it is not known."""
        if domain != self.source:
            return self.drop[domain]
        return self.delta_id.mirrored() if self.delta_id else None

    _repr_pretty_ = repr_pretty_as_str

    def __str__(self) -> str:
        lines = [f"tax of {self.source}: {self.tax}", f"gain on {self.source}, points: {self.delta_id}"]
        return "\n".join([str(self.table()), *lines, f"points lost elsewhere per point gained: {self.tax_rate}"])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; an undefined measure is null and `undefined` says why."""
        plain = {k: getattr(self, k) for k in ("source", "seeds", "level", "look", "looks")}
        plain |= {"targets": list(self.targets), "stands": sorted(self.stands)}
        plain |= {k: dict(getattr(self, k)) for k in ("tasks", "left_out", "undefined", "runtime")}
        plain["drop_p"] = {d: float(f"{p:.4g}") for d, p in self.drop_p.items()}
        for key in ("init", "after", "drop"):
            plain[key] = {d: estimate.to_json() for d, estimate in getattr(self, key).items()}
        plain |= {k: getattr(self, k).to_json() for k in ("delta_id", "tax", "tax_rate", *self._also)}
        plain |= {"clusters": dict(self.clusters), "touched": sorted(self.touched)}
        plain["content_unknown"] = list(self.content_unknown)
        plain["above_chance"] = {d: one.to_json() for d, one in self.above_chance.items()}
        plain["bounds"] = None if self.bounds is None else self.bounds.to_json()
        plain["pilot"] = None if self.pilot is None else self.pilot.to_json()
        return plain


def tax_report(
    source: str,
    init: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    error_share: float = ERROR_SHARE,
    looks: InterimAnalyses = InterimAnalyses(1),  # noqa: B008, it is frozen
    look: int = 1,
    *,
    clusters: Mapping[str, Labels] | None = None,
    touched: Set[str] = frozenset(),
    chance: Mapping[str, np.ndarray] | None = None,
) -> TaxReport:
    """Measure what training on `source` changed there and on every other domain.

    Deterministic: the intervals are closed formulae, so there is no seed to give.

    Args:
        source: the domain trained on. When it is not among the domains evaluated, ΔID and the tax rate are undefined.
        init: domain -> success (K,) in [0, 1] of the base policy, the mean over samples of each test task.
        after: domain -> success (S, K), or (K,), of the policy after RL, training seeds by the same tasks.
            NaN marks a task on which an episode ended in an error, here and in `init`, and nothing else.
        error_share: the share of a domain's tasks that may be left out for errors.
        looks: how often growing data are looked at, and at which level intervals hold together over all looks.
        look: which look this is, from 1.
        clusters: domain -> a label (K,) for each task; tasks with the same label share their content. A label of ""
            is one of its own, as are all in a domain that is left out.
        touched: domains that entered training in any form; those that are no target here are passed over.
        chance: domain -> success (K,) of random play on the same tasks, for some domains or all; NaN marks an error.

    A measure that cannot be had is an `Undefined`, which says why: the tax where the base's success on the targets may
    be 0, the tax rate where ΔID may be 0. A ΔID below 0 has a rate, of a loss at home. Rates of 0 and 1 have intervals
    like any other; one training seed has one that covers tasks only.

    Raises:
        UsageError: no target, tasks that do not pair, too many errors, scores outside [0, 1].
    """
    if set(init) != set(after):
        raise UsageError(f"init has the domains {sorted(init)}, after has {sorted(after)}: they must be the same")
    targets = tuple(sorted(set(init) - {source}))
    if not targets:
        raise UsageError(f"no target: the tax of {source} needs at least one other domain")
    chance = _usable({d: x for d, x in (chance or {}).items() if d in init}, [init, after], error_share)
    kept = kept_tasks([init, after, chance], error_share)
    bounds = _bounds(source, init, after, clusters, looks, look)
    left_out = {d: int((~of).sum()) for d, of in kept.items()}
    (init, after, chance), clusters = only(kept, [init, after, chance]), only_labels(kept, clusters)
    scores = Scores.of(init=init, after=after, chance=chance, clusters=clusters)
    level = looks.level_at(look)
    at_home = source in scores.roles["init"]
    away = Undefined(f"{source} was not evaluated")
    p_values = {t: p_value(scores, _change("init", "after", [t])) for t in targets}
    touched = frozenset(touched) & set(targets)
    apart = tuple(t for t in targets if t not in touched)

    def said(estimate: Estimate) -> Estimate:
        """Name the level that the estimates of all looks hold together."""
        return replace(estimate, level=looks.level)

    def maybe(estimate: Estimate | Undefined) -> Estimate | Undefined:
        return said(estimate) if isinstance(estimate, Estimate) else estimate

    return TaxReport(
        source=source,
        targets=targets,
        seeds=min(len(x) for x in scores.roles["after"].values()),
        tasks={d: x.shape[1] for d, x in scores.roles["init"].items()},
        left_out=left_out,
        init=_rates(scores, "init", level, looks.level),
        after=_rates(scores, "after", level, looks.level),
        drop={t: said(drop(scores, t, level)) for t in targets},
        drop_p=holm(p_values),
        stands=_standing(p_values, looks, look),
        delta_id=maybe(delta_id(scores, source, level) if at_home else away),
        tax=maybe(tax(scores, source, level)),
        tax_rate=maybe(tax_rate(scores, source, level) if at_home else away),
        level=looks.level,
        look=look,
        looks=looks.count,
        clusters={d: scores.clusters_of(d).count for d in scores.roles["init"]},
        content_unknown=tuple(sorted(d for d, labels in (clusters or {}).items() if not any(labels))),
        touched=touched,
        tax_untouched=maybe(_tax_over(scores, apart, "every target is touched", level) if touched else NOT_TOUCHED),
        tax_touched=maybe(_tax_over(scores, sorted(touched), "", level) if touched else NOT_TOUCHED),
        above_chance=_above_chance(scores, clusters, level, looks.level),
        tax_above_chance=maybe(_tax_above_chance(scores, targets, level)),
        bounds=bounds,
        pilot=pilot_of(scores, targets),
    )


def _usable(
    chance: Mapping[str, np.ndarray], policies: Sequence[Mapping[str, np.ndarray]], error_share: float
) -> dict[str, np.ndarray]:
    """Return random play's scores where its own errors do not leave too few tasks to the others."""
    found = {}
    for domain, chance_K in chance.items():
        broken = np.isnan(np.atleast_2d(chance_K)).any(0)
        if broken.any():
            for policy in policies:
                broken = broken | np.isnan(np.atleast_2d(policy[domain])).any(0)
        if broken.mean() <= error_share:
            found[domain] = chance_K
    return found


def _rates(scores: Scores, role: str, level: float, of_all_looks: float) -> dict[str, Estimate]:
    """Return the success of a role on each domain."""
    labels = scores.clusters or {}
    found = {d: success_rate(x, level, labels.get(d)) for d, x in scores.roles[role].items()}
    return {d: replace(estimate, level=of_all_looks) for d, estimate in found.items()}


def _above_chance(
    scores: Scores, clusters: Mapping[str, Labels] | None, level: float, of_all_looks: float
) -> dict[str, AboveChance]:
    """Return success above chance before and after on the domains where random play is known."""
    random = _rates(scores, "chance", level, of_all_looks)
    always = Undefined("random play may always succeed")
    found = {}
    for domain, chance_1K in scores.roles["chance"].items():
        both = [
            above_chance(scores.roles[role][domain], chance_1K[0], level, (clusters or {}).get(domain))
            for role in ("init", "after")
        ]
        said = [always if one is None else replace(one, level=of_all_looks) for one in both]
        found[domain] = AboveChance(random[domain], *said)
    return found


def _tax_above_chance(scores: Scores, targets: Sequence[str], level: float) -> Estimate | Undefined:
    known = [t for t in targets if t in scores.roles["chance"]]
    if not known:
        return NO_CHANCE
    cost = above_chance_tax(scores, known, level)
    if cost is None:
        return Undefined("the base policy's success on the targets is not told apart from that of random play")
    return cost


def _bounds(
    source: str,
    init: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    clusters: Mapping[str, Labels] | None,
    looks: InterimAnalyses,
    look: int,
) -> ErrorBounds | None:
    """Return the tax with all episodes that ended in an error decided one way, and the other way."""
    targets = sorted(set(init) - {source})
    broken = [t for t in targets if np.isnan(init[t]).any() or np.isnan(after[t]).any()]
    if not broken:
        return None

    def decided(before: float, later: float) -> Scores:
        def filled(of: Mapping[str, np.ndarray], value: float) -> dict[str, np.ndarray]:
            return {t: np.where(np.isnan(of[t]), value, of[t]) for t in targets}

        labels = None if clusters is None else {d: labels for d, labels in clusters.items() if d in targets}
        return Scores.of(init=filled(init, before), after=filled(after, later), clusters=labels)

    both = decided(0.0, 1.0), decided(1.0, 0.0)
    least, most = (_tax_over(scores, targets, "", looks.level_at(look)) for scores in both)
    points = {t: tuple(100 * scores.mean(_change("init", "after", [t])) for scores in both) for t in broken}
    said = [replace(x, level=looks.level) if isinstance(x, Estimate) else x for x in (least, most)]
    return ErrorBounds(*said, points)


def _standing(p_values: Mapping[str, float], looks: InterimAnalyses, look: int) -> frozenset[str]:
    """Return what stands by Holm's procedure, each step at the critical value of this look for its share of alpha.

    Closed testing with group-sequential boundaries (Ye, Li, Liu & Yao 2013): valid at whichever look one stops.
    """
    standing = set()
    for n, (target, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        share = (1 - looks.level) / (len(p_values) - n)
        if p >= 1 - InterimAnalyses(looks.count, 1 - share).level_at(look):
            break
        standing.add(target)
    return frozenset(standing)


def delta_id(scores: Scores, source: str, level: float = LEVEL) -> Estimate:
    """Return ΔID(s) = after(s, s) - init(s), in points."""
    return _within(linear(scores, {("after", source): 100.0, ("init", source): -100.0}, "points", level), -100, 100)


def drop(scores: Scores, target: str, level: float = LEVEL) -> Estimate:
    """Return drop(s, t) = init(t) - after(s, t), in points; positive is a loss."""
    return _within(linear(scores, {("init", target): 100.0, ("after", target): -100.0}, "points", level), -100, 100)


def tax(scores: Scores, source: str, level: float = LEVEL) -> Estimate | Undefined:
    """Return tax(s) = 1 - Σₜ after(s, t) / Σₜ init(t), t ≠ s; undefined when Σ init is not told apart from 0.

    0 is free, 1 is all lost, negative is transfer.
    """
    return _tax_over(scores, _targets(scores, source), "", level)


def _tax_over(scores: Scores, targets: Sequence[str], why_none: str, level: float) -> Estimate | Undefined:
    if not targets:
        return Undefined(why_none)
    kept = share(scores, {("after", t): 1.0 for t in targets}, {("init", t): 1.0 for t in targets}, level)
    if kept is None:
        return Undefined("the base policy's success on the targets is not told apart from 0")
    return replace(kept, value=1 - kept.value, low=1 - kept.high, high=1 - kept.low)


def tax_rate(scores: Scores, source: str, level: float = LEVEL) -> Estimate | Undefined:
    """Return mean over t of drop(s, t) / ΔID(s), points per point; undefined when ΔID's interval holds 0."""
    unknown_gain = Undefined("the interval of ΔID holds 0")
    if delta_id(scores, source, level).holds(0.0):
        return unknown_gain
    targets = _targets(scores, source)
    lost = {key: w / len(targets) for key, w in _change("init", "after", targets).items()}
    price = ratio(scores, lost, {("after", source): 1.0, ("init", source): -1.0}, "points per point", level)
    return unknown_gain if price is None else price


def ood_change(
    scores: Scores,
    source: str,
    arm: str,
    plain: str = "plain",
    level: float = LEVEL,
    targets: Sequence[str] | None = None,
) -> Estimate | Undefined:
    """Return Σₜ (arm - plain) / Σₜ plain, t ≠ s, as a fraction (the formula stated in arXiv 2601.18217).

    `scores` needs the roles `arm` and `plain`. Over all targets, or those named. Undefined when the denominator is not
    told apart from 0.
    """
    targets = _targets(scores, source) if targets is None else targets
    of_plain = share(scores, {(arm, t): 1.0 for t in targets}, {(plain, t): 1.0 for t in targets}, level)
    if of_plain is None:
        return Undefined(f"the success of {plain} on the targets is not told apart from 0")
    return replace(of_plain, value=of_plain.value - 1, low=of_plain.low - 1, high=of_plain.high - 1)


def tax_removed(
    scores: Scores,
    source: str,
    arm: str,
    plain: str = "plain",
    level: float = LEVEL,
    targets: Sequence[str] | None = None,
) -> Estimate | Undefined:
    """Return Σₜ (arm - plain) / Σₜ (init - plain), t ≠ s: the share of the plain tax that the arm took off.

    `scores` needs the roles `init`, `arm` and `plain`. Over all targets, or those named. Undefined when the plain tax
    is not told apart from 0.
    """
    targets = _targets(scores, source) if targets is None else targets
    removed = ratio(scores, _change(arm, plain, targets), _change("init", plain, targets), level=level)
    return Undefined(f"the tax of {plain} is not told apart from 0") if removed is None else removed


def _within(estimate: Estimate, lowest: float, highest: float) -> Estimate:
    """Return the estimate with limits that are possible."""
    return replace(estimate, low=max(estimate.low, lowest), high=min(estimate.high, highest))


def _targets(scores: Scores, source: str) -> list[str]:
    return sorted({d for domains in scores.roles.values() for d in domains} - {source})


def _change(more: str, less: str, targets: Sequence[str]) -> Weights:
    return {(more, t): 1.0 for t in targets} | {(less, t): -1.0 for t in targets}
