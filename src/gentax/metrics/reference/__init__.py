"""Two papers' printed numbers, the cells that each figure should follow from, and the claims that they decide.

The papers are arXiv 2601.18217 ("Paying Less Generalization Tax") and 2603.12011 ("Can RL Improve Generalization of
LLM Agents?"). Only facts are kept: cells and figures, as printed, so that the rounding of each follows from its own
digits. Success is in percent, differences are in points. A cell that a paper leaves empty is None. `recompute` judges
the figures.

A claim is *reproduced* when it holds in as many cases as its words ask for: nine tenths where it says "nearly every",
more than half where it gives no number. A case counts only where rounding cannot reverse it. The cases against a claim
are named, since a claim that holds in most rows may fail in the one that a reader cares about.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from importlib.resources import files
from itertools import combinations, permutations
from math import ceil
from typing import Any

from gentax.core import unknown
from gentax.core.results import Record

SLACK = 1e-9  # of floating point, when a number lies on the edge of a range
NEARLY_EVERY = 0.9  # of the cases; the papers give no number
STUDIES = ("2601.18217", "2603.12011")
WARM_UP_DIFFERENCE = "SFT warm-up: difference, points"
START = "the start"  # what a change or a gain is against, where its line does not say

Number = int | float  # 18 is rounded to 1, and 18.0 to 0.1
Line = Mapping[str, Any]  # of a table of the paper, by the keys of its file
Cells = tuple[Number | None, ...]


@dataclass(frozen=True)
class PublishedRun:
    """One trained policy: what RL on `source` did there, and the success on every other domain afterwards."""

    policy: str  # the policy before RL
    source: str
    arm: str  # "plain", "distractors", "no-thinking"
    rl_steps: int
    table: str  # of the paper
    delta_id: Number  # points gained on the source
    ood: Mapping[str, Number | None]  # target -> success after RL
    init: Mapping[str, Number]  # every domain -> success of `policy` before RL

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


@dataclass(frozen=True)
class PublishedTables:
    """One paper. A table that it does not have is empty."""

    key: str  # arXiv number
    citation: str
    note: str
    init: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)  # policy -> domain -> success before RL
    rows: Sequence[PublishedRun] = ()
    axes: Line = field(default_factory=dict)  # mean characters of a state, mean steps with failures at the horizon
    ood_change: Sequence[Line] = ()  # the column "OOD change", percent: an arm against the plain one
    warm_up: Sequence[Line] = ()  # on SFT warm-up: a target under the policies without it and with it
    rank_score: Sequence[Line] = ()  # the OOD rank score, a sum over the targets of some policies; lower is better
    domains: Sequence[str] = ()  # that `gains` without `pairs` are over
    changes: Sequence[Line] = ()  # a number before training and after it, and the claim that it bears on
    gains: Sequence[Line] = ()  # in points, the mean over pairs of (trained, tested); likewise
    claims: Mapping[str, Line] = field(default_factory=dict)  # text -> by how many points, or what it needs

    def row(self, policy: str, source: str, arm: str = "plain") -> PublishedRun:
        """Return one row of the main tables, of the shortest training. Raises UsageError where the paper has none."""
        wanted = f"{policy} {source}, {arm}"
        rows = {row.name.rpartition(",")[0]: row for row in sorted(self.rows, key=lambda row: -row.rl_steps)}
        if wanted not in rows:
            raise unknown(f"row of arXiv {self.key}", wanted, rows)
        return rows[wanted]


@cache
def published(key: str = STUDIES[0]) -> PublishedTables:
    """Return the printed numbers of a paper by its arXiv number. Raises UsageError where they are not kept here.

    >>> row = published().row("V2", "sokoban")
    >>> row.init["webshop"], row.after["webshop"], published().axes["state_characters"][row.source]
    (38.3, 34.0, 3114)
    """
    if key not in STUDIES:
        raise unknown("published study", key, STUDIES)
    return study_of(key, json.loads(files(__name__).joinpath("data", f"{key}.json").read_text(encoding="utf-8")))


def study_of(key: str, tables: Mapping[str, Any]) -> PublishedTables:
    """Return the numbers of a paper from its file."""
    rows = [PublishedRun(**line, init=tables["init"][line["policy"]]) for line in tables.get("rows", ())]
    return PublishedTables(**{**tables, "key": key, "rows": rows})


def decimals(printed: Number) -> int:
    """Return how many digits a number is printed with after the point."""
    return len(str(printed).partition(".")[2])


def half_step(printed: Number) -> float:
    """Return the largest rounding error of a printed number, by its last digit.

    >>> half_step(15.2), half_step(7.0), half_step(10.25), half_step(-18)
    (0.05, 0.05, 0.005, 0.5)
    """
    return 5 / 10 ** (decimals(printed) + 1)


@dataclass(frozen=True)
class PrintedFigure:
    """A printed figure and the printed cells it should follow from."""

    where: tuple[str, ...]  # its line and column
    printed: Number
    targets: Mapping[str, Cells]  # a cell for each role
    roles: tuple[str, ...] = ()  # as metrics name them; none in a rank score: the sources' cells, the line's own first
    scalars: Mapping[str, Number] = field(default_factory=dict)  # role -> one number for all targets, such as ΔID
    exact: bool = False  # a count, which is not rounded

    @property
    def missing(self) -> tuple[str, ...]:
        """The targets of which some cell is missing."""
        return tuple(t for t, cells in self.targets.items() if None in cells)

    def present(self) -> PrintedFigure:
        """Return the figure over the targets of which no cell is missing."""
        return replace(self, targets={t: cells for t, cells in self.targets.items() if None not in cells})

    def by_role(self) -> dict[str, Cells]:
        """Return the cells of each role, one for each target, or a single one; without roles those of each target."""
        if not self.roles:
            return dict(self.targets)
        of_targets = {role: tuple(cells[n] for cells in self.targets.values()) for n, role in enumerate(self.roles)}
        return of_targets | {role: (value,) for role, value in self.scalars.items()}


def figures(study: PublishedTables) -> dict[str, list[PrintedFigure]]:
    """Return the printed figures by their column, each with its cells."""
    changes, differences, cells = [], [], []
    for line in study.warm_up:
        source, target = line["source"], line["target"]
        both: dict[str, Number | None] = {}
        for n, policy in enumerate(line["policies"]):  # without warm-up, with it
            known = {
                "a": study.row(policy, source).ood[target],
                "crossed": study.row(policy, target).ood[source],
                "i": study.init[policy][target],
            }
            if (beside := line["cells"][n]) is not None:
                cells.append(_of_target((policy, source, target), beside, known))
                known["beside"] = beside
            changes.append(_of_target((policy, source, target), line["relative"][n], known))
            both |= {f"{role}{n + 1}": cell for role, cell in known.items()}
        differences.append(_of_target(("", source, target), line["difference"], both))
    return {
        "OOD change, %": [_ood_change(study, line) for line in study.ood_change],
        "OOD rank score": [_rank_score(study, line) for line in study.rank_score],
        "SFT warm-up: change, %": changes,
        WARM_UP_DIFFERENCE: differences,
        "SFT warm-up: cell, %": cells,
        "Gain, points": [_gain(study, line) for line in study.gains],
    }


def _of_target(where: tuple[str, ...], printed: Number, cells: Mapping[str, Number | None]) -> PrintedFigure:
    return PrintedFigure(where, printed, {where[-1]: tuple(cells.values())}, tuple(cells))


def _ood_change(study: PublishedTables, line: Line) -> PrintedFigure:
    policy, source = line["policy"], line["source"]
    arm, plain = study.row(policy, source, line["arm"]), study.row(policy, source)
    targets = {t: (arm.ood.get(t), cell, plain.init[t]) for t, cell in plain.ood.items()}
    gains = {"gain_a": arm.delta_id, "gain_p": plain.delta_id}
    return PrintedFigure((line["arm"], policy, source), line["printed"], targets, ("a", "p", "i"), gains)


def _rank_score(study: PublishedTables, line: Line) -> PrintedFigure:
    """Collect, for each target of each policy, the plain runs that were tested on it, the line's own source first."""
    targets = {}
    for policy in line["policies"]:
        own = study.row(policy, line["source"])
        sources = dict.fromkeys(row.source for row in study.rows if row.policy == policy)
        others = [row for source in sources if (row := study.row(policy, source)) is not own]
        for target, cell in own.ood.items():
            targets[f"{policy} {target}"] = (cell, *(row.ood[target] for row in others if target in row.ood))
    return PrintedFigure((" + ".join(line["policies"]), line["source"]), line["printed"], targets, exact=True)


