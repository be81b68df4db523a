"""Pages and figures of what was measured elsewhere. Here stands what a report holds; `page` writes it to a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gentax.core import Episode, UsageError
from gentax.metrics.arms import ArmReport
from gentax.metrics.axes import Axes
from gentax.metrics.claim_testing import ClaimResult
from gentax.metrics.gate import GateResult
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import TaxReport


@dataclass(frozen=True)
class ArmResult:
    """One row of the matrix: training on `tax.source` under one arm, mean over seeds."""

    tax: TaxReport
    arm: str = "plain"
    baseline: str = ""  # the arm it is compared with, in addition to the base model
    versus_baseline: ArmReport | None = None  # that comparison
    baseline_tax: Estimate | Undefined | None = None  # the tax of that arm, on the targets of this row's verdict

    @property
    def untouched_only(self) -> bool:
        """Whether the verdict leaves out targets that entered training."""
        return bool(self.tax.touched and self.tax.untouched)


@dataclass(frozen=True)
class ArmComparison:
    """Arms compared with their baselines, and sources ranked. Empty where there is only one."""

    arms: Mapping[str, Mapping[str, ArmReport]] = field(default_factory=dict)  # source -> arm -> against its baseline
    ranks: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # arm -> source -> OOD rank score
    baselines: Mapping[str, str] = field(default_factory=dict)  # arm -> its baseline


@dataclass(frozen=True)
class LearningCurve:
    """The metrics of one training run, a mapping for each step; any metric may be missing.

    Shown where present: `step`, `success`, `validation_success` or `test_success` (fractions), `return`, `length`
    (steps), `invalid` (fraction of actions), `entropy` and `kl` (nats per token). Values that are not finite are gaps.
    """

    source: str
    rows: tuple[Mapping[str, Any], ...]
    arm: str = "plain"
    seed: int = 0


@dataclass(frozen=True)
class EpisodeSet:
    """The episodes of one policy on one domain, read when they are needed."""

    domain: str
    read: Callable[[], Sequence[Episode]]  # the same tasks in the same order for every policy
    arm: str = ""  # of training, as the page names it; empty for the base
    seed: int = 0


@dataclass(frozen=True)
class ForecastCheck:
    """What was forecast for a result from other training runs, beside what was measured."""

    name: str  # of the row
    forecast: Estimate  # of the tax, fraction
    measured: Estimate
    why: str  # the basis of the forecast

    @property
    def held(self) -> bool:
        """Whether the measured tax lies in the interval of the forecast."""
        return self.forecast.low <= self.measured.value <= self.forecast.high


@dataclass(frozen=True)
class Report:
    """A whole page. Empty parts are left out of it.

    Raises:
        UsageError: no result and nothing else to show.
    """

    title: str
    results: tuple[ArmResult, ...] = ()
    about: str = ""  # one line under the title
    domains: tuple[str, ...] = ()  # columns of the matrix in order; by name when empty
    comparison: ArmComparison = field(default_factory=ArmComparison)
    gate: GateResult | None = None  # a release gate, with what it says of the one result
    claims: tuple[ClaimResult, ...] = ()  # that the study states, with what the data say of them
    curves: tuple[LearningCurve, ...] = ()
    axes: tuple[Axes, ...] = ()
    forecasts: tuple[ForecastCheck, ...] = ()
    episodes: tuple[EpisodeSet, ...] = ()  # of the base and of every trained policy, on the same tasks
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested mappings are shown as dotted keys
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""  # that reproduces it
    study_file: tuple[str, str] | None = None  # that the command reads: its path, and its text
    made: str = ""  # date and time, as text
    seconds: float | None = None  # wall-clock time of the whole

    def __post_init__(self) -> None:
        if not (self.results or self.curves or self.axes or self.episodes):
            raise UsageError("a report needs a result, a learning curve, axes or episodes to show")

    def columns(self) -> list[str]:
        """Return the domains of the matrix: those in `domains` first, then any other by name."""
        known = {domain for result in self.results for domain in result.tax.init}
        return [d for d in self.domains if d in known] + sorted(known - set(self.domains))


def base_success(results: Sequence[ArmResult]) -> dict[str, Estimate]:
    """Return the base model's success on each domain, percent, from the first result that has it."""
    return {d: estimate for result in reversed(results) for d, estimate in result.tax.init.items()}


def random_success(results: Sequence[ArmResult]) -> dict[str, Estimate]:
    """Return the success of random play on each domain where it is known, percent; as `base_success`."""
    return {d: one.random for result in reversed(results) for d, one in result.tax.above_chance.items()}
