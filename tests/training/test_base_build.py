"""The base model is built at every size, from a recipe that takes seconds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from command import run
from gentax.core import UsageError
from gentax.policies.local import load_local_policy
from gentax.training.pretrain import SIZES, PretrainConfig, PretrainText, build, new_model
from gentax.training.sft import SFTSettings

SMALL = PretrainConfig(
    size="nano",
    text={"sokoban": PretrainText(tasks=8, noise=(0.0, 0.15), random=2, admissible=True, level="6x6-1-3-12")},
    formats={"full": 0.5, "window(1), thinking": 0.5},
    vocabulary=300,
    sft=SFTSettings(steps=1, precision="fp32"),
)
YAML = """\
size: mini
text: {sokoban: {tasks: 8, random: 2, admissible: true, level: 6x6-1-3-12}}
formats: {full: 1.0}
vocabulary: 300
sft: {steps: 1, precision: fp32}
"""


def test_sizes_are_what_the_docs_say(tiny):
    class Tokenizer:
        pad_token_id, eos_token_id = 0, 1

        def __len__(self) -> int:
            return PretrainConfig().vocabulary

    millions = {size: new_model(size, Tokenizer()).num_parameters() / 1e6 for size in SIZES}
    assert {size: round(count, 1) for size, count in millions.items()} == {"nano": 0.5, "micro": 1.4, "mini": 5.5}


@pytest.mark.slow
@pytest.mark.parametrize("size", list(SIZES))
def test_every_size_is_built(tmp_path, size):
    out = build(replace(SMALL, size=size), tmp_path / "model", say=lambda text: None)
    record = json.loads((out / "record.json").read_text())
    assert record["recipe"]["size"] == size
    assert [row["step"] for row in record["losses"]] == [1]
    policy = load_local_policy(out)
    assert policy.model.config.hidden_size == SIZES[size][0]
    assert policy.codec.decode(policy.codec.encode_reply("<action>up</action>")) == "<action>up</action>"


@pytest.mark.slow
def test_the_command_takes_the_size_over_that_of_the_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(YAML)
    out = tmp_path / "model"
    command = ["base", "build", "--out", str(out), "--recipe", str(tmp_path / "recipe.yaml"), "--size", "nano"]
    done = run(*command, "--tasks", "2")
    assert done.code == 0
    assert load_local_policy(out).model.config.hidden_size == SIZES["nano"][0]
    assert (out / "evaluation.json").is_file()
    assert run(*command, "--tasks", "1").code == 2  # not after an hour of building


def test_an_unknown_size_is_refused_by_name_before_anything_is_played(tmp_path):
    with pytest.raises(UsageError, match=r"unknown size 'nanno'; did you mean 'nano'\? Known: micro, mini, nano"):
        build(PretrainConfig(size="nanno"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_the_same_recipe_builds_the_same_model(tmp_path):
    folders = [build(SMALL, tmp_path / name, say=lambda text: None) for name in ("a", "b")]
    a, b = (load_local_policy(folder).model.state_dict() for folder in folders)
    assert all(torch.equal(a[name], b[name]) for name in a)
