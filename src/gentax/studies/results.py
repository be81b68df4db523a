"""From the evaluations of a study to its numbers, their JSON and the report; to a comparison of studies; to a fit.

The numbers are computed from the scores that each evaluation stores; only the report reads episodes.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gentax.core import Episode, UsageError
from gentax.core.imports import installed_versions
from gentax.core.results import Tabular
from gentax.core.settings import plain
from gentax.domains import domain
from gentax.metrics.arms import ArmReport, compare_arms, ood_rank_scores
from gentax.metrics.axes import Axes, axes
from gentax.metrics.claim_testing import ClaimResult
from gentax.metrics.diversity import diversity
from gentax.metrics.episode_scores import error_free_scores
from gentax.metrics.forecast import MIN_DOMAINS, Fit, TrainingRun, features_of, read_fit
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import tax_report
from gentax.metrics.verdict import arm_sentence, headline, sentences
from gentax.report import ArmComparison, ArmResult, EpisodeSet, ForecastCheck, LearningCurve, Report
from gentax.report.text import row_name
from gentax.rollouts import make_env
from gentax.rollouts.prompt import episode_prompts
from gentax.studies.claim_parser import assess_claims
from gentax.studies.plan import Plan, Stage
from gentax.studies.stages import SCORES
from gentax.studies.store import Store
from gentax.studies.study import Study

BOOTSTRAP_SEED = 0
SHIPPED_FIT = "sources"
PACKAGES = ("gentax", "torch", "transformers", "numpy", "scienceworld")  # whose versions the report names
Cell = tuple[str, str]  # (arm, source)


@dataclass(frozen=True)
class StudyResults:
    """Every number of a study that scores say."""

    study: Study
    results: tuple[ArmResult, ...]  # arms x sources, over all seeds, on the same test tasks
    comparison: ArmComparison
    claims: tuple[ClaimResult, ...] = ()

    def to_json(self) -> dict[str, Any]:
        rows = []
        for result in self.results:
            text, baseline_tax = sentences(result.tax), result.baseline_tax
            if result.versus_baseline is not None:
                text.append(arm_sentence(result.versus_baseline, result.baseline))
            row: dict[str, Any] = {"arm": result.arm, **result.tax.to_json(), "baseline": result.baseline or None}
            row["baseline_tax"] = None if baseline_tax is None else baseline_tax.to_json()
            rows.append(row | {"sentences": text})
        arms, ranks = self.comparison.arms, self.comparison.ranks
        return {
            "study": plain(self.study),
            "results": rows,
            "arms": {source: {name: arm.to_json() for name, arm in of.items()} for source, of in arms.items()},
            "ranks": {arm: {source: e.to_json() for source, e in of.items()} for arm, of in ranks.items()},
            "claims": [claim.to_json() for claim in self.claims],
        }


@dataclass(frozen=True)
class StudyScores:
    """Success on the tasks of every domain."""

    init: dict[str, np.ndarray]  # domain -> (K,)
    random: dict[str, np.ndarray]  # domain -> (K,) of random play
    after: dict[Cell, dict[str, np.ndarray]]  # cell -> domain -> (S, K)
    clusters: dict[str, list[str]]  # domain -> the content of each task


def read_scores(plan: Plan, store: Store) -> StudyScores:
    """Return the success of every policy of a study whose evaluations are done. Raises DamagedStage."""
    study = plan.study
    scores = StudyScores({}, {}, {cell: {} for cell in itertools.product(study.arms, study.sources)}, {})
    for name in study.domains:
        scores.init[name], scores.clusters[name] = _read_scores(store, plan.init[name])
        scores.random[name], _ = _read_scores(store, plan.random[name])
        for (arm, source), of_domain in scores.after.items():
            stages = [plan.after[arm, source, seed, name] for seed in study.seeds]
            of_domain[name] = np.stack([_read_scores(store, stage)[0] for stage in stages])
    return scores


def analyze(plan: Plan, store: Store) -> StudyResults:
    """Compute the results of a study whose evaluations are done. Raises DamagedStage."""
    study, scores = plan.study, read_scores(plan, store)
    comparison = _compare(study, scores)
    results = tuple(_result(study, scores, cell, comparison) for cell in scores.after)
    claims = assess_claims(study, scores.init, scores.random, scores.after, scores.clusters)
    return StudyResults(study, results, comparison, claims)


def _read_scores(store: Store, stage: Stage) -> tuple[np.ndarray, list[str]]:
    """Return the success on each task, shape (K,), NaN for an error, and each task's content."""
    values = store.json(stage, SCORES)
    return np.array([math.nan if value is None else value for value in values["success"]], float), values["content"]


