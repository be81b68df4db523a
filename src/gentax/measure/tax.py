"""The generalization tax: what training on a domain changed there, what it changed elsewhere, and the price of a point.

Success rates are in percent, differences of them in points, taxes are fractions. `init` is the base policy, `after`
the same policy after training on the source; both played the same test tasks with the same sampling seeds. Arms are
compared in `arms`, sources ranked in `ranks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.core.text_table import TextTable, as_printed
from gentax.measure.statistics import (
    LEVEL,
    Estimate,
    Looks,
    Scores,
    Undefined,
    Weights,
    holm,
    linear,
    p_value,
    ratio,
    success_rate,
)

ERROR_SHARE = 0.02  # of a domain's tasks that may be left out because an environment broke


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

    @property
    def undefined(self) -> dict[str, str]:
        """Why a measure has no value, by the name of the measure."""
        found = {name: getattr(self, name) for name in ("delta_id", "tax", "tax_rate")}
        return {name: value.reason for name, value in found.items() if isinstance(value, Undefined)}

    def table(self) -> TextTable:
        """Return success before and after on every domain, and the drops, as a table."""
        rows = [[d, self.init[d], self.after[d], self.drop.get(d, "source")] for d in self.init]
        columns = ["domain", "before", "after", "drop in points"]
        return TextTable(f"Success %, with {100 * self.level:g} % intervals", columns, rows)

    _repr_pretty_ = as_printed

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
        plain |= {k: getattr(self, k).to_json() for k in ("delta_id", "tax", "tax_rate")}
        return plain


def tax_report(
    source: str,
    init: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    error_share: float = ERROR_SHARE,
    looks: Looks = Looks(1),  # noqa: B008, it is frozen
    look: int = 1,
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
    (init, after), left_out = leave_out_errors([init, after], error_share)
    scores = Scores.of(init=init, after=after)
    level = looks.level_at(look)
    at_home = source in scores.roles["init"]
    away = Undefined(f"{source} was not evaluated")
    p_values = {t: p_value(scores, _change("init", "after", [t])) for t in targets}

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
        init={d: said(success_rate(x, level)) for d, x in scores.roles["init"].items()},
        after={d: said(success_rate(x, level)) for d, x in scores.roles["after"].items()},
        drop={t: said(drop(scores, t, level)) for t in targets},
        drop_p=holm(p_values),
        stands=_standing(p_values, looks, look),
        delta_id=maybe(delta_id(scores, source, level) if at_home else away),
        tax=maybe(tax(scores, source, level)),
        tax_rate=maybe(tax_rate(scores, source, level) if at_home else away),
        level=looks.level,
        look=look,
        looks=looks.count,
    )


def _standing(p_values: Mapping[str, float], looks: Looks, look: int) -> frozenset[str]:
    """Return what stands by Holm's procedure, each step at the critical value of this look for its share of alpha.

    Closed testing with group-sequential boundaries (Ye, Li, Liu & Yao 2013): valid at whichever look one stops.
    """
    standing = set()
    for n, (target, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        share = (1 - looks.level) / (len(p_values) - n)
        if p >= 1 - Looks(looks.count, 1 - share).level_at(look):
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
    targets = _targets(scores, source)
    cost = ratio(scores, _change("init", "after", targets), {("init", t): 1.0 for t in targets}, level=level)
    if cost is None:
        return Undefined("the base policy's success on the targets is not told apart from 0")
    return _within(cost, -np.inf, 1.0)


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
    scores: Scores, source: str, arm: str, plain: str = "plain", level: float = LEVEL
) -> Estimate | Undefined:
    """Return Σₜ (arm - plain) / Σₜ plain, t ≠ s, as a fraction (the formula stated in arXiv 2601.18217).

    `scores` needs the roles `arm` and `plain`. Undefined when the denominator is not told apart from 0.
    """
    targets = _targets(scores, source)
    change = ratio(scores, _change(arm, plain, targets), {(plain, t): 1.0 for t in targets}, level=level)
    return Undefined(f"the success of {plain} on the targets is not told apart from 0") if change is None else change


def tax_removed(
    scores: Scores, source: str, arm: str, plain: str = "plain", level: float = LEVEL
) -> Estimate | Undefined:
    """Return Σₜ (arm - plain) / Σₜ (init - plain), t ≠ s: the share of the plain tax that the arm took off.

    `scores` needs the roles `init`, `arm` and `plain`. Undefined when the plain tax is not told apart from 0.
    """
    targets = _targets(scores, source)
    removed = ratio(scores, _change(arm, plain, targets), _change("init", plain, targets), level=level)
    return Undefined(f"the tax of {plain} is not told apart from 0") if removed is None else removed


def successes(episodes: Iterable[Episode], tasks: Iterable[Task]) -> np.ndarray:
    """Return (K,) mean success over samples of each task, in the order of `tasks`; NaN where an episode is an error.

    Raises:
        UsageError: a task without an episode.
    """
    found: dict[Task, list[float]] = {}
    for episode in episodes:
        value = np.nan if episode.outcome is Outcome.ERROR else float(episode.success)
        found.setdefault(episode.task, []).append(value)
    tasks = list(tasks)
    missing = [task.id for task in tasks if task not in found]
    if missing:
        raise UsageError(f"{len(missing)} of {len(tasks)} tasks have no episode, the first is {missing[0]}")
    return np.array([np.mean(found[task]) for task in tasks])


def leave_out_errors(
    policies: Iterable[Mapping[str, np.ndarray]], error_share: float = ERROR_SHARE
) -> tuple[list[dict[str, np.ndarray]], dict[str, int]]:
    """Leave out, for every policy, the tasks on which any of them has NaN; return the rest and how many went.

    Args:
        policies: for each policy, domain -> (K,) or (S, K).
        error_share: the share of a domain's tasks that may go.

    Raises:
        UsageError: tasks that do not pair, or a domain that loses more than `error_share` of its tasks: then the
            tasks that are left are no fair sample, and the environment wants mending.
    """
    policies = [{d: np.atleast_2d(np.asarray(x, float)) for d, x in policy.items()} for policy in policies]
    left_out: dict[str, int] = {}
    for domain in sorted({d for policy in policies for d in policy}):
        arrays = [policy[domain] for policy in policies if domain in policy]
        if len({x.shape[-1] for x in arrays}) > 1:
            counts = [x.shape[-1] for x in arrays]
            raise UsageError(f"tasks must pair: the policies have {counts} tasks on {domain}")
        broken_K = np.any([np.isnan(x).any(0) for x in arrays], axis=0)
        left_out[domain] = int(broken_K.sum())
        if broken_K.mean() > error_share:
            raise UsageError(
                f"{left_out[domain]} of {len(broken_K)} tasks on {domain} ended in an error, more than "
                f"{100 * error_share:g} %: the environment must be mended before anything is measured on it"
            )
        for policy in policies:
            if domain in policy:
                policy[domain] = policy[domain][:, ~broken_K]
    return policies, left_out


def _within(estimate: Estimate, lowest: float, highest: float) -> Estimate:
    """Return the estimate with limits that are possible."""
    return replace(estimate, low=max(estimate.low, lowest), high=min(estimate.high, highest))


def _targets(scores: Scores, source: str) -> list[str]:
    return sorted({d for domains in scores.roles.values() for d in domains} - {source})


def _change(more: str, less: str, targets: list[str]) -> Weights:
    return {(more, t): 1.0 for t in targets} | {(less, t): -1.0 for t in targets}
