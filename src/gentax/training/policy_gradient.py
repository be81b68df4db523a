"""Policy gradient as one reads it top to bottom: episodes and their rewards in, updated weights out.

What stands here, in this order:
  1. advantages: GRPO, RLOO, REINFORCE++, PPO and GiGPO differ in what an episode, or a step of it, is compared with;
  2. the update: KL taken from the rewards, values, advantages, minibatches, one step of the optimiser for each;
  3. the loss: the clipped ratio to the probabilities recorded while playing, KL to the starting policy, entropy.
A reply is one action: all its tokens have the advantage of its step. What has no advantage is left out before any
arithmetic: the groups without spread (they are counted) and the steps that an expert played.
What was left out: rewards and values for single tokens, values that are clipped or share a body's gradient, several
epochs over the same episodes, and the re-computation of probabilities that playing has already given.
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

from gentax.core import Episode, NonFiniteLoss, Outcome, TokenSequence
from gentax.models.scoring import ScoringBatch, make_batches, token_logprobs
from gentax.training.config import TrainConfig
from gentax.training.config.policy_gradient import PolicyGradientConfig
from gentax.training.critic import Critic, states_before_replies
from gentax.training.distributed import World, clip, in_step
from gentax.training.rewards import chosen, groups

if TYPE_CHECKING:
    from gentax.training.learner import Learner

ALONE = World()
SAME = 1e-9  # returns that differ by less do not differ
ABSURD = 1e4  # a loss this many times the largest advantage (or 1) comes of a policy that has left what was played

# 1. Advantages ------------------------------------------------------------------------------------------------------


def advantages(
    episodes: Sequence[Episode],
    rewards: Sequence[np.ndarray],
    algorithm: PolicyGradientConfig,
    world: World = ALONE,
    values: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Return the advantage of each step of each episode, float32, shape (steps,).

    Episodes that ended in an error belong to no group and get zeros, and so do the steps of a head start. What is
    compared and does not differ gets zeros.

    Args:
        episodes: whole groups; a group is what was played on one task.
        rewards: of each episode, shape (steps,) (see `rewards_of`).
        algorithm: `estimator`, and what that reads.
        world: the processes whose episodes make one batch.
        values: of the state before each reply, shape (steps,); `ppo` alone reads them.
    """
    played = Played(episodes, rewards, values, groups(episodes))
    gains = ESTIMATORS[algorithm.advantage_estimator](played, algorithm, world)
    mine = (np.array([chosen(step) for step in episode.steps], bool) for episode in episodes)
    return [np.where(own, gain, 0.0).astype(np.float32) for gain, own in zip(gains, mine, strict=True)]


@dataclass(frozen=True, slots=True)
class Played:
    """What an estimator looks at; see `advantages`. Groups hold the indices of their episodes."""

    episodes: Sequence[Episode]
    rewards: Sequence[np.ndarray]
    values: Sequence[np.ndarray]
    groups: list[list[int]]

    def steps(self) -> list[np.ndarray]:
        """Return zeros, float64, shape (steps,) for each episode."""
        return [np.zeros(len(reward)) for reward in self.rewards]


