"""The measures of a policy's episodes by domain, and what changed in them between two policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gentax.core import Episode
from gentax.metrics.behaviour.counts import MEASURES, Measure, Read, read
from gentax.metrics.behaviour.pairing import By, by_domain, flat
from gentax.metrics.behaviour.ratios import Ratio, change, estimate
from gentax.metrics.left_out import successes
from gentax.metrics.statistics import Estimate, difference

Values = Mapping[str, Estimate | None]  # measure -> estimate; None when it is undefined or not known


@dataclass(frozen=True)
class Behaviour:
    """What a policy did on one domain."""

    domain: str
    tasks: int  # that entered
    episodes: int  # that entered
    left_out: int  # tasks left out because an episode ended in an error
    values: Values

    def to_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("tasks", "episodes", "left_out")}
        return {**counts, "measures": _plain(self.values)}


@dataclass(frozen=True)
class Comparison:
    """What two policies did on the same tasks of one domain."""

    before: Behaviour
    after: Behaviour
    change: Values  # after - before; shares in points

    def to_json(self) -> dict[str, Any]:
        return {"before": self.before.to_json(), "after": self.after.to_json(), "change": _plain(self.change)}


def behaviour(episodes: Iterable[Episode]) -> dict[str, Behaviour]:
    """Return what a policy did, by domain.

    Deterministic: the intervals are closed formulae. They cover tasks; samples of a task are no independent evidence.

    Raises:
        UsageError: no episodes, an episode that is there twice, fewer than 2 tasks of a domain, too many errors.
    """
    found = {}
    for domain, ((side,), left_out) in by_domain(episodes).items():
        found[domain] = Behaviour(domain, *_counts(side), left_out, _estimates(_ratios(side, _horizons(side))))
    return found


def compare(before: Iterable[Episode], after: Iterable[Episode]) -> dict[str, Comparison]:
    """Return what two policies did on the same tasks and samples, and the changes, paired by task, by domain.

    Tasks on which an episode of either ended in an error are left out of both.

    Raises:
        UsageError: see `behaviour`; tasks or samples that do not pair.
    """
    found = {}
    for domain, (sides, left_out) in by_domain(before, after).items():
        horizons = _horizons(*sides)
        ratios = [_ratios(side, horizons) for side in sides]
        was, now = (
            Behaviour(domain, *_counts(side), left_out, _estimates(of_side))
            for side, of_side in zip(sides, ratios, strict=True)
        )
        changes = {}
        for name in MEASURES:
            first, second = (of_side[name] for of_side in ratios)
            changes[name] = None if first is None or second is None else change(first, second)
        changes["success"] = difference(*(successes(flat(side), side) for side in sides))  # as the tax has it
        found[domain] = Comparison(was, now, changes)
    return found


def _horizons(*sides: By) -> dict[str, int]:
    """Return the longest episode of each level: where its episodes are cut off, as far as they tell."""
    longest: dict[str, int] = {}
    for episode in (episode for side in sides for episode in flat(side)):
        longest[episode.task.level] = max(longest.get(episode.task.level, 0), episode.length)
    return longest


def _ratios(side: By, horizons: dict[str, int]) -> dict[str, Ratio | None]:
    reads = [[read(e, horizons[task.level]) for e in many] for task, many in side.items()]
    return {name: _ratio(reads, measure) for name, measure in MEASURES.items()}


def _ratio(reads: list[list[Read]], measure: Measure) -> Ratio | None:
    """Return the sums of each task; None when an episode does not say."""
    sums = []
    for of_task in reads:
        pairs = [pair for one in of_task if (pair := measure.of(one)) is not None]
        if len(pairs) < len(of_task):
            return None
        sums.append(np.sum(pairs, axis=0))
    return Ratio(*np.array(sums, float).T, unit=measure.unit)


def _estimates(ratios: dict[str, Ratio | None]) -> Values:
    return {name: None if ratio is None else estimate(ratio) for name, ratio in ratios.items()}


def _counts(side: By) -> tuple[int, int]:
    return len(side), sum(map(len, side.values()))


def _plain(values: Values) -> dict[str, Any]:
    return {name: None if value is None else value.to_json() for name, value in values.items()}
