"""Richness counts states, planning counts failures at the horizon, errors count nowhere; pass@k; template text."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.metrics.axes import Axes, axes, pass_at_k, template_share

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
    axis = (found.observation_characters, found.planning, found.length_given_success, found.success)
    assert [one.value for one in axis] == pytest.approx([(2 + 4 + 4 * 6 + 3) / 7, (2 + 4 + 10) / 3, 3, 200 / 3])
    assert (found.episodes, found.errors, found.prompt_characters, found.expert_length) == (3, 1, None, None)
    assert found.observation_compressed.value < 20


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


def test_samples_of_one_task_do_not_narrow_the_interval():
    once = axes("maze", EPISODES[:3], 10)
    samples = [episode(e.task.index, ["\ud800"] * e.length, e.outcome, s) for e in EPISODES[:3] for s in range(9)]
    often = axes("maze", samples, 10)
    assert often.planning.low == pytest.approx(once.planning.low)
    assert often.success.n == 3
    assert axes("maze", EPISODES[1:3], 10).length_given_success is None  # one success has no spread


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


@pytest.mark.parametrize(
    ("episodes", "horizon", "says"),
    [
        (EPISODES, 3, "horizon"),
        (EPISODES[2:], 10, "at least 2 tasks"),
        ([replace(e, task=Task("sokoban", "base", "test", n)) for n, e in enumerate(EPISODES)], 10, "of sokoban"),
    ],
)
def test_what_cannot_be_measured_is_refused(episodes, horizon, says):
    with pytest.raises(UsageError, match=says):
        axes("maze", episodes, horizon)


# Four samples of three tasks: solved never, once and always.
SCORES_NK = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1]], float)


def test_pass_at_k_is_the_mean_over_all_draws_of_k_samples():
    for k in (1, 2, 5, 7):
        scores_NK = (np.random.default_rng(k).random((7, 5)) < 0.3).astype(float)
        drawn = [scores_NK[list(rows)].max(0).mean() for rows in combinations(range(7), k)]
        assert pass_at_k(scores_NK, k).value == pytest.approx(100 * np.mean(drawn))
    scores_NK = np.zeros((5000, 2))
    scores_NK[0] = 1
    assert pass_at_k(scores_NK, 2500).value == pytest.approx(50)  # binomials themselves overflow


@pytest.mark.parametrize(
    ("scores", "k", "says"),
    [
        (SCORES_NK, 5, "from 1 to 4, not 5"),
        (SCORES_NK, 0, "from 1 to 4, not 0"),
        (SCORES_NK / 2, 1, "0 or 1"),
        (SCORES_NK[:, :1], 1, "at least 2 tasks"),
        (np.where(SCORES_NK, np.nan, 0), 1, "NaN"),
    ],
)
def test_pass_at_k_refuses_what_is_no_score(scores, k, says):
    with pytest.raises(UsageError, match=says):
        pass_at_k(scores, k)


CONTENT = ["one", "two", "six", "ten", "red", "tan", "ash", "oak", "elm", "fir"]


def template_tasks(*texts: list[str]) -> dict[Task, list[str]]:
    return {Task("maze", "base", "train", index): states for index, states in enumerate(texts)}


def test_what_every_task_shows_is_template_and_what_one_shows_is_not():
    # "You are in a" has 12 characters of 23; then words in two places, with a gap of two between them.
    for text, share in (("You are in a {0} {0}{0}", 12 / 23), ("Go to  the end {0} x so say it {0}", (14 + 11) / 34)):
        states = template_tasks(*([text.format(word)] for word in CONTENT))
        assert template_share(states).value == pytest.approx(100 * share)


def test_a_phrase_of_one_kind_of_page_is_template_when_nearly_every_task_shows_it():
    # Two pages a task: 17 characters of a menu, and 9 of its own.
    pages = [["Back Next Buy Now", f"{word} {word}{word[:2]}"] for word in CONTENT]
    share = template_share(template_tasks(*pages))
    assert share.value == pytest.approx(100 * 17 / 26)
    pages[0] = [pages[0][1]]
    assert template_share(template_tasks(*pages)).value > 60  # in nine tasks of ten
    pages[1] = [pages[1][1]]
    assert template_share(template_tasks(*pages)).value == 0  # in eight


def test_the_interval_covers_tasks_and_stays_within_bounds():
    rare = template_share(template_tasks(["a b c d", "x"], ["a b c d", "y" * 400]))
    assert (rare.n, rare.unit) == (2, "percent")
    assert 0 == rare.low < rare.value < rare.high
    common = template_share(template_tasks(["a b c d"], ["a b c d", "y"]))
    assert common.low < common.value < common.high == 100
    assert template_share(template_tasks(["a b c d"], [""])) is None  # text in one task alone tells nothing
