"""A probe plays train tasks, to one horizon, plain and wrapped, and refuses what it cannot measure before it plays."""

import json
import sys

import pytest

from gentax.core import EnvironmentFault, UsageError
from gentax.evals import probe as module
from gentax.evals.probe import probe
from gentax.metrics.axes import Probe
from gentax.models.action_format import write_reply
from gentax.policies import Reply
from gentax.rollouts import RolloutConfig

PLAIN = '''
import gymnasium


class Wait(gymnasium.Env):
    """Wait for the third step."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 3
        return f"Wait here {seed}.", {"goal": "Wait."}

    def step(self, action):
        self.left -= 1
        return "Wait on.", float(self.left == 0), self.left == 0, False, {}
'''


class Scripted:
    """Writes what a function of the turn says."""

    name = "scripted"

    def __init__(self, say):
        self.say = say

    def reply(self, turns):
        return [Reply(write_reply(self.say(turn))) for turn in turns]


@pytest.fixture(autouse=True)
def tokens(monkeypatch):
    """Count tokens without loading a tokenizer; its own test has the real one."""
    monkeypatch.setattr(module, "_tokens_of", lambda policy: (str.split, "words"))


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    (tmp_path / "plain_game.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plain_game", raising=False)
    return "plain_game:Wait"


def test_what_an_expert_is_measured_to_do(toy):
    played = []
    (found,) = probe(["toy"], "expert", trajectories=12, samples=2, on_episode=played.append)
    axes = found.axes
    assert (found.name, found.level, found.policy, found.plain, axes.horizon) == ("toy", "three", "expert", None, 50)
    assert (axes.episodes, axes.planning.n) == (12, 6)
    assert [axes.planning.value, axes.length_given_success.value, axes.expert_length.value] == [3, 3, 3]
    assert axes.branching.value == 1
    assert {k: e.value for k, e in axes.pass_at.items()} == {1: 100, 2: 100}
    assert 16 < axes.observation_characters.value < 25
    assert axes.observation_tokens.value == pytest.approx((4 + 5 + 5) / 3)
    assert {episode.task.split for episode in played} == {"train"}  # test tasks are for what is claimed later
    assert len(played) == 12  # the expert's plans are not the policy's episodes


def test_failures_count_at_the_horizon_and_play_goes_that_far(toy):
    (found,) = probe(["toy"], Scripted(lambda turn: "no"), trajectories=4, horizon=9)
    assert [found.axes.planning.value, found.axes.success.value] == [9, 0]
    assert {episode.length for episode in found.episodes} == {9}  # of its own it would end after 6
    (found,) = probe(["toy"], "expert", trajectories=4, horizon=2)
    assert (found.axes.success.value, found.axes.expert_length.value) == (0, 3)  # a longer plan is known all the same


def test_a_domain_with_distractors_follows_its_plain_self(toy):
    plain, wrapped, one = probe([("toy", None), ("toy", "one")], "expert", trajectories=4, wrap=["distract"])[:3]
    assert [p.name for p in (plain, wrapped, one)] == ["toy", "toy + distract", "toy:one"]
    assert (wrapped.plain, wrapped.wrap, wrapped.domain) == ("toy", ("distract",), "toy")
    assert wrapped.axes.observation_characters.value > 2 * plain.axes.observation_characters.value
    assert wrapped.axes.planning.value == plain.axes.planning.value
    assert one.axes.planning.value == 1


def test_the_prompt_of_a_state_does_not_depend_on_the_context_played_in(toy):
    found = [
        probe(["toy"], "expert", trajectories=4, config=RolloutConfig(context=c))[0].axes for c in ("full", "window(0)")
    ]
    assert found[0].prompt_characters == found[1].prompt_characters
    assert found[0].prompt_characters.value > 100


def test_any_text_environment_can_be_probed_and_what_it_does_not_tell_is_left_open(foreign):
    (found,) = probe([foreign], "random", trajectories=6)
    assert (found.axes.planning.value, found.axes.success.value) == (3, 100)
    assert found.axes.branching is None
    assert found.axes.expert_length is None
    assert found.axes.observation_template.value > 0


def test_an_error_is_left_out_and_many_are_refused(toy, monkeypatch):
    monkeypatch.setattr(toy, "fatal", True)
    rare = Scripted(lambda turn: "crash" if turn.env.task.index == 0 else "no")
    (found,) = probe(["toy"], rare, trajectories=60, horizon=3)
    assert (found.axes.errors, found.axes.episodes, len(found.episodes)) == (1, 59, 59)
    with pytest.raises(UsageError, match=r"^1 of 40 episodes on toy ended in an error, more than 2 %.*the toy broke"):
        probe(["toy"], rare, trajectories=40, horizon=3)


def test_an_environment_that_cannot_list_its_actions_for_once_is_no_reason_to_stop(toy, monkeypatch):
    def fail(self):
        raise EnvironmentFault("no list today")

    monkeypatch.setattr(toy, "admissible", fail)
    (found,) = probe(["toy"], "expert", trajectories=4)
    assert (found.axes.success.value, found.axes.branching) == (100, None)
    monkeypatch.setattr(toy, "expert", lambda self: {}["no plan today"])
    (found,) = probe(["toy"], Scripted(lambda turn: turn.env.word), trajectories=4)
    assert (found.axes.success.value, found.axes.expert_length) == (100, None)


def test_it_is_read_back_from_json(toy):
    found = probe(["toy"], "random", trajectories=8, samples=2, wrap=["distract(volume=30)"])
    written = json.dumps([one.to_json() for one in found], allow_nan=False)
    read = [Probe.from_json(value) for value in json.loads(written)]
    assert json.dumps([one.to_json() for one in read]) == written
    assert (read[1].wrap, read[1].plain, read[1].episodes) == (("distract(volume=30)",), "toy", ())
    again = probe(["toy"], "random", trajectories=8, samples=2, wrap=["distract(volume=30)"])
    assert json.dumps([one.to_json() for one in again]) == written
    with pytest.raises(UsageError, match="a probe lacks"):
        Probe.from_json({"domain": "toy"})


@pytest.mark.parametrize(
    ("asked", "settings", "says"),
    [
        (["toy", "toi"], {}, "did you mean 'toy'"),
        ([("toy", "tree")], {}, "did you mean 'three'"),
        ([], {}, "no domain"),
        (["toy"], {"wrap": ["distrct"]}, "did you mean 'distract'"),
        (["toy"], {"trajectories": 9, "samples": 2}, "not 9 with samples 2"),
        (["toy"], {"horizon": 0}, "at least 1 step"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_played(toy, asked, settings, says):
    played = []
    with pytest.raises(UsageError, match=r"^[^\n]+$") as error:
        probe(asked, **{"policy": "expert", **settings}, on_episode=played.append)
    assert says in str(error.value)
    assert played == []
