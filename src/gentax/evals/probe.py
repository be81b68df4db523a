"""Look at domains before anybody trains on them: where each lies on the axes, alone and in wrappers.

A probe serves to choose what to train on and to forecast what that will cost, so it plays tasks of the train split:
forecasts are checked on test tasks, and what was chosen by looking at these could not be checked on them.

A state's prompt is counted as arXiv 2601.18217 writes it, whatever context the policy plays in: rules, goal, the last
two steps and the observation. An append-only prompt grows with the episode, and its length would be planning
complexity over again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gentax.core import Episode, ExpertAction, Outcome, Task, UsageError
from gentax.core.console import EpisodeProgress
from gentax.core.imports import LOCAL, require_modules
from gentax.evals.evaluate import evaluate
from gentax.metrics.axes import Probe, axes
from gentax.metrics.episode_scores import MAX_ERROR_SHARE
from gentax.models.options import ModelOptions
from gentax.policies import Policy, load_policy
from gentax.policies.load import SCRIPTED, ExpertPolicy
from gentax.policies.protocol import PolicyRequest, Reply, max_parallel_episodes
from gentax.rollouts import RolloutConfig, make_env
from gentax.rollouts.prompt import episode_prompts

SPLIT = "train"
TRAJECTORIES, HORIZON = 128, 50  # of arXiv 2601.18217
STATE = "window(2)"  # the context in which a state's prompt is counted

Names = Iterable[str | tuple[str, str | None]] | Mapping[str, str | None]


def probe(
    domains: Names,
    policy: str | Path | Policy = "base",
    *,
    trajectories: int = TRAJECTORIES,
    samples: int = 1,
    horizon: int = HORIZON,
    wrap: Sequence[str] = (),
    config: RolloutConfig | None = None,
    seed: int = 0,
    parallel: int | None = None,
    model: ModelOptions = ModelOptions(),
    on_episode: Callable[[Episode], None] | None = None,
    stop_if_unreadable: bool = True,
    progress: bool | None = None,
) -> tuple[Probe, ...]:
    """Measure where `domains` lie under `policy`, in their order; a domain that is wrapped follows its plain self.

    Args:
        domains: names, registered or `module:factory`; pairs of name and level; or a mapping of the one to the other.
        policy: "random", "expert", a model, a server, `module:attribute` or any `Policy` (see `load_policy`).
        trajectories: episodes of each domain: tasks times samples. A split that has fewer tasks is played whole.
        samples: episodes on each task; with more than one, pass@k is known beyond k = 1.
        horizon: steps after which every domain's episodes are cut off, and at which failures are counted.
        wrap: wrappers, the first innermost, such as `distract(volume=80)`; each domain is then measured twice.
        config: context, temperature and so on. Its horizon is not used; its own wrappers are around every domain.
        seed: see `gentax.evaluate`, as for the arguments that follow.

    Raises:
        UsageError: an unknown domain, level, wrapper or policy, trajectories that are not whole tasks, replies that
            cannot be read, or episodes that ended in an error beyond 2 % of a domain's.
    """
    asked = _asked(domains)
    if samples < 1 or trajectories % samples or trajectories < 2 * samples:
        raise UsageError(
            f"trajectories must be 2 or more tasks times the samples on each, not {trajectories} with samples {samples}"
        )
    config = replace(config or RolloutConfig(), horizon=horizon)
    variants = [config, replace(config, wrap=(*config.wrap, *wrap))] if wrap else [config]
    total = 0
    for name, level in asked:
        for variant in variants:  # what cannot be made is refused before anything is played
            env = make_env(variant, name, level, SPLIT)
            total += samples * min(trajectories // samples, env.size(SPLIT))
            env.close()
    player = load_policy(policy, model)
    encode, tokenizer = _tokens_of(player)
    count = EpisodeProgress(total, player.name, progress, on_episode)
    readable = stop_if_unreadable and not isinstance(player, SCRIPTED)
    probes = []
    for name, level in asked:
        for variant in variants:
            ask = partial(
                evaluate,
                domains={name: level},
                tasks=trajectories // samples,
                split=SPLIT,
                seed=seed,
                parallel=parallel,
                progress=False,
            )
            counting = _Counting(player)
            count.begin(name)
            played = ask(
                counting,
                samples=samples,
                config=variant,
                on_episode=count,
                on_steps=count.steps,
                stop_if_unreadable=readable,
            )
            episodes = played.episodes[name]
            plain = name if level is None else f"{name}:{level}"
            _refuse_errors(plain, episodes)
            count.begin(f"{name}, the expert's plans")
            measured = axes(
                name,
                episodes,
                horizon,
                prompts=partial(episode_prompts, replace(variant, context=STATE)),
                encode=encode,
                expert_lengths=_plans(ask, replace(variant, horizon=None)),
                choices=_without_errors(counting.choices, episodes),
            )
            wrapped = variant is not config
            probes.append(
                Probe(
                    domain=name,
                    level=episodes[0].task.level,
                    wrap=variant.wrap,
                    policy=player.name,
                    tokenizer=tokenizer,
                    seed=seed,
                    axes=measured,
                    name=f"{plain} + {', '.join(wrap)}" if wrapped else plain,
                    plain=plain if wrapped else None,
                    runtime=getattr(player, "runtime", None),
                    episodes=tuple(e for e in episodes if e.outcome is not Outcome.ERROR),
                )
            )
    return tuple(probes)


def _without_errors(choices: Sequence[tuple[Task, int]], episodes: Sequence[Episode]) -> list[tuple[Task, int]] | None:
    """Return the choices on tasks that no error befell; None on fewer than 2 tasks."""
    broken = {episode.task for episode in episodes if episode.outcome is Outcome.ERROR}
    kept = [(task, count) for task, count in choices if task not in broken]
    return kept if len({task for task, _ in kept}) > 1 else None


class _Counting:
    """Plays as another policy does, and counts the admissible actions of each state it is asked about."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name
        self.choices: list[tuple[Task, int]] = []
        if hasattr(policy, "default_max_new_tokens"):
            self.default_max_new_tokens = policy.default_max_new_tokens

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        for turn in turns:
            try:
                listed = turn.env.admissible()
            except Exception:
                continue  # any fault of an environment is the engine's to meet, when the action is done
            if listed is not None and turn.env.task is not None:
                self.choices.append((turn.env.task, len(listed)))
        return self.policy.reply(turns)

    def max_parallel(self, context_tokens: int) -> int:
        return max_parallel_episodes(self.policy, context_tokens)


