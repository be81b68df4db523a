"""The rollout engine: plays many episodes at once.

All episodes in flight are batched; one that ends leaves the batch and the next task takes its slot. An environment that
breaks is recreated and its episode replayed; if it breaks again the episode is recorded as an error, as is one whose
policy has no reply because its server failed. The engine knows nothing of tokens, which are the policy's. It can stop a
run whose replies cannot be parsed, since success then says nothing of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from gentax.core import EnvironmentFault, Episode, Outcome, Step, Task, TextEnv, UsageError, stable_seed
from gentax.core.console import EpisodeProgress, shows_progress
from gentax.domains import domain, make
from gentax.models.action_format import parse_reply
from gentax.policies.protocol import Policy, PolicyRequest, Reply, max_parallel_episodes
from gentax.rollouts.prompt import RolloutConfig, build_message, with_token_budget
from gentax.wrappers import wrap

ACTION_LIMIT = 4096  # characters of an action that are passed on to an environment
ERROR_LIMIT = 500  # characters of an error that are kept
FIRST_MESSAGE_TOKENS, MESSAGE_TOKENS = 1024, 256  # estimates for a first and a later message, above most domains'
OPEN_HORIZON = 100  # steps at a level that its domain does not list


def make_env(config: RolloutConfig, name: str, level: str | None = None, split: str = "train") -> TextEnv:
    """Make an environment as `config` says: its reward, its horizon, its wrappers.

    Raises:
        UsageError: see `make` and `wrap`; or a shaped reward in a domain that has no distance to success.
    """
    shaped = config.reward == "shaped"
    env = make(name, level, reward="sparse" if shaped else config.reward, horizon=config.horizon, split=split)
    return cast(TextEnv, wrap(env, ("shaping", *config.wrap) if shaped else config.wrap))


class EnvPool:
    """Environments, reused for later tasks of the same domain and level. Closing the pool closes them all.

    Args:
        factory: makes the environment of a task; `make_env` when None.
    """

    def __init__(self, config: RolloutConfig, factory: Callable[[Task], TextEnv] | None = None) -> None:
        self._make = factory or (lambda task: make_env(config, task.domain, task.level, task.split))
        self._idle: dict[tuple[str, str], list[TextEnv]] = {}
        self._all: list[TextEnv] = []

    def take(self, task: Task) -> TextEnv:
        """Return an idle environment that can play `task`, or a new one."""
        idle = self._idle.setdefault((task.domain, task.level), [])
        if idle:
            return idle.pop()
        env = self._make(task)
        self._all.append(env)
        return env

    def give(self, task: Task, env: TextEnv) -> None:
        """Return `env` to the pool for the next task of its kind."""
        self._idle[task.domain, task.level].append(env)

    def discard(self, env: TextEnv) -> None:
        """Close a broken environment."""
        self._all.remove(env)
        _close_quietly(env)

    def close(self) -> None:
        for env in self._all:
            _close_quietly(env)
        self._all.clear()
        self._idle.clear()

    def __enter__(self) -> EnvPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class _Run:
    """An episode in flight."""

    job: int
    task: Task
    sample: int
    slot: int
    rng: np.random.Generator
    env: TextEnv | None = None
    rules: str = ""
    goal: str = ""
    content: str = ""
    observation: str = ""
    shown: tuple[str, ...] | None = None  # the admissible actions in the current prompt
    steps: list[Step] = field(default_factory=list)
    outcome: Outcome | None = None
    error: str = ""


def rollout(
    policy: Policy,
    tasks: Iterable[Task],
    *,
    config: RolloutConfig | None = None,
    samples: int = 1,
    seed: int = 0,
    parallel: int | None = None,
    horizon: int | None = None,
    pool: EnvPool | None = None,
    on_episode: Callable[[Episode], None] | None = None,
    on_steps: Callable[[int], None] | None = None,
    stop_if_unreadable: bool = False,
    progress: bool | None = False,
) -> list[Episode]:
    """Play `policy` on `tasks` and return the episodes, task by task, `samples` for each.

    Args:
        policy: who plays.
        tasks: what is played.
        config: context, thinking, temperature and so on.
        samples: episodes for each task.
        seed: with the task and the sample number, seeds each episode's own generator, so that an episode samples the
            same numbers whatever else is played.
        parallel: episodes in flight at once, at most. When None, as many as the policy's memory holds, 128 at most.
            What is played does not depend on it, but for the rounding of a model's arithmetic in batches.
        horizon: cuts an episode off after this many steps, before its environment would; the environments stay as they
            are, so that a horizon that grows needs no new ones.
        pool: environments to use and keep; made and closed here when None.
        on_episode: called with each episode as it ends.
        on_steps: called after each batch of steps with how many they were.
        stop_if_unreadable: stop when no action can be read out of most of the first replies (see
            `describe_unreadable`). Off here, since a policy that is being trained may begin so, and one that was
            trained may end so.
        progress: whether progress is shown; None for where a person is watching, in a terminal or a notebook.

    Raises:
        UsageError: a task or a setting that does not exist; unreadable replies, where they stop the run. What an
            environment does wrong is recorded instead.
        PolicyFault: the policy cannot be asked any more.
    """
    config = with_token_budget(config or RolloutConfig(), policy)
    tasks = list(tasks)
    for name, value in (("samples", samples), ("parallel", parallel), ("horizon", horizon)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
    if not tasks:
        return []
    if shows_progress(progress):
        count = EpisodeProgress(len(tasks) * samples, policy.name, True, on_episode, on_steps)
        on_episode, on_steps = count, count.steps
        count.begin()
    if parallel is None:
        parallel = max_parallel_episodes(policy, estimate_context_tokens(config, tasks, horizon))
    check = UnreadableReplyCheck(policy.name, config, len(tasks) * samples) if stop_if_unreadable else None
    with nullcontext(pool) if pool is not None else EnvPool(config) as envs:
        return _Engine(policy, config, horizon, envs, on_episode, on_steps, check).run(tasks, samples, seed, parallel)


def estimate_context_tokens(config: RolloutConfig, tasks: Iterable[Task], horizon: int | None = None) -> int:
    """Return a generous estimate of a conversation's tokens, before anything is played.

    It is the first prompt plus, for each step in the prompt, a message and a reply of full length.
    """
    known = [(domain(name).levels, level) for name, level in {(task.domain, task.level) for task in tasks}]
    own = max(levels[level].horizon if level in levels else OPEN_HORIZON for levels, level in known)
    steps = min(limit for limit in (own, horizon, config.horizon) if limit is not None)
    window = config.window()
    shown = steps if window is None else min(steps, window + 1)
    return FIRST_MESSAGE_TOKENS + shown * (MESSAGE_TOKENS + config.sampling.max_new_tokens)


@dataclass
class _Engine:
    policy: Policy
    config: RolloutConfig
    horizon: int | None
    pool: EnvPool
    on_episode: Callable[[Episode], None] | None
    on_steps: Callable[[int], None] | None
    check: UnreadableReplyCheck | None
    workers: ThreadPoolExecutor | None = None

    def run(self, tasks: Sequence[Task], samples: int, seed: int, parallel: int) -> list[Episode]:
        jobs = [(task, sample) for task in tasks for sample in range(samples)]
        records = [domain(name) for name in {task.domain for task in tasks}]
        threads = max((record.threads for record in records), default=1)
        parallel = min([parallel, *(record.copies for record in records)])
        self.workers = ThreadPoolExecutor(threads) if threads > 1 else None
        done: list[Episode | None] = [None] * len(jobs)
        waiting = iter(enumerate(jobs))
        live: list[_Run] = []
        free = list(range(parallel))
        try:
            while True:
                fresh = []
                while free and (entry := next(waiting, None)) is not None:
                    job, (task, sample) = entry
                    rng = np.random.default_rng(stable_seed(seed, task.id, sample))
                    fresh.append(_Run(job, task, sample, free.pop(0), rng, self.pool.take(task)))
                self._each(lambda run: self._step_or_reset(run, None), fresh)
                live += fresh
                if not live:
                    break
                active = [run for run in live if run.outcome is None]
                turns = [self._turn(run) for run in active]
                replies = self.policy.reply(turns) if turns else []
                self._each(self._advance, [(run, reply) for run, reply in zip(active, replies, strict=True)])
                if self.on_steps is not None and active:
                    self.on_steps(len(active))
                if self.check is not None:
                    self.check.add([(run.job, run.steps[-1]) for run in active if run.steps and not run.error])
                for run in [run for run in live if run.outcome is not None]:
                    live.remove(run)
                    free.append(run.slot)
                    done[run.job] = self._finish(run)
        finally:
            if self.workers is not None:
                self.workers.shutdown(wait=True, cancel_futures=True)
        return [episode for episode in done if episode is not None]

    def _each(self, do: Callable[[Any], object], items: Sequence[Any]) -> None:
        if self.workers is None or len(items) < 2:
            for item in items:
                do(item)
        else:
            list(self.workers.map(do, items))

    def _turn(self, run: _Run) -> PolicyRequest:
        assert run.env is not None
        config = self.config
        run.shown = None
        if config.admissible:
            run.shown = ()
            with suppress(EnvironmentFault):  # handled when the action is taken
                run.shown = tuple(run.env.admissible() or ())
        run.rules = run.env.domain.rules
        text, continues = build_message(config, run.rules, run.goal, run.steps, run.observation, run.shown)
        return PolicyRequest(run.slot, text, continues, run.env, run.rng, config.sampling, config.chat)

    def _advance(self, pair: tuple[_Run, Reply]) -> None:
        run, reply = pair
        if reply.error:
            run.outcome, run.error = Outcome.ERROR, reply.error[:ERROR_LIMIT]
            return
        action, thought = reply.parsed or parse_reply(reply.text, self.config.action_format)
        action = action[:ACTION_LIMIT]
        answer = self._step_or_reset(run, action)
        if answer is None:
            return
        observation, reward, over, info = answer
        run.steps.append(
            Step(
                observation=run.observation,
                text=reply.text,
                action=action,
                reward=reward,
                valid=bool(info.get("valid", True)),
                thought=thought,
                admissible=run.shown,
                written=reply.written,
                truncated=reply.truncated,
                prompt_cut=reply.prompt_cut,
                dropped=reply.dropped,
                tokens=reply.tokens,
            )
        )
        run.observation = observation
        if over or len(run.steps) == self.horizon:
            run.outcome = Outcome.SUCCESS if info.get("success") else Outcome.FAILURE

    def _step_or_reset(self, run: _Run, action: str | None) -> tuple[str, float, bool, dict[str, Any]] | None:
        """Start the episode (no action) or take the action; retry once on a new environment if it breaks.

        Returns observation, reward, whether the episode is over, and info; None at its start, or for an error.
        """
        for attempt in (1, 2):
            try:
                if run.env is None:
                    run.env = self.pool.take(run.task)
                if action is None or attempt == 2:
                    run.observation, info = run.env.reset(options={"task": run.task})
                    run.goal, run.content = info["goal"], info.get("content") or ""
                    for step in run.steps:
                        run.observation = run.env.step(step.action)[0]
                if action is None:
                    return None
                observation, reward, terminated, truncated, info = run.env.step(action)
                return observation, float(reward), terminated or truncated, info
            except UsageError:
                raise
            except Exception as error:
                if run.env is not None:
                    self.pool.discard(run.env)
                run.env = None
                if attempt == 2:
                    run.outcome, run.error = Outcome.ERROR, f"{type(error).__name__}: {error}"[:ERROR_LIMIT]
        return None

    def _finish(self, run: _Run) -> Episode:
        assert run.outcome is not None
        if run.env is not None:
            self.pool.give(run.task, run.env)
        steps, final = tuple(run.steps), run.observation
        episode = Episode(run.task, run.sample, run.goal, steps, run.outcome, final, run.error, run.rules, run.content)
        if self.on_episode is not None:
            self.on_episode(episode)
        return episode


def _close_quietly(env: TextEnv) -> None:
    with suppress(Exception):  # a broken environment may fail to close too
        env.close()


MIN_REPLIES, MIN_EPISODES = 16, 4  # read, at least, before a run is stopped
MAX_UNREADABLE_SHARE = 0.5  # of replies without an action; more than that stops a run
_SHOWN = 240  # characters of a reply that are shown


class UnreadableReplies(UsageError):
    """Most of a policy's first replies have no action."""


