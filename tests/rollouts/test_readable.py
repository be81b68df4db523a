"""A run whose replies cannot be read is stopped, with a reply and the settings that may change it."""

from __future__ import annotations

import pytest

import gentax
from gentax.core import Task, UsageError
from gentax.evals.paired_eval import paired_evaluation
from gentax.metrics.statistics import InterimAnalyses
from gentax.policies import ExpertPolicy, Reply
from gentax.rollouts import RolloutConfig, rollout
from gentax.rollouts.engine import MIN_EPISODES, MIN_REPLIES


def tasks(n, level="three"):
    return [Task("toy", level, "train", i) for i in range(n)]


class Talking:
    """Says something without an action in `share` of its replies."""

    name = "talking"

    def __init__(self, share=1.0, text="I would\nrather \x1b[2J talk.", truncated=False):
        self.share, self.text, self.truncated, self.asked = share, text, truncated, 0

    def reply(self, turns):
        replies = []
        for _ in turns:
            self.asked += 1
            bad = int(self.asked * self.share) > int((self.asked - 1) * self.share)
            replies.append(Reply(self.text if bad else "<action>x</action>", truncated=self.truncated))
        return replies


def test_it_stops_early_in_one_line_that_shows_a_reply(toy):
    policy = Talking()
    with pytest.raises(UsageError, match=r"^[^\n\x1b]+$") as stopped:
        rollout(policy, tasks(100), parallel=5, stop_if_unreadable=True)
    said = str(stopped.value)
    assert "20 of the first 20 replies of talking hold no action" in said
    assert "I would rather [2J talk." in said
    assert "--thinking" in said
    assert "skip_special_tokens" in said
    assert "--max-new-tokens" not in said
    assert policy.asked == 20  # four batches of five


def test_replies_that_were_cut_off_are_told_from_others(toy):
    config = RolloutConfig(max_new_tokens=9, thinking=True)
    with pytest.raises(UsageError, match=r"-tokens \(16 of these were cut off at 9 tokens\); .*--thinking \(now on\)"):
        rollout(Talking(truncated=True), tasks(16), config=config, stop_if_unreadable=True)


def test_half_of_them_may_be_unreadable_and_all_where_it_is_not_asked_to_stop(toy):
    assert len(rollout(Talking(), tasks(20))) == 20
    assert len(rollout(Talking(0.5), tasks(20), stop_if_unreadable=True)) == 20
    with pytest.raises(UsageError, match="hold no action"):
        rollout(Talking(0.6), tasks(20), stop_if_unreadable=True)


def test_a_few_replies_are_not_enough_to_stop_for(toy):
    rollout(Talking(), tasks(MIN_REPLIES - 1, "one"), stop_if_unreadable=True)
    rollout(Talking(), tasks(2), stop_if_unreadable=True)
    with pytest.raises(UsageError, match="hold no action"):
        rollout(Talking(), tasks(MIN_EPISODES - 1), stop_if_unreadable=True)


def test_evaluations_and_probes_stop_unless_they_are_told_not_to(toy):
    with pytest.raises(UsageError, match="hold no action"):
        gentax.evaluate(Talking(), ["toy"], tasks=20)
    with pytest.raises(UsageError, match="hold no action"):
        gentax.probe(["toy"], Talking(), trajectories=20)
    result = gentax.evaluate(Talking(), ["toy"], tasks=20, stop_if_unreadable=False)
    assert result.success()["toy"].value == 0


def test_an_environment_that_breaks_is_no_unreadable_reply(toy):
    toy.fatal = True

    class Crashing:
        name = "crashing"

        def reply(self, turns):
            return [Reply("<action>crash</action>")] * len(turns)

    episodes = rollout(Crashing(), tasks(30), stop_if_unreadable=True)
    assert {episode.outcome for episode in episodes} == {gentax.Outcome.ERROR}


def test_a_base_that_cannot_be_read_stops_a_tax_and_a_tuned_policy_is_warned_about(toy, monkeypatch):
    import dataclasses

    from gentax.domains import registry

    known = dict(registry.domains())
    known["other"] = dataclasses.replace(known["toy"], name="other")
    monkeypatch.setattr(registry, "domains", lambda: known)
    settings = {"source": "toy", "domains": {"toy": None, "other": None}, "tasks": 20, "analyses": InterimAnalyses(1)}
    with pytest.raises(UsageError, match="talking hold no action"):
        paired_evaluation(Talking(), ExpertPolicy(), **settings)
    with pytest.warns(UserWarning, match="replies of talking hold no action .* It is measured as it is"):
        played = paired_evaluation(ExpertPolicy(), Talking(), **settings)
    assert played.report.tax.value == 1
