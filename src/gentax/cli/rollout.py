"""`gentax rollout` and `gentax diagnose`: play episodes and keep them, and what behaviour shows in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.options import with_settings
from gentax.cli.output import console, estimate_text, print_table, print_text, save, write_result, write_rows
from gentax.core.console import status
from gentax.core.errors import unknown

if TYPE_CHECKING:
    from gentax.core import Episode
    from gentax.metrics.behaviour import Behaviour, BehaviourComparison, Values
    from gentax.metrics.statistics import Estimate

_FILE = (
    "A file that `gentax rollout --out` wrote, the folder of an evaluation in a study, or trajectories of others: chat "
    "messages or conversations as `.jsonl`, a log of Inspect."
)


@with_settings
def rollout(
    domain: Annotated[str, typer.Argument(help="A domain, `NAME` or `NAME:LEVEL`.")],
    out: Annotated[Path, o.output_file("Where the episodes go: gzipped JSON lines.")],
    policy: o.PolicyName = "base",
    tasks: Annotated[int, typer.Option(help="How many tasks are played.", min=1)] = 16,
    split: Annotated[str, typer.Option(help="The split of the tasks: `train`, `validation` or `test`.")] = "test",
    samples: o.Samples = 1,
    log: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="`inspect`: a log that `inspect view` shows, `.json` or `.eval`."),
    ] = None,
    *,
    config: o.RolloutArgs,
    model: o.ModelArgs,
    options: o.RunArgs,
    json: o.Json = None,
) -> None:
    """Play episodes and keep them: every observation, reply, action and reward.

    The defaults are those of `gentax evaluate`. Episodes to imitate come from the train split.

    Example: `gentax rollout sokoban --policy expert --split train --tasks 100 --thinking --out episodes.jsonl.gz`
    """
    from gentax.core import Outcome
    from gentax.core.episode import write_episodes
    from gentax.evals.evaluate import tasks_of
    from gentax.integrations.trajectories import check_inspect_log, write_inspect_log
    from gentax.metrics.episode_scores import Truncation
    from gentax.policies.load import SCRIPTED
    from gentax.rollouts import rollout as run

    if log not in (None, "inspect"):
        raise unknown("log format", log, ["inspect"])
    if log is not None:
        check_inspect_log(out)
    (tasks_to_play,) = tasks_of(o.read_domains([domain]), tasks, split).values()
    loaded = o.load_policy(policy, model)
    settings = options.arguments()
    settings["stop_if_unreadable"] &= not isinstance(loaded, SCRIPTED)
    episodes = run(loaded, tasks_to_play, config=config, samples=samples, **settings)
    save(
        out,
        lambda file: write_episodes(file, episodes) if log is None else write_inspect_log(file, episodes, loaded.name),
    )
    errors = sum(episode.outcome is Outcome.ERROR for episode in episodes)
    solved = sum(episode.success for episode in episodes)
    left_out = f", {errors} left out where the environment broke" if errors else ""
    print_text(f"wrote {len(episodes)} episodes to {out}: success in {solved} of {len(episodes) - errors}{left_out}")
    print_text(Truncation.of(episodes).sentences(loaded.name))
    counts = {"episodes": len(episodes), "success": solved, "errors": errors}
    write_result(json, {"policy": loaded.name, "file": str(out), **counts})


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
    from gentax.integrations.trajectories import read_any_episodes
    from gentax.metrics.behaviour import MEASURES

    status(f"  reading {before}")
    episodes = read_any_episodes(before)
    rows, result = _diagnose_one(episodes) if after is None else _compare_two(episodes, read_any_episodes(after))
    console.print("\nWhat they mean", style="bold")
    print_text(f"  {measure.title}: {measure.about}" for measure in MEASURES.values())
    print_text("  undefined: not recorded in the episodes, or too few successes for a finite interval")
    files = {"before": str(before), "after": None if after is None else str(after)}
    meanings = {name: measure.about for name, measure in MEASURES.items()}
    write_result(json, {**files, "meanings": meanings, **result})
    write_rows(table, rows)


def _diagnose_one(episodes: Sequence[Episode]) -> tuple[Iterable[Behaviour], dict[str, Any]]:
    from gentax.metrics.behaviour import behaviour, end_sentence

    measured = behaviour(episodes)
    lines = [end_sentence(one) for one in measured.values()]
    print_text([*lines, ""])
    for one in measured.values():
        rows, zero = _split(one.measures)
        print_table(_title(one), ["", "value"], [[title, _cell(one.measures[name])] for name, title in rows.items()])
        _print_zero(zero, "")
    result = {"domains": {domain: one.to_json() for domain, one in measured.items()}, "sentences": lines}
    return measured.values(), result


def _compare_two(
    before: Sequence[Episode], after: Sequence[Episode]
) -> tuple[Iterable[BehaviourComparison], dict[str, Any]]:
    from gentax.metrics.behaviour import compare, holm, sentences
    from gentax.metrics.statistics import LEVEL

    compared = compare(before, after)
    corrected = holm(compared)
    lines = sentences(compared)
    print_text([*lines, ""])
    domains = {}
    for domain, both in compared.items():
        p_values = {name: p for (where, name), p in corrected.items() if where == domain}
        marked = {name for name, p in p_values.items() if p < 1 - LEVEL}
        rows, zero = _split(both.before.measures, both.after.measures)
        cells = []
        for name, title in rows.items():
            sides = [_cell(side.measures[name]) for side in (both.before, both.after)]
            cells.append([title, *sides, _cell(both.change[name]) + (" *" if name in marked else "  ")])
        print_table(_title(both.after), ["", "before", "after", "change  "], cells)
        _print_zero(zero, " before and after")
        if marked:
            print_text("* significant after Holm's correction for all changes tested")
        domains[domain] = both.to_json() | {"p_values": p_values}
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
    return f"{one.domain}: {one.episodes} episodes of {one.tasks} tasks{broken}"
