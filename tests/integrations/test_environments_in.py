"""Environments of other libraries as domains; each test runs where the library is installed."""

from __future__ import annotations

import importlib.util
import random
import sys

import pytest

import gentax
from command import run
from gentax.core import SPLITS, UsageError, split_of
from gentax.core.imports import require
from gentax.domains.check import QUICK


def test_a_question_of_reasoning_gym_is_a_task_of_one_step():
    pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    name = "reasoning-gym:chain_sum"
    env = gentax.make(name)
    for split in SPLITS:
        question, info = env.reset(options={"index": 0, "split": split})
        assert split_of(info["content"]) == split
    assert env.horizon == 1
    assert env.step(env.expert().action)[1:4] == (1.0, True, False)
    env.reset(options={"index": 0, "split": "test"})
    assert env.step("xyzzy")[4] == {"valid": True, "success": False}
    assert env.reset(options={"index": 0, "split": "test"})[0] == question
    report = gentax.check(name, effort=QUICK)
    assert report.passed, report.failed
    with pytest.raises(UsageError, match="did you mean 'chain_sum'"):
        gentax.make("reasoning-gym:chain_summ")
    gentax.make("reasoning-gym:rush_hour").reset(options={"index": 0})


def test_answers_that_a_scorer_raises_on_are_wrong_and_not_errors():
    pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    env = gentax.make("reasoning-gym:prime_factorization")
    env.reset(options={"index": 0})
    assert env.step("xyzzy")[1:4] == (0.0, True, False)


def test_a_game_of_textarena_is_played_as_a_domain():
    pytest.importorskip("textarena", reason="pip install textarena")
    name = "textarena:GuessTheNumber-v0"
    env = gentax.make(name)
    assert env.horizon == 10
    shown, info = env.reset(options={"index": 3, "split": "test"})
    assert "guess" in shown.lower()
    assert split_of(info["content"]) == "test"
    state = random.getstate()
    assert env.step("xyzzy")[4] == {"valid": False, "success": False}
    low, high, won = 1, 20, False
    for _ in range(6):  # the higher half or the lower one
        guess = (low + high) // 2
        shown, reward, done, _, info = env.step(str(guess))
        assert info["valid"] is True
        if done:
            won = info["success"]
            break
        low, high = (guess + 1, high) if "higher" in shown else (low, guess - 1)
    assert (won, reward) == (True, 1.0)
    assert random.getstate() == state  # nobody else's random numbers
    report = gentax.check(name, effort=QUICK)
    assert report.passed, report.failed


def test_a_game_that_ignores_its_seed_says_so():
    pytest.importorskip("textarena", reason="pip install textarena")
    (result,) = gentax.check("textarena:TowerOfHanoi-v0", effort=QUICK, only=["claims"]).results
    assert "its start does not follow the seed" in result.message
    with pytest.raises(UsageError, match="one player"):
        gentax.make("textarena:Briscola-v0")


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("reasoning-gym:chain_sum", "reasoning_gym", "pip install reasoning-gym"),
        ("textarena:Sokoban-v0", "textarena", "pip install textarena"),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, name, module, command):
    monkeypatch.setitem(sys.modules, module, None)
    done = run("evaluate", "random", "-d", name, "--tasks", "2")
    assert done.code == 2
    assert command in " ".join(done.err.split())


def test_a_library_that_is_broken_is_told_from_one_that_is_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import no_such_module_xyz")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("half_there")
    with pytest.raises(UsageError, match="half_there is installed without no_such_module_xyz"):
        require("half_there", "a test", "half-there")
