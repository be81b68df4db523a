"""The update: advantages by hand, gradients against a plain formula, and what must not be learned from."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from gentax.core import Episode, NonFiniteLoss, Outcome, Step, Task, Tokens
from gentax.policies.local import load
from gentax.training import Recipe
from gentax.training.grpo import advantages, update


def episode(task=0, reward=0.0, ids=(5, 6), prompt=(10, 11, 12), logprob=-1.0, outcome=None):
    tokens = Tokens(
        False,
        np.array(prompt, np.int32),
        np.array(ids, np.int32),
        np.full(len(ids), logprob, np.float32),
    )
    outcome = outcome or (Outcome.SUCCESS if reward else Outcome.FAILURE)
    step = Step("o", "t", "a", reward, True, tokens=tokens)
    return Episode(Task("toy", "three", "train", task), 0, "g", (step,), outcome)


def test_advantages_compare_with_the_group():
    found = advantages([episode(reward=1.0), episode(), episode(), episode()])
    assert np.allclose(found, (np.array([1, 0, 0, 0]) - 0.25) / (np.sqrt(0.1875) + 1e-6))


def test_groups_are_tasks_and_one_without_spread_teaches_nothing():
    found = advantages([episode(0, 1.0), episode(1, 1.0), episode(0, 0.0), episode(1, 1.0)])
    assert found[1] == found[3] == 0
    assert found[0] > 0 > found[2]


def test_invalid_actions_cost_what_the_recipe_says():
    def clumsy(invalid):
        one = episode()
        step = dataclasses.replace(one.steps[0], valid=False)
        return dataclasses.replace(one, steps=one.steps + (step,) * invalid)

    assert (advantages([clumsy(0), clumsy(2)]) == 0).all()
    assert advantages([clumsy(0), clumsy(2)], invalid_penalty=0.1) == pytest.approx([1, -1], abs=1e-4)


def test_errors_belong_to_no_group():
    found = advantages([episode(0, 1.0), episode(0, 0.0, outcome=Outcome.ERROR), episode(0, 1.0)])
    assert (found == 0).all()


def plain_loss(model, reference, episodes, advantage, recipe):
    """The same loss written naively: one sequence at a time, the whole vocabulary everywhere."""
    terms = []
    for one, gain in zip(episodes, advantage, strict=True):
        if gain == 0:
            continue
        (sequence,) = one.sequences()
        ids = torch.tensor(sequence.ids_T[None].astype(np.int64))
        logp = model(ids).logits[0].div(recipe.play.temperature).log_softmax(-1)
        with torch.no_grad():
            start = reference(ids).logits[0].div(recipe.play.temperature).log_softmax(-1)
        for at in np.flatnonzero(sequence.sampled_T):
            new, first = logp[at - 1, ids[0, at]], start[at - 1, ids[0, at]]
            ratio = (new - float(sequence.logprobs_T[at])).exp()
            clipped = ratio.clamp(1 - recipe.clip, 1 + recipe.clip)
            kl = (first - new).exp() - (first - new) - 1
            terms.append(-torch.min(ratio * float(gain), clipped * float(gain)) + recipe.kl * kl)
    return torch.stack(terms).mean()


def test_the_update_follows_the_plain_formula(tiny):
    policy, reference = load(tiny), load(tiny).model
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    recipe = Recipe(kl=0.3, clip=0.1, play=dataclasses.replace(Recipe().play, temperature=0.7))
    episodes = [
        episode(0, 1.0, (5, 6, 7), (10, 11)),
        episode(0, 0.0, (8,), (10, 11, 12, 13, 14)),
        episode(1, 0.0, (9, 9), (20,)),
        episode(1, 0.0, (4, 5), (20,)),
    ]
    expected_model = copy.deepcopy(policy.model)
    loss = plain_loss(expected_model, reference, episodes, advantages(episodes), recipe)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(expected_model.parameters(), 1.0)
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=1.0)
    report = update(policy.model, reference, optimizer, episodes, dataclasses.replace(recipe, precision="fp32"), "here")
    assert report["loss"] == pytest.approx(float(loss), abs=1e-5)
    assert report["spread"] == 0.5
    for name, parameter in expected_model.named_parameters():
        moved = before[name] - dict(policy.model.named_parameters())[name]
        assert torch.allclose(moved, parameter.grad, atol=1e-5), name


def test_a_reward_makes_its_actions_likelier(tiny):
    policy = load(tiny)
    recipe = Recipe(kl=0.0, clip=100.0, precision="fp32")
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.5)

    def chance(ids):
        with torch.no_grad():
            return float(policy.model(torch.tensor([[10, 11, 12]])).logits[0, -1].softmax(-1)[ids])

    before = chance(5), chance(8)
    update(policy.model, None, optimizer, [episode(0, 1.0, (5,)), episode(0, 0.0, (8,))], recipe, "here")
    assert chance(5) > before[0]
    assert chance(8) < before[1]


def test_nothing_is_computed_where_nothing_can_be_learned(tiny):
    policy = load(tiny)
    report = update(policy.model, None, None, [episode(), episode()], Recipe(kl=0.0), "here")
    assert report == {"spread": 0.0}


def test_a_loss_that_is_no_number_stops_and_leaves_the_weights(tiny):
    policy = load(tiny)
    before = [p.detach().clone() for p in policy.model.parameters()]
    optimizer = torch.optim.Adam(policy.model.parameters())
    bad = [episode(0, 1.0, logprob=float("nan")), episode(0, 0.0)]
    with pytest.raises(NonFiniteLoss, match="step 7"):
        update(policy.model, None, optimizer, bad, Recipe(kl=0.0), "step 7")
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
