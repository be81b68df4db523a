"""Hints and head starts: what the policy reads and what the episode keeps, who plays which step, how much of it."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from gentax.core import EnvironmentFault, Outcome, Task, UsageError
from gentax.policies.local import load_local_policy
from gentax.policies.protocol import Reply
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.training.expert_guidance import GuidedPolicy, expert_prefixes, plan_lengths

WARM = RolloutConfig(temperature=1.0, max_new_tokens=6)


def tasks(n, level="three"):
    return [Task("toy", level, "train", i) for i in range(n)]


class Told:
    """Stands for a local model: does what the hint says, else nothing; keeps what it was shown and what it followed."""

    name = "told"

    def __init__(self):
        self.shown, self.followed, self.batches = {}, Counter(), []

    def reply(self, turns):
        self.batches.append(len(turns))
        for turn in turns:
            self.shown.setdefault(turn.env.task, []).append(turn.message)
        hints = [re.findall("^Hint: (.*)$", turn.message, re.MULTILINE) for turn in turns]
        return [Reply(f"<action>{hint[0] if hint else '?'}</action>") for hint in hints]

    def append_reply(self, turn, text):
        self.followed[turn.env.task] += 1
        return Reply(text)


@pytest.mark.parametrize("context", ["full", "window(2)"])
def test_hints_tell_the_expert_s_action_and_never_enter_the_observation(toy, context):
    told = Told()
    episodes = rollout(GuidedPolicy(told, hints=1.0), tasks(3), config=RolloutConfig(context=context, admissible=True))
    assert [e.outcome for e in episodes] == [Outcome.SUCCESS] * 3
    assert all("Hint:" not in step.observation for e in episodes for step in e.steps)
    for e in episodes:
        for message, step in zip(told.shown[e.task], e.steps, strict=True):
            word = step.observation.split()[-1].rstrip(".")
            assert message.endswith(f"Hint: {word}\n{step.observation}\nPossible: {word}")
            assert message.count("Hint: ") == 1
        assert told.shown[e.task][0].startswith("Say the word")


def test_a_share_of_the_prompts_has_hints_alike_in_a_group_and_other_ones_at_another_update(toy):
    def hinted(seed, share=0.4):
        told = Told()
        episodes = rollout(GuidedPolicy(told, share, seed=seed), tasks(60), samples=2, horizon=4, seed=seed)
        groups = {}
        for e in episodes:
            groups.setdefault(e.task, []).append(tuple(step.valid for step in e.steps))
        assert all(a == b for a, b in groups.values())
        first_steps = [messages[0] for messages in told.shown.values()]
        assert 0.2 < np.mean(["Hint: " in message for message in first_steps]) < 0.6
        return groups

    assert hinted(1) == hinted(1) != hinted(2)


def test_without_guidance_the_policy_plays_as_it_does_alone(toy, tiny):
    assert [e.steps[0].text for e in rollout(GuidedPolicy(load_local_policy(tiny)), tasks(3), config=WARM)] == [
        e.steps[0].text for e in rollout(load_local_policy(tiny), tasks(3), config=WARM)
    ]


def test_the_expert_is_not_asked_where_it_is_not_needed(toy, monkeypatch):
    monkeypatch.setattr(toy, "expert", lambda self: pytest.fail("asked"))
    rollout(GuidedPolicy(Told(), 0.0, {tasks(9)[8]: 2}), tasks(3))


@pytest.mark.parametrize("context", ["full", "window(2)"])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_head_start_is_played_by_the_expert_and_the_policy_goes_on(toy, tiny, context, thinking):
    start = dict(zip(tasks(3), (0, 1, 2), strict=True))
    config = RolloutConfig(context=context, thinking=thinking, temperature=1.0, max_new_tokens=6)
    policy = load_local_policy(tiny)
    episodes = rollout(GuidedPolicy(policy, expert_prefix=start), tasks(3), config=config, samples=2)
    for e in episodes:
        n = start[e.task]
        for step in e.steps[:n]:
            assert step.valid
            assert bool(step.thought) is thinking
            assert len(step.tokens.sampled) == 0
        assert e.length > n
        assert all(len(step.tokens.sampled) > 0 for step in e.steps[n:])
        if context == "full":
            (sequence,) = e.sequences()
            assert policy.codec.decode(sequence.ids_T).count(f"{e.steps[0].text}") >= 1
            assert sequence.step_T[sequence.sampled_T].min() == n


def test_led_and_other_turns_are_asked_together(toy):
    told = Told()
    start = dict(zip(tasks(4), (0, 0, 2, 3), strict=True))
    episodes = rollout(GuidedPolicy(told, expert_prefix=start), tasks(4), horizon=3)
    assert told.batches == [2, 2, 3]
    assert told.followed == {tasks(4)[2]: 2, tasks(4)[3]: 3}
    assert [e.success for e in episodes] == [False, False, False, True]


@pytest.mark.parametrize("lost", [lambda self: None, None])
def test_where_the_expert_is_lost_the_policy_is_on_its_own(toy, monkeypatch, lost):
    def broken(self):
        raise EnvironmentFault("the expert's process died")

    monkeypatch.setattr(toy, "expert", lost or broken)
    told = Told()
    episodes = rollout(GuidedPolicy(told, 1.0, dict.fromkeys(tasks(2), 2)), tasks(2))
    assert [e.outcome for e in episodes] == [Outcome.FAILURE] * 2
    assert not told.followed
    assert not any("Hint" in message for messages in told.shown.values() for message in messages)


def test_head_starts_are_uniform_up_to_the_share_and_leave_a_step(toy):
    many, lengths = tasks(3000), {("toy", "three"): 10.0}
    counts = Counter(expert_prefixes(many, 0.4, lengths, 1).values())
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert min(counts.values()) > 0.8 * 3000 / 5
    assert expert_prefixes(many, 0.4, lengths, 1) == expert_prefixes(many[::-1], 0.4, lengths, 1)
    assert expert_prefixes(many, 0.4, lengths, 1) != expert_prefixes(many, 0.4, lengths, 2)
    assert set(expert_prefixes(many, 0.0, lengths, 1).values()) == {0}
    assert max(expert_prefixes(many, 1.0, lengths, 1).values()) == 9
    assert max(expert_prefixes(many, 1.0, lengths, 1, horizon=6).values()) == 5
    assert set(expert_prefixes(many, 1.0, {("toy", "three"): 1.0}, 1).values()) == {0}


def test_plan_lengths_are_those_of_the_expert_s_successes(toy, monkeypatch):
    mixed = [*tasks(3), *tasks(2, "one")]
    with EnvPool(RolloutConfig()) as pool:
        assert plan_lengths(mixed, RolloutConfig(), pool) == {("toy", "three"): 3.0, ("toy", "one"): 1.0}
    with pytest.raises(UsageError, match="toy at level three has no expert that solves its tasks"):
        plan_lengths(mixed, RolloutConfig(horizon=2))
    monkeypatch.setattr(toy, "expert", lambda self: None)  # the toy's admissible actions alone would solve it
    with pytest.raises(UsageError, match="no expert"):
        plan_lengths(mixed, RolloutConfig())
