"""From the episodes of a study to its numbers and its page."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode, Outcome
from gentax.core.settings import plain
from gentax.domains import domain
from gentax.measure.arms import compare_arms
from gentax.measure.axes import Axes, axes
from gentax.measure.evaluate import scores_of
from gentax.measure.left_out import content_of, leave_out_errors
from gentax.measure.ranks import ood_rank_scores
from gentax.measure.tax import tax_report
from gentax.measure.verdict import arm_sentence, sentences
from gentax.models.chat import ChatCodec
from gentax.models.loading import load_tokenizer
from gentax.report import Comparison, Curve, EpisodePair, Report, Result, write
from gentax.rollouts import open_env
from gentax.rollouts.prompt import prompts
from gentax.study.plan import Plan, Stage
from gentax.training.touched import touched_by

Read = Callable[[Stage], list[Episode]]
SEED = 0  # of what is resampled


def measure(todo: Plan, read: Read) -> dict[str, Any]:
    """Return every number of a study as JSON values."""
    compared = comparison(todo, read)
    rows = []
    for result in results(todo, read):
        arm = compared.arms.get(result.tax.source, {}).get(result.arm)
        said = sentences(result.tax) + ([] if arm is None else [arm_sentence(arm, compared.plain)])
        rows.append({"arm": result.arm, **result.tax.to_json(), "sentences": said})
    return {
        "study": plain(todo.study),
        "results": rows,
        "arms": {source: {name: arm.to_json() for name, arm in of.items()} for source, of in compared.arms.items()},
        "ranks": {arm: {s: e.to_json() for s, e in of.items()} for arm, of in compared.ranks.items()},
        "axes": [a.to_json() for a in domain_axes(todo, read)],
    }


def results(todo: Plan, read: Read) -> list[Result]:
    """Return the tax of every arm and source, over all seeds, on the same test tasks."""
    init = {name: scores_of(read(stage)) for name, stage in todo.init.items()}
    clusters = {name: content_of(read(stage)) for name, stage in todo.init.items()}
    study = todo.study

    def touched(arm: str, source: str) -> frozenset[str]:
        return touched_by(study.recipe(source, arm, study.seeds[0]))

    return [
        Result(
            tax_report(source, init, _after(todo, read, arm, source), clusters=clusters, touched=touched(arm, source)),
            arm,
        )
        for arm in todo.study.arms
        for source in todo.study.sources
    ]


def comparison(todo: Plan, read: Read) -> Comparison:
    """Return arms beside the plain one (the first, where none is called so) and sources ranked, of two and more."""
    study, rng = todo.study, np.random.default_rng(SEED)
    init = {name: scores_of(read(stage)) for name, stage in todo.init.items()}
    after = {arm: {s: _after(todo, read, arm, s) for s in study.sources} for arm in study.arms}
    plain_arm = "plain" if "plain" in study.arms else next(iter(study.arms))
    arms, ranks = {}, {}
    if len(study.arms) > 1:
        arms = {
            s: compare_arms(
                s,
                init,
                {arm: of[s] for arm, of in after.items()},
                rng,
                plain_arm,
                clusters={name: content_of(read(stage)) for name, stage in todo.init.items()},
                touched=frozenset().union(*(touched_by(study.recipe(s, arm, study.seeds[0])) for arm in study.arms)),
            )
            for s in study.sources
        }
    for arm, of in after.items():
        kept = leave_out_errors([init, *of.values()])[0][1:]
        if len(study.sources) > 2 or (len(study.sources) == 2 and len(study.domains) > 2):
            ranks[arm] = ood_rank_scores(dict(zip(of, kept, strict=True)), rng)
    return Comparison(arms, ranks, plain_arm)


def _after(todo: Plan, read: Read, arm: str, source: str) -> dict[str, np.ndarray]:
    """Return domain -> success (S, K) of the policies of one cell."""
    return {
        name: np.stack([scores_of(read(todo.after[arm, source, seed, name])) for seed in todo.study.seeds])
        for name in todo.study.domains
    }


def domain_axes(todo: Plan, read: Read) -> list[Axes]:
    """Return where each domain lies under the starting policy, from the episodes of the init row."""
    study = todo.study
    encode = ChatCodec(load_tokenizer(study.base, study.options)).text
    found = []
    for name, stage in todo.init.items():
        env = open_env(study.evaluate, name, study.domains[name].level)
        horizon = env.horizon
        env.close()
        found.append(axes(name, read(stage), horizon, prompts=partial(prompts, study.evaluate), encode=encode))
    return found


def write_report(todo: Plan, read: Read, folder: Callable[[Stage], Path], out: Path) -> None:
    """Write the page of a study whose other stages are done."""
    study = todo.study
    measured = json.loads((folder(todo.measure) / "results.json").read_text())
    stages = [stage for stage in todo.stages() if stage is not todo.report]
    stored = [json.loads((folder(stage) / "stage.json").read_text()) for stage in stages]
    recipe = study.recipe(study.sources[0], next(iter(study.arms)), study.seeds[0])
    write(
        Report(
            title=f"gentax study: {study.name}",
            about=study.about,
            domains=tuple(study.domains),
            results=tuple(results(todo, read)),
            curves=tuple(
                Curve(source, _rows(folder(stage) / "metrics.jsonl"), arm, seed)
                for (arm, source, seed), stage in todo.trained.items()
            ),
            compared=comparison(todo, read),
            axes=tuple(Axes.from_json(a) for a in measured["axes"]),
            pairs=tuple(_pairs(todo, read)),
            settings={
                "domains": {
                    name: f"{target.level or domain(name).default_level}, {target.tasks} test tasks"
                    for name, target in study.domains.items()
                },
                "seeds": ", ".join(map(str, study.seeds)),
                "arms": {name: str(changes or "as below") for name, changes in study.arms.items()},
                "train": plain(recipe),
                "evaluate": plain(study.evaluate),
            },
            versions={name: version(name) for name in ("gentax", "torch", "transformers", "numpy", "scienceworld")}
            | {"python": platform.python_version()},
            command=f"gentax study run {study.name}",
            made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            seconds=sum(row["seconds"] for row in stored),
        ),
        out,
    )


def _pairs(todo: Plan, read: Read) -> list[EpisodePair]:
    """Choose episodes to be read: of each domain the first that training won and the first that it lost."""
    cell = next(iter(todo.trained))
    chosen = []
    for name, stage in todo.init.items():
        both = list(zip(read(stage), read(todo.after[(*cell, name)]), strict=True))
        for want, about in ((True, "failed before, solved after"), (False, "solved before, failed after")):
            for before, after in both:
                whole = Outcome.ERROR not in (before.outcome, after.outcome)
                if whole and after.success is want and before.success is not want:
                    chosen.append(EpisodePair(before, after, f"{name}: {about} ({before.task.id})"))
                    break
    return chosen


def _rows(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the rows of a run's steps; imitation alone has none."""
    return tuple(json.loads(line) for line in path.read_text().splitlines()) if path.is_file() else ()
