"""Policies that look at the environment: what the base model's text is made of."""

from __future__ import annotations

from gentax.core import Outcome, Task
from gentax.policies import ExpertPolicy
from gentax.rollouts import rollout


def tasks(count: int) -> list[Task]:
    return [Task("toy", "three", "train", i) for i in range(count)]


def test_an_erring_expert_says_what_fits_elsewhere_and_goes_on_after_a_refusal(toy):
    episodes = rollout(ExpertPolicy(noise=0.4), tasks(60))
    steps = [step for episode in episodes for step in episode.steps]
    slips = [step for step in steps if not step.valid]
    assert 0.15 < len(slips) / len(steps) < 0.45  # a slip may happen to be right
    assert {step.action for step in slips} <= {"red", "green", "blue", "gold"}
    assert not any(step.thought for step in slips)
    after = [b for episode in episodes for a, b in zip(episode.steps, episode.steps[1:], strict=False) if not a.valid]
    assert any(step.valid for step in after)
    assert any(episode.outcome is Outcome.SUCCESS and episode.invalid for episode in episodes)


def test_an_expert_that_does_not_err_never_slips(toy):
    assert all(episode.success and not episode.invalid for episode in rollout(ExpertPolicy(), tasks(20)))


def test_the_same_play_slips_alike(toy):
    one, two = (rollout(ExpertPolicy(noise=0.3), tasks(20), seed=3) for _ in range(2))
    assert [[s.action for s in e.steps] for e in one] == [[s.action for s in e.steps] for e in two]
