"""`gentax tax`"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.settings_options import Group, takes
from gentax.cli.show import say, show_table
from gentax.core.errors import UsageError
from gentax.core.settings import plain
from gentax.models.requests import ModelOptions
from gentax.rollouts import RolloutConfig

if TYPE_CHECKING:
    from gentax.evals.paired_eval import PlayedTax
    from gentax.metrics.forecast import Fit
    from gentax.metrics.statistics import InterimAnalyses, Pilot
    from gentax.metrics.tax import TaxReport
    from gentax.policies import Policy

ON_ITS_OWN = 128  # tasks of each domain where neither --tasks nor --drop says


@takes(play=Group(RolloutConfig, leave_out=("horizon", "reward")), model=ModelOptions)
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
    pilot: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE",
            help="What --drop takes is worked out from the first N tasks of each domain, or from a result of --json.",
        ),
    ] = None,
    touched: Annotated[
        list[str] | None,
        typer.Option(
            "--touched",
            metavar="DOMAIN",
            help="A target whose text, states or experts entered training; those of a gentax run are known.",
        ),
    ] = None,
    no_chance: Annotated[
        bool, typer.Option("--no-chance", help="Leave out random play, and with it success above chance.")
    ] = False,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="Also estimate the tax under a logistic mixed model, which takes statsmodels."
        ),
    ] = False,
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
    play: RolloutConfig,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write the page, episodes, tables and a picture of the matrix."),
    ] = None,
) -> None:
    """Say what training cost elsewhere: both policies play the same test tasks with the same random numbers.

    Examples: `gentax tax --tuned runs/sokoban/step-000100 --source sokoban --drop 5`, or, of two results of
    `gentax evaluate --suite`, `gentax tax --base before.json --tuned after.json --source sokoban`
    """
    from gentax.evals.paired_eval import is_result, play_tax, tax, tax_of_results
    from gentax.evals.sensitivity import check_installed
    from gentax.metrics.behaviour import compare
    from gentax.metrics.behaviour import sentences as behaved
    from gentax.metrics.forecast import read_fit
    from gentax.metrics.statistics import InterimAnalyses

    o.check_out(json)
    _check_folder(out, forecast_only)
    trained = o.read_domains([source])
    (home,) = trained
    levels = {**o.read_domains(target), **trained}
    protected = _touched(touched, tuned)
    if sensitivity:
        check_installed()
    if is_result(base) and is_result(tuned):
        if sensitivity:
            raise UsageError("--sensitivity takes episodes: it is for policies that are played, not for result files")
        report = tax_of_results(Path(base), Path(tuned), home, levels if target else None, protected)
        return _show(report, [], json, out, tuple(levels))
    if is_result(base) or is_result(tuned):
        tax(base, tuned, home)  # refuses, and says why
    known = read_fit(fit) if forecast_only else None
    policies = o.load_pair(base, tuned, model)  # both are found before either plays
    if known is not None:
        return _forecast(*policies, home, levels[home], play, seed, known, json)
    if len(levels) < 2:
        raise UsageError(f"no target: the tax of {home} needs at least one other domain")
    many = InterimAnalyses(looks)
    first, known_pilot = _pilot(pilot, drop)
    tasks = _plan(levels, home, many, tasks, drop, first, known_pilot)
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
        touched=protected,
        chance=not no_chance,
        pilot=first,
        drop=drop if first is not None else None,
        on_pilot=partial(_replan, many, drop),
        on_look=partial(_look, tasks=tasks if first is None else None),
        stop_if_unreadable=not allow_unreadable,
        progress=True,
    )
    if played.played < played.planned:
        say(f"  stopped after {played.played} of {played.planned} episodes a policy: the verdict is clear")
    before, after = ([e for of in one.episodes.values() for e in of] for one in (played.before, played.after))
    said = behaved(compare(before, after))
    for one in (played.before, played.after):
        said += one.truncation().sentences(one.policy)
    if played.report.look < looks:
        said.append("What is said of behaviour allows for its number, but not for when playing stopped.")
    if sensitivity:
        from gentax.evals.sensitivity import mixed_model

        said += mixed_model(played.before, played.after, home).sentences()
    _show(played.report, said, json, out, tuple(levels), played, {"play": plain(play), "seed": seed, "looks": looks})


def _touched(named: list[str] | None, tuned: str) -> frozenset[str]:
    """Return the domains that entered training: those that are named, and those of the run that `tuned` is from."""
    from gentax.training.check import touched_by_run

    given = frozenset(o.read_domains(named)) if named else frozenset()
    return given | (touched_by_run(Path(tuned)) or frozenset())


def _pilot(pilot: str | None, drop: float | None) -> tuple[int | None, Pilot | None]:
    """Return the number of tasks of a pilot that is to be played, or a pilot that was."""
    from gentax.evals.suites.result import read_content
    from gentax.metrics.statistics import Pilot

    if pilot is None:
        return None, None
    if drop is None:
        raise UsageError("--pilot says how many tasks a drop takes: give --drop, in points, too")
    if pilot.isdecimal():
        if int(pilot) < 2:
            raise UsageError(f"a pilot needs at least 2 tasks of each domain, not {pilot}")
        return int(pilot), None
    content = read_content(pilot)
    return None, Pilot.from_json(content.get("pilot") if isinstance(content, dict) else None, pilot)


def _plan(
    levels: Mapping[str, str | None],
    home: str,
    looks: InterimAnalyses,
    tasks: int | None,
    drop: float | None,
    first: int | None,
    pilot: Pilot | None,
) -> int:
    """Say beforehand what can be seen; return how many tasks of each domain are played at most."""
    from gentax.evals.evaluate import tasks_of
    from gentax.metrics.statistics import episodes_needed
    from gentax.metrics.statistics.power import VARIANCE, outlook

    targets = len(levels) - 1
    if drop is not None and first is None:
        needed = episodes_needed(drop, targets, looks, VARIANCE if pilot is None else pilot.variance)
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
    if first is not None:
        say(f"  A pilot of {first} tasks of each domain says how many a drop of {drop:g} points takes.")
        return tasks
    least = min(count for name, count in listed.items() if name != home)
    say(f"  {sentence}" for sentence in outlook(least, targets, looks, pilot, drop))
    say(f"  At most {sum(listed.values())} tasks a policy, looked at {looks.count} times.")
    return tasks


def _replan(looks: InterimAnalyses, drop: float | None, pilot: Pilot, tasks: int) -> None:
    from gentax.metrics.statistics.power import outlook

    say(f"  pilot: {tasks} tasks of each domain are played.")
    say(f"  {sentence}" for sentence in outlook(tasks, pilot.targets, looks, pilot, drop))


def _look(report: TaxReport, tasks: int | None) -> None:
    """Say what a look found; at the first, what all of them will be able to tell, now that something is known."""
    from gentax.metrics.statistics import InterimAnalyses
    from gentax.metrics.statistics.power import outlook
    from gentax.metrics.verdict import headline

    say(f"  look {report.look} of {report.looks}: tax {headline(report)}")
    if report.look == 1 < report.looks and tasks is not None and report.pilot is not None:
        many = InterimAnalyses(report.looks)
        least = min(tasks, *(round(report.tasks[t] * report.looks) for t in report.targets))
        say(f"  {sentence}" for sentence in outlook(least, len(report.targets), many, report.pilot))


def _forecast(
    base: Policy,
    tuned: Policy,
    source: str,
    level: str | None,
    play: RolloutConfig,
    seed: int,
    fit: Fit,
    json: Path | None,
) -> None:
    from gentax.evals.kl_forecast import forecast_from_kl

    found = forecast_from_kl(base, tuned, source, level, play=play, seed=seed, fit=fit, progress=True)
    say(found.sentences())
    runtime = {"base": getattr(base, "runtime", None), "tuned": getattr(tuned, "runtime", None)}
    o.write_result(json, {**found.to_json(), "runtime": runtime})


def _check_folder(out: Path | None, forecast_only: bool) -> None:
    if out is not None:
        from gentax.report.page import check_folder

        if forecast_only:
            raise UsageError("--out is for a tax that is played; with --forecast-only there is --json")
        check_folder(out)


def _show(
    report: TaxReport,
    behaviour: list[str],
    json: Path | None,
    out: Path | None,
    domains: tuple[str, ...],
    played: PlayedTax | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    from gentax.metrics.verdict import sentences

    show_table(report.table())
    say(sentences(report))
    say(behaviour)
    result = {**report.to_json(), "sentences": sentences(report), "behaviour": behaviour}
    o.write_result(json, result)
    if out is not None:
        from gentax.report.page import write_tax

        write_tax(out, report, result, domains, settings or {}, played and (played.before, played.after))
        say(f"wrote {out / 'report.html'}, and beside it episodes, tables and the matrix as a picture")
