"""A suite: test tasks, how they are played and how they start, frozen under a version and named by a hash.

`frozen_suites/v2.json` is what `python -m gentax.evals.suite v2` wrote, and writes again on the versions it was made
with. Nothing in it follows a default: horizons, levels, rollout settings and every task are written out, so that a
later default changes no result. Versions of packages are not part of it: they belong to results, and a version that
changes a task is caught by its hash. The hash of a start covers the first prompt that a policy reads (rules, goal,
observation, answer format), `TextEnv.fingerprint` and `TextEnv.content`, so that a changed template is noticed like a
changed world. A new suite is what `freeze` makes of an old one in which something was replaced; its hash goes into
`FROZEN`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np

import gentax
from gentax.core import EnvironmentFault, Task, TextEnv, UsageError, unknown
from gentax.core.files import atomic_file
from gentax.core.imports import installed_versions
from gentax.core.settings import plain, read_settings, settings
from gentax.domains import domain, make, missing_modules
from gentax.policies.load import RandomPolicy
from gentax.rollouts import RolloutConfig, make_env, rollout
from gentax.rollouts.prompt import build_message

# Name -> hash. A suite that has been published is never changed: another one is added.
FROZEN = {"v2": "2898d2b7ac034c5967ff6175bbdfb78a"}
# Suites that are not played any more, and why.
RETIRED = {"v1": "its test tasks share rooms and products with train tasks; measure again on v2"}


@settings
class ActionTrace:
    """Actions on one task, and a hash of what they bring: drift that starts do not show, such as in a search engine."""

    task: str
    actions: tuple[str, ...]
    brings: str


@settings
class SuiteDomain:
    """A domain as the suite plays it."""

    level: str
    horizon: int
    split: str
    starts: dict[str, str]  # the id of each task, in order, and the hash of its start (see `start_hash`)
    contents: dict[str, str]
    """The id of each task and what it is made of (see `TextEnv.content`): tasks that share it are one cluster."""
    random: tuple[int, ...]
    """How many of `Suite.random_samples` episodes of random play succeed, for each task in order: chance."""
    walks: tuple[ActionTrace, ...]  # the expert's way through the first tasks, as it was when the suite was frozen

    def tasks(self) -> list[Task]:
        """Return the tasks, in order."""
        return [Task.parse(id) for id in self.starts]


@settings
class Suite:
    """A frozen list of test tasks, and how they are played."""

    name: str
    config: RolloutConfig  # how episodes are played; each domain has its own horizon
    samples: int  # episodes on each task
    random_samples: int  # episodes of random play on each task
    seed: int  # of the sampling
    domains: dict[str, SuiteDomain]
    digest: str = ""
    """The hash of all of the above, as the file has it."""

    def clusters(self, domain: str) -> tuple[str, ...]:
        """Return the content of each task of a domain, in order."""
        return tuple(self.domains[domain].contents.values())

    def chance(self, domain: str) -> np.ndarray:
        """Return (K,) the success of random play on each task of a domain, in order."""
        return np.array(self.domains[domain].random) / self.random_samples

    def play_of(self, domain: str) -> RolloutConfig:
        """Return how episodes of a domain are played."""
        return replace(self.config, horizon=self.domains[domain].horizon)


def digest(content: Any) -> str:
    """Return the hash of JSON values, 32 hexadecimal digits: blake2b of their text with sorted keys and no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def load_suite(name: str) -> Suite:
    """Return the suite called `name`.

    Raises:
        UsageError: there is no such suite, or its file is not the one that was frozen.
    """
    if name in RETIRED:
        raise UsageError(f"suite {name} is retired: {RETIRED[name]}")
    if name not in FROZEN:
        raise unknown("suite", name, FROZEN)
    return read_suite(Path(__file__).with_name("frozen_suites") / f"{name}.json", FROZEN[name])


