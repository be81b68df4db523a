"""`gentax tax`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentax.cli import options as o
from gentax.cli.settings_options import Group, takes
from gentax.cli.show import say, show_table
from gentax.core.errors import UsageError
from gentax.models.requests import ModelOptions
from gentax.rollouts import Play

if TYPE_CHECKING:
    from gentax.measure.forecast import Fit
    from gentax.measure.statistics import Looks
    from gentax.measure.tax import TaxReport
    from gentax.policies import Policy

ON_ITS_OWN = 128  # tasks of each domain where neither --tasks nor --drop says


@takes(play=Group(Play, leave_out=("horizon", "reward")), model=ModelOptions)
def tax(
    tuned: Annotated[
        str,
        typer.Option(help=f"The policy after training: {o.POLICY[:-1]}; or a suite's result."),
    ],
    source: Annotated[str, typer.Option(help="The domain it was trained on, `NAME` or `NAME:LEVEL`.")],
    base: Annotated[str, typer.Option(help="The policy before training, likewise; `base` ships with gentax.")] = "base",
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "--targets",
            "-t",
            metavar="NAME[:LEVEL]",
            help="Another domain; all that are installed without it.",
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(help=f"Test tasks of each domain; {ON_ITS_OWN}, or what --drop takes.", min=2)
    ] = None,
    drop: Annotated[
        float | None, typer.Option(help="The mean loss on the targets, in points, that must not go unseen.")
    ] = None,
    looks: Annotated[
        int, typer.Option(help="How often the verdict is taken; playing stops when it is clear.", min=1, max=20)
    ] = 5,
    forecast_only: Annotated[
        bool, typer.Option("--forecast-only", help="Play no target: forecast the tax from the KL on the source alone.")
    ] = False,
    fit: Annotated[
        str, typer.Option(help="What --forecast-only rests on: a fit that ships, or a file of `study fit`.")
    ] = "sources",
    samples: o.Samples = 1,
    *,
    play: Play,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
) -> None:
    """Say what training cost elsewhere: both policies play the same test tasks with the same random numbers.

    Examples: `gentax tax --tuned runs/sokoban/step-000100 --source sokoban --drop 5`, or, of two results of
    `gentax evaluate --suite`, `gentax tax --base before.json --tuned after.json --source sokoban`
    """
    from gentax.measure.behaviour import compare, partings
    from gentax.measure.behaviour import sentences as behaved
    from gentax.measure.forecast import read_fit
    from gentax.measure.played import is_result, play_tax, tax, tax_of_results
    from gentax.measure.statistics import Looks
    from gentax.policies import policy_pair

    o.check_out(json)
    trained = o.read_domains([source])
    (home,) = trained
    levels = {**o.read_domains(target), **trained}
    if is_result(base) and is_result(tuned):
        report = tax_of_results(Path(base), Path(tuned), home, levels if target else None)
        return _show(report, [], json)
    if is_result(base) or is_result(tuned):
        tax(base, tuned, home)  # refuses, and says why
    known = read_fit(fit) if forecast_only else None
    policies = policy_pair(base, tuned, model)  # both are found before either plays
    if known is not None:
        return _forecast(*policies, home, levels[home], play, seed, known, json)
    if len(levels) < 2:
        raise UsageError(f"no target: the tax of {home} needs at least one other domain")
    many = Looks(looks)
    tasks = _plan(levels, home, many, tasks, drop)
    played = play_tax(
        *policies,
        home,
        levels,
        tasks=tasks,
        looks=many,
        samples=samples,
        play=play,
        seed=seed,
        parallel=parallel,
        on_look=_look,
        stop_if_unreadable=not allow_unreadable,
        progress=True,
    )
    if played.played < played.planned:
        say(f"  stopped after {played.played} of {played.planned} episodes a policy: the verdict is clear")
    before, after = ([e for of in one.episodes.values() for e in of] for one in (played.before, played.after))
    try:
        parted = partings(before, after)
    except UsageError:  # an environment that does not start a task alike: no reason to keep the tax back
        parted = None
    said = behaved(compare(before, after), parted)
    for one in (played.before, played.after):
        said += one.truncation().sentences(one.policy)
    if played.report.look < looks:
        said.append("What is said of behaviour allows for its number, but not for when playing stopped.")
    _show(played.report, said, json)


def _plan(levels: Mapping[str, str | None], home: str, looks: Looks, tasks: int | None, drop: float | None) -> int:
    """Say beforehand what can be seen; return how many tasks of each domain are played at most."""
    from gentax.measure.evaluate import tasks_of
    from gentax.measure.statistics import detectable, episodes_needed
    from gentax.measure.statistics.power import PAIRING, POWER, RATE

    targets = len(levels) - 1
    if drop is not None:
        needed = episodes_needed(drop, targets, looks)
        say(
            f"  To see a mean drop of {drop:g} points over {targets} targets takes {needed.tasks} tasks of each, "
            f"{needed.episodes} episodes a policy."
        )
        tasks = needed.tasks if tasks is None else tasks
    tasks = ON_ITS_OWN if tasks is None else tasks
    listed = {name: len(of) for name, of in tasks_of(levels, tasks).items()}
    for name, count in listed.items():
        if count < tasks:
            say(f"  {name} has {count} test tasks.")
    least = min(count for name, count in listed.items() if name != home)
    whole, single = detectable(least, targets, looks), detectable(least, 1, looks)
    if whole > 100:
        say(f"  {least} tasks of each of {targets} targets are too few to see any drop with some certainty.")
    else:
        say(
            f"  {least} tasks of each of {targets} targets show a mean drop of {whole:.1f} points with a chance of "
            f"{POWER:.0%}, one of {min(single, 100):.1f} on a single target (at success rates of {RATE:.0%} whose "
            f"tasks correlate by {PAIRING:g}). At most {sum(listed.values())} tasks a policy, looked at {looks.count} "
            "times."
        )
    return tasks


def _look(report: TaxReport) -> None:
    say(f"  look {report.look} of {report.looks}: tax {report.tax}")


def _forecast(
    base: Policy, tuned: Policy, source: str, level: str | None, play: Play, seed: int, fit: Fit, json: Path | None
) -> None:
    from gentax.measure.forecast import forecast_of

    found = forecast_of(base, tuned, source, level, play=play, seed=seed, fit=fit)
    say(found.sentences())
    runtime = {"base": getattr(base, "runtime", None), "tuned": getattr(tuned, "runtime", None)}
    o.write_result(json, {**found.to_json(), "runtime": runtime})


def _show(report: TaxReport, behaviour: list[str], json: Path | None) -> None:
    from gentax.measure.verdict import sentences

    show_table(report.table())
    say(sentences(report))
    say(behaviour)
    o.write_result(json, {**report.to_json(), "sentences": sentences(report), "behaviour": behaviour})
