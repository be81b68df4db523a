"""From the evaluations of a study to its numbers, their JSON and the report.

The numbers are computed from the scores that each evaluation stores; only the report reads episodes.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode
from gentax.core.settings import plain
from gentax.domains import domain
from gentax.metrics.arms import ArmReport, compare_arms, ood_rank_scores
from gentax.metrics.axes import Axes, axes
from gentax.metrics.claims import ClaimResult
from gentax.metrics.episode_scores import drop_error_tasks
from gentax.metrics.tax import tax_report
from gentax.metrics.verdict import arm_sentence, headline, sentences
from gentax.models.chat import ChatCodec
from gentax.models.loading import load_tokenizer
from gentax.report import ArmComparison, Curve, EpisodePair, Report, Result
from gentax.report.model import representative_pairs
from gentax.rollouts import make_env
from gentax.rollouts.prompt import episode_prompts
from gentax.studies.claims import assess_claims
from gentax.studies.plan import Plan, Stage
from gentax.studies.stages import SCORES
from gentax.studies.store import Store
from gentax.studies.study import Study
from gentax.training.check import touched_by

BOOTSTRAP_SEED = 0
PACKAGES = ("gentax", "torch", "transformers", "numpy", "scienceworld")  # whose versions the report names
Cell = tuple[str, str]  # (arm, source)


@dataclass(frozen=True)
class StudyResults:
    """Every number of a study that scores say."""

    study: Study
    results: tuple[Result, ...]  # arms x sources, over all seeds, on the same test tasks
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
class Illustrations:
    """What the report shows of the episodes."""

    axes: tuple[Axes, ...]  # of each domain, under the base model
    pairs: tuple[EpisodePair, ...]  # of the first seed


@dataclass(frozen=True)
class _Scores:
    """Success on the tasks of every domain."""

    init: dict[str, np.ndarray]  # domain -> (K,)
    random: dict[str, np.ndarray]  # domain -> (K,) of random play
    after: dict[Cell, dict[str, np.ndarray]]  # cell -> domain -> (S, K)
    clusters: dict[str, list[str]]  # domain -> the content of each task


def analyze(plan: Plan, store: Store) -> StudyResults:
    """Compute the results of a study whose evaluations are done. Raises DamagedStage."""
    study = plan.study
    scores = _Scores({}, {}, {cell: {} for cell in itertools.product(study.arms, study.sources)}, {})
    for name in study.domains:
        scores.init[name], scores.clusters[name] = _read_scores(store, plan.init[name])
        scores.random[name], _ = _read_scores(store, plan.random[name])
        for (arm, source), of_domain in scores.after.items():
            stages = [plan.after[arm, source, seed, name] for seed in study.seeds]
            of_domain[name] = np.stack([_read_scores(store, stage)[0] for stage in stages])
    comparison = _compare(study, scores)
    results = tuple(_result(study, scores, cell, comparison) for cell in scores.after)
    claims = assess_claims(study, scores.init, scores.random, scores.after, scores.clusters)
    return StudyResults(study, results, comparison, claims)


def _read_scores(store: Store, stage: Stage) -> tuple[np.ndarray, list[str]]:
    """Return the success on each task, shape (K,), NaN for an error, and each task's content."""
    values = store.json(stage, SCORES)
    return np.array([math.nan if value is None else value for value in values["success"]], float), values["content"]


def illustrate(plan: Plan, store: Store) -> Illustrations:
    """Read the episodes that the report shows. Raises DamagedStage."""
    study = plan.study
    encode = ChatCodec(load_tokenizer(study.model, study.options)).encode_text
    domain_axes: list[Axes] = []
    pairs: list[EpisodePair] = []
    for name in study.domains:
        before = store.episodes(plan.init[name])
        domain_axes.append(_axes(study, name, before, encode))
        for arm, source in itertools.product(study.arms, study.sources):
            label = arm if len(study.sources) == 1 else f"{source}, {arm}"
            after = store.episodes(plan.after[arm, source, study.seeds[0], name])
            pairs += representative_pairs(before, after, label)
    return Illustrations(tuple(domain_axes), tuple(pairs))


def _axes(study: Study, name: str, episodes: list[Episode], encode: Callable[[str], Any]) -> Axes:
    """Return state richness and planning complexity of a domain, from the base model's episodes."""
    env = make_env(study.evaluate, name, study.domains[name].level)
    horizon = env.horizon
    env.close()
    return axes(name, episodes, horizon, prompts=partial(episode_prompts, study.evaluate), encode=encode)


def _touched(study: Study, arm: str, source: str) -> frozenset[str]:
    return touched_by(study.train_config(source, arm, study.seeds[0]))


def _result(study: Study, scores: _Scores, cell: Cell, comparison: ArmComparison) -> Result:
    arm, source = cell
    report = partial(tax_report, source, scores.init, clusters=scores.clusters, touched=_touched(study, *cell))
    tax, baseline = report(scores.after[cell], chance=scores.random), study.baseline(arm)
    if baseline is None:
        return Result(tax, arm)
    baseline_tax = headline(report(scores.after[baseline, source]))
    return Result(tax, arm, baseline, comparison.arms[source][arm], baseline_tax)


def _compare(study: Study, scores: _Scores) -> ArmComparison:
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
            touched=frozenset().union(*(_touched(study, arm, source) for arm in group)),
        )
        arms.setdefault(source, {}).update(compared)
    ranks = {}
    for arm in study.arms:
        after = {source: scores.after[arm, source] for source in study.sources}
        kept = drop_error_tasks([scores.init, *after.values()])[0][1:]
        if len(study.sources) > 2 or (len(study.sources) == 2 and len(study.domains) > 2):
            ranks[arm] = ood_rank_scores(dict(zip(after, kept, strict=True)), rng)
    return ArmComparison(arms, ranks, baselines)


def study_report(plan: Plan, computed: StudyResults, shown: Illustrations, store: Store) -> Report:
    """Return the report of a study. Raises DamagedStage."""
    study = plan.study
    first = next(iter(study.arms))
    stages = [stage for stage in plan.stages() if stage is not plan.report]
    return Report(
        title=f"gentax study: {study.name}",
        about=study.about,
        domains=tuple(study.domains),
        results=computed.results,
        curves=tuple(
            Curve(source, _metrics(store.check(stage, "metrics") / "metrics.jsonl"), arm, seed)
            for (arm, source, seed), stage in plan.trained.items()
        ),
        comparison=computed.comparison,
        claims=computed.claims,
        axes=shown.axes,
        pairs=shown.pairs,
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
        versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        command=f"gentax study run {study.name}",
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        seconds=sum(store.seal(stage)["seconds"] for stage in stages),
    )


def _metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the logged metrics of a run's steps; a run of supervised fine-tuning alone has none."""
    return tuple(json.loads(line) for line in path.read_text().splitlines()) if path.is_file() else ()
