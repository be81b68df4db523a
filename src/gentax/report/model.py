"""The contents of a report: results, comparisons of arms, learning curves, axes and episodes, measured elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gentax.core import Episode, Outcome, UsageError
from gentax.metrics.arms import ArmReport
from gentax.metrics.axes import Axes
from gentax.metrics.claims import ClaimResult
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import TaxReport

# Success (before, after) -> what changed, in the order in which a page shows them.
CHANGES = {
    (True, False): "lost",
    (False, True): "gained",
    (True, True): "solved twice",
    (False, False): "failed twice",
}


@dataclass(frozen=True)
class Result:
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
class Curve:
    """The metrics of one training run, a mapping for each step; any metric may be missing.

    Shown where present: `step`, `success`, `validation_success` or `test_success` (fractions), `return`, `length`
    (steps), `invalid` (fraction of actions), `entropy` and `kl` (nats per token). Values that are not finite are gaps.
    """

    source: str
    rows: tuple[Mapping[str, Any], ...]
    arm: str = "plain"
    seed: int = 0


@dataclass(frozen=True)
class EpisodePair:
    """The same task before and after training, to be read side by side."""

    before: Episode
    after: Episode
    arm: str = ""  # the arm that was trained in between

    def __post_init__(self) -> None:
        if self.before.task != self.after.task:
            raise UsageError(f"a pair is one task, not {self.before.task.id} and {self.after.task.id}")

    @property
    def change(self) -> str:
        """How the outcome changed, in a word or two."""
        if Outcome.ERROR in (self.before.outcome, self.after.outcome):
            return "an error"
        return CHANGES[self.before.success, self.after.success]


def representative_pairs(before: Sequence[Episode], after: Iterable[Episode], arm: str = "") -> list[EpisodePair]:
    """Return the first pair of each kind of change on one domain, so that nobody chose them for their message.

    Args:
        before: the episodes before training.
        after: those after it, on the same tasks in the same order.
        arm: the arm that was trained in between.
    """
    first: dict[str, EpisodePair] = {}
    for pair in (EpisodePair(one, other, arm=arm) for one, other in zip(before, after, strict=True)):
        first.setdefault(pair.change, pair)
    return [first[change] for change in CHANGES.values() if change in first]


@dataclass(frozen=True)
class Report:
    """A whole page. Empty parts are left out of it.

    Raises:
        UsageError: no result and nothing else to show.
    """

    title: str
    results: tuple[Result, ...] = ()
    about: str = ""  # one line under the title
    domains: tuple[str, ...] = ()  # columns of the matrix in order; by name when empty
    comparison: ArmComparison = field(default_factory=ArmComparison)
    claims: tuple[ClaimResult, ...] = ()  # that the study states, with what the data say of them
    curves: tuple[Curve, ...] = ()
    axes: tuple[Axes, ...] = ()
    pairs: tuple[EpisodePair, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested mappings are shown as dotted keys
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""  # that reproduces it
    made: str = ""  # date and time, as text
    seconds: float | None = None  # wall-clock time of the whole

    def __post_init__(self) -> None:
        if not (self.results or self.curves or self.axes or self.pairs):
            raise UsageError("a report needs a result, a learning curve, axes or a pair of episodes to show")

    def columns(self) -> list[str]:
        """Return the domains of the matrix: those in `domains` first, then any other by name."""
        known = {domain for result in self.results for domain in result.tax.init}
        return [d for d in self.domains if d in known] + sorted(known - set(self.domains))


def base_success(results: Sequence[Result]) -> dict[str, Estimate]:
    """Return the base model's success on each domain, percent, from the first result that has it."""
    return {d: estimate for result in reversed(results) for d, estimate in result.tax.init.items()}


def random_success(results: Sequence[Result]) -> dict[str, Estimate]:
    """Return the success of random play on each domain where it is known, percent; as `base_success`."""
    return {d: one.random for result in reversed(results) for d, one in result.tax.above_chance.items()}
