"""What two papers print, as typed rows: cells, axes, and the figures that the papers derive from them.

Success is in percent, differences are in points. A cell that the paper leaves empty is None. Numbers are kept as they
are printed, so the rounding of each follows from its own digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from importlib.resources import files
from typing import Any

from gentax.core import UsageError, unknown
from gentax.core.settings import read_settings, settings

STUDIES = ("2601.18217", "2603.12011")  # arXiv numbers: "Paying Less Generalization Tax", "Can RL Improve …"

Number = int | float  # 18 is rounded to 1, and 18.0 to 0.1


@settings
class PublishedRun:
    """One trained policy: what RL on `source` did there, and the success on every other domain afterwards."""

    policy: str  # the policy before RL
    source: str
    arm: str  # "plain", "distractors", "no-thinking"
    rl_steps: int
    table: str  # of the paper
    delta_id: Number  # points gained on the source
    ood: dict[str, Number | None]  # target -> success after RL; None where the paper has no number
    init: dict[str, Number]  # every domain -> success of `policy` before RL

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target of the row, those without a number included."""
        return tuple(self.ood)

    @property
    def missing(self) -> tuple[str, ...]:
        """The targets without a number."""
        return tuple(t for t, cell in self.ood.items() if cell is None)

    @property
    def after(self) -> dict[str, Number]:
        """Success after RL on the targets that have a number."""
        return {t: cell for t, cell in self.ood.items() if cell is not None}

    @property
    def name(self) -> str:
        return f"{self.policy} {self.source}, {self.arm}, {self.rl_steps} steps"


@settings
class PublishedAxes:
    """State richness and planning complexity of the domains, measured on trajectories of `policy` before RL."""

    policy: str
    trajectories: int  # per domain
    horizon: int  # steps at which a failure is counted
    state_characters: dict[str, Number]  # mean characters of the state
    trajectory_length: dict[str, Number]  # mean steps, failures counted at the horizon


@settings
class PrintedChange:
    """A figure of the column "OOD change", in percent: `arm` against plain."""

    arm: str
    policy: str
    source: str
    printed: Number


@settings
class WarmUp:
    """A line of the table on SFT warm-up: the change on one target, for the policy without it and the one with it."""

    source: str
    target: str
    covered: bool  # whether the target was in the warm-up's mixture
    policies: tuple[str, str]  # without, with
    relative: tuple[Number, Number]  # printed change against the start, percent
    difference: Number  # printed, points
    cells: tuple[Number | None, Number | None]  # cells that this table prints itself, where it does


@settings
class PrintedRank:
    """An OOD rank score: the sum over the targets of all `policies`; lower is better."""

    policies: tuple[str, ...]
    source: str
    printed: Number


@settings
class Change:
    """A number before and after training."""

    model: str
    trained: str
    tested: str
    unit: str
    before: Number
    after: Number
    against: str = "the start"


@settings
class Gain:
    """A printed gain in points, the mean over `pairs` of (trained, tested)."""

    model: str
    trained: str
    over: str
    pairs: tuple[tuple[str, str], ...]
    printed: Number
    against: str = "the start"


@settings
class Published:
    """One paper. A table that it does not have is empty."""

    key: str  # arXiv number
    citation: str
    note: str
    setup: dict[str, Any] = field(default_factory=dict)  # the settings, as the paper gives them
    init: dict[str, dict[str, Number]] = field(default_factory=dict)  # policy -> domain -> success before RL
    rows: tuple[PublishedRun, ...] = ()
    axes: PublishedAxes | None = None
    ood_change: tuple[PrintedChange, ...] = ()
    warm_up: tuple[WarmUp, ...] = ()
    rank_tie: float = 0.0  # points within which two sources count as equal
    rank_score: tuple[PrintedRank, ...] = ()
    changes: tuple[Change, ...] = ()
    gains: tuple[Gain, ...] = ()

    @property
    def rl_steps(self) -> int:
        """The training length of the main tables: the shortest there is."""
        return min(row.rl_steps for row in self.rows)

    def select(self, **values: str | int | None) -> tuple[PublishedRun, ...]:
        """Return the rows with these `policy`, `source`, `arm` and `rl_steps`, in the order of the paper's tables."""
        return tuple(row for row in self.rows if all(v is None or getattr(row, k) == v for k, v in values.items()))

    def row(self, policy: str, source: str, arm: str = "plain") -> PublishedRun:
        """Return one row of the main tables.

        Raises:
            UsageError: a policy, source or arm that the paper does not have, or not in this combination.
        """
        for name, value in {"policy": policy, "source": source, "arm": arm}.items():
            valid = {getattr(row, name) for row in self.rows}
            if value not in valid:
                raise unknown(f"{name} of arXiv {self.key}", value, valid)
        rows = self.select(policy=policy, source=source, arm=arm, rl_steps=self.rl_steps)
        if not rows:
            raise UsageError(f"arXiv {self.key} prints no row of {policy}, {source}, {arm}, {self.rl_steps} steps")
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
    rows = [line | {"init": raw["init"][line["policy"]]} for line in raw.get("rows", ())]
    return read_settings(Published, {**raw, "key": key, "rows": rows}, f"arXiv {key}")
