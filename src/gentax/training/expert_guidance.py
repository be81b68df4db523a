"""Expert guidance during training: hints of the next action, and expert prefixes (first steps that the expert plays).

Both bring the policy to rewards that it would not find by itself, and both fade out (see `ExplorationConfig`). All
episodes of a group are guided alike, at the same steps, so that their advantages are due to the policy alone. Nothing
is learned from the expert's own steps: they stand in the tokens as part of the prompt. A hint stands in the prompt too,
and never in an episode's observations. Evaluation never uses any of this.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gentax.core import EnvironmentFault, ExpertAction, Task, UsageError, stable_seed
from gentax.models.action_format import write_reply
from gentax.policies.local import LocalPolicy
from gentax.policies.protocol import PolicyRequest, Reply, max_parallel_episodes
from gentax.rollouts import EnvPool, RolloutConfig, rollout

PLANNED = 16  # tasks of each part that the expert plays, to know how long its plans are


class GuidedPolicy:
    """A policy with hints at some steps, whose first steps the expert plays.

    Where the expert has no move, or the environment breaks when it is asked, the policy is on its own.

    Args:
        policy: who plays, and learns.
        hints: the share of the prompts in which a line `Hint: ` with the expert's next action precedes the observation.
        expert_prefix: how many first steps of an episode the expert plays, by task; none where a task is missing.
        seed: with the task and the number of the step, decides which prompts have a hint; of the run and its update.
    """

    def __init__(
        self, policy: LocalPolicy, hints: float = 0.0, expert_prefix: Mapping[Task, int] | None = None, seed: int = 0
    ) -> None:
        self.policy, self.hints, self.expert_prefix, self.seed = policy, hints, expert_prefix or {}, seed
        self.name = policy.name
        if hasattr(policy, "default_max_new_tokens"):
            self.default_max_new_tokens = policy.default_max_new_tokens

    def max_parallel(self, context_tokens: int) -> int:
        """Return how many episodes the policy plays at once."""
        return max_parallel_episodes(self.policy, context_tokens)

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Answer every turn; those that the expert does not play are sampled in one call."""
        replies: dict[int, Reply] = {}
        own: dict[int, PolicyRequest] = {}
        for i, turn in enumerate(turns):
            in_prefix = self._in_prefix(turn)
            # An expert may be slow: it is called only where it is needed.
            move = _expert_action(turn) if in_prefix or self._hinted(turn) else None
            if move is None:
                own[i] = turn
            elif in_prefix:
                thought = move.thought if turn.chat.thinking else None
                replies[i] = self.policy.append_reply(turn, write_reply(move.action, thought, turn.chat.action_format))
            else:
                own[i] = replace(turn, message=_hint(turn, move))
        if own:
            replies.update(zip(own, self.policy.reply(list(own.values())), strict=True))
        return [replies[i] for i in range(len(turns))]

    def _in_prefix(self, turn: PolicyRequest) -> bool:
        return turn.env.task is not None and turn.env.steps < self.expert_prefix.get(turn.env.task, 0)

    def _hinted(self, turn: PolicyRequest) -> bool:
        # Not from the episode's generator: a group shares its hints, and what it samples does not hang on them.
        task = turn.env.task
        return task is not None and _uniform(self.seed, "hint", task.id, turn.env.steps) < self.hints


def expert_prefixes(
    tasks: Iterable[Task],
    share: float,
    lengths: Mapping[tuple[str, str], float],
    seed: int,
    horizon: int | None = None,
) -> dict[Task, int]:
    """Draw for each task how many steps the expert plays: uniform among 0, 1, … up to `share` of a plan's length.

    A plan's length is that of its (domain, level), not of the task, which would have to be played by the expert
    first. At least one step of a plan of that length is left to the policy; in a task whose own plan is shorter the
    expert may finish, and such a group teaches nothing at that update.

    Args:
        tasks: one for each group.
        share: of a plan, from 0 to 1.
        lengths: steps of a plan by (domain, level), from `plan_lengths`.
        seed: of the run and its update; with the task, decides the number.
        horizon: steps after which episodes are cut off, where that is before their environment would.
    """
    starts = {}
    for task in tasks:
        length = lengths[task.domain, task.level]
        most = min(
            math.floor(share * length + 1e-9), math.ceil(length) - 1, math.inf if horizon is None else horizon - 1
        )
        starts[task] = int(_uniform(seed, "head start", task.id) * (most + 1))
    return starts


def plan_lengths(
    tasks: Iterable[Task], config: RolloutConfig, pool: EnvPool | None = None
) -> dict[tuple[str, str], float]:
    """Let the expert play some tasks; return the median steps of its successes by (domain, level).

    Args:
        tasks: train tasks; a handful of each (domain, level) will do.
        config: how they are played: its horizon and its wrappers count here.
        pool: environments to use and keep.

    Raises:
        UsageError: a domain and level where no task was solved, for want of an expert or of steps.
    """
    solved: dict[tuple[str, str], list[int]] = {}
    for episode in rollout(_Planner(), tasks, config=replace(config, admissible=False), pool=pool):
        lengths = solved.setdefault((episode.task.domain, episode.task.level), [])
        if episode.success:
            lengths.append(episode.length)
    for (domain, level), lengths in solved.items():
        if not lengths:
            raise UsageError(f"{domain} at level {level} has no expert that solves its tasks, so there is no guidance")
    return {key: float(np.median(lengths)) for key, lengths in solved.items()}


class _Planner:
    """Plays the expert's actions; where it has none, the reply is empty. (`ExpertPolicy` would sample an action.)"""

    name = "plan"

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        moves = [(_expert_action(turn), turn.chat.action_format) for turn in turns]
        return [Reply("" if move is None else write_reply(move.action, None, how)) for move, how in moves]


def _hint(turn: PolicyRequest, move: ExpertAction) -> str:
    """Return the turn's message with the hint in the line before the observation.

    Not behind it: a small model that was trained to answer right after the observation is thrown off by anything that
    stands between (the base model's success in Sokoban fell from a half to none), and then no reward teaches it better.
    """
    at = max(0, turn.message.rfind(turn.env.observation))
    return f"{turn.message[:at]}Hint: {move.action}\n{turn.message[at:]}"


def _expert_action(turn: PolicyRequest) -> ExpertAction | None:
    try:
        return turn.env.expert()
    except EnvironmentFault:
        return None  # the engine will meet the same fault and replay the episode


def _uniform(*parts: object) -> float:
    """Return a number from 0 to 1, exclusive, that is the same for the same parts on every machine."""
    return (stable_seed(*parts) >> 11) / 2**53
