"""Early stopping by a KL budget: end the run when the policy has moved too far from where RL began.

RL's Razor (arXiv 2509.04259): what a policy forgets elsewhere goes with KL(start || policy) on the new task. Measuring
it takes no episode of any other domain, and none at all beyond the few played here. It is the value of
`gentax.evals.kl_forecast.forward_kl` on the same episodes, without an interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gentax.core import Outcome, UsageError, stable_seed
from gentax.models.scoring import sequence_kl
from gentax.training.forgetting import ForgettingMethod, Start
from gentax.training.rollout_worker import TaskPool

TASKS = 32  # played in all, split evenly over the parts of a mixture


class KLBudget(ForgettingMethod):
    """Stops at the first checkpoint whose KL is over the budget, and logs the KL as `forgetting`.

    Attributes:
        ids, sampled: token ids of this process's sequences, and which of the tokens the start sampled.
        actions: how many actions the sequences of all processes hold.
    """

    start_at = "rl"
    keeps_start_model = True

    def before_training(self, start: Start, tasks: Iterable[TaskPool]) -> None:
        """Let the start play some train tasks as in training, at temperature 1.

        Raises:
            UsageError: every episode ended in an error.
        """
        self.start = start
        pools = list(tasks)
        per_pool = -(-TASKS // len(pools))
        chosen = [task for pool in pools for task in pool.train[:per_pool]]
        config = replace(self.config.rollout, temperature=1.0)
        episodes = start.rollout(chosen, config, stable_seed(self.config.seed, "meter"))
        episodes = [episode for episode in episodes if episode.outcome is not Outcome.ERROR]
        self.actions = start.world.sum(sum(episode.length for episode in episodes))
        if not self.actions:
            raise UsageError("forgetting.kl_budget: every episode that the starting policy played ended in an error")
        sequences = [sequence for episode in episodes for sequence in episode.sequences()]
        self.ids = [sequence.ids_T for sequence in sequences]
        self.sampled = [sequence.sampled_T for sequence in sequences]

    def kl(self, model: Any) -> float:
        """Return KL(start || model) in nats an action. All processes call it together."""
        total = sequence_kl(self.start.model, model, self.ids, self.sampled).sum()
        return self.start.world.sum(float(total)) / self.actions

    def should_stop(self, metrics: dict[str, float], model: Any) -> bool:
        metrics["forgetting"] = self.kl(model)
        budget = self.config.forgetting.kl_budget
        return budget is not None and metrics["forgetting"] > budget
