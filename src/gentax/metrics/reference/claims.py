"""The papers' claims that cells can decide, counted case by case.

A claim is *reproduced* when it holds in as many cases as its words ask for: nine tenths where it says "nearly every",
more than half where it gives no number. A case counts only where rounding could not turn it round. The cases against
a claim are named, since a claim that holds in most rows may fail in the one that a reader cares about. A claim that no
cell of the study bears on is not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from math import ceil
from typing import Any

from gentax.metrics.reference.judge import Status
from gentax.metrics.reference.ranges import SLACK, half_step
from gentax.metrics.reference.types import Published, Row

NEARLY_EVERY = 0.9  # of the cases; the papers give no number
LITTLE = 1.0  # points; likewise
TENS = 10.0  # points


@dataclass(frozen=True)
class Case:
    """One comparison that bears on a claim."""

    name: str
    holds: bool | None  # None: rounding could turn it round


@dataclass(frozen=True)
class Claim:
    """A claim and its cases."""

    text: str
    cases: tuple[Case, ...]
    needed: int  # cases in which it must hold
    lacks: str = ""  # what a claim without cases would need
    remark: str = ""

    @property
    def holds(self) -> int:
        return sum(case.holds is True for case in self.cases)

    @property
    def status(self) -> Status:
        if not self.cases:
            return Status.UNCHECKABLE
        return Status.REPRODUCED if self.holds >= self.needed else Status.NOT

    @property
    def against(self) -> tuple[str, ...]:
        """The cases in which it does not hold, and those that rounding leaves open, with a question mark."""
        return tuple(c.name + ("" if c.holds is False else "?") for c in self.cases if c.holds is not True)

    def to_json(self) -> dict[str, Any]:
        return {
            "claim": self.text,
            "status": self.status.value,
            "holds": self.holds,
            "cases": len(self.cases),
            "needed": self.needed,
            "against": list(self.against),
            "needs": self.lacks,
            "remark": self.remark,
        }


def claims(study: Published) -> tuple[Claim, ...]:
    """Return the claims that bear on the cells of `study`."""
    found = [
        *_of_cells(study),
        *_of_arms(study),
        *_of_warm_up(study),
        *_of_longer(study),
        *_of_axes(study),
        *_of_changes(study),
    ]
    return tuple(claim for claim in found if claim.cases or claim.lacks)


def _nearly_every(text: str, cases: Iterable[Case]) -> Claim:
    cases = tuple(cases)
    return Claim(text, cases, ceil(NEARLY_EVERY * len(cases) - SLACK))


def _most(text: str, cases: Iterable[Case]) -> Claim:
    cases = tuple(cases)
    return Claim(text, cases, len(cases) // 2 + 1)


def _some(text: str, cases: Iterable[Case]) -> Claim:
    return Claim(text, tuple(cases), 1)


def _above(more: Iterable[float], less: Iterable[float], by: float = 0.0) -> bool | None:
    """Say whether the sum of `more` is above that of `less` by more than `by`; None where rounding decides."""
    more, less = tuple(more), tuple(less)
    difference, half = sum(more) - sum(less) - by, sum(map(half_step, (*more, *less)))
    return None if abs(difference) <= half + SLACK else difference > 0


def _pairs(study: Published, arm: str) -> list[tuple[Row, Row, list[str]]]:
    """Return each row of an arm, or each longer plain one, with its plain row and the targets that both have."""
    rows = [(study.row(row.policy, row.source), row) for row in study.select(arm=arm)]
    return [(plain, row, [t for t in plain.after if t in row.after]) for plain, row in rows if row is not plain]


def _of_cells(study: Published) -> list[Claim]:
    def cases(rows: Iterable[Row]) -> list[Case]:
        return [
            Case(f"{row.name}, on {t}: {row.after[t]} from {row.init[t]}", _above([row.init[t]], [row.after[t]]))
            for row in rows
            for t in row.after
        ]

    return [
        _nearly_every(
            "Nearly every out-of-domain cell lies below the start (plain)",
            cases(study.select(arm="plain")),
        ),
        _nearly_every("Nearly every out-of-domain cell lies below the start (every arm)", cases(study.rows)),
    ]


def _of_arms(study: Published) -> list[Claim]:
    bare = [
        (plain, row, _above((plain.ood[t] for t in targets), (row.ood[t] for t in targets)))
        for plain, row, targets in _pairs(study, "no-thinking")
    ]
    return [
        _most(
            "Distractors raise success elsewhere, summed over targets",
            (
                Case(row.name, _above((row.ood[t] for t in targets), (plain.ood[t] for t in targets)))
                for plain, row, targets in _pairs(study, "distractors")
            ),
        ),
        _most(
            "RL without thinking lowers success elsewhere, summed over targets",
            (Case(row.name, lower) for _, row, lower in bare),
        ),
        _some(
            "It lowers it even where thinking does not help at home",
            (Case(row.name, lower) for plain, row, lower in bare if _above([row.delta_id], [plain.delta_id])),
        ),
    ]


def _of_warm_up(study: Published) -> list[Claim]:
    def cases(covered: bool) -> list[Case]:
        made = []
        for line in study.warm_up:
            rows = [study.row(policy, line.source) for policy in line.policies]
            if line.covered is covered and all(line.target in row.after for row in rows):
                without, warm = (_kept(row, line.target) for row in rows)
                more, less = warm[0] > without[1], warm[1] < without[0]
                holds = (more if covered else less) if more or less else None
                made.append(Case(f"{line.source} → {line.target}", holds))
        return made

    return [
        _most("SFT warm-up protects the domains in its mix", cases(True)),
        _most("SFT warm-up hurts the domain outside its mix", cases(False)),
    ]


def _kept(row: Row, target: str) -> tuple[float, float]:
    """Return the limits of the share of a target's success that is left after RL."""
    after, init = row.after[target], row.init[target]
    return (after - half_step(after)) / (init + half_step(init)), (after + half_step(after)) / (init - half_step(init))


