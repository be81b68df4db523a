"""What the shipped recipes learn: points gained on test tasks in the domain trained on, by domain and seed.

    python benchmarks/learning.py [--domains sokoban …] [--seeds 0 1 2] [--tasks 256] [--out runs/learning]

For each domain that ships with a recipe (`src/gentax/training/recipes`) the base model plays test tasks, the recipe
trains it once for each seed, and the trained policy plays the same tasks with the same random numbers: ΔID, with a
95 % interval over tasks for one seed and over seeds and tasks for all. The minutes are those of training alone, from
loading the model to the last checkpoint. The recipes were chosen on train tasks; this script alone looks at test tasks.

What was done is kept in `--out` and not done again, so a stopped run can be continued; its minutes are then those of
the training's own clock, which leaves out what a kill lost.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import gentax
from gentax.core.files import write_json
from gentax.core.settings import read_settings
from gentax.domains import domains, missing_modules
from gentax.metrics.episode_scores import error_free_scores, task_success
from gentax.metrics.statistics import Estimate
from gentax.metrics.statistics.intervals import difference
from gentax.training.config import TrainConfig, read_values, shipped


def played(policy: str | Path, name: str, tasks: int, kept: Path) -> np.ndarray:
    """Return the success of a policy on the first test tasks, shape (tasks,); from `kept` where that was done."""
    if kept.is_file():
        return np.array(json.loads(kept.read_text()), float)
    result = gentax.evaluate(policy, [name], tasks=tasks, stop_if_unreadable=False)
    found = task_success(result.episodes[name])
    write_json(kept, [None if np.isnan(x) else float(x) for x in found])
    return found


def gained(before: np.ndarray, after: np.ndarray) -> Estimate:
    """Return ΔID; tasks on which an episode ended in an error are left out."""
    scores, _ = error_free_scores({"init": {"": before}, "after": {"": after}})
    return difference(scores.roles["init"][""][0], scores.roles["after"][""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", nargs="+", default=[n for n in shipped() if n in domains()])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    args = parser.parse_args()
    for name in args.domains:
        if missing_modules(domains()[name]):
            print(f"{name}: left out, {domains()[name].enable}")
            continue
        config = read_settings(TrainConfig, read_values(name), name)
        before = played("base", name, args.tasks, args.out / f"{name}-base-{args.tasks}.json")
        print(f"{name}: base {100 * np.nanmean(before):.1f} %, {len(before)} test tasks", flush=True)
        after = []
        for seed in args.seeds:
            run = args.out / f"{name}-{seed}"
            clock = run / "minutes.json"
            began = time.monotonic()
            folder = gentax.train(replace(config, seed=seed), run)
            if not clock.is_file():
                write_json(clock, (time.monotonic() - began) / 60)
            after.append(played(folder, name, args.tasks, run / f"test-{args.tasks}.json"))
            gain = gained(before, after[-1])
            print(
                f"  seed {seed}: {100 * np.nanmean(after[-1]):.1f} %, ΔID {gain.value:+.1f} ({gain.low:+.1f} to "
                f"{gain.high:+.1f}) in {json.loads(clock.read_text()):.1f} min",
                flush=True,
            )
        gain = gained(before, np.stack(after))
        print(f"  all: ΔID {gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f}), {len(after)} seeds", flush=True)


if __name__ == "__main__":
    main()
