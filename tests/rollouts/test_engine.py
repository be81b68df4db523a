"""The engine: who is asked when, what is counted, and what happens when an environment breaks."""

from __future__ import annotations

import numpy as np
import pytest

from gentax.core import Outcome, Task, UsageError
from gentax.models.action_format import write_reply
from gentax.policies import ExpertPolicy, RandomPolicy, Reply
from gentax.rollouts import EnvPool, EvalRolloutConfig, RolloutConfig, make_env, rollout


def tasks(n, level="three"):
    return [Task("toy", level, "train", i) for i in range(n)]


class Scripted:
    """Says what a function of (step, expert's action) gives."""

    name = "scripted"

    def __init__(self, say):
        self.say = say
        self.batches = []

    def reply(self, turns):
        self.batches.append(len(turns))
        return [Reply(self.say(turn.env.steps, turn.env.expert().action)) for turn in turns]


def test_the_expert_wins_and_everything_is_recorded(toy):
    episodes = rollout(ExpertPolicy(), tasks(5), config=RolloutConfig(thinking=True))
    assert [e.task.index for e in episodes] == list(range(5))
    for episode in episodes:
        assert episode.outcome is Outcome.SUCCESS
        assert (episode.length, episode.ret, episode.invalid) == (3, 1.0, 0)
        assert episode.steps[0].observation.endswith(f"{episode.steps[0].action}.")
        assert episode.steps[0].thought == f"It says {episode.steps[0].action}."
        assert episode.final.startswith("Yes.")


def test_a_rollout_shows_progress_where_it_is_asked_to(toy, capsys):
    rollout(ExpertPolicy(), tasks(4))
    assert capsys.readouterr().out == ""
    rollout(ExpertPolicy(), tasks(4), progress=True)
    out = capsys.readouterr().out
    assert out.startswith("  expert: 0/4 episodes\n")  # before the first step
    assert "  expert: 4/4 episodes in 0:0" in out


def test_samples_of_a_task_stand_together_in_order(toy):
    episodes = rollout(RandomPolicy(), tasks(3), samples=4, parallel=2)
    assert [(e.task.index, e.sample) for e in episodes] == [(i, s) for i in range(3) for s in range(4)]


def test_finished_episodes_leave_the_batch_and_waiting_ones_take_their_place(toy):
    policy = Scripted(lambda step, right: write_reply(right))
    rollout(policy, tasks(5), parallel=3)
    assert policy.batches == [3, 3, 3, 2, 2, 2]


@pytest.mark.parametrize("text", ["", "no tags", "<action>", "</action><action>", "\x00", "<action>wrong</action>"])
def test_replies_that_are_no_action_are_counted_and_answered_by_the_environment(toy, text):
    (episode,) = rollout(Scripted(lambda step, right: text), tasks(1))
    assert episode.outcome is Outcome.FAILURE
    assert episode.invalid == episode.length == 6
    assert episode.steps[1].observation.startswith("No.")


def test_the_last_action_of_a_reply_counts(toy):
    (episode,) = rollout(Scripted(lambda s, right: f"<action>x</action> or {write_reply(right)}"), tasks(1))
    assert episode.success


def test_a_broken_environment_is_replaced_and_its_episode_replayed(toy):
    broke_at = []

    def say(step, right):
        if step == 1 and not broke_at:
            broke_at.append(step)
            return write_reply("crash")
        return write_reply(right)

    episodes = rollout(Scripted(say), tasks(3))
    assert toy.crashes == 1
    assert [e.outcome for e in episodes] == [Outcome.SUCCESS] * 3
    assert sorted(e.length for e in episodes) == [3, 3, 4]  # one spent a step on the word "crash"


def test_an_environment_that_breaks_again_is_an_error_and_no_failure(toy):
    toy.fatal = True
    asked = []

    def say(step, right):
        asked.append(step)
        return write_reply("crash" if len(asked) == 2 else right)

    episodes = rollout(Scripted(say), tasks(2))
    assert sorted(e.outcome for e in episodes) == [Outcome.ERROR, Outcome.SUCCESS]
    (broken,) = [e for e in episodes if e.outcome is Outcome.ERROR]
    assert broken.error == "EnvironmentFault: the toy broke"


def test_an_environment_that_cannot_be_made_again_is_an_error(toy):
    toy.fatal = True
    made = []

    def make(task):
        made.append(task)
        if len(made) > 1:
            raise OSError("no more processes")
        return make_env(RolloutConfig(), "toy")

    with EnvPool(RolloutConfig(), make) as pool:
        (episode,) = rollout(Scripted(lambda step, right: write_reply("crash")), tasks(1), pool=pool)
    assert (episode.outcome, episode.error) == (Outcome.ERROR, "OSError: no more processes")


