"""The policy-gradient step after its rollout, to be read from top to bottom: episodes and rewards in, new weights out.

  1. `update`, one step: advantages → loss → optimizer step;
  2. `compute_advantages`: GRPO, RLOO, REINFORCE++, PPO and GiGPO side by side; they differ in the baseline alone;
  3. the loss: the clipped ratio to the log-probabilities of the rollout, KL to the reference policy, entropy;
  4. `Critic`, the value head of PPO.

The rollout is `RolloutWorker.rollout`; `run.py` calls both. A reply is one action: all its tokens have the advantage of
its step. Groups whose rewards are all equal have none and are left out before any arithmetic (they are counted). Left
out of the method: rewards and values for single tokens, discounting, several updates on the same episodes, and
recomputing the log-probabilities that the rollout has recorded.

Shapes: `T` tokens of a sequence, `S` its sampled tokens (or those of a batch), `N` steps of an episode, `G` episodes of
a group, `E` all episodes, `B` any others, `W` the model's width.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gentax.core import Episode, NonFiniteLoss, Outcome, TokenSequence
from gentax.models.scoring import hidden_states, make_batches, token_logprobs
from gentax.training.config import PolicyGradientConfig, TrainConfig
from gentax.training.distributed import World, clip_grad_norm, in_lockstep
from gentax.training.rewards import groups
from gentax.training.run_folder import load_optimizer, optimizer_state

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
    sequences = [
        (i, tokens)
        for i, episode in enumerate(episodes)
        if episode.outcome is not Outcome.ERROR
        for tokens in episode.sequences()
        if tokens.sampled_T.any()
    ]
    values: list[np.ndarray] = []
    if config.algorithm.advantage_estimator == "ppo":
        if critic is None:
            raise ValueError("ppo needs a critic")
        steps, state_BW = states_before_replies(learner.model, sequences, config.precision, world)
        values = [np.zeros(len(reward_N)) for reward_N in rewards]
        for (i, n), value in zip(steps, critic.values(state_BW).tolist(), strict=True):
            values[i][n] = value

    advantages = compute_advantages(episodes, rewards, config.algorithm, world, values)
    samples = [
        TrainSample(tokens.ids_T, tokens.sampled_T, tokens.logprobs_T[tokens.sampled_T], advantage_S)
        for i, tokens in sequences
        if (advantage_S := advantages[i][tokens.step_T[tokens.sampled_T]]).any()
    ]
    metrics = advantage_metrics(episodes, advantages, world)

    if extra_loss is not None or world.max(len(samples)):
        metrics |= loss_backward(learner.model, reference, samples, config, world)
        for key, value in (extra_loss() if extra_loss is not None else {}).items():
            metrics[key] = world.sum(value) / world.size

        world.sum_gradients(learner.parameters)
        metrics["grad_norm"] = clip_grad_norm(learner.parameters, MAX_GRAD_NORM)
        largest = np.abs(np.concatenate([np.ones(1), *advantages]))
        scale = world.max(math.ceil(largest[np.isfinite(largest)].max()))
        if exploded := what_exploded(metrics, scale):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLoss(f"{exploded} at {where}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # A process without episodes takes part: the critic's steps are those of all together.
    if critic is not None and config.algorithm.advantage_estimator == "ppo":
        estimates = gae(rewards, values)
        return_B = torch.tensor([estimates[i][n] + values[i][n] for i, n in steps])
        metrics["value_loss"] = critic.learn(state_BW, return_B.to(state_BW), world)
    return metrics


def advantage_metrics(episodes: Sequence[Episode], advantages: Sequence[np.ndarray], world: World) -> dict[str, float]:
    """Return `spread`, the share of the episodes with an advantage, and `skipped`, the number of groups without one."""
    has_advantage = [bool(advantage_N.any()) for advantage_N in advantages]
    skipped = sum(not any(has_advantage[i] for i in group) for group in groups(episodes))
    spread = world.sum(sum(has_advantage)) / max(1.0, world.sum(len(episodes)))
    return {"spread": spread, "skipped": world.sum(skipped)}


def what_exploded(metrics: Mapping[str, float], scale: float = 1.0) -> str:
    """Say which of loss and gradient is no number or too large, "" for neither; `scale` is the largest advantage."""
    for key, limit in (("loss", EXPLODED * scale), ("grad_norm", sys.float_info.max)):
        if not abs(metrics.get(key, 0.0)) <= limit:  # in this form it is true of NaN
            return f"the {key} became {metrics[key]:.6g}"
    return ""


# 2. Advantages ------------------------------------------------------------------------------------------------------


def compute_advantages(
    episodes: Sequence[Episode],
    rewards: Sequence[np.ndarray],
    algorithm: PolicyGradientConfig,
    world: World = ALONE,
    values: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Return the advantage of each step of each episode, float32, shape (steps,).

    - `grpo`: the episode's return less the mean of its group, over their standard deviation where `normalize_std` says
      so (GRPO, arXiv 2402.03300, sec. 4.1.2; without the division Dr. GRPO, arXiv 2503.20783).
    - `rloo`: less the mean of the others in its group (RLOO, arXiv 2402.14740). `normalize_std` divides by the standard
      deviation of the whole group, since the others may have none.
    - `gigpo`: `grpo`'s, and as much again of the step among all steps of the group with the same observation: the
      return from there less their mean (GiGPO, arXiv 2505.10978, sec. 4). A state met once adds nothing; states are
      told apart by their text, in which distractors differ from step to step.
    - `reinforce++`: returns, normalized over the episodes of all groups (REINFORCE++, arXiv 2501.03262).
    - `ppo`: generalized advantage estimates, normalized over all steps (PPO, arXiv 1707.06347).

    Episodes that ended in an error belong to no group and get zeros. A group whose returns are all equal gets zeros.

    Args:
        episodes: whole groups; a group is the episodes on one task.
        rewards: of each episode, shape (steps,) (see `rewards_of`).
        algorithm: `advantage_estimator`, and the settings that it reads.
        world: the processes whose episodes make one batch.
        values: of the state before each reply, shape (steps,); `ppo` alone reads them.
    """
    advantages = [np.zeros(len(reward_N)) for reward_N in rewards]
    return_E = np.array([reward_N.sum() for reward_N in rewards])
    by_task = groups(episodes)  # lists of the indices of episodes
    played = [i for group in by_task for i in group]
    estimator, std = algorithm.advantage_estimator, algorithm.normalize_std

    if estimator in ("grpo", "rloo", "gigpo"):
        for group in by_task:
            advantage_G = center(return_E[group], std)
            if estimator == "rloo":  # n / (n − 1) times the difference from the mean of all n
                advantage_G *= len(group) / max(1, len(group) - 1)
            for i, advantage in zip(group, advantage_G, strict=True):
                advantages[i] += advantage
            if estimator == "gigpo":
                to_go = {i: returns_to_go(rewards[i]) for i in group}
                for steps in steps_by_observation(episodes, group):
                    centered = center(np.array([to_go[i][n] for i, n in steps]), std)
                    for (i, n), advantage in zip(steps, centered, strict=True):
                        advantages[i][n] += advantage
    elif estimator == "reinforce++":
        for i, advantage in zip(played, normalize(return_E[played], world), strict=True):
            advantages[i] += advantage
    else:  # ppo
        estimates = gae(rewards, values)
        steps = [(i, n) for i in played for n in range(len(rewards[i]))]
        normalized = normalize(np.array([estimates[i][n] for i, n in steps]), world)
        for (i, n), advantage in zip(steps, normalized, strict=True):
            advantages[i][n] = advantage
    return [advantage_N.astype(np.float32) for advantage_N in advantages]


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


