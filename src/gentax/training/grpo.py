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
from gentax.training.batch import Batch, batches, score
from gentax.training.recipe import Recipe


def advantages(episodes: Sequence[Episode], invalid_penalty: float = 0.0) -> np.ndarray:
    """Return each episode's advantage, float32, shape (episodes,).

    The return is what an episode earned, less `invalid_penalty` for each invalid action. An episode is compared with
    the others on its task: (return − mean) / (standard deviation + 1e-6). Episodes that ended in an error belong to no
    group and get 0, as does a group without spread.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for i, episode in enumerate(episodes):
        if episode.outcome is not Outcome.ERROR:
            groups[episode.task].append(i)
    advantage_G = np.zeros(len(episodes), np.float32)
    for members in groups.values():
        returns = np.array([episodes[i].ret - invalid_penalty * episodes[i].invalid for i in members])
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
        recipe: `invalid_penalty`, `kl`, `clip` and `minibatches` are read here.
        where: said in the error.

    Raises:
        NonFiniteLoss: the loss or its gradient stopped being a number; the weights are as before this update.
    """
    advantage_G = advantages(episodes, recipe.invalid_penalty)
    useful = [(i, seq) for i, episode in enumerate(episodes) if advantage_G[i] for seq in episode.sequences()]
    report: dict[str, float] = defaultdict(float)
    report["spread"] = float(np.mean(advantage_G != 0)) if len(advantage_G) else 0.0
    if not useful:
        return dict(report)
    parts = min(recipe.minibatches, len(useful))
    # Neighbours come from one group: dealt out, so that each part sees every group.
    turns = [np.arange(len(useful))[k::parts] for k in range(parts)]
    distinct = 0
    for turn in turns:
        part = [useful[i] for i in turn]
        made = batches([s.ids_T for _, s in part], [s.sampled_T for _, s in part])
        count = sum(len(b.token_S) for b in made)
        for batch in made:
            old_S = torch.from_numpy(
                np.concatenate([part[i][1].logprobs_T[part[i][1].sampled_T] for i in batch.members])
            )
            gain_S = torch.from_numpy(
                np.concatenate([np.full(part[i][1].sampled_T.sum(), advantage_G[part[i][0]]) for i in batch.members])
            )
            _backward(model, reference, batch, old_S, gain_S, count, recipe, report)
            distinct += batch.real
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        if not math.isfinite(norm):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLoss(f"the gradient became {norm} at {where}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        report["grad_norm"] += norm / len(turns)
    for key in ("loss", "kl", "entropy", "clipped", "drift"):
        report[key] /= len(turns)
    report["learned_tokens"], report["distinct_tokens"] = sum(len(sequence) for _, sequence in useful), distinct
    return dict(report)


def _backward(
    model: Any,
    reference: Any,
    batch: Batch,
    old_S: torch.Tensor,
    gain_S: torch.Tensor,
    count: int,
    recipe: Recipe,
    report: dict[str, float],
) -> None:
    """Accumulate the gradient of one batch's share of the loss, and the same share of what is reported."""
    token_S, guess_S = batch.token_S.to(model.device), batch.guess_S.to(model.device)
    old_S, gain_S = old_S.to(model.device), gain_S.to(model.device)
    all_UV = torch.log_softmax(score(model, batch, recipe.precision) / recipe.play.temperature, dim=-1)
    new_S = all_UV[guess_S, token_S]
    ratio_S = (new_S - old_S).exp()
    capped_S = ratio_S.clamp(1 - recipe.clip, 1 + recipe.clip)
    loss_S = -torch.minimum(ratio_S * gain_S, capped_S * gain_S)
    if recipe.kl:
        with torch.no_grad():
            start_UV = torch.log_softmax(score(reference, batch, recipe.precision) / recipe.play.temperature, dim=-1)
            start_S = start_UV[guess_S, token_S]
        kl_S = (start_S - new_S).exp() - (start_S - new_S) - 1
        loss_S = loss_S + recipe.kl * kl_S
        report["kl"] += float(kl_S.detach().sum()) / count
    loss = loss_S.sum() / count
    loss.backward()
    with torch.no_grad():
        report["loss"] += float(loss)
        entropy_U = -(all_UV.exp() * all_UV).sum(dim=-1)
        report["entropy"] += float(entropy_U[guess_S].sum()) / count
        report["clipped"] += float((ratio_S != capped_S).sum()) / count
        report["drift"] += float((old_S - new_S).abs().sum()) / count  # playing and learning disagree by this much
