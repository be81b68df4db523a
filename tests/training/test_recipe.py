"""Recipes: what contradicts itself is refused by name, before anything is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gentax.core import UsageError
from gentax.core.settings import read_settings
from gentax.domains import domains, missing_modules
from gentax.rollouts import RolloutConfig
from gentax.training.check import check
from gentax.training.config import (
    CurriculumConfig,
    ForgettingConfig,
    Phase,
    PolicyGradientConfig,
    RewardConfig,
    SFTConfig,
    TrainConfig,
)
from gentax.training.config.read import read_values, shipped


def read(**values) -> TrainConfig:
    return read_settings(TrainConfig, values, "recipe")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reward": {"think_length": 0.1}}, "reward.think_length pays for thoughts, and play.thinking is off"),
        ({"schedule": {"phases": [{"mix": {"sokoban": 0, "webshop": 0}}]}}, "weights of a mixture sum to 0"),
        ({"schedule": {"phases": [{"mix": {"sokoban": 1}}]}, "source": "webshop"}, "leave out source, level and steps"),
        ({"schedule": {"replay": 0.2}}, "schedule.replay draws from earlier phases"),
        ({"schedule": {"adaptive": True}}, "schedule.adaptive chooses among the parts"),
        ({"schedule": {"phases": [{"steps": 3}]}}, "lacks the key 'mix'"),
        ({"group": 1}, "group must be at least 2 with grpo"),
        ({"group": 0, "algorithm": {"estimator": "ppo"}}, "group must be at least 1"),
        ({"explore": {"hints": 0.5, "until": 0}}, "explore.until is 0"),
        ({"retain": {"merge": "ties"}}, "retain.merge joins"),
        ({"retain": {"replay_domains": ["webshop"]}}, "retain.replay is 0"),
        (
            {
                "retain": {"merge": "ties"},
                "schedule": {"phases": [{"mix": {"sokoban": 1, "webshop": 1}}], "adaptive": True},
            },
            "schedule.adaptive has nothing to choose",
        ),
        ({"retain": {"stop_at": 0.1}, "steps": 0, "imitate": {"mix": {"sokoban": 1}}}, "retain.stop_at ends the"),
        ({"explore": {"new_states": 0.1}, "play": {"wrap": ["distract(volume=80)"]}}, "distractors make every"),
        ({"retain": {"interpolate": 1.5}}, "retain.interpolate must be from 0 to 1, not 1.5"),
        ({"steps": 0}, "nothing to do"),
        ({"play": {"temperature": 0}}, "play.temperature is 0"),
        ({"trainer": "trl", "algorithm": {"estimator": "gigpo"}}, "trainer trl computes grpo and rloo, not gigpo"),
        ({"algorithm": {"estimator": "grop"}}, "did you mean 'grpo'"),
        ({"algorithm": {"clip": 0.3, "clip_high": 0.2}}, "algorithm.clip_high must be at least 0.3"),
        ({"algorithm": {"kl_in": "rewards"}}, "did you mean 'reward'"),
        ({"lora": {"rank": 0}}, "lora.rank must be more than 0"),
        ({"imitate": {"mix": {"sokoban": 0}}}, "weights of imitate.mix sum to 0"),
        ({"schedule": {"phases": [{"mix": {"sokoban": -1}}]}}, "the weight of sokoban must be"),
        ({"play": {"reward": "shaped"}, "algorithm": {"discount": 0.9}}, "play.wrap: ['shaping(gamma=0.9)']"),
        ({"trl_server": "http://localhost:8000"}, "trl_server plays for trainer trl alone"),
        ({"kl": 0.1}, "unknown key in recipe 'kl'"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused_by_name(values, message):
    with pytest.raises(UsageError) as refused:
        read(**values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (TrainConfig(held_out=("sokoban",)), "sokoban is trained on and held out"),
        (TrainConfig(source="babyai"), "babyai is trained on, and it is a target only"),
        (TrainConfig(source="sokobn"), "did you mean 'sokoban'"),
        (TrainConfig(level="9x9"), "unknown level of sokoban '9x9'"),
        (
            TrainConfig(retain=ForgettingConfig(replay=1.0, replay_domains=("babyai",))),
            "babyai is replayed, and it is a target only",
        ),
        (
            TrainConfig(retain=ForgettingConfig(replay=1.0, replay_domains=("sokoban",))),
            "in retain.replay_domains and trained on",
        ),
        (
            TrainConfig(held_out=("crafting",), imitate=SFTConfig(mix={"crafting": 1.0})),
            "crafting is imitated and held out",
        ),
        (TrainConfig(imitate=SFTConfig(teachers={"webshop": "expert"})), "unknown name in imitate.teachers"),
        (TrainConfig(imitate=SFTConfig(mix={"sokobn": 0.0, "sokoban": 1.0})), "unknown domain 'sokobn'"),
        (TrainConfig(steps=0, imitate=SFTConfig()), "nothing says what to imitate"),
        (
            TrainConfig(source="crafting", play=RolloutConfig(reward="shaped")),
            "domain 'crafting' has no distance to shape by",
        ),
        (TrainConfig(imitate=SFTConfig(teachers={"sokoban": "no/such.jsonl"})), "unknown teacher 'no/such.jsonl'"),
        (TrainConfig(imitate=SFTConfig(teachers={"sokoban": "exprt"})), "did you mean 'expert'"),
        (TrainConfig(reward=RewardConfig(judge="expert")), "unknown reward.judge 'expert'"),
        (TrainConfig(reward=RewardConfig(judge="nobody/nothing")), "hf download nobody/nothing"),
        (TrainConfig(imitate=SFTConfig(teachers={"sokoban": "nobody/nothing"})), "hf download nobody/nothing"),
    ],
)
def test_what_a_recipe_names_must_exist_and_be_allowed(recipe, message):
    with pytest.raises(UsageError, match=message):
        check(recipe)


def test_refusing_loads_no_model():
    code = (
        "import sys\nfrom gentax.training.config import TrainConfig\nfrom gentax.training.check import check\n"
        "try: check(TrainConfig(held_out=('sokoban',)))\nexcept Exception as e: print(e)\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["recipe: sokoban is trained on and held out", "[]"]


def test_every_setting_goes_with_every_other():
    recipe = TrainConfig(
        play=RolloutConfig(temperature=0.7, thinking=True, context="window(2)", wrap=("distract(volume=80)",)),
        imitate=SFTConfig(mix={"sciworld": 19, "crafting": 3, "webshop": 1}, teachers={"crafting": "start"}),
        algorithm=PolicyGradientConfig(
            estimator="gigpo", std=True, per="sequence", clip_high=0.3, kl_in="reward", entropy=0.01
        ),
        reward=RewardConfig(think_length=-0.1, judge="http://localhost:1/v1"),
        schedule=CurriculumConfig(
            (Phase({"sokoban:6x6": 1.0, "crafting": 3.0}, 5), Phase({"sokoban:6x6-far": 1.0, "webshop": 1.0}, 7)),
            replay=0.25,
            adaptive=True,
            horizon_start=5,
        ),
        retain=ForgettingConfig(replay=0.5, interpolate=0.9, stop_at=0.3),
        held_out=("alfworld",) if not missing_modules(domains()["alfworld"]) else (),
    )
    check(recipe)
    assert recipe.updates == 12


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_can_be_read(name):
    recipe = read(**read_values(name))
    assert recipe.updates
    if not missing_modules(domains()[recipe.source]):
        check(recipe)


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'sokoban'"):
        read_values("sokobn")


@pytest.mark.parametrize("text", ["- steps: 3", "steps", "7"])
def test_a_file_that_holds_no_mapping_is_no_recipe(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"a\.yaml is no recipe: it holds no mapping"):
        read_values(tmp_path / "a.yaml")