def grpo(played: Played, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """An episode's return less the mean of its group, over their standard deviation where `std` says so (GRPO,
    arXiv 2402.03300, sec. 4.1.2; without the division Dr. GRPO, arXiv 2503.20783)."""
    gains = played.steps()
    for members in played.groups:
        return_G = np.array([played.rewards[i].sum() for i in members])
        for i, gain in zip(members, compared(return_G, algorithm.normalize_std), strict=True):
            gains[i] += gain
    return gains


def rloo(played: Played, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """An episode's return less the mean of the others in its group (RLOO, arXiv 2402.14740): n / (n − 1) times what it
    is less the mean of all n. `std` divides by that of the whole group, since the others may have none."""
    gains = grpo(played, algorithm, world)
    for members in played.groups:
        for i in members:
            gains[i] *= len(members) / max(1, len(members) - 1)
    return gains


def reinforce(played: Played, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """Returns, normalised over the episodes of all groups (REINFORCE++, arXiv 2501.03262)."""
    gains = played.steps()
    members = [i for group in played.groups for i in group]
    return_E = np.array([played.rewards[i].sum() for i in members])
    for i, gain in zip(members, normalised(return_E, world), strict=True):
        gains[i] += gain
    return gains


def ppo(played: Played, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """Generalized advantage estimates, normalised over all steps that the policy played (PPO, arXiv 1707.06347)."""
    gains = played.steps()
    places = [
        (i, n) for group in played.groups for i in group for n, s in enumerate(played.episodes[i].steps) if chosen(s)
    ]
    estimates = gae_of(played.rewards, played.values, algorithm)
    for (i, n), gain in zip(places, normalised(np.array([estimates[i][n] for i, n in places]), world), strict=True):
        gains[i][n] = gain
    return gains


def gigpo(played: Played, algorithm: PolicyGradientConfig, world: World) -> list[np.ndarray]:
    """GRPO's, and `step_weight` times that of the step among all steps of the group that saw the same observation:
    the discounted return from there less their mean (GiGPO, arXiv 2505.10978, sec. 4). A state met once adds nothing;
    states are told apart by their text, in which distractors differ from step to step.
    """
    gains = grpo(played, algorithm, world)
    for members in played.groups:
        met: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i in members:
            for n, step in enumerate(played.episodes[i].steps):
                if chosen(step):
                    met[step.observation].append((i, n))
        rest = {i: to_go(played.rewards[i], algorithm.gamma) for i in members}
        for places in met.values():
            compared_P = compared(np.array([rest[i][n] for i, n in places]), algorithm.normalize_std)
            for (i, n), gain in zip(places, compared_P, strict=True):
                gains[i][n] += algorithm.step_weight * gain
    return gains


ESTIMATORS = {"grpo": grpo, "rloo": rloo, "reinforce++": reinforce, "ppo": ppo, "gigpo": gigpo}


def compared(return_B: np.ndarray, std: bool) -> np.ndarray:
    """Return each number less their mean, over (standard deviation + 1e-6) if `std`; zeros where none differs."""
    if np.ptp(return_B) <= SAME:
        return np.zeros(len(return_B))
    return (return_B - return_B.mean()) / (return_B.std() + 1e-6 if std else 1.0)


def normalised(gain_B: np.ndarray, world: World) -> np.ndarray:
    """Return (number − mean) / (standard deviation + 1e-6), both of all processes; zeros where none differs."""
    count = max(1.0, world.total(len(gain_B)))
    mean = world.total(float(gain_B.sum())) / count
    std = math.sqrt(world.total(float(np.square(gain_B - mean).sum())) / count)
    return np.zeros(len(gain_B)) if std <= SAME else (gain_B - mean) / (std + 1e-6)


def to_go(reward_T: np.ndarray, discount: float) -> np.ndarray:
    """Return the discounted sum of the rewards from each step on."""
    total, return_T = 0.0, np.zeros(len(reward_T))
    for n in reversed(range(len(reward_T))):
        total = return_T[n] = reward_T[n] + discount * total
    return return_T


def gae_of(
    rewards: Sequence[np.ndarray], values: Sequence[np.ndarray], algorithm: PolicyGradientConfig
) -> list[np.ndarray]:
    """Return the generalized advantage estimate (arXiv 1506.02438, eq. 16) of each step of each episode.

    Nothing follows the last step, also where the horizon cut an episode off: too long is a failure in these domains.
    """
    estimates = []
    for reward_T, value_T in zip(rewards, values, strict=True):
        surprise_T = reward_T + algorithm.gamma * np.append(value_T[1:], 0.0) - value_T
        estimates.append(to_go(surprise_T, algorithm.gamma * algorithm.gae_lambda))
    return estimates


# 2. The update ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainSample:
    """A token sequence to learn from, and of its S sampled tokens the old log-probability and the advantage."""

    ids_T: np.ndarray  # int32
    sampled_T: np.ndarray  # bool
    old_S: np.ndarray  # float32
    gain_S: np.ndarray  # float32


def update(
    learner: Learner,
    reference: Any,
    optimizer: torch.optim.Optimizer,
    episodes: Sequence[Episode],
    rewards: Sequence[np.ndarray],
    config: TrainConfig,
    where: str,
    *,
    temperature: float,
    world: World = ALONE,
    critic: Critic | None = None,
    extra: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Learn from the episodes of one step; return what happened.

    With several processes each brings its own groups and all call this; what is returned is the same everywhere.

    Args:
        learner: whose `model` is run and whose `parameters` are updated in place.
        reference: the starting policy's model; not used when `algorithm.beta` is 0.
        optimizer: over the learner's parameters.
        episodes: whole groups, with tokens.
        rewards: of each episode, shape (steps,) (see `rewards_of`).
        config: `algorithm` and `precision` are read here.
        where: said in the error.
        temperature: at which the episodes were sampled.
        world: the processes that learn together.
        critic: the value head; `ppo` needs it.
        extra: called once for every step of the optimiser, and once where no process has anything to learn from. It
            adds the gradient of a loss of its own to the policy's (those of several processes are summed) and returns
            figures to report.

    Returns:
        spread: share of the episodes learned from. skipped: groups without spread.
        loss: mean over the minibatches, as is all that follows. grad_norm: before it is cut at 1.
        kl (k3 estimator), entropy (nats), clipped (share), drift (|new − old| log-probability): means over the sampled
            tokens learned from; kl over all sampled tokens where it is taken from the reward.
        learned_tokens: in the sequences learned from. distinct_tokens: less what several of them begin with.
            computed_tokens: with padding.
        value_loss: mean squared error of the values before they are moved; `ppo` alone has it.
        And what `extra` returned, as the mean over minibatches and processes. Where nothing can be learned, `loss` and
        the figures after it are missing.

    Raises:
        NonFiniteLoss: the loss or its gradient stopped being a number, or the loss exploded (see `ABSURD`); the
            weights are as before that minibatch.
    """
    algorithm = config.algorithm
    sequences = [
        (i, tokens)
        for i, episode in enumerate(episodes)
        if episode.outcome is not Outcome.ERROR
        for tokens in episode.sequences()
        if tokens.sampled_T.any()
    ]
    report: dict[str, float] = {}
    if algorithm.beta and algorithm.kl_in == "reward":
        rewards, report["kl"] = less_kl(reference, sequences, rewards, config, temperature, world)
    values = [np.zeros(len(reward)) for reward in rewards]
    if algorithm.advantage_estimator != "ppo":
        critic = None
    elif critic is None:
        raise ValueError("ppo needs a critic")
    if critic is not None:
        places, state_BW = states_before_replies(learner.model, sequences, config.precision, world)
        for (i, n), value in zip(places, critic.values(state_BW).tolist(), strict=True):
            values[i][n] = value
    gains = advantages(episodes, rewards, algorithm, world, values)
    report["spread"] = world.total(sum(bool(gain.any()) for gain in gains)) / max(1.0, world.total(len(episodes)))
    report["skipped"] = world.total(sum(not any(gains[i].any() for i in members) for members in groups(episodes)))

    lessons = [
        TrainSample(tokens.ids_T, tokens.sampled_T, tokens.logprobs_T[tokens.sampled_T], gain_S)
        for i, tokens in sequences
        if (gain_S := gains[i][tokens.step_T[tokens.sampled_T]]).any()
    ]
    turns = min(algorithm.minibatches, world.most(len(lessons)))
    # Neighbours come from one group: dealt out, so that each part sees every group.
    parts = [lessons[turn::turns] for turn in range(turns)]
    if extra is not None and not parts:
        parts = [[]]
    size = np.abs(np.concatenate([np.ones(1), *gains]))
    bound = ABSURD * world.most(math.ceil(size[np.isfinite(size)].max()))
    figures: dict[str, float] = defaultdict(float)
    for number, part in enumerate(parts, 1):
        found = _gradient(learner.model, reference, part, config, temperature, world)
        for key, value in (extra() if extra is not None else {}).items():
            found[key] = world.total(value) / world.size
        world.add_gradients(learner.parameters)
        found["grad_norm"] = clip(learner.parameters, 1.0)
        for key, most in (("loss", bound), ("grad_norm", sys.float_info.max)):
            if key in found and not abs(found[key]) <= most:  # so written, it is true of what is no number
                optimizer.zero_grad(set_to_none=True)
                at = f"minibatch {number} of {len(parts)} at {where}"
                raise NonFiniteLoss(f"{key} became {found[key]:.6g} in {at}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for key, value in found.items():
            figures[key] += value if key.endswith("_tokens") else value / len(parts)
    if critic is not None:
        estimates = gae_of(rewards, values, algorithm)
        return_B = torch.tensor([estimates[i][n] + values[i][n] for i, n in places])
        report["value_loss"] = critic.learn(state_BW, return_B.to(state_BW), world)
    return dict(figures) | report


def less_kl(
    reference: Any,
    sequences: Sequence[tuple[int, TokenSequence]],
    rewards: Sequence[np.ndarray],
    config: TrainConfig,
    temperature: float,
    world: World,
) -> tuple[list[np.ndarray], float]:
    """Take from each step's reward `kl` times the sum of log(p / p of the starting policy) over its sampled tokens, p
    being that of playing (as RLOO and REINFORCE++ do). Return the rewards, and the mean KL of a token (k3). After it
    hardly any group is without spread.

    Args:
        reference: the starting policy's model.
        sequences: with the index in `rewards` of the episode that each belongs to.
        rewards: of each episode, shape (steps,); not changed.
    """
    rewards = [reward.copy() for reward in rewards]
    kl = 0.0
    for batch in make_batches(reference, [s.ids_T for _, s in sequences], [s.sampled_T for _, s in sequences]):
        with torch.no_grad():
            start_S = token_logprobs(reference, batch, config.precision, temperature).logprob_S.cpu().numpy()
        mine = [sequences[i] for i in batch.sequences]
        ends = np.cumsum([s.sampled_T.sum() for _, s in mine])
        for (i, tokens), start in zip(mine, np.split(start_S, ends[:-1]), strict=True):
            ratio = tokens.logprobs_T[tokens.sampled_T].astype(np.float64) - start
            np.subtract.at(rewards[i], tokens.step_T[tokens.sampled_T], config.algorithm.beta * ratio)
            kl += float((np.exp(-ratio) + ratio - 1).sum())
    count = world.total(sum(int(s.sampled_T.sum()) for _, s in sequences))
    return rewards, world.total(kl) / max(1.0, count)


# 3. The loss --------------------------------------------------------------------------------------------------------


def _gradient(
    model: Any, reference: Any, part: Sequence[TrainSample], config: TrainConfig, temperature: float, world: World
) -> dict[str, float]:
    """Accumulate this process's share of the gradient of a minibatch; return the figures of all processes together,
    or nothing where none of them has anything to learn from."""
    lines, tokens = world.total(len(part)), world.total(sum(len(lesson.old_S) for lesson in part))
    if not lines:
        return {}
    sum_F = torch.zeros(5, device=model.device)
    made = make_batches(model, [lesson.ids_T for lesson in part], [lesson.sampled_T for lesson in part])
    for batch in in_step(model, made, world):
        mine = [part[i] for i in batch.sequences]
        shares = [
            1 / tokens if config.algorithm.loss_aggregation == "token" else 1 / lines / len(one.old_S) for one in mine
        ]
        sum_F += _backward(model, reference, batch, mine, shares, config, temperature)
    loss, *sums = (world.total(value) for value in sum_F.tolist())  # read once: a GPU is waited for each time
    counts = {
        "learned_tokens": sum(len(lesson.ids_T) for lesson in part),
        "distinct_tokens": sum(batch.num_tokens for batch in made),
        "computed_tokens": sum(batch.num_padded_tokens for batch in made),
    }
    return {
        "loss": loss,
        **{key: value / tokens for key, value in zip(("kl", "entropy", "clipped", "drift"), sums, strict=True)},
        **{key: world.total(count) for key, count in counts.items()},
    }


def _backward(
    model: Any,
    reference: Any,
    batch: ScoringBatch,
    mine: Sequence[TrainSample],
    shares: Sequence[float],
    config: TrainConfig,
    temperature: float,
) -> torch.Tensor:
    """Accumulate the gradient of one batch's part of the loss; return that, and the sums over its tokens of KL,
    entropy, clipped and drift: shape (5,), where the model is. `shares` weigh a token of each sequence.

    The loss of a token is −min(ratio · advantage, clip(ratio) · advantage) + kl · k3 − entropy · H (PPO's eq. 7,
    arXiv 1707.06347, with two bounds as in DAPO, arXiv 2503.14476; k3 as in arXiv 2402.03300, eq. 4; H exact).
    """
    algorithm = config.algorithm
    old_S, gain_S, share_S = (
        torch.from_numpy(np.concatenate(parts)).to(model.device)
        for parts in (
            [one.old_S for one in mine],
            [one.gain_S for one in mine],
            [np.full(len(one.old_S), share, np.float32) for one, share in zip(mine, shares, strict=True)],
        )
    )
    if penalised := bool(algorithm.beta) and algorithm.kl_in == "loss":
        with torch.no_grad():  # before the policy's pass, whose activations then stand alone in memory
            start_S = token_logprobs(reference, batch, config.precision, temperature).logprob_S
    weighed = "gradient" if algorithm.entropy_coef else "value"  # without a weight it is computed to be reported alone
    new_S, entropy_U = token_logprobs(model, batch, config.precision, temperature, entropy=weighed)
    entropy_S = batch.expand_to_tokens(entropy_U)
    ratio_S = (new_S - old_S).exp()
    high = algorithm.epsilon if algorithm.epsilon_high is None else algorithm.epsilon_high
    capped_S = ratio_S.clamp(1 - algorithm.epsilon, 1 + high)
    loss_S = -torch.minimum(ratio_S * gain_S, capped_S * gain_S)
    kl_S = torch.zeros_like(old_S)
    if penalised:
        kl_S = (start_S - new_S).exp() - (start_S - new_S) - 1
        loss_S = loss_S + algorithm.beta * kl_S
    if algorithm.entropy_coef:
        loss_S = loss_S - algorithm.entropy_coef * entropy_S
    loss = (loss_S * share_S).sum()
    loss.backward()
    with torch.no_grad():
        clipped_S, drift_S = (ratio_S != capped_S).float(), (old_S - new_S).abs()  # playing and learning disagree by it
        return torch.stack([loss, kl_S.sum(), entropy_S.sum(), clipped_S.sum(), drift_S.sum()])