def base_axes(plan: Plan, store: Store) -> tuple[Axes, ...]:
    """Return the axes of each domain under the base model. Raises DamagedStage."""
    from gentax.models.chat import ChatCodec
    from gentax.models.loading import load_tokenizer

    study, of_domains = plan.study, []
    encode: Callable[[str], Any] = ChatCodec(load_tokenizer(study.model, study.options)).encode_text
    prompts = partial(episode_prompts, study.evaluate)
    for name, stage in plan.init.items():
        with make_env(study.evaluate, name, study.domains[name].level) as env:
            of_domains.append(axes(name, store.episodes(stage), env.horizon, prompts=prompts, encode=encode))
    return tuple(of_domains)


def _result(study: Study, scores: StudyScores, cell: Cell, comparison: ArmComparison) -> ArmResult:
    arm, source = cell
    report = partial(tax_report, source, scores.init, clusters=scores.clusters, touched=study.touched(*cell))
    tax, baseline = report(scores.after[cell], chance=scores.random), study.baseline(arm)
    if baseline is None:
        return ArmResult(tax, arm)
    baseline_tax = headline(report(scores.after[baseline, source]))
    return ArmResult(tax, arm, baseline, comparison.arms[source][arm], baseline_tax)


def _compare(study: Study, scores: StudyScores) -> ArmComparison:
    """Compare arms with their baselines; rank the sources where there are several."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    baselines = {arm: baseline for arm in study.arms if (baseline := study.baseline(arm)) is not None}
    arms: dict[str, dict[str, ArmReport]] = {}
    for source, baseline in itertools.product(study.sources, dict.fromkeys(baselines.values())):
        group = [baseline, *(arm for arm, of in baselines.items() if of == baseline)]
        compared = compare_arms(
            source,
            scores.init,
            {arm: scores.after[arm, source] for arm in group},
            rng,
            baseline,
            clusters=scores.clusters,
            touched=frozenset().union(*(study.touched(arm, source) for arm in group)),
        )
        arms.setdefault(source, {}).update(compared)
    ranks = {}
    for arm in study.arms:
        after = {source: scores.after[arm, source] for source in study.sources}
        kept, _ = error_free_scores({"init": scores.init, **{f"after {s}": x for s, x in after.items()}})
        if len(study.sources) > 2 or (len(study.sources) == 2 and len(study.domains) > 2):
            ranks[arm] = ood_rank_scores({s: kept.roles[f"after {s}"] for s in after}, rng)
    return ArmComparison(arms, ranks, baselines)


def study_report(
    plan: Plan, computed: StudyResults, axes: tuple[Axes, ...], store: Store, file: tuple[str, str] | None = None
) -> Report:
    """Return the report of a study.

    Episodes are read when it is written. `file` is the path of the study file as it was given, and its text; where
    there is none, the page quotes one that says the same.

    Raises:
        DamagedStage: here, and when the report is written.
    """
    study = plan.study
    first = next(iter(study.arms))
    stages = [stage for stage in plan.stages() if stage is not plan.report]
    path, text = file or (f"{study.name}.yaml", yaml.safe_dump(plain(study), sort_keys=False, allow_unicode=True))
    return Report(
        title=f"gentax study: {study.name}",
        about=study.about,
        domains=tuple(study.domains),
        results=computed.results,
        curves=tuple(
            LearningCurve(source, _metrics(store.check(stage, "metrics") / "metrics.jsonl"), arm, seed)
            for (arm, source, seed), stage in plan.trained.items()
        ),
        comparison=computed.comparison,
        claims=computed.claims,
        axes=axes,
        forecasts=_forecasts(study, computed, axes),
        episodes=_episode_sets(plan, store.episodes),
        settings={
            "domains": {
                name: f"{target.level or domain(name).default_level}, {target.tasks} {study.split} tasks"
                for name, target in study.domains.items()
            },
            "seeds": ", ".join(map(str, study.seeds)),
            "arms": {name: changes or "as below" for name, changes in study.arms.items()},
            f"train, {first}": plain(study.train_config(study.sources[0], first, study.seeds[0])),
            "evaluate": plain(study.evaluate),
        },
        versions=installed_versions(*PACKAGES) | {"python": platform.python_version()},
        command=shlex.join(["gentax", "study", "run", path]),
        study_file=(path, text),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        seconds=sum(store.seal(stage)["seconds"] for stage in stages),
    )


def _episode_sets(plan: Plan, read: Callable[[Stage], list[Episode]]) -> tuple[EpisodeSet, ...]:
    study = plan.study
    base = [EpisodeSet(name, partial(read, stage)) for name, stage in plan.init.items()]
    trained = [
        EpisodeSet(name, partial(read, stage), arm if len(study.sources) == 1 else f"{source}, {arm}", seed)
        for (arm, source, seed, name), stage in plan.after.items()
    ]
    return (*base, *trained)


def _forecasts(study: Study, computed: StudyResults, axes: tuple[Axes, ...]) -> tuple[ForecastCheck, ...]:
    """Forecast each policy that RL alone has trained from runs on other sources, as one would have before training.

    The runs are those of the study itself where its sources are enough, or else those of the fit that ships with gentax
    where it is of the same base model. Domains in wrappers are left out: nobody has probed them.
    """
    features = {of_domain.domain: features_of(of_domain) for of_domain in axes}
    rows: dict[str, list[tuple[ArmResult, TrainingRun]]] = {}
    for result in computed.results:
        source, tax, gain = result.tax.source, result.tax.tax, result.tax.delta_id
        config = study.train_config(source, result.arm, study.seeds[0])
        rl_alone = config.updates and config.sft is None and not config.curriculum.phases and not config.rollout.wrap
        if tax and gain and rl_alone:
            numbers = (tax.value, tax.low, tax.high, gain.value)
            run = TrainingRun(source, result.arm, config.updates, len(study.seeds), features[source], *numbers)
            rows.setdefault(result.arm, []).append((result, run))
    shipped, found = read_fit(SHIPPED_FIT), []
    for of_arm in rows.values():
        own = Fit(study.name, "", study.model, tuple(study.domains), tuple(run for _, run in of_arm))
        for fit in (own, shipped):
            if fit.base != study.model:
                continue
            checks = []
            for result, run in of_arm:
                if len({*fit.domains} - {run.source}) < MIN_DOMAINS:
                    continue
                others = fit.without(run.source)
                forecast = others.forecast(run.features)
                if forecast.tax is not None and result.tax.tax:
                    why = f"From study {fit.name}, {fit.steps} steps on {len(others.domains)} sources; {forecast.why}"
                    checks.append(ForecastCheck(row_name(result, computed.results), forecast.tax, result.tax.tax, why))
            if checks:
                found += checks
                break
    return tuple(found)


def _metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the logged metrics of a run's steps; a run of supervised fine-tuning alone has none."""
    return tuple(json.loads(line) for line in path.read_text().splitlines()) if path.is_file() else ()