def steps_by_observation(episodes: Sequence[Episode], group: Iterable[int]) -> list[list[tuple[int, int]]]:
    """Return the steps of a group as (episode, step), those with the same observation together."""
    steps_at: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i in group:
        for n, step in enumerate(episodes[i].steps):
            steps_at[step.observation].append((i, n))
    return list(steps_at.values())


# 3. The loss --------------------------------------------------------------------------------------------------------


def loss_backward(
    model: Any, reference: Any, samples: Sequence[TrainSample], config: TrainConfig, world: World
) -> dict[str, float]:
    """Accumulate this process's share of the gradient; return the metrics of all processes together, or nothing where
    none of them has anything to learn from.

    The loss of a token is −min(ratio · advantage, clip(ratio) · advantage) + beta · k3 − entropy_coef · H (PPO's eq. 7,
    arXiv 1707.06347; k3 as in arXiv 2402.03300, eq. 4; H exact). That of a step is the mean over all tokens, or over
    sequences of their means.
    """
    num_samples = world.sum(len(samples))
    num_tokens = world.sum(sum(len(sample.old_logprob_S) for sample in samples))
    if not num_samples:
        return {}
    algorithm, precision, temperature = config.algorithm, config.precision, config.rollout.temperature
    by_token = algorithm.loss_aggregation == "token"
    entropy_of = "gradient" if algorithm.entropy_coef else "value"  # with weight 0 it is computed only to be reported
    sum_F = torch.zeros(5, device=model.device)
    batches = make_batches(model, [sample.ids_T for sample in samples], [sample.sampled_T for sample in samples])
    for batch in in_lockstep(model, batches, world):
        members = [samples[i] for i in batch.sequences]
        weights = [1 / num_tokens if by_token else 1 / num_samples / len(x.old_logprob_S) for x in members]
        old_S = _concatenated([x.old_logprob_S for x in members], model.device)
        advantage_S = _concatenated([x.advantage_S for x in members], model.device)
        weight_S = _concatenated(
            [np.full(len(x.old_logprob_S), w, np.float32) for x, w in zip(members, weights, strict=True)], model.device
        )
        if algorithm.beta:
            with torch.no_grad():  # before the policy's pass, whose activations then stand alone in memory
                reference_S = token_logprobs(reference, batch, precision, temperature).logprob_S
        new_S, entropy_U = token_logprobs(model, batch, precision, temperature, entropy=entropy_of)
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
            sum_F += torch.stack([loss, kl_S.sum(), entropy_S.sum(), clipped_S.sum(), drift_S.sum()])
    loss_sum, *sums = (world.sum(value) for value in sum_F.tolist())  # read once: a GPU is waited for each time
    counts = {
        "learned_tokens": sum(len(sample.ids_T) for sample in samples),
        "distinct_tokens": sum(batch.num_tokens for batch in batches),
        "computed_tokens": sum(batch.num_padded_tokens for batch in batches),
    }
    return {
        "loss": loss_sum,
        **{key: value / num_tokens for key, value in zip(("kl", "entropy", "clipped", "drift"), sums, strict=True)},
        **{key: world.sum(count) for key, count in counts.items()},
    }


