"""Two papers' printed numbers, and the claims that their cells can decide; `recompute` derives their figures again.

The papers are arXiv 2601.18217 ("Paying Less Generalization Tax") and 2603.12011 ("Can RL Improve Generalization of
LLM Agents?"). Only facts are kept: cells, settings and figures, as printed, so that the rounding of each follows from
its own digits. Success is in percent, differences are in points. A cell that a paper leaves empty is None.

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

from gentax.core import UsageError, unknown

STUDIES = ("2601.18217", "2603.12011")
SLACK = 1e-9  # of floating point, when a number lies on the edge of a range
NEARLY_EVERY = 0.9  # of the cases; the papers give no number
LITTLE = 1.0  # points; likewise
TENS = 10.0  # points
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
    setup: Line = field(default_factory=dict)  # the settings, as the paper gives them
    rows: Sequence[PublishedRun] = ()
    axes: Line | None = None  # means of the characters of a state and the steps of an episode, failures at a horizon
    ood_change: Sequence[Line] = ()  # the column "OOD change", percent: an arm against the plain one
    warm_up: Sequence[Line] = ()  # on SFT warm-up: a target under the policies without it and with it
    rank_tie: float = 0.0  # points within which two sources count as equal
    rank_score: Sequence[Line] = ()  # the OOD rank score, a sum over the targets of some policies; lower is better
    changes: Sequence[Line] = ()  # a number before training and after it
    gains: Sequence[Line] = ()  # in points, the mean over pairs of (trained, tested)

    @property
    def rl_steps(self) -> int:
        """The training length of the main tables: the shortest there is."""
        return min(row.rl_steps for row in self.rows)

    def select(self, **values: str | int | None) -> list[PublishedRun]:
        """Return the rows with these `policy`, `source`, `arm` and `rl_steps`, in the order of the paper's tables."""
        return [row for row in self.rows if all(v is None or getattr(row, k) == v for k, v in values.items())]

    def row(self, policy: str, source: str, arm: str = "plain") -> PublishedRun:
        """Return one row of the main tables. Raises UsageError for one that the paper does not have."""
        for name, value in {"policy": policy, "source": source, "arm": arm}.items():
            valid = {getattr(row, name) for row in self.rows}
            if value not in valid:
                raise unknown(f"{name} of arXiv {self.key}", value, valid)
        rows = self.select(policy=policy, source=source, arm=arm, rl_steps=self.rl_steps)
        if not rows:
            raise UsageError(f"arXiv {self.key} prints no row of {policy}, {source}, {arm}, {self.rl_steps} steps")
        return rows[0]


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


def half_step(printed: float) -> float:
    """Return the largest rounding error of a printed number, by its last digit.

    >>> half_step(15.2), half_step(7.0), half_step(10.25), half_step(-18)
    (0.05, 0.05, 0.005, 0.5)
    """
    return 5 / 10 ** (len(str(printed).partition(".")[2]) + 1)


@dataclass(frozen=True)
class PrintedFigure:
    """A printed figure and the printed cells it should follow from.

    Of a rank score, a target has the success after RL on the source in question, then on the others.
    """

    where: tuple[str, ...]  # its line and column
    printed: float
    targets: Mapping[str, Cells]  # a cell for each role
    roles: tuple[str, ...] = ()
    scalars: Mapping[str, float] = field(default_factory=dict)  # role -> one number for all targets, such as ΔID
    needs: str = ""  # what a figure without any cell would need
    exact: bool = False  # a count, which is not rounded

    @property
    def missing(self) -> tuple[str, ...]:
        """The targets of which some cell is missing."""
        return tuple(t for t, cells in self.targets.items() if None in cells)

    def present(self) -> PrintedFigure:
        """Return the figure over the targets of which no cell is missing."""
        return replace(self, targets={t: cells for t, cells in self.targets.items() if None not in cells})

    def by_role(self) -> dict[str, Cells]:
        """Return the cells of each role, one for each target, or a single one."""
        of_targets = {role: tuple(cells[n] for cells in self.targets.values()) for n, role in enumerate(self.roles)}
        return of_targets | {role: (value,) for role, value in self.scalars.items()}


