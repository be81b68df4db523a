"""A release gate: limits on what training may cost, read from a YAML file and judged on a tax report.

A limit is judged by the interval of its measure: it fails where the whole interval is beyond the limit, passes where
the whole interval is within, and is inconclusive where the limit lies in it: more tasks or seeds would tell. A measure
within the limit whose interval is not wholly within `warn` is a warning. `judge: estimate` compares the estimate alone,
and is never inconclusive where there is one. Each limit is judged by itself, at the level of the report's intervals;
they are not corrected for the number of limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from gentax.core.errors import ExitCode, UsageError, unknown
from gentax.core.results import Record, TextTable
from gentax.core.settings import read_settings, read_yaml, settings
from gentax.metrics.statistics import TASKS, Estimate, Undefined
from gentax.metrics.tax import NOT_TOUCHED, TaxReport
from gentax.metrics.verdict import number

AMOUNT = re.compile(r"([+-]?\d{1,6}(?:\.\d{1,6})?) ?(%|percent|points|point)?")


def _amount(unit: str, value: Any) -> float:
    """Return a number with its unit as a number: "10 %" is 10.0. A share needs its unit: 0.1 may mean 10 %."""
    written = AMOUNT.fullmatch(str(value).strip()) if isinstance(value, (int, float, str)) else None
    if written is None or isinstance(value, bool):
        raise ValueError(f"must be a number such as `5 {unit}`, not {str(value)[:40]!r}")
    given = "%" if written[2] in ("%", "percent") else written[2] and "points"
    if given != unit and (given or unit == "%"):
        raise ValueError(f"is in {'percent' if unit == '%' else unit}: write `{written[1]} {unit}`, not `{value}`")
    return float(written[1])


Percent = Annotated[float, BeforeValidator(partial(_amount, "%"))]
Points = Annotated[float, BeforeValidator(partial(_amount, "points"))]


@settings
class PercentLimit:
    """A limit on a share, such as `{fail: 10 %, warn: 5 %}`."""

    fail: Percent
    """Beyond it the gate fails."""
    warn: Percent | None = None
    """Beyond it the gate warns."""


@settings
class PointsLimit:
    """A limit on points of success, such as `{fail: 5 points, warn: 2 points}`."""

    fail: Points
    """Beyond it the gate fails."""
    warn: Points | None = None
    """Beyond it the gate warns."""


@settings
class Gate:
    """What a tuned policy must keep to be released. Every limit is optional; one there must be."""

    tax: PercentLimit | None = None
    """The highest tax over all targets."""
    untouched: PercentLimit | None = None
    """The highest tax over the targets of which nothing entered training; over all where none did."""
    targets: dict[str, PointsLimit] = field(default_factory=dict)
    """The largest drop on a target, by its name."""
    other_targets: PointsLimit | None = None
    """The largest drop on each target that `targets` does not name."""
    gain: PointsLimit | None = None
    """The lowest gain on the source."""
    errors: PercentLimit | None = None
    """The largest share of a domain's tasks that ended in an error of the environment: a count, without an interval."""
    judge: Literal["interval", "estimate"] = "interval"
    """What is compared with a limit: the whole 95 % interval, or the estimate alone."""

    def __post_init__(self) -> None:
        limits = {"tax": self.tax, "untouched": self.untouched, "other_targets": self.other_targets}
        limits |= {"errors": self.errors, "gain": self.gain, **{f"targets.{t}": x for t, x in self.targets.items()}}
        if not any(limits.values()):
            raise UsageError("a gate needs a limit: tax, untouched, targets, other_targets, gain or errors")
        for name, limit in limits.items():
            if limit is None or limit.warn is None:
                continue
            if limit.warn > limit.fail if name == "gain" else limit.warn < limit.fail:
                continue
            side = "above" if name == "gain" else "below"
            raise UsageError(f"{name}: warn, {limit.warn:g}, must be {side} fail, {limit.fail:g}, to come first")

    def check(self, targets: Iterable[str]) -> None:
        """Raise UsageError for a limit on what is no target."""
        targets = list(targets)
        for name in self.targets:
            if name not in targets:
                raise unknown("target in the gate", name, targets)

    def judged(self, report: TaxReport) -> GateResult:
        """Compare a report with the limits. Raises UsageError for a limit on a target that the report does not have."""
        self.check(report.targets)
        checks = tuple(_check(*row, by_estimate=self.judge == "estimate") for row in self._rows(report))
        return GateResult(self.judge, checks)

    def settled(self, report: TaxReport) -> bool:
        """Return whether playing more tasks is not needed: the gate failed, or no bound lies within an interval.

        Never where estimates are judged: an estimate that may stop when it looks good is biased.
        """
        if self.judge == "estimate":
            return False
        checks = self.judged(report).checks
        return any(c.outcome is GateOutcome.FAIL for c in checks) or not any(c.open for c in checks)

    def _rows(self, report: TaxReport) -> Iterator[tuple[str, Estimate | Undefined, PercentLimit | PointsLimit, bool]]:
        """Yield each limit with its measure, in the limit's unit, and whether the limit is the lowest value."""
        if self.tax is not None:
            yield "tax on all targets", _percent(report.tax), self.tax, False
        if self.untouched is not None:
            untouched = report.tax if report.tax_untouched == NOT_TOUCHED else report.tax_untouched
            yield "tax on untouched targets", _percent(untouched), self.untouched, False
        for target in report.targets:
            limit = self.targets.get(target, self.other_targets)
            if limit is not None:
                yield f"drop on {target}", report.drop[target], limit, False
        if self.gain is not None:
            yield f"gain on {report.source}", report.delta_id, self.gain, True
        if self.errors is not None:
            played = {d: report.tasks[d] + n for d, n in report.excluded_tasks.items()}
            domain = max(played, key=lambda d: report.excluded_tasks[d] / played[d])
            share = 100 * report.excluded_tasks[domain] / played[domain]
            counted = Estimate(share, share, share, TASKS, "percent", played[domain])
            yield f"errors on {domain}", counted, self.errors, False


