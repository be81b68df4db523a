"""From the episodes of a study to its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gentax.core import Episode
from gentax.core.settings import plain
from gentax.evals.evaluate import scores_of
from gentax.metrics.arms import ArmReport, compare_arms, ood_rank_scores
from gentax.metrics.axes import Axes, axes
from gentax.metrics.episode_scores import content_of, leave_out_errors
from gentax.metrics.tax import tax_report
from gentax.metrics.verdict import arm_sentence, headline, sentences
from gentax.models.chat import ChatCodec
from gentax.models.loading import load_tokenizer
from gentax.report import ArmComparison, Result
from gentax.rollouts import make_env
from gentax.rollouts.prompt import episode_prompts
from gentax.studies.plan import Plan, Stage, Study
from gentax.training.check import touched_by

Read = Callable[[Stage], list[Episode]]
SEED = 0  # of what is resampled


def measure(todo: Plan, read: Read) -> dict[str, Any]:
    """Return every number of a study as JSON values."""
    found, compared = results(todo, read)
    rows = []
    for result in found:
        said = sentences(result.tax) + (
            [] if result.versus_baseline is None else [arm_sentence(result.versus_baseline, result.baseline)]
        )
        row: dict[str, Any] = {"arm": result.arm, **result.tax.to_json(), "baseline": result.baseline or None}
        row["baseline_tax"] = None if result.baseline_tax is None else result.baseline_tax.to_json()
        rows.append(row | {"sentences": said})
    return {
        "study": plain(todo.study),
        "results": rows,
        "arms": {source: {name: arm.to_json() for name, arm in of.items()} for source, of in compared.arms.items()},
        "ranks": {arm: {s: e.to_json() for s, e in of.items()} for arm, of in compared.ranks.items()},
        "axes": [a.to_json() for a in domain_axes(todo, read)],
    }


def results(todo: Plan, read: Read) -> tuple[list[Result], ArmComparison]:
    """Return the tax of every arm and source, over all seeds, on the same test tasks; and arms beside each other."""
    study, scored = todo.study, _scored(todo, read)  # episodes are read once: they are most of the work
    compared = _comparison(study, scored)
    made = []
    for arm, source in itertools.product(study.arms, study.sources):
        touched, baseline = touched_by(study.recipe(source, arm, study.seeds[0])), study.baseline(arm) or ""
        report = partial(tax_report, source, scored.init, clusters=scored.clusters, touched=touched)
        there = headline(report(scored.after[baseline, source])) if baseline else None
        beside = compared.arms[source][arm] if baseline else None
        made.append(Result(report(scored.after[arm, source], chance=scored.chance), arm, baseline, beside, there))
    return made, compared


def _comparison(study: Study, scored: _Scores) -> ArmComparison:
    """Return arms beside the arm that each is compared with, and sources ranked, of two and more."""
    rng = np.random.default_rng(SEED)
    baselines = {arm: baseline for arm in study.arms if (baseline := study.baseline(arm)) is not None}
    arms: dict[str, dict[str, ArmReport]] = {}
    for source, baseline in itertools.product(study.sources, dict.fromkeys(baselines.values())):
        group = [baseline, *(arm for arm, of in baselines.items() if of == baseline)]
        found = compare_arms(
            source,
            scored.init,
            {arm: scored.after[arm, source] for arm in group},
            rng,
            baseline,
            clusters=scored.clusters,
            touched=frozenset().union(*(touched_by(study.recipe(source, arm, study.seeds[0])) for arm in group)),
        )
        arms.setdefault(source, {}).update(found)
    ranks = {}
    for arm in study.arms:
        of = {source: scored.after[arm, source] for source in study.sources}
        kept = leave_out_errors([scored.init, *of.values()])[0][1:]
        if len(study.sources) > 2 or (len(study.sources) == 2 and len(study.domains) > 2):
            ranks[arm] = ood_rank_scores(dict(zip(of, kept, strict=True)), rng)
    return ArmComparison(arms, ranks, baselines)


@dataclass(frozen=True)
class _Scores:
    """Success on the tasks of every domain."""

    init: dict[str, np.ndarray]  # domain -> (K,)
    chance: dict[str, np.ndarray]  # domain -> (K,) of random play
    after: dict[tuple[str, str], dict[str, np.ndarray]]  # (arm, source) -> domain -> (S, K)
    clusters: dict[str, list[str]]  # domain -> the content of each task


def _scored(todo: Plan, read: Read) -> _Scores:
    study = todo.study
    init = {name: read(stage) for name, stage in todo.init.items()}
    return _Scores(
        {name: scores_of(episodes) for name, episodes in init.items()},
        {name: scores_of(read(stage)) for name, stage in todo.chance.items()},
        {
            (arm, source): {
                name: np.stack([scores_of(read(todo.after[arm, source, seed, name])) for seed in study.seeds])
                for name in study.domains
            }
            for arm, source in itertools.product(study.arms, study.sources)
        },
        {name: content_of(episodes) for name, episodes in init.items()},
    )


def domain_axes(todo: Plan, read: Read) -> list[Axes]:
    """Return where each domain lies under the starting policy, from the episodes of the init row."""
    study = todo.study
    encode = ChatCodec(load_tokenizer(study.base, study.options)).text
    found = []
    for name, stage in todo.init.items():
        env = make_env(study.evaluate, name, study.domains[name].level)
        horizon = env.horizon
        env.close()
        found.append(axes(name, read(stage), horizon, prompts=partial(episode_prompts, study.evaluate), encode=encode))
    return found