def figures(study: PublishedTables) -> dict[str, list[PrintedFigure]]:
    """Return the printed figures by their column, each with its cells."""
    warm_up: tuple[list[PrintedFigure], ...] = ([], [], [])
    for line in study.warm_up:
        for figures, of_line in zip(warm_up, _warm_up(study, line), strict=True):
            figures += of_line
    return {
        "OOD change, %": [_ood_change(study, line) for line in study.ood_change],
        "OOD rank score": [_rank_score(study, line) for line in study.rank_score],
        "SFT warm-up: change, %": warm_up[0],
        "SFT warm-up: difference, points": warm_up[1],
        "SFT warm-up: cell, %": warm_up[2],
        "Gain, points": [_gain(study, line) for line in study.gains],
    }


def _ood_change(study: PublishedTables, line: Line) -> PrintedFigure:
    policy, source = line["policy"], line["source"]
    arm, plain = study.row(policy, source, line["arm"]), study.row(policy, source)
    targets = {t: (arm.ood.get(t), cell, plain.init[t]) for t, cell in plain.ood.items()}
    gains = {"arm_gain": arm.delta_id, "plain_gain": plain.delta_id}
    return PrintedFigure((line["arm"], policy, source), line["printed"], targets, ("arm", "plain", "init"), gains)


def _rank_score(study: PublishedTables, line: Line) -> PrintedFigure:
    """Collect, for each target of each policy, the plain runs that were tested on it, the line's own source first."""
    targets = {}
    for policy in line["policies"]:
        own = study.row(policy, line["source"])
        rivals = [row for row in study.select(policy=policy, arm="plain", rl_steps=study.rl_steps) if row is not own]
        for target, cell in own.ood.items():
            targets[f"{policy} {target}"] = (cell, *(row.ood[target] for row in rivals if target in row.ood))
    where, tie = (" + ".join(line["policies"]), line["source"]), {"tie": study.rank_tie}
    return PrintedFigure(where, line["printed"], targets, scalars=tie, exact=True)


def _warm_up(
    study: PublishedTables, line: Line
) -> tuple[list[PrintedFigure], list[PrintedFigure], list[PrintedFigure]]:
    """Return the figures of a line: two relative changes, their difference, and the cells that it prints itself."""
    source, target = line["source"], line["target"]

    def figure(policy: str, printed: Number, cells: Mapping[str, Number | None]) -> PrintedFigure:
        return PrintedFigure((policy, source, target), printed, {target: tuple(cells.values())}, tuple(cells))

    relative, printed_cells = [], []
    both: dict[str, Number | None] = {}
    for n, (policy, cell) in enumerate(zip(line["policies"], line["cells"], strict=True)):  # without warm-up, with it
        cells = {"init": study.init[policy][target], "after": study.row(policy, source).ood[target], "beside": cell}
        for row in study.select(policy=policy, source=target, arm="plain", rl_steps=study.rl_steps):
            cells["crossed"] = row.ood.get(source)
        cells = {role: value for role, value in cells.items() if value is not None or role == "after"}
        both |= {f"{role}{n}": value for role, value in cells.items()}
        relative.append(figure(policy, line["relative"][n], cells))
        if cell is not None:
            known = {role: value for role, value in cells.items() if role in ("after", "crossed")}
            printed_cells.append(figure(policy, cell, known))
    return relative, [figure("", line["difference"], both)], printed_cells


def _gain(study: PublishedTables, gain: Line) -> PrintedFigure:
    against = gain.get("against", START)
    known = {
        (line["trained"], line["tested"]): (line["before"], line["after"])
        for line in study.changes
        if (line["model"], line["unit"], line.get("against", START)) == (gain["model"], "%", against)
    }
    targets = {t if gain["trained"] == s else f"{s} → {t}": known.get((s, t), (None, None)) for s, t in gain["pairs"]}
    shown = ", ".join(targets) if len(targets) < 6 else f"all {len(targets)} pairs of domains"
    needs = f"success with {against} and after, on {shown}"
    where = (gain["model"], gain["trained"], gain["over"])
    return PrintedFigure(where, gain["printed"], targets, ("before", "after"), needs=needs)


