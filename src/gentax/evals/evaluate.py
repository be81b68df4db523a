"""Play a policy on test tasks and say how often it succeeds: `gentax.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError, unknown
from gentax.core.console import EpisodeProgress
from gentax.core.results import Tabular, TextTable, repr_as_str
from gentax.core.settings import plain
from gentax.domains import domain, make
from gentax.metrics.episode_scores import (
    Truncation,
    content_labels,
    error_free_scores,
    task_success,
    unknown_content_caveat,
)
from gentax.metrics.statistics import Estimate, success_rate
from gentax.models.options import ModelOptions
from gentax.policies import Policy, load_policy
from gentax.policies.chat_client import Usage
from gentax.policies.load import SCRIPTED
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.rollouts.prompt import with_token_budget


@dataclass(frozen=True)
class Evaluation(Tabular):
    """The episodes of one policy on test tasks, and what they come to."""

    policy: str
    config: RolloutConfig
    episodes: Mapping[str, list[Episode]] = field(repr=False)  # by domain
    runtime: Mapping[str, str] | None = None  # device and dtype of a policy with weights on this machine
    usage: Usage | None = None  # requests, tokens and cost of a policy behind a server

    def success(self) -> dict[str, Estimate]:
        """Return the success rate of each domain, percent, with its interval. Raises UsageError on many errors."""
        success = {d: task_success(episodes) for d, episodes in self.episodes.items()}
        scores, _ = error_free_scores({"success": success}, self.clusters())
        labels = scores.clusters or {}
        return {d: success_rate(scores_SK, clusters=labels[d]) for d, scores_SK in scores.roles["success"].items()}

    def all_episodes(self) -> list[Episode]:
        """Return the episodes of all domains, in order."""
        return [episode for of_domain in self.episodes.values() for episode in of_domain]

    def clusters(self) -> dict[str, list[str]]:
        """Return the content of each domain's tasks, in order: tasks with the same are one cluster; "" is not known."""
        return {name: content_labels(of) for name, of in self.episodes.items()}

    def table(self) -> TextTable:
        """Return the success rates as a table. Raises UsageError on many errors."""
        success = self.success()
        (split,) = {episode.task.split for episode in self.all_episodes()}
        summary = self.to_json()["domains"]
        # Columns of what is usually nothing.
        lost = [name for name in ("truncated", "cut_prompts") if any(row[name] for row in summary.values())]
        rows = [
            [name, r["level"], success[name], f"{r['length']:.1f}"]
            + [f"{r[share]:.0%}" for share in ("invalid", *lost)]
            + [r["errors"]]
            for name, r in summary.items()
        ]
        columns = ["domain", "level", "success %", "length", "invalid"]
        columns += [*(name.replace("_", " ") for name in lost), "errors"]
        return TextTable(f"{self.policy} on {split} tasks", columns, rows)

    _repr_pretty_ = repr_as_str

    def __str__(self) -> str:
        return str(self.table())

    def truncation(self) -> Truncation:
        """Return how many replies and prompts were cut, over all domains."""
        return Truncation.of(self.all_episodes())

    def caveats(self) -> list[str]:
        """Say what was cut, and of which domains nobody can claim that their tasks are new."""
        unknown = unknown_content_caveat([name for name, contents in self.clusters().items() if not any(contents)])
        return [*self.truncation().sentences(self.policy), *([unknown] if unknown else [])]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each domain: success in percent, and the summary of `to_json`."""
        success = self.success()
        summary = self.to_json()["domains"]
        return [
            {"policy": self.policy, "domain": name} | row | {"success": success[name]} for name, row in summary.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        rows = {}
        for name, estimate in self.success().items():
            complete = [e for e in self.episodes[name] if e.outcome is not Outcome.ERROR]
            rows[name] = {
                "success": estimate.to_json(),
                "level": complete[0].task.level,
                "episodes": len(complete),
                "errors": len(self.episodes[name]) - len(complete),
                "length": float(np.mean([e.length for e in complete])),
                "return": float(np.mean([e.ret for e in complete])),
                "invalid": sum(e.invalid for e in complete) / max(1, sum(e.length for e in complete)),
                **Truncation.of(complete).to_json(),
            }
        usage = {} if self.usage is None else {"usage": asdict(self.usage)}
        return {"policy": self.policy, "runtime": self.runtime, **usage, "play": plain(self.config), "domains": rows}


def tasks_of(levels: Mapping[str, str | None], tasks: int, split: str = "test") -> dict[str, list[Task]]:
    """Return the first `tasks` tasks of each domain's split, all of one that has fewer.

    Raises:
        UsageError: an unknown split, and as `make`.
    """
    listed = {}
    for name, level in levels.items():
        if split not in domain(name).splits:
            raise unknown(f"split of {name}", split, domain(name).splits)
        env = make(name, level)
        listed[name] = env.tasks(split, min(tasks, env.size(split)))
        env.close()
    return listed


def evaluate(
    policy: str | Path | Policy | Callable[..., str],
    domains: Iterable[str] | Mapping[str, str | None],
    *,
    tasks: int = 128,
    split: str = "test",
    samples: int = 1,
    config: RolloutConfig | None = None,
    seed: int = 0,
    parallel: int | None = None,
    model: ModelOptions = ModelOptions(),
    on_episode: Callable[[Episode], None] | None = None,
    on_steps: Callable[[int], None] | None = None,
    stop_if_unreadable: bool = True,
    progress: bool | None = None,
) -> Evaluation:
    """Play `policy` on the same tasks of each domain that everybody is evaluated on.

    Args:
        policy: "random", "expert", the name of a model, the URL of a server, `module:attribute`, any `Policy`, or a
            function of the conversation (see `load_policy`).
        domains: names, one name, or names with levels; a level of None is the domain's default.
        tasks: how many tasks of each domain; all of a split that has fewer.
        split: which split.
        samples: episodes on each task.
        config: context, thinking, temperature and so on.
        seed: of the sampling; the same seed gives two policies the same random numbers.
        parallel: episodes in flight at once; when None, as many as the policy's memory holds, 128 at most.
        model: how a policy that is named is loaded: device, dtype.
        on_episode: called with each episode as it ends.
        on_steps: called after each batch of steps with how many they were.
        stop_if_unreadable: stop when no action can be read out of most of the first replies (see
            `rollouts.readable`). Turn it off for a policy that may have collapsed in training: that is a result.
        progress: whether progress is shown; None for where a person is watching, in a terminal or a notebook.

    Raises:
        UsageError: an unknown domain, level, split or policy, fewer than 2 tasks, or replies that cannot be read.
        PolicyFault: a server that cannot be reached or that refuses, or an error in a policy of the user's own; what
            was played is not returned then.
    """
    domains = [domains] if isinstance(domains, str) else domains
    levels = dict(domains) if isinstance(domains, Mapping) else dict.fromkeys(domains)
    if not levels:
        raise UsageError("no domain to evaluate on")
    if tasks < 2:
        raise UsageError(f"an evaluation needs at least 2 tasks, not {tasks}")
    chosen = tasks_of(levels, tasks, split)
    player = load_policy(policy, model)
    config = with_token_budget(config or RolloutConfig(), player)
    count = EpisodeProgress(samples * sum(map(len, chosen.values())), player.name, progress, on_episode, on_steps)
    episodes: dict[str, list[Episode]] = {}
    readable = stop_if_unreadable and not isinstance(player, SCRIPTED)
    for name, listed in chosen.items():
        count.begin(name)
        with EnvPool(config) as pool:
            episodes[name] = rollout(
                player,
                listed,
                config=config,
                samples=samples,
                seed=seed,
                parallel=parallel,
                pool=pool,
                on_episode=count,
                on_steps=count.steps,
                stop_if_unreadable=readable and not episodes,
            )
    return Evaluation(player.name, config, episodes, getattr(player, "runtime", None), usage_of(player))


def usage_of(policy: Policy) -> Usage | None:
    """Return what the server of a policy was asked so far; None for other policies."""
    usage = getattr(policy, "usage", None)
    return replace(usage) if isinstance(usage, Usage) else None
