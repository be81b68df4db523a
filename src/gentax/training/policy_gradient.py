"""Policy gradient, to be read from top to bottom: episodes and their rewards in, updated weights out.

  1. `update`, one step: advantages, loss, one optimizer step;
  2. advantages: GRPO, RLOO, REINFORCE++, PPO and GiGPO differ in the baseline of an episode, or of a step in it;
  3. the loss: the clipped ratio to the log-probabilities of the rollout, KL to the reference policy, entropy.

A reply is one action: all its tokens have the advantage of its step. Groups whose rewards are all equal have none and
are left out before any arithmetic (they are counted). Left out of the method: rewards and values for single tokens,
discounting, several updates on the same episodes, and recomputing the log-probabilities that the rollout has recorded.

Shapes: `T` tokens of a sequence, `S` its sampled tokens (or those of a batch), `G` episodes of a group, `E` episodes.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gentax.core import Episode, NonFiniteLoss, Outcome
from gentax.models.scoring import make_batches, token_logprobs
from gentax.models.scoring.batch import ScoringBatch
from gentax.training.config import PolicyGradientConfig, TrainConfig
from gentax.training.critic import Critic, states_before_replies
from gentax.training.distributed import World, clip_grad_norm, in_lockstep
from gentax.training.rewards import groups

if TYPE_CHECKING:
    from gentax.training.learner import Learner

ALONE = World()
SAME = 1e-9  # returns that differ by less do not differ
EXPLODED = 1e4  # a loss this many times the largest advantage (or 1): the policy has left what was sampled
MAX_GRAD_NORM = 1.0
# PPO's clip range. With one update on a step's episodes the ratio differs from 1 only by what the engines of rollout
# and training round differently, or as far as a server's weights lag behind.
EPSILON = 0.2
GAE_LAMBDA = 0.95  # of generalized advantage estimation, over the steps of an episode

# 1. One step --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainSample:
    """A token sequence to learn from; of its sampled tokens the log-probability in the rollout and the advantage."""

    ids_T: np.ndarray  # int32
    sampled_T: np.ndarray  # bool
    old_logprob_S: np.ndarray  # float32
    advantage_S: np.ndarray  # float32


def update(
    learner: Learner,
    reference: Any,
    optimizer: torch.optim.Optimizer,
    episodes: Sequence[Episode],
    rewards: Sequence[np.ndarray],
    config: TrainConfig,
    where: str,
    *,
    world: World = ALONE,
    critic: Critic | None = None,
    extra_loss: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Learn from the episodes of one step: advantages, loss, optimizer step; return metrics.

    With several processes each brings its own groups and all call this; the metrics are the same everywhere.

    Args:
        learner: whose `model` is run and whose `parameters` are updated in place.
        reference: the model of the policy that RL began with; not used when `algorithm.beta` is 0.
        optimizer: over the learner's parameters.
        episodes: whole groups, with tokens.
        rewards: of each episode, shape (steps,) (see `rewards_of`).
        config: `algorithm`, `precision` and the temperature of `rollout` are read here.
        where: names the step in the error.
        world: the processes that learn together.
        critic: the value head; `ppo` needs it.
        extra_loss: called once, also where no process has anything to learn from. It adds the gradient of a loss of
            its own to the policy's (those of several processes are summed) and returns metrics.

    Returns:
        spread: share of the episodes learned from. skipped: groups whose rewards are all equal.
        loss. grad_norm: before it is cut at 1.
        kl (k3 estimator), entropy (nats), clipped (share), drift (|new − old| log-probability): means over the sampled
            tokens learned from.
        learned_tokens: in the sequences learned from. distinct_tokens: shared prefixes counted once.
            computed_tokens: with padding.
        value_loss: mean squared error of the values before they are moved; `ppo` alone has it.
        And what `extra_loss` returned, as the mean over processes. Where nothing can be learned, `loss` and the metrics
        after it are missing.

    Raises:
        NonFiniteLoss: the loss or its gradient stopped being a number, or the loss exploded (see `EXPLODED`); the
            weights are as before.
    """
    algorithm = config.algorithm
    sequences = [
        (i, tokens)
        for i, episode in enumerate(episodes)
        if episode.outcome is not Outcome.ERROR
        for tokens in episode.sequences()
        if tokens.sampled_T.any()
    ]
    values = [np.zeros(len(reward)) for reward in rewards]
    if algorithm.advantage_estimator == "ppo":
        if critic is None:
            raise ValueError("ppo needs a critic")
        steps, state_BW = states_before_replies(learner.model, sequences, config.precision, world)
        for (i, n), value in zip(steps, critic.values(state_BW).tolist(), strict=True):
            values[i][n] = value
    advantages = compute_advantages(episodes, rewards, algorithm, world, values)
    samples = [
        TrainSample(tokens.ids_T, tokens.sampled_T, tokens.logprobs_T[tokens.sampled_T], advantage_S)
        for i, tokens in sequences
        if (advantage_S := advantages[i][tokens.step_T[tokens.sampled_T]]).any()
    ]
    report = advantage_metrics(episodes, advantages, world)
    if extra_loss is not None or world.max(len(samples)):
        report |= _accumulate_gradient(learner.model, reference, samples, config, world)
        for key, value in (extra_loss() if extra_loss is not None else {}).items():
            report[key] = world.sum(value) / world.size
        world.sum_gradients(learner.parameters)
        report["grad_norm"] = clip_grad_norm(learner.parameters, MAX_GRAD_NORM)
        largest = np.abs(np.concatenate([np.ones(1), *advantages]))
        limits = {
            "loss": EXPLODED * world.max(math.ceil(largest[np.isfinite(largest)].max())),
            "grad_norm": sys.float_info.max,
        }
        for key, limit in limits.items():
            if not abs(report.get(key, 0.0)) <= limit:  # in this form it is true of NaN
                optimizer.zero_grad(set_to_none=True)
                raise NonFiniteLoss(f"{key} became {report[key]:.6g} at {where}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if algorithm.advantage_estimator == "ppo" and critic is not None:
        estimates = gae(rewards, values)
        return_B = torch.tensor([estimates[i][n] + values[i][n] for i, n in steps])
        report["value_loss"] = critic.learn(state_BW, return_B.to(state_BW), world)
    return report


# 2. Advantages ------------------------------------------------------------------------------------------------------


def advantage_metrics(episodes: Sequence[Episode], advantages: Sequence[np.ndarray], world: World) -> dict[str, float]:
    """Return `spread`, the share of the episodes with an advantage, and `skipped`, the number of groups without one."""
    has_advantage = [bool(advantage_N.any()) for advantage_N in advantages]
    skipped = sum(not any(has_advantage[i] for i in group) for group in groups(episodes))
    spread = world.sum(sum(has_advantage)) / max(1.0, world.sum(len(episodes)))
    return {"spread": spread, "skipped": world.sum(skipped)}


def compute_advantages(
    episodes: Sequence[Episode],
    rewards: Sequence[np.ndarray],
    algorithm: PolicyGradientConfig,
    world: World = ALONE,
    values: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Return the advantage of each step of each episode, float32, shape (steps,).

    Episodes that ended in an error belong to no group and get zeros. A group whose returns are all equal gets zeros.

    Args:
        episodes: whole groups; a group is the episodes on one task.
        rewards: of each episode, shape (steps,) (see `rewards_of`).
        algorithm: `advantage_estimator`, and the settings that it reads.
        world: the processes whose episodes make one batch.
        values: of the state before each reply, shape (steps,); `ppo` alone reads them.
    """
    batch = AdvantageInputs(episodes, rewards, values, groups(episodes))
    advantages = ESTIMATORS[algorithm.advantage_estimator](batch, algorithm, world)
    return [advantage_N.astype(np.float32) for advantage_N in advantages]


@dataclass(frozen=True, slots=True)
class AdvantageInputs:
    """What an estimator reads; see `compute_advantages`. Groups hold the indices of their episodes."""

    episodes: Sequence[Episode]
    rewards: Sequence[np.ndarray]
    values: Sequence[np.ndarray]
    groups: list[list[int]]

    def zeros(self) -> list[np.ndarray]:
        """Return zeros, float64, shape (steps,) for each episode."""
        return [np.zeros(len(reward_N)) for reward_N in self.rewards]


def grpo(batch: AdvantageInputs, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """An episode's return less the mean of its group, over their standard deviation where `std` says so (GRPO,
    arXiv 2402.03300, sec. 4.1.2; without the division Dr. GRPO, arXiv 2503.20783)."""
    advantages = batch.zeros()
    for group in batch.groups:
        return_G = np.array([batch.rewards[i].sum() for i in group])
        for i, advantage in zip(group, center(return_G, algorithm.normalize_std), strict=True):
            advantages[i] += advantage
    return advantages


def rloo(batch: AdvantageInputs, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """An episode's return less the mean of the others in its group (RLOO, arXiv 2402.14740): n / (n − 1) times its
    difference from the mean of all n. `std` divides by that of the whole group, since the others may have none."""
    advantages = grpo(batch, algorithm, world)
    for group in batch.groups:
        for i in group:
            advantages[i] *= len(group) / max(1, len(group) - 1)
    return advantages


def reinforce(batch: AdvantageInputs, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """Returns, normalized over the episodes of all groups (REINFORCE++, arXiv 2501.03262)."""
    advantages = batch.zeros()
    members = [i for group in batch.groups for i in group]
    return_E = np.array([batch.rewards[i].sum() for i in members])
    for i, advantage in zip(members, normalize(return_E, world), strict=True):
        advantages[i] += advantage
    return advantages


def ppo(batch: AdvantageInputs, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """Generalized advantage estimates, normalized over all steps (PPO, arXiv 1707.06347)."""
    advantages = batch.zeros()
    steps = [(i, n) for group in batch.groups for i in group for n in range(len(batch.rewards[i]))]
    estimates = gae(batch.rewards, batch.values)
    normalized = normalize(np.array([estimates[i][n] for i, n in steps]), world)
    for (i, n), advantage in zip(steps, normalized, strict=True):
        advantages[i][n] = advantage
    return advantages


def gigpo(batch: AdvantageInputs, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """GRPO's, and as much again of the step among all steps of the group with the same observation: the return
    from there less their mean (GiGPO, arXiv 2505.10978, sec. 4). A state met once adds nothing; states are
    told apart by their text, in which distractors differ from step to step.
    """
    advantages = grpo(batch, algorithm, world)
    for group in batch.groups:
        steps_at: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i in group:
            for n, step in enumerate(batch.episodes[i].steps):
                steps_at[step.observation].append((i, n))
        returns = {i: returns_to_go(batch.rewards[i]) for i in group}
        for steps in steps_at.values():
            centered = center(np.array([returns[i][n] for i, n in steps]), algorithm.normalize_std)
            for (i, n), advantage in zip(steps, centered, strict=True):
                advantages[i][n] += advantage
    return advantages


ESTIMATORS = {"grpo": grpo, "rloo": rloo, "reinforce++": reinforce, "ppo": ppo, "gigpo": gigpo}


def center(return_G: np.ndarray, std: bool) -> np.ndarray:
    """Return each number less their mean, over (standard deviation + 1e-6) if `std`; zeros where all are equal."""
    if np.ptp(return_G) <= SAME:
        return np.zeros(len(return_G))
    return (return_G - return_G.mean()) / (return_G.std() + 1e-6 if std else 1.0)


def normalize(value_B: np.ndarray, world: World) -> np.ndarray:
    """Return (number − mean) / (standard deviation + 1e-6), both of all processes; zeros where all are equal."""
    count = max(1.0, world.sum(len(value_B)))
    mean = world.sum(float(value_B.sum())) / count
    std = math.sqrt(world.sum(float(np.square(value_B - mean).sum())) / count)
    return np.zeros(len(value_B)) if std <= SAME else (value_B - mean) / (std + 1e-6)


def returns_to_go(reward_N: np.ndarray, discount: float = 1.0) -> np.ndarray:
    """Return the discounted sum of the rewards from each step on."""
    total, return_N = 0.0, np.zeros(len(reward_N))
    for n in reversed(range(len(reward_N))):
        total = return_N[n] = reward_N[n] + discount * total
    return return_N


def gae(rewards: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the generalized advantage estimate (arXiv 1506.02438, eq. 16, undiscounted) of each step of each episode.

    Nothing follows the last step, also where the horizon cut an episode off: too long is a failure in these domains.
    """
    return [
        returns_to_go(reward_N + np.append(value_N[1:], 0.0) - value_N, GAE_LAMBDA)
        for reward_N, value_N in zip(rewards, values, strict=True)
    ]


# 3. The loss --------------------------------------------------------------------------------------------------------


def _accumulate_gradient(
    model: Any, reference: Any, samples: Sequence[TrainSample], config: TrainConfig, world: World
) -> dict[str, float]:
    """Accumulate this process's share of the gradient; return the metrics of all processes together, or nothing where
    none of them has anything to learn from."""
    num_samples = world.sum(len(samples))
    num_tokens = world.sum(sum(len(sample.old_logprob_S) for sample in samples))
    if not num_samples:
        return {}
    sum_F = torch.zeros(5, device=model.device)
    batches = make_batches(model, [sample.ids_T for sample in samples], [sample.sampled_T for sample in samples])
    for batch in in_lockstep(model, batches, world):
        members = [samples[i] for i in batch.sequences]
        weights = [
            1 / num_tokens
            if config.algorithm.loss_aggregation == "token"
            else 1 / num_samples / len(sample.old_logprob_S)
            for sample in members
        ]
        sum_F += _loss_backward(model, reference, batch, members, weights, config)
    loss, *sums = (world.sum(value) for value in sum_F.tolist())  # read once: a GPU is waited for each time
    counts = {
        "learned_tokens": sum(len(sample.ids_T) for sample in samples),
        "distinct_tokens": sum(batch.num_tokens for batch in batches),
        "computed_tokens": sum(batch.num_padded_tokens for batch in batches),
    }
    return {
        "loss": loss,
        **{key: value / num_tokens for key, value in zip(("kl", "entropy", "clipped", "drift"), sums, strict=True)},
        **{key: world.sum(count) for key, count in counts.items()},
    }


def _loss_backward(
    model: Any,
    reference: Any,
    batch: ScoringBatch,
    samples: Sequence[TrainSample],
    weights: Sequence[float],
    config: TrainConfig,
) -> torch.Tensor:
    """Accumulate the gradient of one batch's part of the loss; return that loss, and the sums over the batch's tokens
    of KL, entropy, clipped and drift: shape (5,), on the model's device.

    The loss of a token is −min(ratio · advantage, clip(ratio) · advantage) + kl · k3 − entropy · H (PPO's eq. 7,
    arXiv 1707.06347; k3 as in arXiv 2402.03300, eq. 4; H exact).

    Args:
        samples: the members of `batch`, in its order.
        weights: of a token of each sample in the loss, so that it is a mean over tokens or over sequences.
    """
    algorithm, temperature = config.algorithm, config.rollout.temperature
    old_S, advantage_S, weight_S = (
        torch.from_numpy(np.concatenate(parts)).to(model.device)
        for parts in (
            [sample.old_logprob_S for sample in samples],
            [sample.advantage_S for sample in samples],
            [np.full(len(x.old_logprob_S), w, np.float32) for x, w in zip(samples, weights, strict=True)],
        )
    )
    if algorithm.beta:
        with torch.no_grad():  # before the policy's pass, whose activations then stand alone in memory
            reference_S = token_logprobs(reference, batch, config.precision, temperature).logprob_S
    entropy_of = "gradient" if algorithm.entropy_coef else "value"  # with weight 0 it is computed only to be reported
    new_S, entropy_U = token_logprobs(model, batch, config.precision, temperature, entropy=entropy_of)
    assert entropy_U is not None
    entropy_S = batch.expand_to_tokens(entropy_U)
    ratio_S = (new_S - old_S).exp()
    clipped_ratio_S = ratio_S.clamp(1 - EPSILON, 1 + EPSILON)
    loss_S = -torch.minimum(ratio_S * advantage_S, clipped_ratio_S * advantage_S)
    kl_S = torch.zeros_like(old_S)
    if algorithm.beta:
        kl_S = (reference_S - new_S).exp() - (reference_S - new_S) - 1
        loss_S = loss_S + algorithm.beta * kl_S
    if algorithm.entropy_coef:
        loss_S = loss_S - algorithm.entropy_coef * entropy_S
    loss = (loss_S * weight_S).sum()
    loss.backward()
    with torch.no_grad():
        clipped_S = (ratio_S != clipped_ratio_S).float()
        drift_S = (old_S - new_S).abs()  # by as much the engines of rollout and training disagree
        return torch.stack([loss, kl_S.sum(), entropy_S.sum(), clipped_S.sum(), drift_S.sum()])