class Status(StrEnum):
    """The outcome for a printed figure or claim."""

    REPRODUCED = "reproduced"
    OTHER = "reproduced under another metric"
    NOT = "not reproduced"
    UNCHECKABLE = "not checkable"


Case = tuple[str, bool | None]  # one comparison that bears on a claim, and whether it holds; None: rounding decides


@dataclass(frozen=True)
class PublishedClaim:
    """A claim of a paper and its cases."""

    text: str
    cases: Sequence[Case]
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
    def against(self) -> list[str]:
        """The cases in which it does not hold, and those that rounding leaves open, with a question mark."""
        return [name + ("" if holds is False else "?") for name, holds in self.cases if holds is not True]

    def to_json(self) -> dict[str, Any]:
        outcome = {"claim": self.text, "status": self.status.value, "holds": self.holds, "cases": len(self.cases)}
        return {**outcome, "needed": self.needed, "against": self.against, "needs": self.lacks, "remark": self.remark}


def claims(study: PublishedTables) -> list[PublishedClaim]:
    """Return the claims that bear on the cells of a paper."""
    of_axes = _axis_claims(study, study.axes) if study.axes else ()
    of_changes = _change_claims(study) if study.changes else ()
    found = [*_cell_claims(study), *_arm_claims(study), *of_axes, *of_changes]
    return [claim for claim in found if claim.cases or claim.lacks]


