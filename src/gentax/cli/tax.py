"""`gentax tax`"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.options import SettingsGroup, with_settings
from gentax.cli.output import check_outputs, console, print_text, print_text_table, save, write_result, write_rows
from gentax.core.errors import UsageError
from gentax.core.settings import plain
from gentax.models.options import ModelOptions
from gentax.rollouts import RolloutConfig

if TYPE_CHECKING:
    from gentax.evals.evaluate import Evaluation
    from gentax.integrations.lm_eval import HarnessTarget
    from gentax.metrics.episode_scores import RecordedScores
    from gentax.metrics.forecast import Fit
    from gentax.metrics.gate import Gate
    from gentax.metrics.statistics import InterimAnalyses, Pilot
    from gentax.metrics.tax import TaxReport
    from gentax.policies import Policy

DEFAULT_TASKS = 128  # tasks of each domain where neither --tasks nor --drop says


@with_settings(config=SettingsGroup(RolloutConfig, exclude=("horizon", "reward")), model=ModelOptions)
def tax(
    source: Annotated[str, typer.Option(help="The domain it was trained on, `NAME` or `NAME:LEVEL`.")],
    tuned: Annotated[
        str | None,
        typer.Option(help=f"The policy after training: {o.POLICY[:-1]}; or a suite's result."),
    ] = None,
    base: Annotated[str, typer.Option(help="The policy before training, likewise; `base` ships with gentax.")] = "base",
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "--targets",
            "-t",
            metavar="NAME[:LEVEL]",
            help="Another domain; all that are installed without it. `lm-eval:TASK[:METRIC]` is a task that "
            "lm-evaluation-harness asks of both models; write the others, too.",
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(help=f"Test tasks of each domain; {DEFAULT_TASKS}, or what --drop takes.", min=2)
    ] = None,
    drop: Annotated[
        float | None, typer.Option(help="The mean loss on the targets, in points, that must be detected.")
    ] = None,
    pilot: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE",
            help="What --drop takes is worked out from the first N tasks of each domain, or from a result of --json.",
        ),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            "--results",
            metavar="NAME[:METRIC]=BEFORE,AFTER",
            help="Another target, of two logs that others wrote: lm-evaluation-harness's samples, Inspect's logs, "
            "verifiers' traces. May be repeated; without --tuned nothing is played.",
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
    interim_analyses: Annotated[
        int,
        typer.Option(help="Interim analyses of the verdict; playing stops when it is clear.", min=1, max=20),
    ] = 5,
    forecast_only: Annotated[
        bool, typer.Option("--forecast-only", help="Play no target: forecast the tax from the KL on the source alone.")
    ] = False,
    fit: Annotated[
        str, typer.Option(help="What --forecast-only rests on: a fit that ships, or a file of `study fit`.")
    ] = "sources",
    gate: Annotated[
        Path | None,
        typer.Option(
            "--gate",
            metavar="FILE",
            help="Limits as YAML that the result is judged by: exit code 0 for PASS and WARN, 3 for FAIL, 4 for "
            "INCONCLUSIVE. Playing stops once the gate is clear.",
        ),
    ] = None,
    samples: o.Samples = 1,
    *,
    config: RolloutConfig,
    model: ModelOptions,
    seed: o.Seed = 0,
    parallel: o.Parallel = None,
    allow_unreadable: o.AllowUnreadable = False,
    json: o.Json = None,
    table: o.Table = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write the page, episodes, tables and a picture of the matrix."),
    ] = None,
) -> None:
    """Measure the tax of training: both policies play the same test tasks with the same random numbers.

    Examples: `gentax tax --tuned runs/sokoban/step-000100 --source sokoban --drop 5`, or, of two results of
    `gentax evaluate --suite`, `gentax tax --base before.json --tuned after.json --source sokoban`
    """
    from gentax.evals.paired_eval import (
        check_statsmodels,
        is_result,
        paired_evaluation,
        tax,
        tax_of_recorded,
        tax_of_results,
    )
    from gentax.metrics.behaviour import compare
    from gentax.metrics.behaviour import sentences as behaviour_sentences
    from gentax.metrics.forecast import read_fit
    from gentax.metrics.gate import read_gate
    from gentax.metrics.statistics import InterimAnalyses

    check_outputs(json, table)
    if gate is not None and forecast_only:
        raise UsageError("--gate judges a tax that is played, not the forecast of --forecast-only")
    limits = None if gate is None else read_gate(gate)
    if out is not None:
        from gentax.report.page import check_report_folder

        if forecast_only:
            raise UsageError("--out is for a tax that is played; with --forecast-only there is --json")
        check_report_folder(out)
    finish = partial(_finish, json=json, table=table, out=out, gate=limits)
    recorded = _recorded(results)
    target, harness = _harness_targets(target, recorded)
    touched_domains = _touched_domains(touched, tuned, {*recorded, *harness})
    if tuned is None:
        if not recorded:
            raise UsageError("give --tuned, the policy after training, or --results of others alone")
        if sensitivity or forecast_only or target or harness or pilot:
            raise UsageError("--sensitivity, --forecast-only, --target and --pilot are for policies that are played")
        return finish(tax_of_recorded(recorded, source, touched_domains), recorded)
    trained = o.read_domains([source])
    (source_name,) = trained
    levels = trained if harness and not target else {**o.read_domains(target), **trained}
    domains = (*levels, *recorded, *harness)
    if harness and (forecast_only or is_result(base) or is_result(tuned)):
        raise UsageError(f"{next(iter(harness))} is asked of two models, not of results nor for a forecast")
    if sensitivity:
        check_statsmodels()
    if is_result(base) and is_result(tuned):
        if sensitivity:
            raise UsageError("--sensitivity takes episodes: it is for policies that are played, not for result files")
        chosen = levels if target else None
        return finish(tax_of_results(Path(base), Path(tuned), source_name, chosen, touched_domains, recorded), domains)
    if is_result(base) or is_result(tuned):
        tax(base, tuned, source_name)  # raises the error that explains it
    forecast_fit = read_fit(fit) if forecast_only else None
    policies = o.load_pair(base, tuned, model)  # both are loaded before either plays
    if forecast_fit is not None:
        return _forecast(*policies, source_name, levels[source_name], config, seed, forecast_fit, json, table)
    if len(levels) < 2 and not recorded and not harness:
        raise UsageError(f"no target: the tax of {source_name} needs at least one other domain")
    if limits is not None:
        limits.check(name for name in domains if name != source_name)
    analyses = InterimAnalyses(interim_analyses)
    pilot_tasks, earlier_pilot = _pilot(pilot, drop)
    tasks = _plan_tasks(levels, source_name, analyses, tasks, drop, pilot_tasks, earlier_pilot)
    for name, task in harness.items():
        print_text(f"  lm-evaluation-harness asks both models {name}.")
        recorded[name] = task.measure(*policies, limit=tasks)
    played = paired_evaluation(
        *policies,
        source_name,
        levels,
        tasks=tasks,
        analyses=analyses,
        samples=samples,
        config=config,
        seed=seed,
        parallel=parallel,
        touched=touched_domains,
        chance=not no_chance,
        recorded=recorded,
        pilot=pilot_tasks,
        drop=drop if pilot_tasks is not None else None,
        on_pilot=partial(_print_pilot, analyses, drop),
        on_analysis=partial(_print_interim, tasks=tasks if pilot_tasks is None else None),
        decided=None if limits is None else limits.settled,
        stop_if_unreadable=not allow_unreadable,
        progress=True,
    )
    if played.played < played.planned:
        clear = "verdict" if limits is None else "outcome of the gate"
        print_text(f"  stopped after {played.played} of {played.planned} episodes a policy: the {clear} is clear")
    before, after = ([e for of in one.episodes.values() for e in of] for one in (played.base, played.tuned))
    lines = behaviour_sentences(compare(before, after))
    for one in (played.base, played.tuned):
        lines += one.truncation().sentences(one.policy)
    if played.report.analysis < interim_analyses:
        lines.append("Behaviour: corrected for the number of measures, but not for when playing stopped.")
    if sensitivity:
        from gentax.evals.paired_eval import mixed_model

        lines += mixed_model(played.base, played.tuned, source_name).sentences()
    settings = {"play": plain(config), "seed": seed, "interim_analyses": interim_analyses}
    finish(played.report, domains, lines, (played.base, played.tuned), settings)


def _recorded(results: list[str] | None) -> dict[str, RecordedScores]:
    """Read `--results`. Raises UsageError."""
    from gentax.integrations.sample_logs import ResultsOption

    recorded: dict[str, RecordedScores] = {}
    for option in map(ResultsOption.parse, results or ()):
        if option.name in recorded:
            raise UsageError(f"--results {option.name} is given twice")
        recorded[option.name] = option.read()
    return recorded


def _harness_targets(
    target: list[str] | None, recorded: Collection[str]
) -> tuple[list[str] | None, dict[str, HarnessTarget]]:
    """Part `--target` into domains and tasks of lm-evaluation-harness. Raises UsageError."""
    from gentax.integrations.lm_eval import PREFIX, HarnessTarget

    harness: dict[str, HarnessTarget] = {}
    for text in target or ():
        if text.startswith(PREFIX):
            task = HarnessTarget.parse(text)
            if task.name in harness or task.name in recorded:
                raise UsageError(f"--target {task.name} is given twice")
            harness[task.name] = task
    return [text for text in target or () if not text.startswith(PREFIX)] or None, harness


def _touched_domains(named: list[str] | None, tuned: str | None, recorded: Collection[str]) -> frozenset[str]:
    """Return the domains that entered training: those that are named, and those of the run that `tuned` is from."""
    from gentax.training.check import touched_by_run

    others = frozenset(name for name in named or () if name in recorded)
    domains = [name for name in named or () if name not in others]
    named_domains = others | frozenset(o.read_domains(domains) if domains else ())
    return named_domains | ((touched_by_run(Path(tuned)) if tuned else None) or frozenset())


def _pilot(pilot: str | None, drop: float | None) -> tuple[int | None, Pilot | None]:
    """Return the number of tasks of a pilot that is to be played, or a pilot that was."""
    from gentax.core.files import read_json
    from gentax.metrics.statistics import Pilot

    if pilot is None:
        return None, None
    if drop is None:
        raise UsageError("--pilot says how many tasks a drop takes: give --drop, in points, too")
    if pilot.isdecimal():
        if int(pilot) < 2:
            raise UsageError(f"a pilot needs at least 2 tasks of each domain, not {pilot}")
        return int(pilot), None
    content = read_json(pilot)
    values = content.get("pilot") if isinstance(content, dict) else None
    if values is None:
        raise UsageError(f"{pilot} holds no pilot; `gentax tax … --json FILE` writes one")
    return None, Pilot.from_json(values, pilot)


def _plan_tasks(
    levels: Mapping[str, str | None],
    source_name: str,
    analyses: InterimAnalyses,
    tasks: int | None,
    drop: float | None,
    pilot_tasks: int | None,
    pilot: Pilot | None,
) -> int:
    """Print which drop can be detected; return how many tasks of each domain are played at most."""
    from gentax.evals.evaluate import tasks_of
    from gentax.metrics.statistics import required_sample_size
    from gentax.metrics.statistics.power import VARIANCE

    targets = len(levels) - 1
    if not targets:  # all are results of others
        return DEFAULT_TASKS if tasks is None else tasks
    if drop is not None and pilot_tasks is None:
        needed = required_sample_size(drop, targets, analyses, VARIANCE if pilot is None else pilot.variance)
        print_text(
            f"  To see a mean drop of {drop:g} points over {targets} targets takes {needed} tasks of each, "
            f"{needed * targets} episodes a policy."
        )
        tasks = needed if tasks is None else tasks
    tasks = DEFAULT_TASKS if tasks is None else tasks
    listed = {name: len(of) for name, of in tasks_of(levels, tasks).items()}
    print_text(f"  {name} has {count} test tasks." for name, count in listed.items() if count < tasks)
    if pilot_tasks is not None:
        print_text(f"  A pilot of {pilot_tasks} tasks of each domain says how many a drop of {drop:g} points takes.")
        return tasks
    _print_power(min(count for name, count in listed.items() if name != source_name), targets, analyses, pilot, drop)
    print_text(f"  At most {sum(listed.values())} tasks a policy, with {analyses.count} interim analyses.")
    return tasks


def _print_power(
    tasks: int, targets: int, analyses: InterimAnalyses, pilot: Pilot | None, drop: float | None = None
) -> None:
    from gentax.metrics.statistics.power import power_sentences

    print_text(f"  {sentence}" for sentence in power_sentences(tasks, targets, analyses, pilot, drop))


def _print_pilot(analyses: InterimAnalyses, drop: float | None, pilot: Pilot, tasks: int) -> None:
    print_text(f"  pilot: {tasks} tasks of each domain are played.")
    _print_power(tasks, pilot.targets, analyses, pilot, drop)


def _print_interim(report: TaxReport, tasks: int | None) -> None:
    """Print an interim result; after the first also what all of them can detect, now that variances are known."""
    from gentax.metrics.statistics import InterimAnalyses
    from gentax.metrics.verdict import headline

    print_text(f"  interim analysis {report.analysis} of {report.analyses}: tax {headline(report)}")
    if report.analysis == 1 < report.analyses and tasks is not None and report.pilot is not None:
        least = min(tasks, *(round(report.tasks[t] * report.analyses) for t in report.targets))
        _print_power(least, len(report.targets), InterimAnalyses(report.analyses), report.pilot)


def _forecast(
    base: Policy,
    tuned: Policy,
    source: str,
    level: str | None,
    config: RolloutConfig,
    seed: int,
    fit: Fit,
    json: Path | None,
    table: Path | None,
) -> None:
    from gentax.evals.kl_forecast import KLForecast, source_kl

    forecast = KLForecast(source, source_kl(base, tuned, source, level, config, seed, progress=True), fit, base.name)
    print_text(forecast.sentences())
    runtime = {"base": getattr(base, "runtime", None), "tuned": getattr(tuned, "runtime", None)}
    write_result(json, {**forecast.to_json(), "runtime": runtime})
    write_rows(table, [forecast])


def _finish(
    report: TaxReport,
    domains: Iterable[str],
    behaviour: Sequence[str] = (),
    evaluations: tuple[Evaluation, Evaluation] | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    *,
    json: Path | None,
    table: Path | None,
    out: Path | None,
    gate: Gate | None,
) -> None:
    """Print a report and write it; with a gate, end with its outcome and exit code."""
    from gentax.metrics.verdict import sentences

    print_text_table(report.table())
    print_text([*sentences(report), *behaviour])
    result = {**report.to_json(), "sentences": sentences(report), "behaviour": [*behaviour]}
    sides = zip(("base", "tuned"), evaluations or (), strict=False)
    if usage := {name: asdict(side.usage) for name, side in sides if side.usage is not None}:
        result["usage"] = usage
    judged = None if gate is None else gate.judged(report)
    if judged is not None:
        result["gate"] = judged.to_json()
    write_result(json, result)
    write_rows(table, [report])
    if out is not None:
        from gentax.report.page import write_tax

        save(out, lambda folder: write_tax(folder, report, result, tuple(domains), settings, evaluations, judged))
        print_text(f"wrote {out / 'report.html'}, and next to it episodes, tables and figures")
    if judged is not None:
        console.print()
        print_text_table(judged.table())
        print_text(f"gate: {judged.outcome}")
        raise typer.Exit(judged.exit_code)