@dataclass
class UnreadableReplyCheck:
    """Reads the first replies of a run; done after `MIN_REPLIES` of them from `MIN_EPISODES` episodes.

    Args:
        policy: its name.
        config: how episodes are played.
        episodes: how many there are in all; where there are fewer than `MIN_EPISODES`, those have to do.
    """

    policy: str
    config: RolloutConfig
    episodes: int
    done: bool = False
    _steps: list[tuple[int, Step]] = field(default_factory=list)

    def add(self, steps: Sequence[tuple[int, Step]]) -> None:
        """Add the steps of a batch, each with its episode. Raises UnreadableReplies when most cannot be parsed."""
        if self.done:
            return
        self._steps += steps
        if len(self._steps) < MIN_REPLIES or len(dict(self._steps)) < min(MIN_EPISODES, self.episodes):
            return
        self.done = True
        reason = describe_unreadable(self.policy, self.config, [step for _, step in self._steps])
        if reason is not None:
            raise UnreadableReplies(f"stopped: {reason}. To play on all the same: --allow-unreadable")
        self._steps.clear()


def describe_unreadable(policy: str, config: RolloutConfig, steps: Sequence[Step]) -> str | None:
    """Explain in one line that most replies have no action, with an example and the settings to change.

    Returns None when that is not so.
    """
    bad = [step for step in steps if not step.action]
    if len(bad) <= MAX_UNREADABLE_SHARE * len(steps):
        return None
    example = " ".join("".join(c if c.isprintable() else " " for c in bad[0].text).split())
    example = example if len(example) <= _SHOWN else example[:_SHOWN] + "…"
    budget = config.sampling.max_new_tokens
    cut = sum(step.truncated for step in bad)
    hints = [f"--max-new-tokens ({cut} of these were cut off at {budget} tokens)"] if cut else []
    hints.append(f"--action-format (now {config.action_format})")
    hints.append(f"--thinking (now {'on' if config.thinking else 'off'})")
    if any(step.tokens is None for step in bad):
        hints.append("if it is a server, one that keeps special tokens in its text (skip_special_tokens: false)")
    return (
        f"{len(bad)} of the first {len(steps)} replies of {policy} hold no action that can be read, such as "
        f"{example!r}. What may change it: {'; '.join(hints)}"
    )