def _most(text: str, cases: Iterable[Case]) -> PublishedClaim:
    cases = list(cases)
    return PublishedClaim(text, cases, len(cases) // 2 + 1)


def _above(more: Iterable[Number], less: Iterable[Number], by: float = 0.0) -> bool | None:
    """Return whether the sum of `more` exceeds that of `less` by more than `by`; None where rounding decides."""
    more, less = list(more), list(less)
    difference, half = sum(more) - sum(less) - by, sum(map(half_step, (*more, *less)))
    return None if abs(difference) <= half + SLACK else difference > 0


def _cell_claims(study: PublishedTables) -> Iterator[PublishedClaim]:
    for name, arm in (("plain", "plain"), ("every arm", None)):
        cases = [
            (f"{row.name}, on {t}: {after} from {row.init[t]}", _above([row.init[t]], [after]))
            for row in study.select(arm=arm)
            for t, after in row.after.items()
        ]
        text = f"Nearly every out-of-domain cell lies below the start ({name})"
        yield PublishedClaim(text, cases, ceil(NEARLY_EVERY * len(cases) - SLACK))


def _arm_claims(study: PublishedTables) -> Iterator[PublishedClaim]:
    def against_plain(arm: str) -> list[tuple[PublishedRun, PublishedRun]]:
        """Return the plain row and the row of each run of an arm, or of each longer plain run."""
        pairs = [(study.row(row.policy, row.source), row) for row in study.select(arm=arm)]
        return [(plain, row) for plain, row in pairs if row is not plain]

    def higher(first: PublishedRun, second: PublishedRun) -> bool | None:
        """Return whether the first has more success elsewhere."""
        shared = [t for t in first.after if t in second.after]
        return _above((first.after[t] for t in shared), (second.after[t] for t in shared))

    bare, longer = against_plain("no-thinking"), against_plain("plain")
    raised = [(row.name, higher(row, plain)) for plain, row in against_plain("distractors")]
    yield _most("Distractors raise success elsewhere, summed over targets", raised)
    lowered = [(row.name, higher(plain, row)) for plain, row in bare]
    yield _most("RL without thinking lowers success elsewhere, summed over targets", lowered)
    no_help = [(row.name, higher(plain, row)) for plain, row in bare if _above([row.delta_id], [plain.delta_id])]
    yield PublishedClaim("It lowers it even where thinking does not help at home", no_help, 1)
    yield _most("SFT warm-up protects the domains in its mix", _warm_up_cases(study, covered=True))
    yield _most("SFT warm-up hurts the domain outside its mix", _warm_up_cases(study, covered=False))
    gained = [(row.name, _above([row.delta_id], [short.delta_id])) for short, row in longer]
    yield _most("Longer training gains more at home", gained)
    cost = [(row.name, higher(short, row)) for short, row in longer]
    yield _most("Longer training costs more elsewhere, summed over targets", cost)


def _warm_up_cases(study: PublishedTables, covered: bool) -> Iterator[Case]:
    for line in study.warm_up:
        source, target = line["source"], line["target"]
        rows = [study.row(policy, source) for policy in line["policies"]]
        if line["covered"] is not covered or not all(target in row.after for row in rows):
            continue
        limits = []  # of after / init, without warm-up and with it
        for after, init in ((row.after[target], row.init[target]) for row in rows):
            errors = half_step(after), half_step(init)
            limits.append(((after - errors[0]) / (init + errors[1]), (after + errors[0]) / (init - errors[1])))
        (cold_low, cold_high), (warm_low, warm_high) = limits
        more, less = warm_low > cold_high, warm_high < cold_low
        yield f"{source} → {target}", (more if covered else less) if more or less else None


def _axis_claims(study: PublishedTables, axes: Line) -> Iterator[PublishedClaim]:
    scores = {line["source"]: line["printed"] for line in study.rank_score if line["policies"] == [axes["policy"]]}

    def agreement(axis: Mapping[str, float], scores: Mapping[str, float]) -> Iterator[Case]:
        """Yield, for each pair of sources, whether the one that is higher on the axis has the lower, better score."""
        for pair in combinations(scores, 2):
            high, low = sorted(pair, key=lambda source: axis[source], reverse=True)
            yield f"{high}, {low}", None if scores[high] == scores[low] else scores[high] < scores[low]

    for text, axis in (
        ("The source with richer states has the better OOD rank score", axes["state_characters"]),
        ("The source with longer trajectories has the better OOD rank score", axes["trajectory_length"]),
    ):
        claim = _most(f"{text} (pairs of sources)", agreement(axis, scores))
        orders = [dict(zip(scores, order, strict=True)) for order in permutations(scores.values())]
        as_well = sum(_most("", agreement(axis, order)).holds >= claim.holds for order in orders)
        yield replace(claim, remark=f"{as_well} of the {len(orders)} orders of the sources do as well")
    rich, similar = (study.row(axes["policy"], source).after["sciworld"] for source in ("sokoban", "alfworld"))
    yield _most("Sokoban-trained beats ALFWorld-trained on SciWorld", [(axes["policy"], _above([rich], [similar]))])
    yield PublishedClaim("Realism and text similarity do not go with success elsewhere", (), 0, "a number for either")


def _change_claims(study: PublishedTables) -> Iterator[PublishedClaim]:
    def risen(lines: Iterable[Line], name: str = "trained", by: float = 0.0, down: bool = False) -> list[Case]:
        ends = ("before", "after") if down else ("after", "before")
        return [(line[name], _above([line[ends[0]]], [line[ends[1]]], by)) for line in lines]

    changes = study.changes
    of_success = [c for c in changes if c["unit"] == "%"]
    easy = [c for c in changes if c["trained"].endswith(":easy") and c["tested"].endswith(":hard")]
    yield _most("Training on easy tasks carries to hard ones", risen(easy))
    home = [{**c, "who": f"{c['model']} {c['trained']}"} for c in of_success if c["trained"] == c["tested"]]
    gains = [
        (f"{gain['model']} {gain['trained']}", _above([gain["printed"]], [], TENS))
        for gain in study.gains
        if gain["trained"] == gain["over"] and "against" not in gain
    ]
    yield _most("Gains at home are tens of points", [*risen(home, "who", TENS), *gains])
    sequences = [c for c in of_success if ", " in c["trained"]]
    last = [c for c in sequences if c["trained"].endswith(c["tested"])]
    yield _most("A sequence gains downstream over training there alone", risen(last))
    remembered = risen((c for c in sequences if c not in last), "tested", -LITTLE)
    yield _most(f"A sequence forgets little (less than {LITTLE:g} point)", remembered)
    shorter = risen((c for c in changes if c["unit"] in ("turns", "tokens")), "unit", down=True)
    yield _most("Training shortens episodes", shorter)
    yield PublishedClaim("A sequence of five domains comes near joint training", (), 0, "the cells of both")
    yield PublishedClaim("Mixtures balance the domains best", (), 0, "the cells of the mixtures")
