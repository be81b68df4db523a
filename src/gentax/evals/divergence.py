"""How far a tuned policy has moved from its base: forward KL on states that the base itself meets.

RL's Razor (arXiv 2509.04259) finds that what a model forgets elsewhere goes with KL(base || tuned) on the new task,
which takes no episode of any other task. Here the expectation over tokens is exact (a sum over the vocabulary at each
token), the one over states is the mean over the episodes given. Left out: policies without weights at hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.metrics.statistics import Estimate, cluster_mean
from gentax.models.kl import nats
from gentax.policies import Policy
from gentax.policies.local import LocalPolicy


def forward_kl(base: Policy, tuned: Policy, episodes: Sequence[Episode]) -> Estimate:
    """Return KL(base || tuned) in nats an action, on the states of `episodes`, with an interval over tasks.

    The actions of a state are the token sequences the base wrote there; their KL is the sum of that of their tokens
    (chain rule), for sampling at temperature 1.

    Args:
        base: the policy before training, with weights on this machine.
        tuned: the policy after it, with the same tokens.
        episodes: played by `base` at temperature 1, of at least 2 tasks, with their tokens. Those that ended in an
            error are left out.

    Raises:
        UsageError: a policy without weights here, two vocabularies, episodes without tokens, fewer than 2 tasks.
    """
    one, other = same_tokens(base, tuned)
    tasks, ids, sampled, actions = [], [], [], defaultdict(int)
    for episode in episodes:
        if episode.outcome is Outcome.ERROR:
            continue
        if any(step.tokens is None for step in episode.steps):
            raise UsageError(f"the episode of {episode.task.id} has no tokens: a local model must play it here")
        actions[episode.task] += episode.length
        for sequence in episode.sequences():
            tasks.append(episode.task)
            ids.append(sequence.ids_T)
            sampled.append(sequence.sampled_T)
    moved: dict[Task, float] = dict.fromkeys(actions, 0.0)
    for task, kl in zip(tasks, nats(one.model, other.model, ids, sampled), strict=True):
        moved[task] += float(kl)
    return cluster_mean(np.array(list(moved.values())), np.array([actions[task] for task in moved]), "nats per action")


def same_tokens(base: Policy, tuned: Policy) -> tuple[LocalPolicy, LocalPolicy]:
    """Return the two policies when a KL divergence can be taken of them. Raises UsageError otherwise."""
    one, other = _local(base), _local(tuned)
    if one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise UsageError(f"{one.name} and {other.name} have different tokens: no KL divergence can be taken")
    return one, other


def _local(policy: Policy) -> LocalPolicy:
    if not isinstance(policy, LocalPolicy):
        raise UsageError(f"KL divergence needs the weights of both policies on this machine; {policy.name} has none")
    return policy
