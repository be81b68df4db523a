"""Our domains for Gymnasium's users: found by id, checked by Gymnasium's own checker, stepped in a vector."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import gentax
from gentax.domains.registry import BUILT_IN, gymnasium_id


def test_every_domain_has_an_id():
    assert {gymnasium_id(name) for name in BUILT_IN} <= set(gymnasium.registry)


@pytest.mark.parametrize("name", ["sokoban", "crafting", "webshop", "babyai"])
def test_gymnasium_finds_nothing_wrong(name):
    env = gymnasium.make(gymnasium_id(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=1)
    for _ in range(3):
        *_, info = env.step(env.unwrapped.expert().action)
    assert info["valid"] is True
    env.close()


def test_wrappers_and_settings_go_through():
    env = gymnasium.make("gentax/Sokoban-v0", level="6x6", split="test", horizon=5, wrap_with=["distract(volume=200)"])
    plain = gentax.make("sokoban", "6x6", split="test")
    shown, info = env.reset(options={"index": 0})
    assert info["task"].id == "sokoban/6x6/test/0"
    assert len(shown) > len(plain.reset(options={"index": 0})[0]) + 100
    assert env.unwrapped.horizon == 5
    assert gymnasium.make(env.spec).reset(options={"index": 0})[0] == shown
    with pytest.raises(gentax.UsageError, match="did you mean 'distract'"):
        gymnasium.make("gentax/Sokoban-v0", wrap_with=["distrct"])


def test_several_are_stepped_as_a_vector():
    envs = gymnasium.make_vec("gentax/Crafting-v0", num_envs=2, vectorization_mode="sync")
    _, info = envs.reset(seed=3)
    assert info["goal"][0] != info["goal"][1]
    assert len(envs.step(("look", "inventory"))[1]) == 2
    envs.close()


def test_the_module_is_named_in_the_id():
    code = "import gymnasium; print(gymnasium.make('gentax.domains:gentax/Sokoban-v0').reset(seed=1)[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip(), done.stderr