class _Planner(ExpertPolicy):
    """Plays the expert and remembers the tasks on which it had no move, so that none is mistaken for a plan."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[Task | None] = set()

    def _next_action(self, turn: PolicyRequest) -> ExpertAction:
        try:
            move = turn.env.expert()
        except Exception:
            return ExpertAction("")  # likewise
        if move is None:
            self.lost.add(turn.env.task)
        return move or ExpertAction("")


def _plans(ask: Callable[..., Any], config: RolloutConfig) -> list[float] | None:
    """Return the lengths of the expert's plans, one for each task it solves within the level's own horizon.

    None for a domain without an expert, or one that solves fewer than 2 tasks.
    """
    planner = _Planner()
    (episodes,) = ask(planner, config=config, stop_if_unreadable=False).episodes.values()
    lengths = [float(e.length) for e in episodes if e.success and e.task not in planner.lost]
    return lengths if len(lengths) > 1 else None


def _refuse_errors(name: str, episodes: Sequence[Episode]) -> None:
    broken = [episode for episode in episodes if episode.outcome is Outcome.ERROR]
    if len(broken) > MAX_ERROR_SHARE * len(episodes):
        raise UsageError(
            f"{len(broken)} of {len(episodes)} episodes on {name} ended in an error, more than "
            f"{100 * MAX_ERROR_SHARE:g} %: what broke must be fixed before anything is measured on it; "
            f"the first said {broken[0].error[:200]!r}"
        )


def _asked(domains: Names) -> list[tuple[str, str | None]]:
    """Return the names and levels asked for, each once, in order. Raises UsageError when there is none."""
    domains = [domains] if isinstance(domains, str) else domains
    pairs = domains.items() if isinstance(domains, Mapping) else domains
    asked = list(dict.fromkeys((pair, None) if isinstance(pair, str) else tuple(pair) for pair in pairs))
    if not asked:
        raise UsageError("no domain to probe")
    return asked


def _tokens_of(policy: Policy) -> tuple[Callable[[str], Any], str]:
    """Return what turns text to tokens, and whose it is: the policy's own, or the base model's where it has none."""
    codec = getattr(policy, "codec", None)
    if codec is not None:
        return codec.encode_text, policy.name
    require_modules("counting tokens as the base model does", *LOCAL)
    from gentax.models.chat import ChatCodec
    from gentax.models.loading import load_tokenizer

    return ChatCodec(load_tokenizer("base")).encode_text, "base"
