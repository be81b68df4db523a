"""Wrappers by name: what is read, what is refused, and that every way of playing puts them on."""

from __future__ import annotations

import json

import pytest

import gentax
from gentax.core import UsageError
from gentax.core.settings import read_settings
from gentax.policies import ExpertPolicy
from gentax.rollouts import RolloutConfig, rollout
from gentax.rollouts.prompt import episode_prompts
from gentax.wrappers import Distractor, Layout, Menu, parse_wrapper, wrap


def test_names_and_settings_are_read():
    assert parse_wrapper("menu") == (Menu, {})
    assert parse_wrapper(" distract( 80, probability=0.5 ) ") == (Distractor, {"volume": 80, "probability": 0.5})
    assert parse_wrapper("layout(json)") == (Layout, {"layout": "json"})
    assert parse_wrapper("rename(words={'box': 'crate'})")[1] == {"words": {"box": "crate"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distrct", "did you mean 'distract'"),
        ("distract(volum=3)", "did you mean 'volume'"),
        ("distract(1, volume=2)", "volume twice"),
        ("menu(1)", "takes 0 settings"),
        ("distract(volume=__import__('os').getpid())", "cannot read"),
        ("a.b()", "cannot read"),
        ("", "cannot read"),
        ("(" * 10_000, "cannot read"),
        ("\0", "cannot read"),
    ],
)
def test_what_is_wrong_is_one_line(text, said):
    with pytest.raises(UsageError, match=r"^[^\n]+$") as error:
        parse_wrapper(text)
    assert said in str(error.value)
    with pytest.raises(UsageError):
        RolloutConfig(wrap=(text,))


@pytest.mark.parametrize(
    "text",
    [
        "distract(volume=lots)", "distract(volume=-1)", "distract(probability=1.5)", "distract(kind=contextuel)",
        "horizon(999)", "layout", "rename", "rename({'box': 'box2'})", "rename({'Box': 'dax'})",
        "rename({'box': 'dax', 'wall': 'dax'})", "rename(['a'])", "rename({'box': 'box', 'wall': 'box'})",
    ],
)  # fmt: skip
def test_what_a_wrapper_refuses_is_one_line_and_closes_the_environment(text, toy):
    env = gentax.make("toy")
    closed = []
    env.close = lambda: closed.append(True)
    with pytest.raises(UsageError, match=r"^[^\n]+$"):
        wrap(env, ["menu", text])
    assert closed


def test_the_first_is_the_innermost():
    env = wrap(gentax.make("sokoban"), ["distract(volume=80)", "layout(list)"])
    observation, _ = env.reset(options={"index": 0})
    assert isinstance(env, Layout)
    assert isinstance(env.env, Distractor)
    assert observation.startswith("- ")


def test_a_rollout_plays_in_them_and_keeps_the_rules_it_was_given():
    config = read_settings(RolloutConfig, {"wrap": ["rename", "calls"], "context": "window(1)"}, "a test")
    tasks = gentax.make("sokoban", "6x6").tasks("train", 3)
    episodes = rollout(ExpertPolicy(), tasks, config=config)
    assert all(episode.success for episode in episodes)
    assert all(step.action.endswith("()") for episode in episodes for step in episode.steps)
    assert "Write every action as a call" in episodes[0].rules
    assert all(episodes[0].rules in prompt for prompt in episode_prompts(config, episodes[0]))
    assert "box" not in "".join(episode_prompts(config, episodes[0]))


def test_recipes_take_them_and_say_which(tmp_path, toy, tiny):
    config = read_settings(
        gentax.TrainConfig,
        {
            "source": "toy", "model": str(tiny), "max_steps": 1, "num_generations": 2, "tasks_per_step": 2,
            "eval_steps": 0,
            "rollout": {"wrap": ["distract(volume=40)"], "temperature": 1.0},
        },
        "a test",
    )  # fmt: skip
    gentax.train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["rollout"]["wrap"] == ["distract(volume=40)"]
