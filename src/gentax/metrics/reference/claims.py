"""The papers' claims that cells can decide, counted case by case.

A claim is *reproduced* when it holds in as many cases as its words ask for: nine tenths where it says "nearly every",
more than half where it gives no number. A case counts only where rounding cannot reverse it. The cases against a claim
are named, since a claim that holds in most rows may fail in the one that a reader cares about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, permutations
from math import ceil
from typing import Any

from gentax.metrics.reference.candidates import SLACK, half_step
from gentax.metrics.reference.published import Published, PublishedRun

NEARLY_EVERY = 0.9  # of the cases; the papers give no number
LITTLE = 1.0  # points; likewise
TENS = 10.0  # points

Case = tuple[str, bool | None]  # one comparison that bears on a claim, and whether it holds; None: rounding decides


class Status(StrEnum):
    """The outcome for a printed figure or claim."""

    REPRODUCED = "reproduced"
    OTHER = "reproduced under another metric"
    NOT = "not reproduced"
    UNCHECKABLE = "not checkable"


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
        return sum(holds is True for _, holds in self.cases)

    @property
    def status(self) -> Status:
        if not self.cases:
            return Status.UNCHECKABLE
        return Status.REPRODUCED if self.holds >= self.needed else Status.NOT

    @property
    def against(self) -> tuple[str, ...]:
        """The cases in which it does not hold, and those that rounding leaves open, with a question mark."""
        return tuple(name + ("" if holds is False else "?") for name, holds in self.cases if holds is not True)

    def to_json(self) -> dict[str, Any]:
        outcome = {"claim": self.text, "status": self.status.value, "holds": self.holds, "cases": len(self.cases)}
        against = list(self.against)
        return {**outcome, "needed": self.needed, "against": against, "needs": self.lacks, "remark": self.remark}


def claims(study: Published) -> tuple[Claim, ...]:
    """Return the claims that bear on the cells of `study`."""
    every = [*_cell_claims(study), *_arm_claims(study), *_axis_claims(study), *_change_claims(study)]
    return tuple(claim for claim in every if claim.cases or claim.lacks)


def _most(text: str, cases: Iterable[Case]) -> Claim:
    cases = tuple(cases)
    return Claim(text, cases, len(cases) // 2 + 1)


def _above(more: Iterable[Any], less: Iterable[Any], by: float = 0.0) -> bool | None:
    """Return whether the sum of `more` exceeds that of `less` by more than `by`; None where rounding decides."""
    more, less = tuple(more), tuple(less)
    difference, half = sum(more) - sum(less) - by, sum(map(half_step, (*more, *less)))
    return None if abs(difference) <= half + SLACK else difference > 0


def _cell_claims(study: Published) -> Iterator[Claim]:
    for name, arm in (("plain", "plain"), ("every arm", None)):
        cases = tuple(
            (f"{row.name}, on {t}: {after} from {row.init[t]}", _above([row.init[t]], [after]))
            for row in study.select(arm=arm)
            for t, after in row.after.items()
        )
        text = f"Nearly every out-of-domain cell lies below the start ({name})"
        yield Claim(text, cases, ceil(NEARLY_EVERY * len(cases) - SLACK))


def _arm_claims(study: Published) -> Iterator[Claim]:
    def against_plain(arm: str) -> list[tuple[PublishedRun, PublishedRun]]:
        """Return the plain row and the row of each run of an arm, or of each longer plain run."""
        pairs = [(study.row(row.policy, row.source), row) for row in study.select(arm=arm)]
        return [(plain, row) for plain, row in pairs if row is not plain]

    def higher_elsewhere(first: PublishedRun, second: PublishedRun) -> bool | None:
        shared = [t for t in first.after if t in second.after]
        return _above((first.after[t] for t in shared), (second.after[t] for t in shared))

    distracted, bare, longer = (against_plain(arm) for arm in ("distractors", "no-thinking", "plain"))
    yield _most(
        "Distractors raise success elsewhere, summed over targets",
        ((row.name, higher_elsewhere(row, plain)) for plain, row in distracted),
    )
    yield _most(
        "RL without thinking lowers success elsewhere, summed over targets",
        ((row.name, higher_elsewhere(plain, row)) for plain, row in bare),
    )
    no_help = [(plain, row) for plain, row in bare if _above([row.delta_id], [plain.delta_id])]
    cases = tuple((row.name, higher_elsewhere(plain, row)) for plain, row in no_help)
    yield Claim("It lowers it even where thinking does not help at home", cases, 1)
    yield _most("SFT warm-up protects the domains in its mix", _warm_up_cases(study, covered=True))
    yield _most("SFT warm-up hurts the domain outside its mix", _warm_up_cases(study, covered=False))
    yield _most(
        "Longer training gains more at home",
        ((row.name, _above([row.delta_id], [short.delta_id])) for short, row in longer),
    )
    yield _most(
        "Longer training costs more elsewhere, summed over targets",
        ((row.name, higher_elsewhere(short, row)) for short, row in longer),
    )


def _warm_up_cases(study: Published, covered: bool) -> Iterator[Case]:
    for line in study.warm_up:
        rows = [study.row(policy, line.source) for policy in line.policies]
        if line.covered is not covered or not all(line.target in row.after for row in rows):
            continue
        cold, warm = (_share_left(row.after[line.target], row.init[line.target]) for row in rows)
        more, less = warm[0] > cold[1], warm[1] < cold[0]
        yield f"{line.source} → {line.target}", (more if covered else less) if more or less else None


def _share_left(after: float, init: float) -> tuple[float, float]:
    """Return the limits of after / init."""
    low = (after - half_step(after)) / (init + half_step(init))
    return low, (after + half_step(after)) / (init - half_step(init))


def _axis_claims(study: Published) -> Iterator[Claim]:
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
        as_well = sum(_most("", _agreement(axis, order)).holds >= claim.holds for order in orders)
        yield replace(claim, remark=f"{as_well} of the {len(orders)} orders of the sources do as well")
    rich, similar = (
        study.select(policy=policy, source=source, arm="plain", rl_steps=study.rl_steps)
        for source in ("sokoban", "alfworld")
    )
    yield _most(
        "Sokoban-trained beats ALFWorld-trained on SciWorld",
        ((a.policy, _above([a.after["sciworld"]], [b.after["sciworld"]])) for a in rich for b in similar),
    )
    yield Claim("Realism and text similarity do not go with success elsewhere", (), 0, "a number for either")


def _agreement(axis: Mapping[str, float], scores: Mapping[str, float]) -> Iterator[Case]:
    """Yield, for each pair of sources, whether the one that is higher on the axis has the lower, better score."""
    for pair in combinations(scores, 2):
        high, low = sorted(pair, key=lambda source: axis[source], reverse=True)
        yield f"{high}, {low}", None if scores[high] == scores[low] else scores[high] < scores[low]


def _change_claims(study: Published) -> Iterator[Claim]:
    changes = study.changes
    if not changes:
        return
    easy = [c for c in changes if c.trained.endswith(":easy") and c.tested.endswith(":hard")]
    home = [c for c in changes if c.unit == "%" and c.trained == c.tested]
    sequences = [c for c in changes if ", " in c.trained and c.unit == "%"]
    last = [c for c in sequences if c.trained.endswith(c.tested)]
    shorter = [c for c in changes if c.unit in ("turns", "tokens")]
    gains = [(f"{c.model} {c.trained}", _above([c.after], [c.before], TENS)) for c in home]
    gains += [
        (f"{g.model} {g.trained}", _above([g.printed], [], TENS))
        for g in study.gains
        if g.trained == g.over and g.against == "the start"
    ]
    remembered = [(c.tested, _above([c.after], [c.before], -LITTLE)) for c in sequences if c not in last]

    def risen(of: Iterable[Any]) -> Iterator[Case]:
        return ((c.trained, _above([c.after], [c.before])) for c in of)

    yield _most("Training on easy tasks carries to hard ones", risen(easy))
    yield _most("Gains at home are tens of points", gains)
    yield _most("A sequence gains downstream over training there alone", risen(last))
    yield _most(f"A sequence forgets little (less than {LITTLE:g} point)", remembered)
    yield _most("Training shortens episodes", ((c.unit, _above([c.before], [c.after])) for c in shorter))
    yield Claim("A sequence of five domains comes near joint training", (), 0, "the cells of both")
    yield Claim("Mixtures balance the domains best", (), 0, "the cells of the mixtures")
