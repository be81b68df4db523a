"""GRPO (arXiv 2402.03300) as one reads it top to bottom: episodes in, one update out.

What stands here: advantage = return minus the group's mean, over its standard deviation; the clipped ratio to the
probabilities recorded while playing; KL to the starting policy in the loss (the k3 estimator, as in the paper); the
mean over all sampled tokens of a batch, so that a token counts alike in short and long episodes.
What was left out: groups whose returns are all equal (no gradient, so no arithmetic; they are counted), a value
network, per-token rewards, and the re-computation of probabilities that playing has already given.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gentax.core import Episode, NonFiniteLoss, Outcome
from gentax.training.batch import Batch, batches, score, targets
from gentax.training.recipe import Recipe


def advantages(episodes: Sequence[Episode]) -> np.ndarray:
    """Return each episode's advantage, float32, shape (episodes,).

    An episode is compared with the others on its task: (return − mean) / (standard deviation + 1e-6). Episodes that
    ended in an error belong to no group and get 0, as does a group without spread.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for i, episode in enumerate(episodes):
        if episode.outcome is not Outcome.ERROR:
            groups[episode.task].append(i)
    advantage_G = np.zeros(len(episodes), np.float32)
    for members in groups.values():
        returns = np.array([episodes[i].ret for i in members])
        if np.ptp(returns) > 1e-9:
            advantage_G[members] = (returns - returns.mean()) / (returns.std() + 1e-6)
    return advantage_G


def update(
    model: Any,
    reference: Any,
    optimizer: torch.optim.Optimizer,
    episodes: Sequence[Episode],
    recipe: Recipe,
    where: str,
) -> dict[str, float]:
    """Learn from one batch of episodes; return what happened, averaged over the sampled tokens learned from.

    Args:
        model: the policy, updated in place.
        reference: the starting policy, for the KL term; not used when `recipe.kl` is 0.
        optimizer: over the model's parameters.
        episodes: whole groups, with tokens.
        recipe: `kl`, `clip` and `minibatches` are read here.
        where: said in the error.

    Raises:
        NonFiniteLoss: the loss or its gradient stopped being a number; the weights are as before this update.
    """
    advantage_G = advantages(episodes)
    useful = [(i, seq) for i, episode in enumerate(episodes) if advantage_G[i] for seq in episode.sequences()]
    report: dict[str, float] = defaultdict(float)
    report["spread"] = float(np.mean(advantage_G != 0)) if len(advantage_G) else 0.0
    if not useful:
        return dict(report)
    parts = min(recipe.minibatches, len(useful))
    # Neighbours come from one group: dealt out, so that each part sees every group.
    turns = [np.arange(len(useful))[k::parts] for k in range(parts)]
    tokens = padded = 0
    for turn in turns:
        part = [useful[i] for i in turn]
        made = batches([s.ids_T for _, s in part], [s.sampled_T for _, s in part])
        count = sum(len(b.at_N) for b in made)
        for batch in made:
            old_N = torch.from_numpy(
                np.concatenate([part[i][1].logprobs_T[part[i][1].sampled_T] for i in batch.members])
            )
            gain_N = torch.from_numpy(
                np.concatenate([np.full(part[i][1].sampled_T.sum(), advantage_G[part[i][0]]) for i in batch.members])
            )
            _backward(model, reference, batch, old_N, gain_N, count, recipe, report)
            tokens += batch.real
            padded += batch.ids_BT.numel()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        if not math.isfinite(norm):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLoss(f"the gradient became {norm} at {where}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        report["grad_norm"] += norm / len(turns)
    for key in ("loss", "kl", "entropy", "clipped", "drift"):
        report[key] /= len(turns)
    report["learned_tokens"], report["padding"] = tokens, 1 - tokens / padded
    return dict(report)


def _backward(
    model: Any,
    reference: Any,
    batch: Batch,
    old_N: torch.Tensor,
    gain_N: torch.Tensor,
    count: int,
    recipe: Recipe,
    report: dict[str, float],
) -> None:
    """Accumulate the gradient of one batch's share of the loss, and the same share of what is reported."""
    token_N = targets(batch, model.device)[:, None]
    old_N, gain_N = old_N.to(model.device), gain_N.to(model.device)
    all_NV = torch.log_softmax(score(model, batch, recipe.precision) / recipe.play.temperature, dim=-1)
    new_N = all_NV.gather(1, token_N)[:, 0]
    ratio_N = (new_N - old_N).exp()
    capped_N = ratio_N.clamp(1 - recipe.clip, 1 + recipe.clip)
    loss_N = -torch.minimum(ratio_N * gain_N, capped_N * gain_N)
    if recipe.kl:
        with torch.no_grad():
            start_NV = torch.log_softmax(score(reference, batch, recipe.precision) / recipe.play.temperature, dim=-1)
            start_N = start_NV.gather(1, token_N)[:, 0]
        kl_N = (start_N - new_N).exp() - (start_N - new_N) - 1
        loss_N = loss_N + recipe.kl * kl_N
        report["kl"] += float(kl_N.detach().sum()) / count
    loss = loss_N.sum() / count
    loss.backward()
    with torch.no_grad():
        report["loss"] += float(loss)
        report["entropy"] -= float((all_NV.exp() * all_NV).sum()) / count
        report["clipped"] += float((ratio_N != capped_N).sum()) / count
        report["drift"] += float((old_N - new_N).abs().sum()) / count  # playing and learning disagree by this much
