"""How a suite is made: `python -m gentax.evals.suites.freeze v2` writes v2.json into the working folder.

Run on the versions that v2 was made with, it writes the same file again, byte for byte. A new suite is a new entry of
`RECIPES`; its file goes beside this one and the hash that is printed into `suite.FROZEN`.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gentax.core import Task, TextEnv, unknown
from gentax.core.settings import plain
from gentax.domains import domain, make
from gentax.evals.suites.result import write_lines
from gentax.evals.suites.suite import FROZEN, digest, start_hash, walk_hash
from gentax.policies.scripted import RandomPolicy
from gentax.rollouts import RolloutConfig, rollout


class Recipe(NamedTuple):
    """What is decided when a suite is made."""

    levels: dict[str, str]  # by domain; horizons are the levels' own at that time
    tasks: int  # the first of the test split, of each domain
    walks: int  # the first tasks on which the expert's way is kept
    config: RolloutConfig
    samples: int
    random_samples: int  # of random play, whose rate is that of chance
    seed: int


RECIPES = {
    "v2": Recipe(
        levels={
            "sokoban": "6x6-far",
            "sciworld": "living",
            "crafting": "shallow",
            "webshop": "4k-easy",
            "babyai": "room",
            "alfworld": "flat",
            "twx-cooking": "simple",
            "twx-mapreader": "large",
        },
        tasks=128,
        walks=8,
        config=RolloutConfig(context="full", thinking=False, admissible=False, temperature=0.4, max_new_tokens=32),
        samples=1,
        random_samples=8,
        seed=0,
    )
}


def freeze(name: str) -> dict[str, Any]:
    """Return the suite called `name` as JSON values. Raises UsageError when there is no recipe for it."""
    if name not in RECIPES:
        raise unknown("suite", name, RECIPES)
    recipe = RECIPES[name]
    return {
        "name": name,
        "play": plain(recipe.config),
        "samples": recipe.samples,
        "random_samples": recipe.random_samples,
        "seed": recipe.seed,
        "domains": {domain_name: freeze_domain(recipe, domain_name) for domain_name in recipe.levels},
    }


def freeze_domain(recipe: Recipe, name: str, split: str = "test") -> dict[str, Any]:
    """Return one domain of a suite as JSON values."""
    level = recipe.levels[name]
    config = replace(recipe.config, horizon=domain(name).levels[level].horizon)
    env = make(name, level, split=split, reward=config.reward, horizon=config.horizon)
    try:
        tasks = env.tasks(split, recipe.tasks)
        starts = {task.id: start_hash(env, task, config) for task in tasks}
        contents = {task.id: env.unwrapped.content_of(task) for task in tasks}
        walks = []
        for task in tasks[: recipe.walks]:
            actions = _expert(env, task)
            walks.append({"task": task.id, "actions": actions, "brings": walk_hash(env, task, actions)})
    finally:
        env.close()
    return {
        "level": level,
        "horizon": config.horizon,
        "split": split,
        "starts": starts,
        "contents": contents,
        "random": _random(tasks, config, recipe),
        "walks": walks,
    }


def _random(tasks: list[Task], config: RolloutConfig, recipe: Recipe) -> list[int]:
    """Return how many episodes of random play succeed on each task."""
    successes = Counter[str]()
    for episode in rollout(RandomPolicy(), tasks, config=config, samples=recipe.random_samples, seed=recipe.seed):
        successes[episode.task.id] += episode.success
    return [successes[task.id] for task in tasks]


def _expert(env: TextEnv, task: Task) -> list[str]:
    """Return the expert's actions on a task, to the end of the episode."""
    env.reset(options={"task": task})
    actions, over = [], False
    while not over and (move := env.expert()) is not None:
        actions.append(move.action)
        _, _, terminated, truncated, _ = env.step(move.action)
        over = terminated or truncated
    return actions


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) == 2 else "v2"
    content = freeze(name)
    write_lines(Path(f"{name}.json"), content)
    here = digest(content)
    print(f"wrote {name}.json with hash {here}", "as frozen" if FROZEN.get(name) == here else "(not the frozen one)")
