"""The papers' claims that cells can decide, counted case by case.

A claim is *reproduced* when it holds in as many cases as its words ask for: nine tenths where it says "nearly every",
more than half where it gives no number. A case counts only where rounding cannot reverse it. The cases against a claim
are named, since a claim that holds in most rows may fail in the one that a reader cares about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, permutations
from math import ceil
from typing import Any, NamedTuple

from gentax.metrics.reference.candidates import SLACK, half_step
from gentax.metrics.reference.published import Published, Row

NEARLY_EVERY = 0.9  # of the cases; the papers give no number
LITTLE = 1.0  # points; likewise
TENS = 10.0  # points


class Status(StrEnum):
    """The outcome for a printed figure or claim."""

    REPRODUCED = "reproduced"
    OTHER = "reproduced under another metric"
    NOT = "not reproduced"
    UNCHECKABLE = "not checkable"


class Case(NamedTuple):
    """One comparison that bears on a claim."""

    name: str
    holds: bool | None  # None: rounding could reverse it


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
    every = [*_cell_claims(study), *_arm_claims(study), *_axis_claims(study), *_change_claims(study)]
    return tuple(claim for claim in every if claim.cases or claim.lacks)


def _nearly_every(text: str, cases: Iterable[Case]) -> Claim:
    cases = tuple(cases)
    return Claim(text, cases, ceil(NEARLY_EVERY * len(cases) - SLACK))


def _most(text: str, cases: Iterable[Case]) -> Claim:
    cases = tuple(cases)
    return Claim(text, cases, len(cases) // 2 + 1)


def _above(more: Iterable[Any], less: Iterable[Any], by: float = 0.0) -> bool | None:
    """Return whether the sum of `more` exceeds that of `less` by more than `by`; None where rounding decides."""
    more, less = tuple(more), tuple(less)
    difference, half = sum(more) - sum(less) - by, sum(map(half_step, (*more, *less)))
    return None if abs(difference) <= half + SLACK else difference > 0


def _cell_claims(study: Published) -> Iterable[Claim]:
    for name, arm in (("plain", "plain"), ("every arm", None)):
        cases = [
            Case(f"{row.name}, on {t}: {row.after[t]} from {row.init[t]}", _above([row.init[t]], [row.after[t]]))
            for row in study.select(arm=arm)
            for t in row.after
        ]
        yield _nearly_every(f"Nearly every out-of-domain cell lies below the start ({name})", cases)


def _arm_claims(study: Published) -> Iterable[Claim]:
    def against_plain(arm: str) -> list[tuple[Row, Row, bool | None]]:
        """Return each row of an arm (or longer plain run), its plain row, and whether it is higher elsewhere."""
        pairs = [(study.row(row.policy, row.source), row) for row in study.select(arm=arm)]
        return [
            (plain, row, _above((row.ood[t] for t in shared), (plain.ood[t] for t in shared)))
            for plain, row in pairs
            if row is not plain
            for shared in [[t for t in plain.after if t in row.after]]
        ]

    def lower(higher: bool | None) -> bool | None:
        return None if higher is None else not higher

    yield _most(
        "Distractors raise success elsewhere, summed over targets",
        (Case(row.name, higher) for _, row, higher in against_plain("distractors")),
    )
    bare = against_plain("no-thinking")
    yield _most(
        "RL without thinking lowers success elsewhere, summed over targets",
        (Case(row.name, lower(higher)) for _, row, higher in bare),
    )
    no_gain = tuple(
        Case(row.name, lower(higher)) for plain, row, higher in bare if _above([row.delta_id], [plain.delta_id])
    )
    yield Claim("It lowers it even where thinking does not help at home", no_gain, 1)
    for text, covered in (
        ("SFT warm-up protects the domains in its mix", True),
        ("SFT warm-up hurts the domain outside its mix", False),
    ):
        yield _most(text, _warm_up_cases(study, covered))
    longer = against_plain("plain")
    yield _most(
        "Longer training gains more at home",
        (Case(row.name, _above([row.delta_id], [short.delta_id])) for short, row, _ in longer),
    )
    yield _most(
        "Longer training costs more elsewhere, summed over targets",
        (Case(row.name, lower(higher)) for _, row, higher in longer),
    )


def _warm_up_cases(study: Published, covered: bool) -> Iterable[Case]:
    for line in study.warm_up:
        rows = [study.row(policy, line.source) for policy in line.policies]
        if line.covered is not covered or not all(line.target in row.after for row in rows):
            continue
        # the limits of the share of the target's success that is left after RL
        cold, warm = (
            [
                (after - half_step(after)) / (init + half_step(init)),
                (after + half_step(after)) / (init - half_step(init)),
            ]
            for after, init in ((row.after[line.target], row.init[line.target]) for row in rows)
        )
        more, less = warm[0] > cold[1], warm[1] < cold[0]
        yield Case(f"{line.source} → {line.target}", (more if covered else less) if more or less else None)


def _axis_claims(study: Published) -> Iterable[Claim]:
    if study.axes is None:
        return
    policy = study.axes.policy
    scores = {line.source: line.printed for line in study.rank_score if line.policies == (policy,)}
    for text, axis in (
        ("The source with richer states has the better OOD rank score", study.axes.state_characters),
        ("The source with longer trajectories has the better OOD rank score", study.axes.trajectory_length),
    ):
        claim = _most(f"{text} (pairs of sources)", _agreement(axis, scores))
        orders = [dict(zip(scores, order, strict=True)) for order in permutations(scores.values())]
        as_well = sum(sum(c.holds is True for c in _agreement(axis, order)) >= claim.holds for order in orders)
        yield replace(claim, remark=f"{as_well} of the {len(orders)} orders of the sources do as well")
    rich, similar = (
        study.select(policy=policy, source=source, arm="plain", rl_steps=study.rl_steps)
        for source in ("sokoban", "alfworld")
    )
    yield _most(
        "Sokoban-trained beats ALFWorld-trained on SciWorld",
        (
            Case(one.policy, _above([one.ood["sciworld"]], [other.ood["sciworld"]]))
            for one in rich
            for other in similar
            if "sciworld" in one.after and "sciworld" in other.after
        ),
    )
    yield Claim("Realism and text similarity do not go with success elsewhere", (), 0, "a number for either")


def _agreement(axis: Mapping[str, float], scores: Mapping[str, float]) -> list[Case]:
    """Return, for each pair of sources, whether the one that is higher on the axis has the lower, better score."""
    pairs = [sorted(pair, key=lambda source: axis[source], reverse=True) for pair in combinations(scores, 2)]
    return [
        Case(f"{high}, {low}", None if scores[high] == scores[low] else scores[high] < scores[low])
        for high, low in pairs
    ]


def _change_claims(study: Published) -> Iterable[Claim]:
    changes = study.changes
    if not changes:
        return
    easy = [c for c in changes if c.trained.endswith(":easy") and c.tested.endswith(":hard")]
    home = [c for c in changes if c.unit == "%" and c.trained == c.tested]
    sequences = [c for c in changes if ", " in c.trained and c.unit == "%"]
    last = [c for c in sequences if c.trained.endswith(c.tested)]
    printed = [g for g in study.gains if g.trained == g.over and g.against == "the start"]
    yield _most(
        "Training on easy tasks carries to hard ones", (Case(c.trained, _above([c.after], [c.before])) for c in easy)
    )
    yield _most(
        "Gains at home are tens of points",
        [Case(f"{c.model} {c.trained}", _above([c.after], [c.before], TENS)) for c in home]
        + [Case(f"{g.model} {g.trained}", _above([g.printed], [], TENS)) for g in printed],
    )
    yield _most(
        "A sequence gains downstream over training there alone",
        (Case(c.trained, _above([c.after], [c.before])) for c in last),
    )
    yield _most(
        f"A sequence forgets little (less than {LITTLE:g} point)",
        (Case(c.tested, _above([c.after], [c.before], -LITTLE)) for c in sequences if c not in last),
    )
    yield _most(
        "Training shortens episodes",
        (Case(c.unit, _above([c.before], [c.after])) for c in changes if c.unit in ("turns", "tokens")),
    )
    yield Claim("A sequence of five domains comes near joint training", (), 0, "the cells of both")
    yield Claim("Mixtures balance the domains best", (), 0, "the cells of the mixtures")
