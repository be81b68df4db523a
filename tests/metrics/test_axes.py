"""Richness counts states, planning counts failures at the horizon, errors count nowhere."""

import json

import numpy as np
import pytest

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.metrics.axes import Axes, axes

WON, LOST, BROKE = Outcome.SUCCESS, Outcome.FAILURE, Outcome.ERROR


def episode(index, observations, outcome, sample=0):
    steps = tuple(Step(text, "go", "go", 0.0, True) for text in observations)
    return Episode(Task("maze", "base", "test", index), sample, "", steps, outcome)


EPISODES = [
    episode(0, ["aa", "aaaa"], WON),
    episode(1, ["a" * 6] * 4, WON),
    episode(2, ["a" * 3], LOST),
    episode(3, ["a" * 1000] * 10, BROKE),
]


def test_the_two_axes():
    found = axes("maze", EPISODES, 10)
    assert found.observation_characters.value == pytest.approx((2 + 4 + 4 * 6 + 3) / 7)
    assert found.planning.value == pytest.approx((2 + 4 + 10) / 3)
    assert found.length_given_success.value == pytest.approx(3)
    assert found.success.value == pytest.approx(200 / 3)
    assert (found.episodes, found.errors) == (3, 1)
    assert found.prompt_characters is None
    assert found.expert_length is None


def test_prompts_tokens_and_experts_when_given():
    found = axes(
        "maze",
        EPISODES,
        10,
        prompts=lambda e: ["rules " + s.observation for s in e.steps],
        encode=lambda text: list(text.encode())[::2],
        expert_lengths=[2, 4],
    )
    assert found.prompt_characters.value == pytest.approx(found.observation_characters.value + 6)
    assert found.observation_tokens.value == pytest.approx((1 + 2 + 4 * 3 + 2) / 7)
    assert found.prompt_tokens.value > found.observation_tokens.value
    assert found.expert_length.value == 3


def test_compression_tells_templates_from_content():
    dull = [episode(i, ["the box is here. " * 40], WON) for i in range(3)]
    noise = np.random.default_rng(0).integers(33, 123, (3, 680))
    rich = [episode(i, ["".join(map(chr, noise[i]))], WON) for i in range(3)]
    sizes = [axes("maze", e, 5).observation_compressed.value for e in (dull, rich)]
    assert sizes[0] < 0.2 * sizes[1]


def test_samples_of_one_task_do_not_narrow_the_interval():
    once = axes("maze", EPISODES[:3], 10)
    often = axes(
        "maze", [episode(e.task.index, ["x"] * e.length, e.outcome, s) for e in EPISODES[:3] for s in range(9)], 10
    )
    assert often.planning.low == pytest.approx(once.planning.low)
    assert often.success.n == 3


def test_one_success_gives_no_length_given_success():
    assert axes("maze", [EPISODES[0], EPISODES[2]], 10).length_given_success is None


def test_json():
    assert json.loads(json.dumps(axes("maze", EPISODES, 10).to_json(), allow_nan=False))["planning"]["unit"] == "steps"


def test_json_is_read_back():
    found = axes(
        "maze", EPISODES, 10, prompts=lambda e: ["rules"] * e.length, choices=[(e.task, 3) for e in EPISODES[:2]]
    ).to_json()
    assert found["pass_at"]["1"]["value"] > 0
    assert Axes.from_json(json.loads(json.dumps(found))).to_json() == found


def test_the_share_that_is_template_and_the_choices_of_a_state():
    told = [episode(i, ["it is cold in here", f"{i}{i}{i}"], WON) for i in range(10)]
    found = axes(
        "maze",
        told,
        5,
        prompts=lambda e: ["say where you are"] * e.length,
        choices=[(e.task, n) for e in told for n in (1, 4, 7)],
    )
    assert found.observation_template.value == pytest.approx(100 * 18 / 21)
    assert found.prompt_template.value == 100
    assert (found.branching.value, found.branching.unit) == (4, "actions")
    bare = axes("maze", told, 5)
    assert bare.prompt_template is None
    assert bare.branching is None


def test_pass_at_k_leaves_out_tasks_with_a_sample_that_broke():
    outcomes = {0: (WON, LOST), 1: (LOST, LOST), 2: (WON, BROKE), 3: (WON, WON)}
    played = [episode(i, ["x"], outcome, s) for i, pair in outcomes.items() for s, outcome in enumerate(pair)]
    found = axes("maze", played, 5).pass_at
    assert {k: (e.value, e.n) for k, e in found.items()} == {1: (pytest.approx(50), 3), 2: (pytest.approx(200 / 3), 3)}


def test_lone_surrogates_are_counted():
    broken = [episode(i, ["\ud800" * 4], WON) for i in range(2)]
    assert axes("maze", broken, 5).observation_characters.value == 4


@pytest.mark.parametrize(
    ("episodes", "horizon", "says"),
    [(EPISODES, 3, "horizon"), (EPISODES[:1], 10, "at least 2 tasks"), (EPISODES[2:], 10, "at least 2 tasks")],
)
def test_what_cannot_be_measured_is_refused(episodes, horizon, says):
    with pytest.raises(UsageError, match=says):
        axes("maze", episodes, horizon)


def test_episodes_of_another_domain_are_refused():
    with pytest.raises(UsageError, match="maze"):
        axes("sokoban", EPISODES, 10)
