"""Forward KL: 0 to itself, the exact sum over the vocabulary elsewhere, refused where there are no weights."""

import numpy as np
import pytest
import torch

from gentax.core import Task, UsageError
from gentax.evals.kl_forecast import forward_kl
from gentax.policies import RandomPolicy
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig, rollout

TASKS = [Task("toy", "three", "train", i) for i in range(5)]


@pytest.fixture
def pair(tiny):
    base, tuned = load_local_policy(tiny), load_local_policy(tiny)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return base, tuned


@pytest.mark.parametrize("context", ["full", "window(1)"])
def test_it_is_the_sum_over_the_vocabulary(toy, pair, context):
    base, tuned = pair
    episodes = rollout(base, TASKS, config=RolloutConfig(context=context, temperature=1.0, max_new_tokens=6))
    plain = load_again(pair)
    nats = actions = 0.0
    for episode in episodes:
        actions += episode.length
        for sequence in episode.sequences():
            ids = torch.tensor(sequence.ids_T[None].astype(np.int64))
            with torch.no_grad():
                p, q = (model(ids).logits[0].log_softmax(-1) for model in plain)
            kl_T = (p.exp() * (p - q)).sum(-1)
            nats += float(kl_T[np.flatnonzero(sequence.sampled_T) - 1].sum())
    found = forward_kl(base, tuned, episodes)
    assert found.value == pytest.approx(nats / actions, rel=1e-3)
    assert found.low < found.value < found.high
    assert found.n == 5


def load_again(pair):
    """The same weights with stock attention."""
    from transformers import AutoModelForCausalLM

    made = []
    for policy in pair:
        model = AutoModelForCausalLM.from_config(policy.model.config, attn_implementation="eager")
        model.load_state_dict(policy.model.state_dict())
        made.append(model.eval())
    return made


def test_a_policy_has_not_moved_from_itself(toy, tiny):
    policy = load_local_policy(tiny)
    episodes = rollout(policy, TASKS, config=RolloutConfig(temperature=1.0, max_new_tokens=6))
    assert forward_kl(policy, load_local_policy(tiny), episodes).value == pytest.approx(0, abs=1e-9)


def test_policies_without_weights_are_refused(toy, tiny):
    policy = load_local_policy(tiny)
    episodes = rollout(RandomPolicy(), TASKS)
    with pytest.raises(UsageError, match="random has none"):
        forward_kl(policy, RandomPolicy(), episodes)
    with pytest.raises(UsageError, match="has no tokens"):
        forward_kl(policy, policy, episodes)
