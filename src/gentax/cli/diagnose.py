"""`gentax diagnose`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.show import console, estimate, printable, table
from gentax.core.errors import UsageError

if TYPE_CHECKING:
    from gentax.core import Episode
    from gentax.measure.behaviour import Parting

_FILE = "A file that `gentax rollout --out` wrote, or the folder of an evaluation in a study."
_SHOWN = (1, 2, 3, 5, 10, 20, 40)  # steps of the curve that are printed


def diagnose(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help=_FILE)],
    after: Annotated[
        Path | None, typer.Argument(metavar="AFTER", help="Another policy on the same tasks, seed and settings.")
    ] = None,
    json: o.Json = None,
) -> None:
    """Say what happened in episodes: refused and repeated actions, loops, giving up, what a success cost.

    With AFTER, also what changed, paired by task, and at which step the two policies part ways. Every number has a
    95 % interval that covers tasks; what each measure means is printed below the tables. Files of several domains can
    be joined: `cat a.jsonl.gz b.jsonl.gz > both.jsonl.gz`.

    Example: `gentax diagnose runs/demo/evaluate-init-sokoban-… runs/demo/evaluate-plain-sokoban-0-sokoban-…`
    """
    from gentax.core.record import read_episodes
    from gentax.measure.behaviour import MEASURES

    o.check_out(json)
    episodes = read_episodes(before)
    result = _one(episodes) if after is None else _two(episodes, read_episodes(after))
    console.print("\nWhat they mean", style="bold")
    for measure in MEASURES.values():
        console.print(f"  {measure.title}: {measure.about}", markup=False)
    console.print("  undefined: the episodes do not say, or successes are too few for an interval with ends")
    files = {"before": str(before), "after": None if after is None else str(after)}
    meanings = {name: measure.about for name, measure in MEASURES.items()}
    o.write_result(json, {**files, "meanings": meanings, **result})


def _one(episodes: list[Episode]) -> dict[str, Any]:
    from gentax.measure.behaviour import MEASURES, behaviour

    found = behaviour(episodes)
    for domain, one in found.items():
        rows = [[measure.title, estimate(one.values[name])] for name, measure in MEASURES.items()]
        table(_title(domain, one.tasks, one.episodes, one.left_out), ["", "value"], rows)
    return {"domains": {domain: one.to_json() for domain, one in found.items()}}


def _two(before: list[Episode], after: list[Episode]) -> dict[str, Any]:
    from gentax.measure.behaviour import MEASURES, compare, holm, partings, sentences
    from gentax.measure.statistics import LEVEL

    compared = compare(before, after)
    corrected = holm(compared)
    try:
        parted = partings(before, after)
    except UsageError as fault:  # they can be compared, but not step by step
        parted, unsaid = {}, str(fault)
    domains = {}
    for domain, both in compared.items():
        rows = []
        for name, measure in MEASURES.items():
            mark = " *" if corrected.get((domain, name), 1.0) < 1 - LEVEL else "  "
            sides = [estimate(side.values[name]) for side in (both.before, both.after)]
            rows.append([measure.title, *sides, estimate(both.change[name]) + mark])
        one = both.after
        table(_title(domain, one.tasks, one.episodes, one.left_out), ["", "before", "after", "change  "], rows)
        _print_parting(parted.get(domain))
        domains[domain] = {**both.to_json(), "parting": parted[domain].to_json() if domain in parted else None}
        domains[domain]["p_values"] = {name: p for (where, name), p in corrected.items() if where == domain}
    console.print("* told apart from 0 with the number of changes looked at allowed for (Holm).")
    if not parted:
        console.print(printable(f"Parting is not measured: {unsaid}."), markup=False)
    said = sentences(compared, parted)
    console.print("\nWhat changed most", style="bold")
    for sentence in said:
        console.print(f"  {printable(sentence)}", markup=False)
    return {"domains": domains, "sentences": said}


def _print_parting(parting: Parting | None) -> None:
    """Print where the two part, in a few lines."""
    if parting is None:
        return
    from gentax.measure.behaviour import parting_sentence

    lines = [parting_sentence(parting)]
    curve = parting.curve.together
    shown = [f"{n}: {estimate(curve[n - 1], 0)}" for n in _SHOWN if n <= len(curve)]
    if parting.early is not None:
        lines.append(f"Of those still going, % still together after step {'; '.join(shown)}.")
        kinds = [f"{kind.before} → {kind.after} {estimate(kind.share, 0)}" for kind in parting.kinds]
        lines.append(f"What they do there, before → after, % of partings: {'; '.join(kinds)}.")
        first, second = (estimate(one, 0) for one in parting.accepted)
        lines.append(
            f"% of these actions accepted: before {first}, after {second}, change {estimate(parting.accepted_change)}."
        )
        names = {"early": f"part by step {parting.early}", "late": "part later", "never": "never part"}
        for group in parting.groups:
            sides = f"{estimate(group.before, 0)} before, {estimate(group.after, 0)} after"
            lines.append(f"Success % of the {group.pairs} that {names[group.name]}: {sides}, {estimate(group.change)}.")
        lines.append(f"Change of success, early less late: {estimate(parting.early_less_late)} points.")
    for line in lines:
        console.print(f"  {printable(line)}", markup=False)


def _title(domain: str, tasks: int, episodes: int, left_out: int) -> str:
    broken = f"; {left_out} tasks left out, where the environment broke" if left_out else ""
    return f"\n{printable(domain)}: {episodes} episodes of {tasks} tasks{broken}"
