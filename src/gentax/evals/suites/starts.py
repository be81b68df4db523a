"""Whether environments here are those of the suite: hashes of how tasks start, and of what a few walks bring.

A start's hash covers the first prompt as a policy reads it (rules, goal, observation, how to answer) and
`TextEnv.fingerprint` and `TextEnv.content`, so that a changed template is noticed like a changed world.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gentax.core import EnvironmentFault, Task, TextEnv, UsageError
from gentax.evals.suites.suite import Suite
from gentax.evals.suites.versions import packages
from gentax.rollouts import RolloutConfig, open_env
from gentax.rollouts.prompt import message


def start_hash(env: TextEnv, task: Task, play: RolloutConfig) -> str:
    """Begin `task` and return the hash of its start, 16 hexadecimal digits."""
    observation, info = env.reset(options={"task": task})
    prompt, _ = message(play, env.domain.rules, info["goal"], (), observation, None)
    return _hash([prompt, env.unwrapped.fingerprint(), info["content"]])


def walk_hash(env: TextEnv, task: Task, actions: Iterable[str]) -> str:
    """Begin `task`, do `actions` and return the hash of all that came of them, 16 hexadecimal digits."""
    env.reset(options={"task": task})
    parts: list[object] = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        parts += [observation, float(reward), terminated, truncated, info["valid"], info["success"]]
        if terminated or truncated:
            break
    return _hash(parts)


def check_starts(suite: Suite, name: str) -> dict[str, str]:
    """Begin every task of a domain and return the hash of each start, all of them as frozen.

    Raises:
        UsageError: a task starts, or a walk goes, otherwise than it was frozen, or the environment broke.
    """
    frozen, play = suite.domains[name], suite.play_of(name)
    env = open_env(play, name, frozen.level, frozen.split)
    try:
        seen = {task.id: start_hash(env, task, play) for task in frozen.tasks()}
        moved = [id for id, start in seen.items() if start != frozen.starts[id]]
        strayed = [w.task for w in frozen.walks if walk_hash(env, Task.parse(w.task), w.actions) != w.brings]
    except EnvironmentFault as fault:
        raise UsageError(f"suite {suite.name}: {name} broke while its starts were checked: {fault}") from fault
    finally:
        env.close()
    if moved:
        raise UsageError(
            f"suite {suite.name}: task {moved[0]} does not start as it was frozen, and so {len(moved)} of {len(seen)} "
            f"of {name}; {_cause(name)}"
        )
    if strayed:
        raise UsageError(
            f"suite {suite.name}: {name} starts as it was frozen but goes on otherwise: the same actions bring "
            f"something else on task {strayed[0]}, and so on {len(strayed)} of {len(frozen.walks)}; {_cause(name)}"
        )
    return seen


def _cause(name: str) -> str:
    here = ", ".join(f"{package} {number}" for package, number in packages(name).items())
    other = f"another version of {here} (as installed here) or of gentax" if here else "another version of gentax"
    return f"most likely {other} than the suite was frozen with"


def _hash(parts: list[object]) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).hexdigest()