def _gain(study: PublishedTables, gain: Line) -> PrintedFigure:
    against = gain.get("against", START)
    known = {
        (line["trained"], line["tested"]): (line["before"], line["after"])
        for line in study.changes
        if (line["model"], line["unit"], line.get("against", START)) == (gain["model"], "%", against)
    }
    pairs = gain.get("pairs") or permutations(study.domains, 2)
    targets = {t if gain["trained"] == s else f"{s} → {t}": known.get((s, t), (None, None)) for s, t in pairs}
    where = (gain["model"], gain["trained"], gain["over"], *([f"against {against}"] if against != START else []))
    return PrintedFigure(where, gain["printed"], targets, ("i", "a"))


# --- claims that the cells can decide ---


class Status(StrEnum):
    """The outcome for a printed figure or claim."""

    REPRODUCED = "reproduced"
    OTHER = "reproduced under another metric"
    NOT = "not reproduced"
    UNCHECKABLE = "not checkable"


Limits = tuple[float, float]
Case = tuple[str, bool | None]  # one comparison that bears on a claim, and whether it holds; None: rounding decides


@dataclass(frozen=True)
class PublishedClaim(Record):
    """A claim of a paper, and in how many cases it holds."""

    claim: str
    status: Status
    holds: int
    cases: int
    needed: int  # cases in which it must hold
    against: list[str]  # the cases in which it does not, and those that rounding leaves open, with a question mark
    needs: str  # what a claim without cases would need
    remark: str


