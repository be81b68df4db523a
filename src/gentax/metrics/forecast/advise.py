"""Which domains to train on, before training: candidates and their mixtures in the order of their forecast tax.

A mixture shares the training steps among its domains; each must get as many as the runs had that the fit has seen, so
that nothing is extrapolated in steps. Its axes are the means of its parts' (no mixture is in the data: that is an
assumption, and said to be one); its targets are what it does not hold. What cannot be told apart is not ranked apart:
candidates whose forecasts differ by less than the margin of a difference of two forecasts share a rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gentax.core import UsageError
from gentax.metrics.axes import Probe
from gentax.metrics.diversity import Diversity, diversity
from gentax.metrics.forecast.fit import Fit, Forecast
from gentax.metrics.forecast.training_runs import Seen, features_of

LARGEST = 3  # domains of a mixture


@dataclass(frozen=True)
class Advice:
    """One way to spend the budget."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    steps: int  # each source's share of the budget
    features: Mapping[str, float]
    forecast: Forecast
    rank: int | None  # 1 is the least tax; alike where the difference is within the margin; None without a forecast
    measured: Seen | None  # the run of the fit on this very source, where it holds one
    headroom: float  # percent of the sources' tasks that the base fails: what training may gain at home

    def to_json(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in ("sources", "targets", "steps", "rank", "headroom")}
        known = None if self.measured is None else self.measured.to_json()
        return kept | {"features": dict(self.features), "forecast": self.forecast.to_json(), "measured": known}


def advise(
    probes: Sequence[Probe], candidates: Sequence[str], targets: Sequence[str], fit: Fit, budget: int
) -> list[Advice]:
    """Return candidates and mixtures of up to three of them, least forecast tax first, then most headroom.

    Args:
        probes: of all domains concerned, candidates and targets, with their episodes.
        candidates: names of those one could train on.
        targets: names of those that the policy is for.
        fit: what forecasts rest on.
        budget: training steps to spend. A mixture of m takes m times the steps that the runs of the fit had.

    Raises:
        UsageError: no candidate, one or a target that was not probed, no target besides a candidate, a budget below 1
            step.
    """
    if budget < 1:
        raise UsageError(f"the budget is a number of training steps, at least 1, not {budget}")
    by_name = {probe.name: probe for probe in probes}
    for name in [*candidates, *targets]:
        if name not in by_name:
            raise UsageError(f"{name} was not probed")
    if not candidates or not any(set(targets) - {name} for name in candidates):
        raise UsageError("advice takes at least one candidate and one other domain as a target")
    matrix = diversity(probes)
    largest = min(LARGEST, max(1, budget // fit.steps), len(candidates))
    found = []
    for size in range(1, largest + 1):
        for sources in itertools.combinations(candidates, size):
            others = tuple(name for name in targets if name not in sources)
            if not others:
                continue
            features = _features(sources, others, by_name, matrix)
            seen = [row for row in fit.rows if (row.source,) == sources and row.arm == "plain"]
            found.append(
                Advice(
                    sources,
                    others,
                    budget // size,
                    features,
                    fit.forecast(features),
                    None,
                    seen[0] if seen else None,
                    float(np.mean([100 - by_name[s].axes.success.value for s in sources])),
                )
            )
    return _ranked(found, fit)


def _features(
    sources: tuple[str, ...], targets: tuple[str, ...], by_name: Mapping[str, Probe], matrix: Diversity
) -> dict[str, float]:
    """Return the means of the features of `sources`; a target's words are unseen when no source shows them."""
    unseen = matrix.pairs.get("unseen")
    each = []
    for source in sources:
        away = None if unseen is None else float(np.mean([unseen[source][t].value for t in targets]))
        each.append(features_of(by_name[source], away))
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def _ranked(found: list[Advice], fit: Fit) -> list[Advice]:
    """Order by forecast, then by headroom. A rank ends where one is farther than the margin from its first one."""
    tax = {n: a.forecast.tax.value for n, a in enumerate(found) if a.forecast.tax is not None}
    known = sorted((value, -found[n].headroom, n) for n, value in tax.items())
    ranked: list[Advice] = []
    first, rank = 0.0, 0
    apart = fit.apart() if known else 0.0
    for place, (value, _, n) in enumerate(known, 1):
        if place == 1 or value - first > apart:
            first, rank = value, place
        ranked.append(replace(found[n], rank=rank))
    unknown = (a for a in found if a.forecast.tax is None)
    return ranked + sorted(unknown, key=lambda a: -a.headroom)
