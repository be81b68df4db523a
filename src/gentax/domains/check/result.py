"""What a check of an environment finds, and how much work the checks may do. Types only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from gentax.core.errors import UsageError


class Verdict(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


class Failed(Exception):
    """Raised by a check: the environment does not keep the contract, and how."""


class NotApplicable(Exception):
    """Raised by a check that cannot be made here, and why."""


@dataclass(frozen=True)
class Effort:
    """How much the checks do. Where the seconds run out first, a check does less and says how much it did.

    Raises:
        UsageError: a number that is not positive or not finite.
    """

    tasks: int = 200  # that the expert plays
    starts: int = 4000  # tasks of each split that are compared with the others'
    episodes: int = 1000  # over which memory is watched
    seconds: float = 180.0  # for all checks together; each has a share, and takes longer where one task does

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise UsageError(f"{name} must be more than 0 and finite, not {value}")


QUICK = Effort(tasks=20, starts=300, episodes=120, seconds=6.0)


@dataclass(frozen=True)
class Result:
    """What one check found."""

    name: str
    verdict: Verdict
    found: str  # one line; where it failed, the task and the step
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "verdict": self.verdict.value}


@dataclass(frozen=True)
class CheckReport:
    """What all checks found of one environment."""

    name: str  # as `gentax.make` takes it
    level: str
    effort: Effort
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.verdict is Verdict.FAILED)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "environment": self.name,
            "level": self.level,
            "passed": self.passed,
            "effort": asdict(self.effort),
            "checks": [result.to_json() for result in self.results],
        }
