"""The forgetting meter: how far a policy has moved from its start, on states the start meets in the domain trained on.

RL's Razor (arXiv 2509.04259): what a policy forgets elsewhere goes with KL(start || policy) on the new task. Reading it
takes no episode of any other domain, and none at all beyond the few played here. It is the value of
`gentax.evals.kl_forecast.forward_kl` on the same episodes, without an interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gentax.core import Outcome, UsageError, stable_seed
from gentax.models.scoring.kl import sequence_kl
from gentax.policies.protocol import Policy
from gentax.rollouts import rollout
from gentax.training.config import TrainConfig
from gentax.training.curriculum import TaskPool
from gentax.training.distributed import World

ALONE = World()
TASKS = 32  # played in all, shared out over the parts of a mixture


@dataclass(frozen=True)
class KLMonitor:
    """What the start wrote in some episodes; of several processes each holds its own."""

    ids: tuple[np.ndarray, ...]  # token ids of each sequence
    sampled: tuple[np.ndarray, ...]  # bool: what the start wrote of them
    actions: float  # of all processes
    world: World

    @classmethod
    def play(cls, policy: Policy, config: TrainConfig, grounds: Iterable[TaskPool], world: World = ALONE) -> KLMonitor:
        """Let the start play some train tasks as the recipe plays, at temperature 1.

        Seeded: a continued run plays the same episodes again, so `policy` must have its starting weights.

        Args:
            policy: the starting policy, with weights here.
            config: `play` and `seed` are read.
            grounds: what is trained on.
            world: the processes that share the playing.

        Raises:
            UsageError: every episode ended in an error.
        """
        rollout_config = replace(config.rollout, temperature=1.0)
        grounds = list(grounds)
        each = -(-TASKS // len(grounds))
        tasks = [task for ground in grounds for task in ground.learn[:each]]
        seed = stable_seed(config.seed, "meter")
        mine = tasks[world.rank :: world.size]
        played = rollout(policy, mine, config=rollout_config, seed=seed, parallel=config.parallel)
        whole = [episode for episode in played if episode.outcome is not Outcome.ERROR]
        actions = world.total(sum(episode.length for episode in whole))
        if not actions:
            raise UsageError("forgetting.kl_budget: every episode that the starting policy played ended in an error")
        texts = [sequence for episode in whole for sequence in episode.sequences()]
        return cls(tuple(text.ids_T for text in texts), tuple(text.sampled_T for text in texts), actions, world)

    def read(self, start: Any, model: Any) -> float:
        """Return KL(start || model) in nats an action. All processes call it together.

        Args:
            start: the starting policy's model.
            model: the policy's as it plays now; whole in every process, unlike what may be training.
        """
        return self.world.total(float(sequence_kl(start, model, self.ids, self.sampled).sum())) / self.actions