def _claim(
    text: str, cases: Iterable[Case], needed: int | None = None, needs: str = "", remark: str = ""
) -> PublishedClaim:
    """Count the cases of a claim, which must hold in `needed` of them, or in more than half."""
    cases = list(cases)
    if needed is None:
        needed = len(cases) // 2 + 1 if cases else 0
    holds = sum(of is True for _, of in cases)
    against = [name + ("" if of is False else "?") for name, of in cases if of is not True]
    status = Status.UNCHECKABLE if not cases else Status.REPRODUCED if holds >= needed else Status.NOT
    return PublishedClaim(text, status, holds, len(cases), needed, against, needs, remark)


def _above(more: Iterable[Number], less: Iterable[Number], by: float = 0.0) -> bool | None:
    """Return whether the sum of `more` exceeds that of `less` by more than `by`; None where rounding decides."""
    more, less = list(more), list(less)
    difference, half = sum(more) - sum(less) - by, sum(map(half_step, (*more, *less)))
    return None if abs(difference) <= half + SLACK else difference > 0


def claims(study: PublishedTables, differences: Sequence[Limits | None] = ()) -> list[PublishedClaim]:
    """Count the claims of a paper. `differences` are the limits of its figures on SFT warm-up, line by line."""
    found = [*_row_claims(study, differences), *_axis_claims(study), *_change_claims(study)]
    return [claim for claim in found if claim.cases or claim.needs]


