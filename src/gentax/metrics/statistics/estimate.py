"""The result of every measure: a number, its interval, and what the interval covers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from gentax.core.results import Record

LEVEL = 0.95  # of an interval, unless said otherwise
TASKS, SEEDS_AND_TASKS, SEEDS = "tasks", "training seeds and tasks", "training seeds"
_TEXT_DIGITS = {"fraction": 2, "points per point": 2}  # unit -> digits after the point, as text
DIGITS = 10  # significant ones that are written to files: sums in another order differ after the fifteenth


def rounded(value: Any) -> Any:
    """Return a float rounded to the digits that are written to files; anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class Estimate(Record):
    """A number and its interval."""

    value: float
    low: float
    high: float
    covers: str  # the source of variation: "tasks", "training seeds and tasks", …
    unit: str  # "percent" (of success), "points" (between two percentages), "fraction", "steps", "characters", …
    n: int  # tasks, over all domains involved
    seeds: int = 1  # training seeds
    level: float = LEVEL  # the confidence level

    def contains(self, x: float) -> bool:
        """Return whether the interval contains `x`: whether the data allow it."""
        return self.low <= x <= self.high

    def negated(self) -> Estimate:
        """Return the estimate of the negative: a gain as a loss, or the reverse."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)

    def text(self, digits: int) -> str:
        """Write the estimate with its interval and true minus signs, such as `−2.0 (−5.1 to 0.9)`."""
        # + 0.0 makes 0.0 of the -0.0 that small losses are rounded to
        value, low, high = (f"{round(x, digits) + 0.0:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})".replace("-", "\N{MINUS SIGN}")

    def __str__(self) -> str:
        return self.text(_TEXT_DIGITS.get(self.unit, 1))

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values, numbers to ten digits, so that they are the same on every machine."""
        return {key: rounded(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class Undefined:
    """A measure without a value, and why. It is false: `if report.tax: …` asks whether there is a number."""

    reason: str

    def __bool__(self) -> Literal[False]:
        return False

    def __str__(self) -> str:
        return f"undefined: {self.reason}"

    def to_json(self) -> None:
        """Return null, as which it is written."""
        return None
