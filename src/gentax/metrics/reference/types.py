"""What two papers print, as typed rows: cells, axes, and the figures that the papers derive from them.

Success is in percent, differences are in points. A cell that the paper leaves empty is None. Numbers are kept as they
are printed, so the rounding of each can be read off its own digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gentax.core import UsageError, unknown


@dataclass(frozen=True)
class Row:
    """One trained policy: what RL on `source` did there, and the success on every other domain afterwards."""

    policy: str  # the starting policy
    source: str
    arm: str  # "plain", "distractors", "no-thinking"
    rl_steps: int
    delta_id: float  # points gained on the source
    ood: Mapping[str, float | None]  # target -> success after RL; None where the paper has no number
    init: Mapping[str, float]  # every domain -> success of `policy` before RL
    table: str  # of the paper

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target of the row, those without a number among them."""
        return tuple(self.ood)

    @property
    def missing(self) -> tuple[str, ...]:
        """The targets without a number."""
        return tuple(t for t, cell in self.ood.items() if cell is None)

    @property
    def after(self) -> dict[str, float]:
        """Success after RL on the targets that have a number."""
        return {t: cell for t, cell in self.ood.items() if cell is not None}

    @property
    def name(self) -> str:
        return f"{self.policy} {self.source}, {self.arm}, {self.rl_steps} steps"


@dataclass(frozen=True)
class PublishedAxes:
    """Where the domains lie, measured on trajectories of `policy` before RL."""

    policy: str
    trajectories: int  # a domain
    horizon: int  # steps at which a failure is counted
    state_characters: Mapping[str, float]  # mean characters of the state
    trajectory_length: Mapping[str, float]  # mean steps, failures counted at the horizon


@dataclass(frozen=True)
class PrintedChange:
    """A figure of the column "OOD change", in percent: `arm` against plain."""

    arm: str
    policy: str
    source: str
    printed: float


@dataclass(frozen=True)
class WarmUp:
    """A line of the table on SFT warm-up: the change on one target, for the policy without it and the one with it."""

    source: str
    target: str
    covered: bool  # whether the target was in the mix of the warm-up
    policies: tuple[str, str]  # without, with
    relative: tuple[float, float]  # printed change against the start, percent
    difference: float  # printed, points
    beside: tuple[float | None, float | None]  # the cells that this table prints for itself, where it does


@dataclass(frozen=True)
class PrintedRank:
    """An OOD rank score: the sum over the targets of all `policies`; lower is better."""

    policies: tuple[str, ...]
    source: str
    printed: float


@dataclass(frozen=True)
class Change:
    """A number before and after training."""

    model: str
    trained: str
    tested: str
    unit: str
    before: float
    after: float
    against: str = "the start"


@dataclass(frozen=True)
class Gain:
    """A printed gain in points, the mean over `pairs` of (trained, tested)."""

    model: str
    trained: str
    over: str
    pairs: tuple[tuple[str, str], ...]
    printed: float
    against: str = "the start"


@dataclass(frozen=True)
class Published:
    """One paper. A table that it does not have is empty."""

    key: str  # arXiv number
    citation: str
    note: str
    setup: Mapping[str, Any]  # what the paper says of its settings, as it says it
    init: Mapping[str, Mapping[str, float]]  # policy -> domain -> success before RL
    rows: tuple[Row, ...]
    axes: PublishedAxes | None
    ood_change: tuple[PrintedChange, ...]
    warm_up: tuple[WarmUp, ...]
    rank_tie: float  # points within which two sources count as equal
    rank_score: tuple[PrintedRank, ...]
    changes: tuple[Change, ...]
    gains: tuple[Gain, ...]

    @property
    def rl_steps(self) -> int:
        """The length of training of the main tables: the shortest there is. Raises UsageError without rows."""
        if not self.rows:
            raise UsageError(f"arXiv {self.key}: no rows are known")
        return min(row.rl_steps for row in self.rows)

    def select(
        self, policy: str | None = None, source: str | None = None, arm: str | None = None, rl_steps: int | None = None
    ) -> tuple[Row, ...]:
        """Return the rows that have what is given, in the order of the paper's tables."""
        asked = {"policy": policy, "source": source, "arm": arm, "rl_steps": rl_steps}
        wanted = {key: value for key, value in asked.items() if value is not None}
        return tuple(row for row in self.rows if all(getattr(row, key) == value for key, value in wanted.items()))

    def row(self, policy: str, source: str, arm: str = "plain", rl_steps: int | None = None) -> Row:
        """Return one row; `rl_steps` is that of the main tables when it is not said.

        Raises:
            UsageError: a policy, source or arm that the paper does not have, or not together.
        """
        for kind, value in {"policy": policy, "source": source, "arm": arm}.items():
            valid = {getattr(row, kind) for row in self.rows}
            if value not in valid:
                raise unknown(f"{kind} of arXiv {self.key}", value, valid)
        steps = self.rl_steps if rl_steps is None else rl_steps
        found = self.select(policy, source, arm, steps)
        if not found:
            raise UsageError(f"arXiv {self.key} prints no row of {policy}, {source}, {arm}, {steps} steps")
        return found[0]
