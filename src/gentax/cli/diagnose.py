"""`gentax diagnose`"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.output import (
    check_outputs,
    console,
    estimate_text,
    print_table,
    print_text,
    printable,
    write_result,
    write_rows,
)
from gentax.core.console import status

if TYPE_CHECKING:
    from gentax.core import Episode
    from gentax.metrics.behaviour import Behaviour, Comparison, Values
    from gentax.metrics.statistics import Estimate

_FILE = (
    "A file that `gentax rollout --out` wrote, the folder of an evaluation in a study, or trajectories of others: chat "
    "messages or conversations as `.jsonl`, a log of Inspect."
)


def diagnose(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help=_FILE)],
    after: Annotated[
        Path | None, typer.Argument(metavar="AFTER", help="Another policy on the same tasks, seed and settings.")
    ] = None,
    json: o.Json = None,
    table: o.Table = None,
) -> None:
    """Diagnose behaviour in episodes: invalid and repeated actions, loops, giving up, steps per success.

    With AFTER, also what changed, paired by task. Every number has a 95 % interval over tasks; measures are explained
    below the tables. Files of several domains can be joined: `cat a.jsonl.gz b.jsonl.gz > both.jsonl.gz`.

    Example: `gentax diagnose before.jsonl.gz after.jsonl.gz`, of files that `gentax rollout --out` wrote
    """
    from gentax.integrations.trajectories import read_any_episodes as read_episodes
    from gentax.metrics.behaviour import MEASURES

    check_outputs(json, table)
    status(f"  reading {before}")
    episodes = read_episodes(before)
    rows, result = _diagnose_one(episodes) if after is None else _compare_two(episodes, read_episodes(after))
    console.print("\nWhat they mean", style="bold")
    for measure in MEASURES.values():
        console.print(f"  {measure.title}: {measure.about}", markup=False)
    console.print("  undefined: not recorded in the episodes, or too few successes for a finite interval")
    files = {"before": str(before), "after": None if after is None else str(after)}
    meanings = {name: measure.about for name, measure in MEASURES.items()}
    write_result(json, {**files, "meanings": meanings, **result})
    write_rows(table, rows)


def _diagnose_one(episodes: list[Episode]) -> tuple[Iterable[Behaviour], dict[str, Any]]:
    from gentax.metrics.behaviour import behaviour, end_sentence

    measured = behaviour(episodes)
    lines = [end_sentence(one) for one in measured.values()]
    print_text(lines)
    console.print()
    for one in measured.values():
        rows, zero = _split(one.measures)
        print_table(_title(one), ["", "value"], [[title, _cell(one.measures[name])] for name, title in rows.items()])
        _print_zero(zero, "")
    result = {"domains": {domain: one.to_json() for domain, one in measured.items()}, "sentences": lines}
    return measured.values(), result


def _compare_two(before: list[Episode], after: list[Episode]) -> tuple[Iterable[Comparison], dict[str, Any]]:
    from gentax.metrics.behaviour import compare, holm, sentences
    from gentax.metrics.statistics import LEVEL

    compared = compare(before, after)
    corrected = holm(compared)
    lines = sentences(compared)
    print_text(lines)
    console.print()
    domains = {}
    for domain, both in compared.items():
        marked = {name for (where, name), p in corrected.items() if where == domain and p < 1 - LEVEL}
        rows, zero = _split(both.before.measures, both.after.measures)
        cells = []
        for name, title in rows.items():
            sides = [_cell(side.measures[name]) for side in (both.before, both.after)]
            cells.append([title, *sides, _cell(both.change[name]) + (" *" if name in marked else "  ")])
        print_table(_title(both.after), ["", "before", "after", "change  "], cells)
        _print_zero(zero, " before and after")
        if marked:
            console.print("* significant after Holm's correction for all changes tested")
        domains[domain] = both.to_json()
        domains[domain]["p_values"] = {name: p for (where, name), p in corrected.items() if where == domain}
    return compared.values(), {"domains": domains, "sentences": lines}


def _split(*sides: Values) -> tuple[dict[str, str], list[str]]:
    """Return the measures that a table shows, name to title, and the titles of those that are 0 on all sides."""
    from gentax.metrics.behaviour import MEASURES

    rows, zero = {}, []
    for name, measure in MEASURES.items():
        values = [side[name] for side in sides]
        if name != "success" and all(value is not None and value.value == 0 for value in values):
            zero.append(measure.title)
        else:
            rows[name] = measure.title
    return rows, zero


def _cell(value: Estimate | None) -> str:
    """Write an estimate; one whose tasks are all alike has no interval to show."""
    if value is not None and value.low == value.high:
        return value.text(1).partition(" ")[0]
    return estimate_text(value)


def _print_zero(titles: list[str], when: str) -> None:
    if titles:
        print_text(f"0 %{when}: {', '.join(titles)}.")


def _title(one: Behaviour) -> str:
    broken = f"; {one.excluded_tasks} tasks left out, where the environment broke" if one.excluded_tasks else ""
    return f"{printable(one.domain)}: {one.episodes} episodes of {one.tasks} tasks{broken}"
