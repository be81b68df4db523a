"""How episodes become a gradient."""

from __future__ import annotations

from dataclasses import dataclass

from gentax.training.config.ranges import at_least, choice, positive, share

ESTIMATORS = ("grpo", "rloo", "reinforce++", "ppo", "gigpo")


@dataclass(frozen=True)
class PolicyGradientConfig:
    """The policy-gradient method: which advantage, which loss."""

    advantage_estimator: str = "grpo"
    """What an episode is compared with: `grpo`, the mean of its group; `rloo`, the mean of the others in its group;
    `reinforce++`, the whole batch; `ppo`, a learned value of each state; `gigpo`, its group and, at each state that is
    met more than once in the group, the other ways on from there."""
    normalize_std: bool = False
    """Whether advantages are divided by the standard deviation of what they were compared with. Where a group differs
    in nothing but invalid actions, that makes as much of them as of success. `reinforce++` and `ppo` always divide."""
    loss_aggregation: str = "token"
    """What counts alike in the loss: every sampled `token`, or every `sequence` (an episode with context `full`)."""
    epsilon: float = 0.2
    """How far the ratio of new to old probability may fall below 1 before its gradient is cut (PPO's epsilon)."""
    epsilon_high: float | None = None
    """How far it may rise above 1; `epsilon` when null. More than `epsilon` keeps unlikely tokens alive (DAPO)."""
    beta: float = 0.01
    """Weight of the KL divergence to the starting policy."""
    kl_in: str = "loss"
    """Where it stands: in the `loss` (k3 estimator) or taken from the `reward` (log-ratio of each sampled token)."""
    entropy_coef: float = 0.0
    """Weight of the mean entropy of the sampled tokens' distributions, which is added to the objective."""
    minibatches: int = 1
    """Updates made from the episodes of one step."""
    gamma: float = 1.0
    """Of later rewards: a step's return in `ppo` and in the step groups of `gigpo`, whose paper has 0.95."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation, over the steps of an episode; `ppo` alone reads it."""
    step_weight: float = 1.0
    """Weight of the advantage among step groups against that of the episode; `gigpo` alone reads it."""
    value_lr: float = 1e-3
    """Learning rate of the value head; `ppo` alone reads it."""

    def __post_init__(self) -> None:
        choice("algorithm.advantage_estimator", self.advantage_estimator, ESTIMATORS)
        choice("algorithm.loss_aggregation", self.loss_aggregation, ("token", "sequence"))
        choice("algorithm.kl_in", self.kl_in, ("loss", "reward"))
        at_least(0, algorithm=self, names=("epsilon", "beta", "entropy_coef", "step_weight"))
        positive(algorithm=self, names=("minibatches", "value_lr"))
        share(algorithm=self, names=("gamma", "gae_lambda"))
        if self.epsilon_high is not None:
            at_least(self.epsilon, algorithm=self, names=("epsilon_high",))
