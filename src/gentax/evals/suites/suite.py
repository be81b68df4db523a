"""A suite: test tasks, how they are played and how they start, frozen under a version and named by a hash.

`v2.json` beside this file is what `python -m gentax.evals.suites.freeze v2` wrote. Nothing in it follows a default:
horizons, levels, settings of playing and every task stand there, so that a later default changes no result. What is
left out are versions of packages: they belong to results, and a version that changes a task is caught by its hash.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Task, UsageError, unknown
from gentax.core.settings import read_settings
from gentax.rollouts import RolloutConfig

# Name -> hash. A suite that has been published is never changed: another one is added.
FROZEN = {"v2": "2898d2b7ac034c5967ff6175bbdfb78a"}
# Suites that are not played any more, and why.
RETIRED = {"v1": "its test tasks share rooms and products with train tasks; measure again on v2"}


@dataclass(frozen=True)
class Walk:
    """Actions on one task, and a hash of what they bring: drift that starts do not show, such as in a search engine."""

    task: str
    actions: tuple[str, ...]
    brings: str


@dataclass(frozen=True)
class SuiteDomain:
    """A domain as the suite plays it."""

    level: str
    horizon: int
    split: str
    starts: dict[str, str]
    """The id of each task, in order, and the hash of its start (see `starts.start_hash`)."""
    contents: dict[str, str]
    """The id of each task and what it is made of (see `TextEnv.content`): tasks that share it are one cluster."""
    random: tuple[int, ...]
    """How many of `Suite.random_samples` episodes of random play succeed, for each task in order: chance."""
    walks: tuple[Walk, ...]
    """The expert's way through the first tasks, as it was when the suite was frozen."""

    def tasks(self) -> list[Task]:
        """Return the tasks, in order."""
        return [Task.parse(id) for id in self.starts]


@dataclass(frozen=True)
class Suite:
    """A frozen list of test tasks, and how they are played."""

    name: str
    play: RolloutConfig
    """How episodes are played; each domain has its own horizon."""
    samples: int
    """Episodes on each task."""
    random_samples: int
    """Episodes of random play on each task."""
    seed: int
    """Of the sampling."""
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
        return replace(self.play, horizon=self.domains[domain].horizon)


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
    return read_suite(Path(__file__).with_name(f"{name}.json"), FROZEN[name])


def read_suite(path: Path, frozen: str) -> Suite:
    """Read a suite's file. Raises UsageError unless its hash is `frozen`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    found = digest(content)
    if found != frozen:
        raise UsageError(
            f"{path.name} has been edited: its hash is {found}, it was frozen as {frozen}; install gentax again"
        )
    return replace(read_settings(Suite, content, path.name), digest=found)