def _of_longer(study: Published) -> list[Claim]:
    longer = _pairs(study, "plain")
    return [
        _most(
            "Longer training gains more at home",
            (Case(row.name, _above([row.delta_id], [short.delta_id])) for short, row, _ in longer),
        ),
        _most(
            "Longer training costs more elsewhere, summed over targets",
            (
                Case(row.name, _above((short.ood[t] for t in targets), (row.ood[t] for t in targets)))
                for short, row, targets in longer
            ),
        ),
    ]


def _of_axes(study: Published) -> list[Claim]:
    if study.axes is None:
        return []
    scores = {line.source: line.printed for line in study.rank_score if line.policies == (study.axes.policy,)}

    def goes_with(text: str, axis: Mapping[str, float]) -> Claim:
        claim = _most(f"{text} (pairs of sources)", _agreeing(axis, scores))
        orders = [dict(zip(scores, order, strict=True)) for order in permutations(scores.values())]
        as_well = sum(sum(c.holds is True for c in _agreeing(axis, order)) >= claim.holds for order in orders)
        return replace(claim, remark=f"{as_well} of the {len(orders)} orders of the sources do as well")

    similar = [
        Case(rich.policy, _above([rich.ood["sciworld"]], [like.ood["sciworld"]]))
        for rich in study.select(study.axes.policy, "sokoban", "plain", study.rl_steps)
        for like in study.select(study.axes.policy, "alfworld", "plain", study.rl_steps)
        if "sciworld" in rich.after and "sciworld" in like.after
    ]
    return [
        goes_with("The source with richer states has the better OOD rank score", study.axes.state_characters),
        goes_with("The source with longer trajectories has the better OOD rank score", study.axes.trajectory_length),
        _most("Sokoban-trained beats ALFWorld-trained on SciWorld", similar),
        Claim("Realism and text similarity do not go with success elsewhere", (), 0, "a number for either"),
    ]


def _agreeing(axis: Mapping[str, float], scores: Mapping[str, float]) -> list[Case]:
    """Return, for each pair of sources, whether the one that is higher on the axis has the lower, better score."""
    pairs = [sorted(pair, key=lambda source: axis[source], reverse=True) for pair in combinations(scores, 2)]
    return [
        Case(f"{high}, {low}", None if scores[high] == scores[low] else scores[high] < scores[low])
        for high, low in pairs
    ]


def _of_changes(study: Published) -> list[Claim]:
    changes = study.changes
    if not changes:
        return []
    easy = [c for c in changes if c.trained.endswith(":easy") and c.tested.endswith(":hard")]
    home = [c for c in changes if c.unit == "%" and c.trained == c.tested]
    chains = [c for c in changes if ", " in c.trained and c.unit == "%"]
    last = [c for c in chains if c.trained.endswith(c.tested)]
    short = [c for c in changes if c.unit in ("turns", "tokens")]
    said = [g for g in study.gains if g.trained == g.over and g.against == "the start"]
    return [
        _most(
            "Training on easy tasks carries to hard ones",
            (Case(c.trained, _above([c.after], [c.before])) for c in easy),
        ),
        _most(
            "Gains at home are tens of points",
            [
                *(Case(f"{c.model} {c.trained}", _above([c.after], [c.before], TENS)) for c in home),
                *(Case(f"{g.model} {g.trained}", _above([g.printed], [], TENS)) for g in said),
            ],
        ),
        _most(
            "A sequence gains downstream over training there alone",
            (Case(c.trained, _above([c.after], [c.before])) for c in last),
        ),
        _most(
            f"A sequence forgets little (less than {LITTLE:g} point)",
            (Case(c.tested, _above([c.after], [c.before], -LITTLE)) for c in chains if c not in last),
        ),
        _most("Training shortens episodes", (Case(c.unit, _above([c.before], [c.after])) for c in short)),
        Claim("A sequence of five domains comes near joint training", (), 0, "the cells of both"),
        Claim("Mixtures balance the domains best", (), 0, "the cells of the mixtures"),
    ]
