"""Rewards keep to what `TextEnv` says: sparse ones are 1 on success and else 0, dense ones sum to at most 1."""

from __future__ import annotations

import math

from gentax.domains.check.bench import WANDER, Bench, Played, expert
from gentax.domains.check.result import Failed
from gentax.domains.check.same import task_of

EPSILON = 1e-6  # by which a sum of dense rewards may exceed 1
TASKS = 60


def reward_bounds(bench: Bench) -> str:
    """Both rewards, over episodes of the expert and episodes without aim."""
    tasks = bench.tasks(min(TASKS, bench.effort.tasks))
    envs = {kind: bench.make(reward=kind) for kind in ("sparse", "dense")}
    done, most, least = 0, -math.inf, math.inf
    for number, task in bench.in_time(list(enumerate(tasks)), least=2):
        for kind, env in envs.items():
            choose, steps = (expert, None) if bench.has_expert and number % 2 == 0 else (bench.wander, WANDER)
            played = bench.play(env, task_of(task, env), choose, steps)
            total = _bounded(bench, kind, played)
            if kind == "dense":
                most, least = max(most, total), min(least, total)
        done += 1
    return (
        f"{bench.of(done, len(tasks), 'tasks')}: sparse 1 exactly on success, dense returns {least:.2f} to {most:.2f}"
    )


def _bounded(bench: Bench, kind: str, played: Played) -> float:
    """Return the sum of an episode's rewards. Raises Failed when one is out of bounds."""
    total = 0.0
    for number, turn in enumerate(played.turns, 1):
        bench.where = f"task {played.task.id}, step {number}"
        if not math.isfinite(turn.reward):
            raise Failed(f"the {kind} reward is {turn.reward}")
        success = turn.info["success"]
        if kind == "sparse" and turn.reward != float(success):
            raise Failed(f"the sparse reward is {turn.reward}, and success is {success}")
        if success and not turn.terminated:
            raise Failed("it says success and goes on")
        total += turn.reward
        if total > 1 + EPSILON:
            raise Failed(f"the {kind} rewards sum to {total:.6g}, more than 1")
    return total
