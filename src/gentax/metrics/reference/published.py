"""What two papers print, as typed rows: cells, axes, and the figures that the papers derive from them.

Success is in percent, differences are in points. A cell that the paper leaves empty is None. Numbers are kept as they
are printed, so the rounding of each follows from its own digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from gentax.core import UsageError, unknown

STUDIES = ("2601.18217", "2603.12011")  # arXiv numbers: "Paying Less Generalization Tax", "Can RL Improve …"


@dataclass(frozen=True)
class Row:
    """One trained policy: what RL on `source` did there, and the success on every other domain afterwards."""

    policy: str  # the policy before RL
    source: str
    arm: str  # "plain", "distractors", "no-thinking"
    rl_steps: int
    table: str  # of the paper
    delta_id: float  # points gained on the source
    ood: Mapping[str, float | None]  # target -> success after RL; None where the paper has no number
    init: Mapping[str, float]  # every domain -> success of `policy` before RL

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target of the row, those without a number included."""
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
    """State richness and planning complexity of the domains, measured on trajectories of `policy` before RL."""

    policy: str
    trajectories: int  # per domain
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
    covered: bool  # whether the target was in the warm-up's mixture
    policies: tuple[str, str]  # without, with
    relative: tuple[float, float]  # printed change against the start, percent
    difference: float  # printed, points
    cells: tuple[float | None, float | None]  # cells that this table prints itself, where it does


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
    setup: Mapping[str, Any]  # the settings, as the paper gives them
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
        """The training length of the main tables: the shortest there is. Raises UsageError without rows."""
        if not self.rows:
            raise UsageError(f"arXiv {self.key}: no rows are known")
        return min(row.rl_steps for row in self.rows)

    def select(self, **values: str | int | None) -> tuple[Row, ...]:
        """Return the rows with these `policy`, `source`, `arm` and `rl_steps`, in the order of the paper's tables."""
        return tuple(row for row in self.rows if all(v is None or getattr(row, k) == v for k, v in values.items()))

    def row(self, policy: str, source: str, arm: str = "plain", rl_steps: int | None = None) -> Row:
        """Return one row; `rl_steps` defaults to that of the main tables.

        Raises:
            UsageError: a policy, source or arm that the paper does not have, or not in this combination.
        """
        for name, value in {"policy": policy, "source": source, "arm": arm}.items():
            valid = {getattr(row, name) for row in self.rows}
            if value not in valid:
                raise unknown(f"{name} of arXiv {self.key}", value, valid)
        steps = self.rl_steps if rl_steps is None else rl_steps
        rows = self.select(policy=policy, source=source, arm=arm, rl_steps=steps)
        if not rows:
            raise UsageError(f"arXiv {self.key} prints no row of {policy}, {source}, {arm}, {steps} steps")
        return rows[0]


@cache
def published(key: str = STUDIES[0]) -> Published:
    """Return the printed numbers of a paper by its arXiv number.

    >>> row = published().row("V2", "sokoban")
    >>> row.init["webshop"], row.after["webshop"], published().axes.state_characters[row.source]
    (38.3, 34.0, 3114)

    Raises:
        UsageError: a paper whose numbers are not kept here.
    """
    if key not in STUDIES:
        raise unknown("published study", key, STUDIES)
    text = files("gentax.metrics.reference").joinpath("data", f"{key}.json").read_text(encoding="utf-8")
    return study_of(key, json.loads(text))


def study_of(key: str, raw: Mapping[str, Any]) -> Published:
    """Return the numbers of a paper from JSON values; tables that are not among them are empty."""
    init = raw.get("init", {})
    return Published(
        key=key,
        citation=raw["citation"],
        note=raw["note"],
        setup=raw.get("setup", {}),
        init=init,
        rows=tuple(Row(**line, init=init[line["policy"]]) for line in raw.get("rows", ())),
        axes=PublishedAxes(**raw["axes"]) if "axes" in raw else None,
        ood_change=tuple(PrintedChange(**line) for line in raw.get("ood_change", ())),
        warm_up=tuple(WarmUp(**line) for line in raw.get("warm_up", ())),
        rank_tie=raw.get("rank_tie", 0.0),
        rank_score=tuple(
            PrintedRank(**line | {"policies": tuple(line["policies"])}) for line in raw.get("rank_score", ())
        ),
        changes=tuple(Change(**line) for line in raw.get("changes", ())),
        gains=tuple(Gain(**line | {"pairs": tuple(map(tuple, line["pairs"]))}) for line in raw.get("gains", ())),
    )
