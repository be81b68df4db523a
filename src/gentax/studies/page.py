"""The page of a finished study, from its stages."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gentax.core.settings import plain
from gentax.domains import domain
from gentax.metrics.axes import Axes
from gentax.report import Curve, EpisodePair, Report, write
from gentax.report.model import representative_pairs
from gentax.studies.plan import Plan, Stage
from gentax.studies.results import Read, results


def write_report(todo: Plan, read: Read, folder: Callable[[Stage], Path], out: Path) -> None:
    """Write the page of a study whose other stages are done."""
    study = todo.study
    measured = json.loads((folder(todo.measure) / "results.json").read_text())
    stages = [stage for stage in todo.stages() if stage is not todo.report]
    stored = [json.loads((folder(stage) / "stage.json").read_text()) for stage in stages]
    first = next(iter(study.arms))
    found, compared = results(todo, read)
    write(
        Report(
            title=f"gentax study: {study.name}",
            about=study.about,
            domains=tuple(study.domains),
            results=tuple(found),
            curves=tuple(
                Curve(source, _rows(folder(stage) / "metrics.jsonl"), arm, seed)
                for (arm, source, seed), stage in todo.trained.items()
            ),
            comparison=compared,
            axes=tuple(Axes.from_json(a) for a in measured["axes"]),
            pairs=tuple(_pairs(todo, read)),
            settings={
                "domains": {
                    name: f"{target.level or domain(name).default_level}, {target.tasks} {study.split} tasks"
                    for name, target in study.domains.items()
                },
                "seeds": ", ".join(map(str, study.seeds)),
                "arms": {name: changes or "as below" for name, changes in study.arms.items()},
                f"train, {first}": plain(study.recipe(study.sources[0], first, study.seeds[0])),
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
    """Choose episodes of every arm's first run to be read."""
    study, chosen = todo.study, []
    for name, stage in todo.init.items():
        before = read(stage)
        for arm in study.arms:
            for source in study.sources:
                after = read(todo.after[arm, source, study.seeds[0], name])
                label = arm if len(study.sources) == 1 else f"{source}, {arm}"
                chosen += representative_pairs(before, after, label)
    return chosen


def _rows(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the rows of a run's steps; imitation alone has none."""
    return tuple(json.loads(line) for line in path.read_text().splitlines()) if path.is_file() else ()
