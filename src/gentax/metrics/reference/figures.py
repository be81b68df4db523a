"""Finds, for every figure that a paper prints, the cells it should follow from, and has it judged."""

from __future__ import annotations

from gentax.metrics.reference.judge import Column, Figure, judge
from gentax.metrics.reference.metrics import CELL, DIFFERENCE, GAIN, OOD_CHANGE, RELATIVE
from gentax.metrics.reference.ranges import Cells
from gentax.metrics.reference.ranks import RANK, Standings
from gentax.metrics.reference.types import Gain, PrintedChange, PrintedRank, Published, WarmUp


def columns(study: Published) -> tuple[Column, ...]:
    """Return every printed column of `study` that has figures, judged."""
    warm = study.warm_up
    return tuple(
        judge(name, figures, family)
        for name, figures, family in (
            ("OOD change, %", [_ood_change(study, line) for line in study.ood_change], OOD_CHANGE),
            ("OOD rank score", [_rank(study, line) for line in study.rank_score], RANK),
            ("SFT warm-up: change, %", [_relative(study, w, n) for w in warm for n in (0, 1)], RELATIVE),
            ("SFT warm-up: difference, points", [_difference(study, w) for w in warm], DIFFERENCE),
            (
                "SFT warm-up: cell, %",
                [_cell(study, w, n) for w in warm for n in (0, 1) if w.beside[n] is not None],
                CELL,
            ),
            ("Gain, points", [_gain(study, gain) for gain in study.gains], GAIN),
        )
        if figures
    )


def _ood_change(study: Published, line: PrintedChange) -> Figure:
    arm = study.row(line.policy, line.source, line.arm)
    plain = study.row(line.policy, line.source)
    targets = plain.targets
    roles = {
        "arm": tuple(arm.ood.get(t) for t in targets),
        "plain": tuple(plain.ood[t] for t in targets),
        "init": tuple(plain.init[t] for t in targets),
    }
    gains = {"arm_gain": arm.delta_id, "plain_gain": plain.delta_id}
    return Figure((line.arm, line.policy, line.source), line.printed, Cells(targets, roles, gains))


def _relative(study: Published, line: WarmUp, n: int) -> Figure:
    cells = Cells((line.target,), {role: (cell,) for role, cell in _warm_cells(study, line, n).items()})
    return Figure((line.policies[n], line.source, line.target), line.relative[n], cells)


def _difference(study: Published, line: WarmUp) -> Figure:
    both = {f"{role}{n}": (cell,) for n in (0, 1) for role, cell in _warm_cells(study, line, n).items()}
    return Figure(("", line.source, line.target), line.difference, Cells((line.target,), both))


def _cell(study: Published, line: WarmUp, n: int) -> Figure:
    cells = {role: (cell,) for role, cell in _warm_cells(study, line, n).items() if role in ("after", "crossed")}
    return Figure((line.policies[n], line.source, line.target), line.beside[n], Cells((line.target,), cells))


def _warm_cells(study: Published, line: WarmUp, n: int) -> dict[str, float | None]:
    """Return the cells of one policy on one line; a role that the paper has no such number for is not there."""
    policy = line.policies[n]
    cells = {
        "init": study.init[policy][line.target],
        "after": study.row(policy, line.source).ood[line.target],
    }
    if line.beside[n] is not None:
        cells["beside"] = line.beside[n]
    for row in study.select(policy, line.target, "plain", study.rl_steps):
        if row.ood.get(line.source) is not None:
            cells["crossed"] = row.ood[line.source]
    return cells


def _rank(study: Published, line: PrintedRank) -> Figure:
    """Collect, for each target of each policy, the plain runs that were tested on it, the asked source first."""
    targets, groups = [], []
    for policy in line.policies:
        own = study.row(policy, line.source)
        rivals = [row for row in study.select(policy, arm="plain", rl_steps=study.rl_steps) if row is not own]
        for target in own.targets:
            targets.append(f"{policy} {target}")
            groups.append((own.ood[target], *(row.ood[target] for row in rivals if target in row.ood)))
    standings = Standings(tuple(targets), tuple(groups), study.rank_tie)
    return Figure((" + ".join(line.policies), line.source), line.printed, standings, exact=True)


def _gain(study: Published, gain: Gain) -> Figure:
    found = {
        (c.trained, c.tested): c
        for c in study.changes
        if (c.model, c.unit, c.against) == (gain.model, "%", gain.against)
    }
    cells = [found.get(pair) for pair in gain.pairs]
    roles = {
        "before": tuple(c.before if c else None for c in cells),
        "after": tuple(c.after if c else None for c in cells),
    }
    names = tuple(t if gain.trained == s else f"{s} → {t}" for s, t in gain.pairs)
    shown = ", ".join(names) if len(names) < 6 else f"all {len(names)} pairs of domains"
    lacks = f"success with {gain.against} and after, on {shown}"
    return Figure((gain.model, gain.trained, gain.over), gain.printed, Cells(names, roles), lacks)