class GateOutcome(StrEnum):
    """What the gate says."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


EXIT_CODES = {
    GateOutcome.PASS: ExitCode.OK,
    GateOutcome.WARN: ExitCode.OK,
    GateOutcome.FAIL: ExitCode.GATE_FAIL,
    GateOutcome.INCONCLUSIVE: ExitCode.GATE_INCONCLUSIVE,
}


@dataclass(frozen=True)
class GateCheck(Record):
    """One limit, and what became of it."""

    measure: str
    estimate: Estimate | Undefined
    fail: float
    warn: float | None
    outcome: GateOutcome
    open: bool = field(compare=False)  # a bound lies within the interval: more tasks may change the outcome

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"undefined": None if self.estimate else str(self.estimate)}


@dataclass(frozen=True)
class GateResult:
    """What the gate says of a report."""

    judge: str
    checks: tuple[GateCheck, ...]

    @property
    def outcome(self) -> GateOutcome:
        """The worst of the limits' outcomes; a failed limit outweighs an inconclusive one."""
        found = {check.outcome for check in self.checks}
        worst_first = (GateOutcome.FAIL, GateOutcome.INCONCLUSIVE, GateOutcome.WARN)
        return next((outcome for outcome in worst_first if outcome in found), GateOutcome.PASS)

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 0 to release, 3 for FAIL, 4 for INCONCLUSIVE."""
        return EXIT_CODES[self.outcome]

    def table(self) -> TextTable:
        """Return the limits as a table."""
        rows: list[list[object]] = []
        for check in self.checks:
            warn = "" if check.warn is None else number(check.warn)
            rows.append([check.measure, check.estimate, warn, number(check.fail), check.outcome.value])
        by = "95 % intervals" if self.judge == "interval" else "estimates"
        return TextTable(f"Gate, by {by}; percent or points", ["measure", "measured", "warn", "fail", "outcome"], rows)

    def to_json(self) -> dict[str, Any]:
        checks = [check.to_json() for check in self.checks]
        return {"outcome": self.outcome.value, "exit_code": self.exit_code, "judge": self.judge, "checks": checks}


def read_gate(path: str | Path) -> Gate:
    """Read a gate from a YAML file. Raises UsageError for what does not fit."""
    return read_settings(Gate, read_yaml(path) or {}, str(path))


def _check(
    measure: str, estimate: Estimate | Undefined, limit: PercentLimit | PointsLimit, lowest: bool, *, by_estimate: bool
) -> GateCheck:
    if isinstance(estimate, Undefined):
        return GateCheck(measure, estimate, limit.fail, limit.warn, GateOutcome.INCONCLUSIVE, True)
    sign = -1 if lowest else 1
    bounds = [sign * bound for bound in (limit.fail, limit.warn) if bound is not None]
    value = estimate.negated() if lowest else estimate
    low, high = (value.value, value.value) if by_estimate else (value.low, value.high)
    if low > bounds[0]:
        outcome = GateOutcome.FAIL
    elif high > bounds[0]:
        outcome = GateOutcome.INCONCLUSIVE
    else:
        outcome = GateOutcome.WARN if high > bounds[-1] else GateOutcome.PASS
    return GateCheck(measure, estimate, limit.fail, limit.warn, outcome, any(low <= bound < high for bound in bounds))


def _percent(tax: Estimate | Undefined) -> Estimate | Undefined:
    if isinstance(tax, Undefined):
        return tax
    values = {name: 100 * getattr(tax, name) for name in ("value", "low", "high")}
    return Estimate(**{**vars(tax), **values, "unit": "percent"})
