"""`gentax tax`"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.options import SettingsGroup, with_settings
from gentax.cli.output import console, print_text, print_text_table, save, write_result, write_rows
from gentax.core.errors import UsageError
from gentax.core.settings import plain

if TYPE_CHECKING:
    from gentax.evals.evaluate import Evaluation
    from gentax.integrations.lm_eval import HarnessTarget
    from gentax.metrics.episode_scores import RecordedScores
    from gentax.metrics.forecast import Fit
    from gentax.metrics.gate import Gate
    from gentax.metrics.statistics import InterimAnalyses, Pilot
    from gentax.metrics.tax import TaxReport
    from gentax.policies import Policy
    from gentax.rollouts import EvalRolloutConfig

DEFAULT_TASKS = 128  # tasks of each domain where neither --tasks nor --drop says


@dataclass(frozen=True)
class TaxOptions:
    """What is compared on which targets, and what ends the playing."""

    source: str
    """The domain it was trained on, `NAME` or `NAME:LEVEL`."""
    tuned: Annotated[
        str | None, typer.Option(help=f"The policy after training: {o.POLICY[:-1]}; or a suite's result.")
    ] = None
    base: str = "base"
    """The policy before training, likewise; `base` ships with gentax."""
    target: Annotated[tuple[str, ...], typer.Option("--target", "--targets", "-t", metavar="NAME[:LEVEL]")] = ()
    """Another domain; all that are installed without it. `lm-eval:TASK[:METRIC]` is a task that lm-evaluation-harness
    asks of both models; write the others, too."""
    tasks: Annotated[
        int | None, typer.Option(help=f"Test tasks of each domain; {DEFAULT_TASKS}, or what --drop takes.", min=2)
    ] = None
    drop: float | None = None
    """The mean loss on the targets, in points, that must be detected."""
    pilot: Annotated[str | None, typer.Option(metavar="N|FILE")] = None
    """What --drop takes is worked out from the first N tasks of each domain, or from a result of --json."""
    results: Annotated[tuple[str, ...], typer.Option(metavar="NAME[:METRIC]=BEFORE,AFTER")] = ()
    """Another target, of two logs that others wrote: lm-evaluation-harness's samples, Inspect's logs, verifiers'
    traces. May be repeated; without --tuned nothing is played."""
    touched: Annotated[tuple[str, ...], typer.Option(metavar="DOMAIN")] = ()
    """A target whose text, states or experts entered training; those of a gentax run are known."""
    no_chance: bool = False
    """Leave out random play, and with it success above chance."""
    sensitivity: bool = False
    """Also estimate the tax under a logistic mixed model, which takes statsmodels."""
    interim_analyses: Annotated[int, typer.Option(min=1, max=20)] = 5
    """How many interim analyses there are; playing stops at the first one with a clear verdict."""
    forecast_only: bool = False
    """Play no target: forecast the tax from the KL on the source alone."""
    fit: str = "sources"
    """What --forecast-only rests on: a fit that ships, or a file of `study fit`."""
    gate: Annotated[Path | None, typer.Option(metavar="FILE")] = None
    """Limits as YAML that the result is judged by: exit code 0 for PASS and WARN, 3 for FAIL, 4 for INCONCLUSIVE.
    Playing stops once the gate is clear."""
    samples: o.Samples = 1


@with_settings
def tax(
    asked: Annotated[TaxOptions, SettingsGroup()],
    config: o.RolloutArgs,
    model: o.ModelArgs,
    options: o.RunArgs,
    json: o.Json = None,
    table: o.Table = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the page, episodes, tables and a picture of the matrix."),
    ] = None,
) -> None:
    """Measure the tax of training: both policies play the same test tasks with the same random numbers.

    Examples: `gentax tax --tuned runs/sokoban/step-000100 --source sokoban --drop 5`, or, of two results of
    `gentax evaluate --suite`, `gentax tax --base before.json --tuned after.json --source sokoban`
    """
    from gentax.evals.paired_eval import (
        check_statsmodels,
        is_result,
        mixed_model,
        paired_evaluation,
        tax_of_recorded,
    )
    from gentax.evals.paired_eval import tax as run
    from gentax.metrics.behaviour import compare, sentences
    from gentax.metrics.forecast import read_fit
    from gentax.metrics.gate import read_gate
    from gentax.metrics.statistics import InterimAnalyses

    base, tuned = asked.base, asked.tuned
    if asked.gate is not None and asked.forecast_only:
        raise UsageError("--gate judges a tax that is played, not the forecast of --forecast-only")
    limits = None if asked.gate is None else read_gate(asked.gate)
    if out is not None:
        from gentax.report.page import check_report_folder

        if asked.forecast_only:
            raise UsageError("--out is for a tax that is played; with --forecast-only there is --json")
        check_report_folder(out)
    finish = partial(_finish, json=json, table=table, out=out, gate=limits)
    recorded = _recorded(asked.results)
    target, harness = _harness_targets(asked.target, recorded)
    touched = _touched_domains(asked.touched, tuned, {*recorded, *harness})
    if tuned is None:
        if not recorded:
            raise UsageError("give --tuned, the policy after training, or --results of others alone")
        if asked.sensitivity or asked.forecast_only or asked.target or asked.pilot:
            raise UsageError("--sensitivity, --forecast-only, --target and --pilot are for policies that are played")
        return finish(tax_of_recorded(recorded, asked.source, touched), recorded)
    trained = o.read_domains([asked.source])
    (source,) = trained
    levels = trained if harness and not target else {**o.read_domains(target), **trained}
    domains = (*levels, *recorded, *harness)
    if harness and (asked.forecast_only or is_result(base) or is_result(tuned)):
        raise UsageError(f"{next(iter(harness))} is asked of two models, not of results nor for a forecast")
    if asked.sensitivity:
        check_statsmodels()
    if is_result(base) or is_result(tuned):
        if asked.sensitivity:
            raise UsageError("--sensitivity takes episodes: it is for policies that are played, not for result files")
        chosen = levels if target else None
        return finish(run(base, tuned, source, chosen, touched=touched, recorded=recorded), domains)
    forecast_fit = read_fit(asked.fit) if asked.forecast_only else None
    policies = o.load_pair(base, tuned, model)  # both are loaded before either plays
    if forecast_fit is not None:
        return _forecast(*policies, source, levels[source], config, options.seed, forecast_fit, json, table)
    if len(levels) < 2 and not recorded and not harness:
        raise UsageError(f"no target: the tax of {source} needs at least one other domain")
    if limits is not None:
        limits.check(name for name in domains if name != source)
    analyses = InterimAnalyses(asked.interim_analyses)
    pilot_tasks, earlier_pilot = _pilot(asked.pilot, asked.drop)
    tasks = _plan_tasks(levels, source, analyses, asked, pilot_tasks, earlier_pilot)
    for name, task in harness.items():
        print_text(f"  lm-evaluation-harness asks both models {name}.")
        recorded[name] = task.measure(*policies, limit=tasks)
    played = paired_evaluation(
        *policies,
        source,
        levels,
        tasks=tasks,
        analyses=analyses,
        samples=asked.samples,
        config=config,
        touched=touched,
        chance=not asked.no_chance,
        recorded=recorded,
        pilot=pilot_tasks,
        drop=asked.drop if pilot_tasks is not None else None,
        on_pilot=partial(_print_pilot, analyses, asked.drop),
        on_analysis=partial(_print_interim, tasks=tasks if pilot_tasks is None else None),
        decided=None if limits is None else limits.settled,
        **options.arguments(),
    )
    if played.played < played.planned:
        clear = "verdict" if limits is None else "outcome of the gate"
        print_text(f"  stopped after {played.played} of {played.planned} episodes a policy: the {clear} is clear")
    both = played.base, played.tuned
    lines = sentences(compare(*(one.all_episodes() for one in both)))
    lines += [sentence for one in both for sentence in one.truncation().sentences(one.policy)]
    if played.report.analysis < analyses.count:
        lines.append("Behaviour: corrected for the number of measures, but not for when playing stopped.")
    if asked.sensitivity:
        lines += mixed_model(*both, source).sentences()
    settings = {"play": plain(config), "seed": options.seed, "interim_analyses": analyses.count}
    finish(played.report, domains, lines, both, settings)


def _recorded(results: Sequence[str]) -> dict[str, RecordedScores]:
    """Read `--results`. Raises UsageError."""
    from gentax.integrations.sample_logs import ResultsOption

    recorded: dict[str, RecordedScores] = {}
    for option in map(ResultsOption.parse, results):
        if option.name in recorded:
            raise UsageError(f"--results {option.name} is given twice")
        recorded[option.name] = option.read()
    return recorded


def _harness_targets(
    target: Sequence[str], recorded: Collection[str]
) -> tuple[list[str] | None, dict[str, HarnessTarget]]:
    """Part `--target` into domains and tasks of lm-evaluation-harness. Raises UsageError."""
    from gentax.integrations.lm_eval import PREFIX, HarnessTarget

    harness: dict[str, HarnessTarget] = {}
    for task in [HarnessTarget.parse(text) for text in target if text.startswith(PREFIX)]:
        if task.name in harness or task.name in recorded:
            raise UsageError(f"--target {task.name} is given twice")
        harness[task.name] = task
    return [text for text in target if not text.startswith(PREFIX)] or None, harness


def _touched_domains(named: Sequence[str], tuned: str | None, recorded: Collection[str]) -> frozenset[str]:
    """Return the domains that entered training: those that are named, and those of the run that `tuned` is from."""
    from gentax.training.check import touched_by_run

    domains = [name for name in named if name not in recorded]
    known = {*named} - {*domains} | {*(o.read_domains(domains) if domains else ())}
    return frozenset(known | ((touched_by_run(Path(tuned)) if tuned else None) or set()))


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
    source: str,
    analyses: InterimAnalyses,
    asked: TaxOptions,
    pilot_tasks: int | None,
    pilot: Pilot | None,
) -> int:
    """Print which drop can be detected; return how many tasks of each domain are played at most."""
    from gentax.evals.evaluate import tasks_of
    from gentax.metrics.statistics import required_sample_size
    from gentax.metrics.statistics.power import VARIANCE

    targets, tasks, drop = len(levels) - 1, asked.tasks, asked.drop
    if targets and drop is not None and pilot_tasks is None:
        needed = required_sample_size(drop, targets, analyses, VARIANCE if pilot is None else pilot.variance)
        print_text(
            f"  To see a mean drop of {drop:g} points over {targets} targets takes {needed} tasks of each, "
            f"{needed * targets} episodes a policy."
        )
        tasks = needed if tasks is None else tasks
    tasks = DEFAULT_TASKS if tasks is None else tasks
    if not targets:  # all are results of others
        return tasks
    listed = {name: len(of) for name, of in tasks_of(levels, tasks).items()}
    print_text(f"  {name} has {count} test tasks." for name, count in listed.items() if count < tasks)
    if pilot_tasks is not None:
        print_text(f"  A pilot of {pilot_tasks} tasks of each domain says how many a drop of {drop:g} points takes.")
        return tasks
    _print_power(min(count for name, count in listed.items() if name != source), targets, analyses, pilot, drop)
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
    config: EvalRolloutConfig,
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
