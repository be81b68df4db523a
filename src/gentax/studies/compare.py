"""Two studies beside each other: which settings differ, and what that changed. `gentax study compare`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gentax.core import UsageError
from gentax.core.results import Tabular
from gentax.core.settings import plain
from gentax.metrics.arms import ArmReport, compare_arms
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import tax_report
from gentax.metrics.verdict import headline
from gentax.studies.plan import Plan
from gentax.studies.results import BOOTSTRAP_SEED, StudyScores, read_scores, touched
from gentax.studies.store import Store


@dataclass(frozen=True)
class Difference:
    """A setting that two studies do not share."""

    key: str
    first: Any
    second: Any


def settings_differences(first: Plan, second: Plan) -> list[Difference]:
    """Return the settings that differ between two studies, by their path, such as `train.learning_rate`."""
    flat_first, flat_second = (dict(_flatten(plain(plan.study))) for plan in (first, second))
    keys = dict.fromkeys([*flat_first, *flat_second])
    return [
        Difference(key, flat_first.get(key), flat_second.get(key))
        for key in keys
        if key not in ("name", "about") and flat_first.get(key) != flat_second.get(key)
    ]


def _flatten(values: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


@dataclass(frozen=True)
class CellComparison(Tabular):
    """One arm on one source, in both studies."""

    arm: str
    source: str
    first_tax: Estimate | Undefined
    second_tax: Estimate | Undefined
    change: ArmReport | None  # the second study's against the first one's; None where their tasks do not pair

    def rows(self) -> list[dict[str, Any]]:
        """Return one row: both taxes, and the change on the targets in points."""
        change = None if self.change is None else self.change.targets
        taxes = {"first_tax": self.first_tax, "second_tax": self.second_tax}
        return [{"arm": self.arm, "source": self.source, **taxes, "change": change}]

    def to_json(self) -> dict[str, Any]:
        change = None if self.change is None else self.change.to_json()
        taxes = {"first_tax": self.first_tax.to_json(), "second_tax": self.second_tax.to_json()}
        return {"arm": self.arm, "source": self.source, **taxes, "change": change}


def compare_studies(first: Plan, second: Plan, store: Store) -> list[CellComparison]:
    """Compare the arms that two finished studies have in common, on the domains that both evaluate.

    The difference is paired by task where both played the same tasks in the same way with the same base.

    Raises:
        UsageError: a study that is not done, or studies that share no arm and source, or no two domains.
        DamagedStage: a stored file is not what was stored.
    """
    for plan in (first, second):
        if missing := [stage for stage in plan.stages() if stage.kind == "evaluate" and not store.has(stage)]:
            raise UsageError(f"study {plan.study.name}: {len(missing)} evaluations are not done; run it first")
    one, two = first.study, second.study
    cells = [
        cell for cell in itertools.product(one.arms, one.sources) if cell[0] in two.arms and cell[1] in two.sources
    ]
    shared = [name for name in one.domains if name in two.domains]
    if not cells or len(shared) < 2:
        raise UsageError(f"studies {one.name} and {two.name} share no arm on a source with another domain")
    scores, other = (read_scores(plan, store) for plan in (first, second))
    paired = all(first.init[name] == second.init[name] for name in shared)
    result = []
    for arm, source in cells:
        marked = touched(one, arm, source) | touched(two, arm, source)
        taxes = [_tax(of, arm, source, shared, marked) for of in (scores, other)]
        change = _change(scores, other, arm, source, shared, marked) if paired else None
        result.append(CellComparison(arm, source, taxes[0], taxes[1], change))
    return result


def _tax(scores: StudyScores, arm: str, source: str, shared: list[str], marked: frozenset[str]) -> Estimate | Undefined:
    """Return the tax on the targets that neither study touched."""
    report = tax_report(
        source,
        {name: scores.init[name] for name in shared},
        {name: scores.after[arm, source][name] for name in shared},
        clusters=scores.clusters,
        touched=marked,
    )
    return headline(report)


def _change(
    scores: StudyScores, other: StudyScores, arm: str, source: str, shared: list[str], marked: frozenset[str]
) -> ArmReport:
    arms = {
        name: {domain: of.after[arm, source][domain] for domain in shared}
        for name, of in (("first", scores), ("second", other))
    }
    return compare_arms(
        source,
        {name: scores.init[name] for name in shared},
        arms,
        np.random.default_rng(BOOTSTRAP_SEED),
        "first",
        clusters=scores.clusters,
        touched=marked,
    )["second"]
