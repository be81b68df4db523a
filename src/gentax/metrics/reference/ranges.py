"""How far rounding alone can move a number that is worked out from printed cells.

A cell printed as 15.2 is anything from 15.15 to 15.25. Every metric here is a sum of ratios in which a cell enters
numerator and denominator at most to the first power, and no two ratios of a sum share a cell. With the other cells
held fixed, such a metric only rises or only falls with each cell as long as no denominator passes through 0, so its
smallest and largest values lie at corners of the box of cells: trying every corner gives the exact range. Where a
denominator may be 0 there is no range, and no match.

Left out: that cells are rounded means of whole numbers of successes, which would make some ranges a little shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gentax.core import UsageError

MOST_CELLS = 20  # whose corners are tried, a million
SLACK = 1e-9  # of floating point, when a figure lies on the edge of a range or a denominator reaches 0

Values = Mapping[str, np.ndarray]  # role -> (T, C): targets by the corners tried, the printed cells being the first
Terms = tuple[np.ndarray, np.ndarray]  # numerators and denominators of the ratios of a sum, both (K, C)


def half_step(printed: float) -> float:
    """Return how far the number behind a printed one may lie from it, by its last digit.

    >>> half_step(15.2), half_step(7.0), half_step(10.25), half_step(-18)
    (0.05, 0.05, 0.005, 0.5)
    """
    digits = len(str(printed).partition(".")[2])
    return 5 / 10 ** (digits + 1)


@dataclass(frozen=True)
class Range:
    """A recomputed number: from the cells as printed, and the least and most that their rounding allows."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def agrees(self, printed: float, half: float) -> bool:
        """Say whether some number that is printed as `printed`, so at most `half` away from it, lies in the range."""
        return self.low - half - SLACK <= printed <= self.high + half + SLACK

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Cells:
    """The printed cells that a figure is worked out from. None is a missing one."""

    targets: tuple[str, ...]
    roles: Mapping[str, tuple[float | None, ...]]  # role -> one for each target
    whole: Mapping[str, float] = field(default_factory=dict)  # role -> a number of the whole line, such as ΔID

    @property
    def missing(self) -> tuple[str, ...]:
        """The targets of which some cell is missing."""
        return tuple(t for n, t in enumerate(self.targets) if any(cells[n] is None for cells in self.roles.values()))

    def present(self) -> Cells:
        """Return the cells of the targets of which none is missing."""
        kept = [n for n, t in enumerate(self.targets) if t not in self.missing]
        roles = {role: tuple(cells[n] for n in kept) for role, cells in self.roles.items()}
        return Cells(tuple(self.targets[n] for n in kept), roles, self.whole)

    def box(self, role: str, unknown: tuple[float, float] = (np.nan, np.nan)) -> np.ndarray:
        """Return (T, 3): the least, the printed and the largest value of each cell; `unknown` for a missing one."""
        low, high = unknown
        cells = self.roles[role] if role in self.roles else (self.whole[role],)
        return np.array(
            [(low, np.nan, high) if c is None else (c - half_step(c), c, c + half_step(c)) for c in cells], float
        ).reshape(-1, 3)


def corners(cells: Cells, roles: tuple[str, ...], unknown: tuple[float, float] = (np.nan, np.nan)) -> Values:
    """Return the cells as printed and every corner of their box: role -> (T, 1 + 2^n), n the cells of all roles."""
    boxes = [cells.box(role, unknown) for role in roles]
    box_N3 = np.concatenate(boxes)
    count = len(box_N3)
    if count > MOST_CELLS:
        raise UsageError(f"a figure of {count} cells has too many corners to try; {MOST_CELLS} at most")
    high_NC = (np.arange(2**count)[None, :] >> np.arange(count)[:, None] & 1).astype(bool)
    tried_NC = np.where(high_NC, box_N3[:, 2:], box_N3[:, :1])
    values_NC = np.concatenate([box_N3[:, 1:2], tried_NC], axis=1)
    ends = np.cumsum([len(box) for box in boxes])
    return dict(zip(roles, np.split(values_NC, ends[:-1]), strict=True))


def spread(
    terms: Callable[[Values], Terms], cells: Cells, roles: tuple[str, ...], unknown: tuple[float, float] | None = None
) -> Range | None:
    """Return the range of a sum of ratios over the corners of its cells.

    Args:
        terms: numerators and denominators from the cells.
        unknown: the limits of a missing cell; without it the cells must all be there.

    Returns:
        None when a denominator may be 0. The value is NaN where a cell is missing.
    """
    numerator_KC, denominator_KC = terms(corners(cells, roles, unknown or (np.nan, np.nan)))
    edges_KC = denominator_KC[:, 1:]
    if not ((edges_KC > SLACK).all(1) | (edges_KC < -SLACK).all(1)).all():
        return None
    value_C = (numerator_KC / denominator_KC).sum(0)
    return Range(float(value_C[0]), float(value_C[1:].min()), float(value_C[1:].max()))
