"""What a page is made of. Everything here was measured or played elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gentax.core import Episode, Outcome, UsageError
from gentax.metrics.arms import ArmReport
from gentax.metrics.axes import Axes
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import TaxReport


@dataclass(frozen=True)
class Result:
    """One row of the matrix: training on `tax.source` under one arm, mean over seeds."""

    tax: TaxReport
    arm: str = "plain"
    baseline: str = ""  # the arm that it is compared with beside the base
    beside: ArmReport | None = None  # what it did beside that arm
    baseline_tax: Estimate | Undefined | None = None  # that arm's tax, on the targets that this row's verdict is on

    @property
    def marked(self) -> bool:
        """Whether the verdict leaves out targets that entered training."""
        return bool(self.tax.touched and self.tax.untouched)


@dataclass(frozen=True)
class Comparison:
    """Ways of training beside each other, and sources beside each other. Empty where there is but one."""

    arms: Mapping[str, Mapping[str, ArmReport]] = field(default_factory=dict)  # source -> arm -> beside its baseline
    ranks: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # arm -> source -> OOD rank score
    baselines: Mapping[str, str] = field(default_factory=dict)  # arm -> the arm that it is compared with


@dataclass(frozen=True)
class Curve:
    """One training run. A row is a step's metrics, each of which may be missing.

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
    about: str = ""  # why it is shown, in a line
    arm: str = ""  # the arm whose training lies between them

    def __post_init__(self) -> None:
        if self.before.task != self.after.task:
            raise UsageError(f"a pair is one task, not {self.before.task.id} and {self.after.task.id}")

    @property
    def change(self) -> str:
        """What became of the task, in a word or two."""
        if Outcome.ERROR in (self.before.outcome, self.after.outcome):
            return "an error"
        return _CHANGES[self.before.success, self.after.success]


_CHANGES = {
    (True, False): "lost",
    (False, True): "gained",
    (True, True): "solved twice",
    (False, False): "failed twice",
}


@dataclass(frozen=True)
class Report:
    """A whole page. Parts that are empty are left out of it.

    Raises:
        UsageError: no result and nothing else to show.
    """

    title: str
    results: tuple[Result, ...] = ()
    about: str = ""  # one line under the title
    answer: tuple[str, ...] = ()  # sentences on top; those of measure.verdict when empty
    domains: tuple[str, ...] = ()  # columns of the matrix in order; by name when empty
    compared: Comparison = field(default_factory=Comparison)
    curves: tuple[Curve, ...] = ()
    axes: tuple[Axes, ...] = ()
    pairs: tuple[EpisodePair, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested mappings are shown as dotted keys
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""  # that makes it all again
    made: str = ""  # when, as text
    seconds: float | None = None  # wall-clock time of the whole

    def __post_init__(self) -> None:
        if not (self.results or self.curves or self.axes or self.pairs):
            raise UsageError("a report needs a result, a learning curve, axes or a pair of episodes to show")

    def columns(self) -> list[str]:
        """Return the domains of the matrix: those in `domains` first, then any other by name."""
        found = {domain for result in self.results for domain in result.tax.init}
        return [d for d in self.domains if d in found] + sorted(found - set(self.domains))


def base_success(results: Sequence[Result]) -> dict[str, Estimate]:
    """Return the base's success on each domain, percent; of several results that know it, as the first says."""
    return {d: estimate for result in reversed(results) for d, estimate in result.tax.init.items()}


def random_success(results: Sequence[Result]) -> dict[str, Estimate]:
    """Return random play's success on each domain where it is known, percent; as `base_success`."""
    return {d: one.random for result in reversed(results) for d, one in result.tax.above_chance.items()}
