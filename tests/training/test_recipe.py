"""Recipes: what contradicts itself is refused by name, before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest

from gentax.core import UsageError
from gentax.core.settings import plain, read_settings
from gentax.domains import domains, missing_modules
from gentax.rollouts import EvalRolloutConfig, RolloutConfig
from gentax.training.check import check, touched_by, touched_by_run
from gentax.training.config import (
    OLD_KEYS,
    RENAMED,
    RUN_FORMAT,
    CurriculumConfig,
    ForgettingConfig,
    LoraConfig,
    Phase,
    PolicyGradientConfig,
    RewardConfig,
    SFTConfig,
    TrainConfig,
    read_values,
    shipped,
)


def read(**values) -> TrainConfig:
    return read_settings(TrainConfig, values, "recipe")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"curriculum": {"phases": [{"mixture": {"sokoban": 0, "webshop": 0}}]}}, "mixture: the weights sum to 0"),
        (
            {"curriculum": {"phases": [{"mixture": {"sokoban": 1}}]}, "source": "webshop"},
            "leave out source and max_steps",
        ),
        ({"curriculum": {"adaptive": True}}, "curriculum.adaptive chooses among the parts"),
        ({"curriculum": {"phases": [{"max_steps": 3}]}}, "lacks the key 'mixture'"),
        ({"num_generations": 1}, "num_generations must be at least 2 with grpo"),
        ({"num_generations": 0, "algorithm": {"advantage_estimator": "ppo"}}, "num_generations must be greater than 0"),
        ({"forgetting": {"merge": "mean"}}, "forgetting.merge: mean joins"),
        ({"forgetting": {"replay_domains": ["webshop"]}}, "forgetting.replay is 0"),
        (
            {
                "forgetting": {"merge": "mean"},
                "curriculum": {"phases": [{"mixture": {"sokoban": 1, "webshop": 1}}], "adaptive": True},
            },
            "curriculum.adaptive has nothing to choose",
        ),
        (
            {"forgetting": {"kl_budget": 0.1}, "max_steps": 0, "sft": {"mixture": {"sokoban": 1}}},
            "forgetting.kl_budget ends the",
        ),
        ({"max_steps": 0}, "nothing to do"),
        ({"rollout": {"temperature": 0}}, "rollout.temperature is 0"),
        (
            {"trainer": "trl", "algorithm": {"advantage_estimator": "gigpo"}},
            "trainer trl computes grpo and rloo, not gigpo",
        ),
        ({"algorithm": {"advantage_estimator": "grop"}}, "did you mean 'grpo'"),
        ({"lora": {"r": 0}}, "lora.r must be greater than 0"),
        ({"sft": {"mixture": {"sokoban": 0}}}, "sft.mixture: the weights sum to 0"),
        (
            {"curriculum": {"phases": [{"mixture": {"sokoban": -1}}]}},
            "sokoban must be greater than or equal to 0",
        ),
        ({"klm": 0.1}, "unknown key in recipe 'klm'"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused_by_name(values, message):
    with pytest.raises(UsageError) as refused:
        read(**values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(held_out_domains=("sokoban",)), "sokoban is trained on and held out"),
        (TrainConfig(source="babyai"), "babyai is trained on, and it is a target only"),
        (TrainConfig(source="sokobn"), "did you mean 'sokoban'"),
        (TrainConfig(source="sokoban:9x9"), "unknown level of sokoban '9x9'"),
        (
            TrainConfig(forgetting=ForgettingConfig(replay=1.0, replay_domains=("babyai",))),
            "babyai is replayed, and it is a target only",
        ),
        (
            TrainConfig(forgetting=ForgettingConfig(replay=1.0, replay_domains=("sokoban",))),
            "in forgetting.replay_domains and trained on",
        ),
        (
            TrainConfig(held_out_domains=("crafting",), sft=SFTConfig(mixture={"crafting": 1.0})),
            "crafting is imitated and held out",
        ),
        (TrainConfig(sft=SFTConfig(teachers={"webshop": "expert"})), "unknown name in sft.teachers"),
        (TrainConfig(sft=SFTConfig(mixture={"sokobn": 0.0, "sokoban": 1.0})), "unknown domain 'sokobn'"),
        (TrainConfig(max_steps=0, sft=SFTConfig()), "nothing says what to imitate"),
        (
            TrainConfig(source="crafting", rollout=RolloutConfig(reward="shaped")),
            "domain 'crafting' has no distance to shape by",
        ),
        (TrainConfig(sft=SFTConfig(teachers={"sokoban": "no/such.jsonl"})), "unknown teacher 'no/such.jsonl'"),
        (TrainConfig(sft=SFTConfig(teachers={"sokoban": "exprt"})), "did you mean 'expert'"),
        (TrainConfig(reward=RewardConfig(judge="expert")), "unknown reward.judge 'expert'"),
        (TrainConfig(reward=RewardConfig(judge="nobody/nothing")), "hf download nobody/nothing"),
        (TrainConfig(sft=SFTConfig(teachers={"sokoban": "nobody/nothing"})), "hf download nobody/nothing"),
    ],
)
def test_what_a_recipe_names_must_exist_and_be_allowed(config, message):
    with pytest.raises(UsageError, match=message):
        check(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"play": {}}, "recipe: `play` is now `rollout`"),
        ({"steps": 3}, "recipe: `steps` is now `max_steps`"),
        ({"algorithm": {"kl": 0.1}}, "recipe: algorithm: `kl` is now `beta`"),
        ({"sft": {"epochs": 3}}, "recipe: sft: `epochs` is now `num_train_epochs`"),
        ({"lora": {"rank": 8}}, "recipe: lora: `rank` is now `r`"),
        ({"curriculum": {"phases": [{"mix": {"sokoban": 1}}]}}, "`mix` is now `mixture`"),
        ({"level": "6x6"}, "recipe: `level` is part of `source` now"),
        ({"lora": {"alpha": 8}}, "recipe: lora: `alpha` is a constant now"),
        ({"warmup_steps": 3}, "recipe: `warmup_steps` is a constant now"),
        ({"algorithm": {"minibatches": 2}}, "recipe: algorithm: `minibatches` is gone: a step is one update"),
        (
            {"exploration": {"hints": 0.5}},
            "recipe: `exploration` is gone: let `sft` learn from the expert first",
        ),
        ({"curriculum": {"horizon_start": 3}}, "recipe: curriculum: `horizon_start` is gone: set `rollout.horizon`"),
        ({"curriculum": {"replay": 0.2}}, "recipe: curriculum: `replay` is gone: give the later phase a `mixture`"),
        ({"forgetting": {"interpolate": 0.9}}, "recipe: forgetting: `interpolate` is now `merge: interpolate`"),
        ({"rollout": {"min_p": 0.1}}, "recipe: rollout: `min_p` is for evaluation only: it cuts off the distribution"),
        ({"device": "cpu"}, "recipe: `device` is no part of a recipe: it is now `--device` of `gentax train`"),
        ({"shard": True}, "recipe: `shard` is gone: processes spread a model (FSDP2) that one of them has no room"),
    ],
    ids=str,
)
def test_an_old_key_is_refused_with_what_takes_its_place(values, message):
    with pytest.raises(UsageError) as refused:
        read(**values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_new_name_is_a_setting():
    groups = TrainConfig, SFTConfig, PolicyGradientConfig, CurriculumConfig, ForgettingConfig, LoraConfig, Phase
    names = {field.name for group in groups for field in fields(group)}
    assert set(RENAMED.values()) <= names
    assert not names & OLD_KEYS.keys()


def test_a_config_that_cuts_off_the_distribution_is_not_trained_with():
    with pytest.raises(UsageError, match=r"rollout\.top_p, top_k and min_p: each is for evaluation only"):
        TrainConfig(rollout=EvalRolloutConfig(top_p=0.9))
    with pytest.raises(UsageError, match="`top_p` is for evaluation only: a setting of EvalRolloutConfig"):
        RolloutConfig(top_p=0.9)


def test_refusing_loads_no_model():
    code = (
        "import sys\nfrom gentax.training.config import TrainConfig\nfrom gentax.training.check import check\n"
        "try: check(TrainConfig(held_out_domains=('sokoban',)))\nexcept Exception as e: print(e)\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["recipe: sokoban is trained on and held out", "[]"]


def test_every_setting_goes_with_every_other():
    config = TrainConfig(
        rollout=RolloutConfig(temperature=0.7, thinking=True, context="window(2)", wrap=("distract(volume=80)",)),
        sft=SFTConfig(mixture={"sciworld": 19, "crafting": 3, "webshop": 1}, teachers={"crafting": "start"}),
        algorithm=PolicyGradientConfig(
            advantage_estimator="gigpo",
            normalize_std=True,
            loss_aggregation="sequence",
            entropy_coef=0.01,
        ),
        reward=RewardConfig(judge="http://localhost:1/v1"),
        curriculum=CurriculumConfig(
            (Phase({"sokoban:6x6": 1.0, "crafting": 3.0}, 5), Phase({"sokoban:6x6-far": 1.0, "webshop": 1.0}, 7)),
            adaptive=True,
        ),
        forgetting=ForgettingConfig(replay=0.5, merge="interpolate", kl_budget=0.3),
        held_out_domains=("alfworld",) if not missing_modules(domains()["alfworld"]) else (),
    )
    check(config)
    assert config.updates == 12


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_can_be_read(name):
    config = read(**read_values(name))
    assert config.updates
    if not missing_modules(domains()[config.source]):
        check(config)


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'sokoban'"):
        read_values("sokobn")


@pytest.mark.parametrize("text", ["- steps: 3", "steps", "7"])
def test_a_file_that_holds_no_mapping_is_no_recipe(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"a\.yaml is no recipe: it holds no mapping"):
        read_values(tmp_path / "a.yaml")


# Which domains a run touched.


def test_sources_experts_and_replayed_text_touch():
    assert touched_by(TrainConfig(source="sokoban")) == {"sokoban"}
    mixed = TrainConfig(curriculum=CurriculumConfig(phases=(Phase({"sokoban:6x6": 1, "crafting": 1}),)))
    assert touched_by(mixed) == {"sokoban", "crafting"}
    taught = TrainConfig(source="sokoban", sft=SFTConfig(mixture={"webshop": 1, "sokoban": 1, "alfworld": 0}))
    assert touched_by(taught) == {"sokoban", "webshop"}
    told = TrainConfig(source="sokoban", forgetting=ForgettingConfig(replay=1.0, replay_domains=("crafting:hard",)))
    assert touched_by(told) == {"sokoban", "crafting"}
    every = touched_by(
        TrainConfig(source="sokoban", forgetting=ForgettingConfig(replay=1.0), held_out_domains=("webshop",))
    )
    assert "crafting" in every
    assert "webshop" not in every


def test_a_checkpoint_knows_by_its_run(tmp_path):
    config = TrainConfig(source="sokoban", forgetting=ForgettingConfig(replay=1.0, replay_domains=("webshop",)))
    step = tmp_path / "run" / "step-000100"
    step.mkdir(parents=True)
    assert touched_by_run(step) is None
    record = tmp_path / "run" / "recipe.json"
    record.write_text(json.dumps(written := {"format": RUN_FORMAT, **plain(config)}))
    assert touched_by_run(step) == touched_by_run(tmp_path / "run") == {"sokoban", "webshop"}
    for others in ("{}x", "[1]", '{"cake": 3}'):
        record.write_text(others)
        assert touched_by_run(step) is None
    record.write_text(json.dumps(written | {"forgetting": {"replayy": 1}}))
    with pytest.raises(UsageError, match="does not say what training touched"):
        touched_by_run(step)
    record.write_text(json.dumps({"play": {}, "retain": {}}))
    with pytest.raises(UsageError, match="another version of gentax wrote it; move it away"):
        touched_by_run(step)