def settings_differences(first: Plan, second: Plan) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two studies differ, by their path, such as `train.learning_rate`."""
    one, two = (dict(_flatten(plain(plan.study))) for plan in (first, second))
    both = {key: (one.get(key), two.get(key)) for key in one | two}
    return {key: values for key, values in both.items() if key not in ("name", "about") and values[0] != values[1]}


def _flatten(values: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


@dataclass(frozen=True)
class CellComparison(Tabular):
    """One arm on one source, in both studies."""

    arm: str
    source: str
    first_tax: Estimate | Undefined
    second_tax: Estimate | Undefined
    change: ArmReport | None  # the second study's against the first one's; None where their tasks do not pair

    def rows(self) -> list[dict[str, Any]]:
        """Return one row: both taxes, and the change on the targets in points."""
        change = None if self.change is None else self.change.targets
        taxes = {"first_tax": self.first_tax, "second_tax": self.second_tax}
        return [{"arm": self.arm, "source": self.source, **taxes, "change": change}]

    def to_json(self) -> dict[str, Any]:
        change = None if self.change is None else self.change.to_json()
        taxes = {"first_tax": self.first_tax.to_json(), "second_tax": self.second_tax.to_json()}
        return {"arm": self.arm, "source": self.source, **taxes, "change": change}


def compare_studies(first: Plan, second: Plan, store: Store) -> list[CellComparison]:
    """Compare the arms that two finished studies have in common, on the domains that both evaluate.

    The difference is paired by task where both played the same tasks in the same way with the same base.

    Raises:
        UsageError: a study that is not done, or studies that share no arm and source, or no two domains.
        DamagedStage: a stored file is not what was stored.
    """
    for plan in (first, second):
        if missing := [stage for stage in plan.stages() if stage.kind == "evaluate" and not store.has(stage)]:
            raise UsageError(f"study {plan.study.name}: {len(missing)} evaluations are not done; run it first")
    one, two = first.study, second.study
    cells = [
        cell for cell in itertools.product(one.arms, one.sources) if cell[0] in two.arms and cell[1] in two.sources
    ]
    shared = [name for name in one.domains if name in two.domains]
    if not cells or len(shared) < 2:
        raise UsageError(f"studies {one.name} and {two.name} share no arm on a source with another domain")
    scores = [read_scores(plan, store) for plan in (first, second)]
    paired = all(first.init[name] == second.init[name] for name in shared)
    inits = [{name: of.init[name] for name in shared} for of in scores]
    compared = []
    for arm, source in cells:
        marked = one.touched(arm, source) | two.touched(arm, source)  # taxes are on targets that neither study touched
        afters = [{name: of.after[arm, source][name] for name in shared} for of in scores]
        taxes = [
            headline(tax_report(source, init, after, clusters=of.clusters, touched=marked))
            for init, after, of in zip(inits, afters, scores, strict=True)
        ]
        change = None
        if paired:
            rng = np.random.default_rng(BOOTSTRAP_SEED)
            arms = dict(zip(("first", "second"), afters, strict=True))
            of_arms = compare_arms(source, inits[0], arms, rng, "first", clusters=scores[0].clusters, touched=marked)
            change = of_arms["second"]
        compared.append(CellComparison(arm, source, taxes[0], taxes[1], change))
    return compared


def fit_study(plan: Plan, store: Store, log: Callable[[str], None], trajectories: int | None = None) -> Fit:
    """Return the fit of a study that is done. `trajectories` episodes probe a domain, and as many take a KL.

    Domains are probed, and the KL of policies is taken, on tasks of the train split: the features of a forecast
    share no task with the evaluation. Wrappers of an arm's training are part of what is probed.

    Raises:
        UsageError: a study whose training or evaluation is not done, or whose taxes are undefined.
    """
    from gentax.evals.kl_forecast import source_kl
    from gentax.evals.probe import TRAJECTORIES, probe
    from gentax.policies.local import load_local_policy
    from gentax.training.run_folder import latest_model

    trajectories = trajectories or TRAJECTORIES
    study = plan.study
    required = (*plan.init.values(), *plan.trained.values(), *plan.after.values())
    missing = [stage for stage in required if not store.has(stage)]
    if missing:
        raise UsageError(f"study {study.name}: {len(missing)} stages are not done; run `gentax study run` first")
    results = analyze(plan, store).results
    for result in results:
        if not result.tax.tax or not result.tax.delta_id:
            undefined = result.tax.delta_id if result.tax.tax else result.tax.tax
            raise UsageError(f"study {study.name}: the tax of {result.arm} on {result.tax.source} is {undefined}")
    base = load_local_policy(study.model, study.options)
    levels = {name: target.level for name, target in study.domains.items()}
    log("probing the domains")
    probe_domains = partial(probe, policy=base, trajectories=trajectories, config=replace(study.evaluate, wrap=()))
    probes = {p.domain: p for p in probe_domains(levels)}
    distance = diversity(probes.values()).pairs["unseen"]
    rows = []
    for result in results:
        source, arm = result.tax.source, result.arm
        config = study.train_config(source, arm, study.seeds[0])
        log(f"{arm} on {source}")
        source_probe = probes[source]
        if config.rollout.wrap:
            (source_probe,) = (p for p in probe_domains({source: levels[source]}, wrap=config.rollout.wrap) if p.plain)
        kls = []
        for seed in study.seeds:
            tuned = load_local_policy(latest_model(store.check(plan.trained[arm, source, seed])), study.options)
            kls.append(source_kl(base, tuned, source, levels[source], study.evaluate, tasks=trajectories).value)
        tax, gain = result.tax.tax, result.tax.delta_id
        assert tax  # seen above
        assert gain
        unseen = float(np.mean([distance[probes[source].name][probes[t].name].value for t in result.tax.targets]))
        features = {**features_of(source_probe.axes, unseen), "kl": float(np.mean(kls))}
        interval = (tax.value, tax.low, tax.high)
        rows.append(TrainingRun(source, arm, config.updates, len(study.seeds), features, *interval, gain.value))
    about = f"study {study.name}: {', '.join(study.arms)} on {len(study.sources)} sources, seeds {list(study.seeds)}"
    return Fit(study.name, about, study.model, tuple(study.domains), tuple(rows))