def test_the_same_seed_draws_the_same_numbers_whoever_plays_beside(toy):
    class Numbers:
        name = "numbers"

        def reply(self, turns):
            return [Reply(write_reply(str(turn.rng.random()))) for turn in turns]

    def drawn(**settings):
        return {(e.task, e.sample): [s.action for s in e.steps] for e in rollout(Numbers(), tasks(6), **settings)}

    assert drawn(seed=1, parallel=6) == drawn(seed=1, parallel=2)
    assert drawn(seed=1) != drawn(seed=2)


def test_a_pool_keeps_environments_and_closes_them(toy, monkeypatch):
    made, closed = [], []
    monkeypatch.setattr(toy, "close", lambda self: closed.append(self))
    init = toy.__init__
    monkeypatch.setattr(toy, "__init__", lambda self, *a, **k: (init(self, *a, **k), made.append(self))[0])
    with EnvPool(RolloutConfig()) as pool:
        for _ in range(3):
            rollout(ExpertPolicy(), tasks(4), pool=pool, parallel=2)
        assert len(made) == 2
    assert closed == made


def test_settings_that_make_no_sense_are_refused(toy):
    for bad in (
        {"context": "window"}, {"context": "windows(2)"}, {"temperature": -1.0}, {"max_new_tokens": -1},
        {"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.0}, {"action_format": "xml"}, {"reward": "shape"},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            EvalRolloutConfig(**bad)
    with pytest.raises(UsageError):
        rollout(ExpertPolicy(), tasks(1), samples=0)
    with pytest.raises(UsageError, match="train split has indices"):
        rollout(ExpertPolicy(), [Task("toy", "three", "train", 10**6)])


def test_play_is_cut_off_at_its_horizon(toy):
    (episode,) = rollout(ExpertPolicy(), tasks(1), config=RolloutConfig(horizon=2))
    assert (episode.length, episode.success) == (2, False)


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_an_episode_that_is_cut_off_is_the_beginning_of_the_whole_one(toy, cut):
    policy = Scripted(lambda step, right: write_reply(right if step % 2 else f"wrong {step}"))
    whole = rollout(policy, tasks(5))
    assert {e.length for e in whole} == {6}
    with EnvPool(RolloutConfig()) as pool:
        short = rollout(policy, tasks(5), horizon=cut, parallel=2, pool=pool)
        assert [e.steps for e in short] == [e.steps[:cut] for e in whole]
        assert [e.final for e in short] == [e.steps[cut].observation for e in whole]
        assert {e.outcome for e in short} == {Outcome.FAILURE}
        assert [e.steps for e in rollout(policy, tasks(5), pool=pool)] == [e.steps for e in whole]


def test_a_success_at_the_very_step_of_the_cut_is_one(toy):
    (episode,) = rollout(ExpertPolicy(), tasks(1), horizon=3)
    assert (episode.length, episode.success) == (3, True)
    with pytest.raises(UsageError, match="horizon must be at least 1, not 0"):
        rollout(ExpertPolicy(), tasks(1), horizon=0)


def test_a_shaped_reward_pays_for_every_step_nearer_and_leaves_the_outcome_alone(toy, monkeypatch):
    with pytest.raises(UsageError, match="'toy' has no distance to shape by"):
        rollout(ExpertPolicy(), tasks(1), config=RolloutConfig(reward="shaped"))
    monkeypatch.setattr(toy, "distance", lambda self: self.left, raising=False)
    right_at_last = Scripted(lambda step, right: write_reply(right if step else "wrong"))
    for wrappers in ((), ("distract(volume=80, probability=1.0)", "horizon(5)")):
        (episode,) = rollout(right_at_last, tasks(1), config=RolloutConfig(reward="shaped", wrap=wrappers))
        assert [step.reward for step in episode.steps] == pytest.approx([0, 1 / 3, 1 / 3, 1 + 1 / 3])
        assert episode.success
    (cut,) = rollout(right_at_last, tasks(1), config=RolloutConfig(reward="shaped"), horizon=2)
    assert (cut.ret, cut.outcome) == (pytest.approx(1 / 3), Outcome.FAILURE)


def test_an_environment_that_cannot_be_shaped_is_closed(toy, monkeypatch):
    closed = []
    monkeypatch.setattr(toy, "close", lambda self: closed.append(self))
    with pytest.raises(UsageError):
        make_env(RolloutConfig(reward="shaped"), "toy")
    assert len(closed) == 1


def test_random_numbers_do_not_touch_the_global_generator(toy):
    before = np.random.get_state()[1].copy()
    rollout(RandomPolicy(), tasks(3))
    assert (np.random.get_state()[1] == before).all()