def _row_claims(study: PublishedTables, differences: Sequence[Limits | None]) -> Iterator[PublishedClaim]:
    """Yield the claims on the rows of arXiv 2601.18217, and on the `differences` that SFT warm-up makes."""
    plain_rows = [row for row in study.rows if row.arm == "plain"]
    for name, rows in (("plain", plain_rows), ("every arm", study.rows)):
        below = [
            (f"{row.name}, on {t}: {after} from {row.init[t]}", _above([row.init[t]], [after]))
            for row in rows
            for t, after in row.after.items()
        ]
        text = f"Nearly every out-of-domain cell lies below the start ({name})"
        yield _claim(text, below, ceil(NEARLY_EVERY * len(below) - SLACK))

    pairs = [(row, study.row(row.policy, row.source)) for row in study.rows]  # with the plain one
    rich, bare = ([pair for pair in pairs if pair[0].arm == arm] for arm in ("distractors", "no-thinking"))
    longer = [(row, plain) for row, plain in pairs if row.arm == "plain" and row is not plain]

    def warm_up(covered: bool) -> Iterator[Case]:
        for line, limits in zip(study.warm_up, differences, strict=True):
            if line["covered"] is covered and limits:
                holds = None if limits[0] <= 0 <= limits[1] else (limits[0] > 0) is covered
                yield f"{line['source']} → {line['target']}", holds

    def elsewhere(pairs: Iterable[tuple[PublishedRun, PublishedRun]], higher: bool = False) -> list[Case]:
        """Return whether a run has less success elsewhere than the plain one, or more."""
        cases = []
        for row, plain in pairs:
            shared = [t for t in row.after if t in plain.after]
            of_row, of_plain = ([run.after[t] for t in shared] for run in (row, plain))
            cases.append((row.name, _above(of_row, of_plain) if higher else _above(of_plain, of_row)))
        return cases

    yield _claim("Distractors raise success elsewhere, summed over targets", elsewhere(rich, higher=True))
    yield _claim("RL without thinking lowers success elsewhere, summed over targets", elsewhere(bare))
    no_help = elsewhere((row, plain) for row, plain in bare if _above([row.delta_id], [plain.delta_id]))
    yield _claim("It lowers it even where thinking does not help at home", no_help, 1)
    yield _claim("SFT warm-up protects the domains in its mix", warm_up(covered=True))
    yield _claim("SFT warm-up hurts the domain outside its mix", warm_up(covered=False))
    gained = [(row.name, _above([row.delta_id], [plain.delta_id])) for row, plain in longer]
    yield _claim("Longer training gains more at home", gained)
    yield _claim("Longer training costs more elsewhere, summed over targets", elsewhere(longer))


def _axis_claims(study: PublishedTables) -> Iterator[PublishedClaim]:
    """Yield the claims on the axes of the sources. `remark` says how many orders of the sources would do as well."""
    if not study.axes:
        return
    policy = study.axes["policy"]
    scores = {line["source"]: line["printed"] for line in study.rank_score if line["policies"] == [policy]}

    def agreement(axis: Mapping[str, float], scores: Mapping[str, float]) -> list[Case]:
        """Return, for each pair of sources, whether the one that is higher on the axis has the lower, better score."""
        pairs = [sorted(pair, key=axis.__getitem__, reverse=True) for pair in combinations(scores, 2)]
        return [(f"{a}, {b}", None if scores[a] == scores[b] else scores[a] < scores[b]) for a, b in pairs]

    for what, name in (("richer states", "state_characters"), ("longer trajectories", "trajectory_length")):
        axis, orders = study.axes[name], list(permutations(scores.values()))
        holds, *others = (
            sum(of is True for _, of in agreement(axis, dict(zip(scores, order, strict=True))))
            for order in (tuple(scores.values()), *orders)
        )
        remark = f"{sum(other >= holds for other in others)} of the {len(orders)} orders of the sources do as well"
        text = f"The source with {what} has the better OOD rank score (pairs of sources)"
        yield _claim(text, agreement(axis, scores), remark=remark)
    rich, similar = (study.row(policy, source).after["sciworld"] for source in ("sokoban", "alfworld"))
    yield _claim("Sokoban-trained beats ALFWorld-trained on SciWorld", [(policy, _above([rich], [similar]))])


def _change_claims(study: PublishedTables) -> Iterator[PublishedClaim]:
    """Yield the claims that a paper's file names, on the changes and gains that bear on them."""
    for text, terms in study.claims.items():
        cases: list[Case] = []
        for line in (*study.changes, *study.gains):
            if line.get("claim") != text:
                continue
            before, after = ([], [line["printed"]]) if "printed" in line else ([line["before"]], [line["after"]])
            more, less = (before, after) if terms.get("falls") else (after, before)
            cases.append((f"{line['model']} {line['trained']}", _above(more, less, terms.get("by", 0.0))))
        yield _claim(text, cases, needs=terms.get("needs", ""))