def read_suite(path: Path, frozen: str) -> Suite:
    """Read a suite's file. Raises UsageError unless its hash is `frozen`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    actual = digest(content)
    if actual != frozen:
        raise UsageError(
            f"{path.name} has been edited: its hash is {actual}, it was frozen as {frozen}; install gentax again"
        )
    content["config"] = content.pop("play")  # its name in the file, which its hash keeps
    return replace(read_settings(Suite, content, path.name), digest=actual)


def playable_domains(suite: Suite, domains: Iterable[str] | None) -> list[str]:
    """Return those of `domains` in the suite's order; all that can run on this machine when None. Raises UsageError."""
    if domains is None:
        chosen = [name for name in suite.domains if not missing_modules(domain(name))]
    else:
        asked = set(domains)
        for name in sorted(asked - set(suite.domains)):
            raise unknown(f"domain of suite {suite.name}", name, suite.domains)
        chosen = [name for name in suite.domains if name in asked]
    for name in chosen:
        if lacking := missing_modules(domain(name)):
            raise UsageError(f"domain {name!r} needs {', '.join(lacking)}: {domain(name).enable}")
    if not chosen:
        raise UsageError(f"no domain of suite {suite.name} to play")
    return chosen


SAMPLING = ("numpy", "torch", "transformers", "tokenizers")  # what draws actions, whatever the domain


def versions(domains: Iterable[str]) -> dict[str, str]:
    """Return by name the versions here of what plays `domains`."""
    numbers = {"gentax": gentax.__version__, "python": platform.python_version(), "platform": platform.platform()}
    numbers |= installed_versions(*SAMPLING)  # a policy that is no local model needs none of them
    return numbers | {package: number for name in domains for package, number in packages(name).items()}


_packages_of_modules = cache(packages_distributions)  # every installed package is looked at, once


def packages(name: str) -> dict[str, str]:
    """Return the packages that a domain needs, and their versions here."""
    names = {package for module in domain(name).requires for package in _packages_of_modules().get(module, ())}
    return {package: version(package) for package in sorted(names)}


def start_hash(env: TextEnv, task: Task, config: RolloutConfig) -> str:
    """Begin `task` and return the hash of its start, 16 hexadecimal digits."""
    observation, info = env.reset(options={"task": task})
    prompt, _ = build_message(config, env.domain.rules, info["goal"], (), observation, None)
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
    frozen, config = suite.domains[name], suite.play_of(name)
    env = make_env(config, name, frozen.level, frozen.split)
    try:
        seen = {task.id: start_hash(env, task, config) for task in frozen.tasks()}
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


def write_lines(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all, an item of a list of objects on each line."""
    with atomic_file(path) as aside:
        aside.write_text(_lines(value, "") + "\n", encoding="utf-8")


def _lines(value: Any, indent: str) -> str:
    flat, inner = partial(json.dumps, allow_nan=False, ensure_ascii=False), indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{flat(key)}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(inner + flat(item) for item in value) + f"\n{indent}]"
    return flat(value)


# --- how a suite is made ---


def freeze(suite: Suite) -> dict[str, Any]:
    """Return a suite as JSON values; of its domains the starts, contents, walks and random play are made anew."""
    return {
        "name": suite.name,
        "play": plain(suite.config),
        "samples": suite.samples,
        "random_samples": suite.random_samples,
        "seed": suite.seed,
        "domains": {name: freeze_domain(suite, name) for name in suite.domains},
    }


def freeze_domain(suite: Suite, name: str) -> dict[str, Any]:
    """Return one domain as JSON values, with as many tasks and walks as `suite` has of it."""
    frozen, config = suite.domains[name], suite.play_of(name)
    env = make(name, frozen.level, split=frozen.split, reward=config.reward, horizon=config.horizon)
    try:
        tasks = env.tasks(frozen.split, len(frozen.starts))
        starts = {task.id: start_hash(env, task, config) for task in tasks}
        contents = {task.id: env.unwrapped.content_of(task) for task in tasks}
        walks = []
        for task in tasks[: len(frozen.walks)]:
            actions = _expert(env, task)
            walks.append({"task": task.id, "actions": actions, "brings": walk_hash(env, task, actions)})
    finally:
        env.close()
    played = rollout(RandomPolicy(), tasks, config=config, samples=suite.random_samples, seed=suite.seed)
    successes = Counter(episode.task.id for episode in played if episode.success)
    return {
        "level": frozen.level,
        "horizon": config.horizon,
        "split": frozen.split,
        "starts": starts,
        "contents": contents,
        "random": [successes[task.id] for task in tasks],
        "walks": walks,
    }


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
    (name,) = sys.argv[1:]
    content = freeze(load_suite(name))
    write_lines(Path(f"{name}.json"), content)
    here = digest(content)
    print(f"wrote {name}.json with hash {here}", "as frozen" if FROZEN.get(name) == here else "(not the frozen one)")