def _concatenated(arrays: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(arrays)).to(device)


# 4. The critic ------------------------------------------------------------------------------------------------------

CRITIC_LEARNING_RATE = 1e-3
CRITIC_PASSES = 8  # steps of Adam over the states of an update; they cost nothing beside the states themselves


def states_before_replies(
    model: Any, sequences: Sequence[tuple[int, TokenSequence]], precision: str, world: World
) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """Return which steps have sampled tokens, as (episode, step), and the hidden state at the last token of the prompt
    of each, fp32, shape (steps, width). Each sequence comes with the number of its episode."""
    first = [np.zeros(len(tokens), bool) for _, tokens in sequences]
    for mask_T, (_, tokens) in zip(first, sequences, strict=True):
        at = np.flatnonzero(tokens.sampled_T)
        mask_T[at[np.unique(tokens.step_T[at], return_index=True)[1]]] = True
    places: list[tuple[int, int]] = []
    parts = [torch.zeros(0, _width(model), device=model.device)]
    with torch.no_grad():
        batches = make_batches(model, [tokens.ids_T for _, tokens in sequences], first)
        for batch in in_lockstep(model, batches, world):
            parts.append(batch.expand_to_tokens(hidden_states(model, batch, precision)).float())
            for i in batch.sequences:
                places += [(sequences[i][0], int(n)) for n in sequences[i][1].step_T[first[i]]]
    return places, torch.cat(parts)


class Critic:
    """The value head of PPO: what an episode is still worth, linear in the body's last hidden state, and its own Adam.

    It starts at zero. Its gradient does not flow into the body: the policy's features are learned from the policy's
    loss alone, so that no weight has to balance the two, and the head can be trained on states that were computed once,
    before the update. Left out: a body of its own and clipped values.

    Args:
        model: the policy's, for the width of its states and where they are.
    """

    def __init__(self, model: Any) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(_width(model), device=model.device))
        self.bias = torch.nn.Parameter(torch.zeros((), device=model.device))
        self._optimizer = torch.optim.Adam([self.weight, self.bias], lr=CRITIC_LEARNING_RATE)

    def values(self, state_BW: torch.Tensor) -> torch.Tensor:
        """Return the value of each state, fp32, shape (B,)."""
        # A body's states have entries around 1: scaled to length 1, a learning rate is the same for every width.
        return state_BW.float() @ self.weight / math.sqrt(len(self.weight)) + self.bias

    def learn(self, state_BW: torch.Tensor, return_B: torch.Tensor, world: World) -> float:
        """Move the values towards returns, and return the mean squared error before, over all processes."""
        count = world.sum(len(return_B))
        if not count:
            return 0.0
        first = 0.0
        for turn in range(CRITIC_PASSES):
            loss = (self.values(state_BW) - return_B).square().sum() / count
            loss.backward()
            world.sum_gradients([self.weight, self.bias])
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            first = float(loss.detach()) if turn == 0 else first
        return world.sum(first)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights and what Adam remembers, flat."""
        weights = {"weight": self.weight.detach(), "bias": self.bias.detach()}
        return weights | {f"adam.{key}": tensor for key, tensor in optimizer_state(self._optimizer).items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` returned."""
        with torch.no_grad():
            self.weight.copy_(state["weight"])
            self.bias.copy_(state["bias"])
        adam = {key.removeprefix("adam."): tensor for key, tensor in state.items() if key.startswith("adam.")}
        load_optimizer(self._optimizer, adam)


def _width(model: Any) -> int:
    return model.get_output_embeddings().weight.shape[1]
