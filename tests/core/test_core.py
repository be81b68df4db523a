"""The words: tasks that are the same everywhere, episodes as token sequences, whole files, settings."""

from __future__ import annotations

import sys
from dataclasses import field
from pathlib import Path

import numpy as np
import pytest

from gentax.core import Episode, Outcome, Step, Task, Tokens, UsageError
from gentax.core.settings import parse_yaml, read_settings, settings

SEED = 6396735979814021074  # of the task below, on every machine and in every version


def test_task_ids_and_seeds_are_stable():
    task = Task("sokoban", "6x6", "test", 17)
    assert Task.parse(task.id) == task
    assert task.seed == SEED
    assert len({Task("a", "b", "c", i).seed for i in range(1000)}) == 1000


def step(prompt, sampled, continues):
    tokens = Tokens(
        continues, np.array(prompt, np.int32), np.array(sampled, np.int32), np.full(len(sampled), -1.0, np.float32)
    )
    return Step("o", "t", "a", 0.5, True, tokens=tokens)


def episode(*steps):
    return Episode(Task("d", "l", "s", 0), 0, "g", steps, Outcome.SUCCESS)


def test_append_only_context_gives_one_token_sequence():
    (sequence,) = episode(step([1, 2], [3], False), step([4], [5, 6], True)).sequences()
    assert sequence.ids_T.tolist() == [1, 2, 3, 4, 5, 6]
    assert sequence.sampled_T.tolist() == [False, False, True, False, True, True]
    assert sequence.logprobs_T.tolist() == [0, 0, -1, 0, -1, -1]


def test_window_context_gives_one_token_sequence_per_step():
    found = [s.ids_T.tolist() for s in episode(step([1, 2], [3], False), step([1, 4], [5], False)).sequences()]
    assert found == [[1, 2, 3], [1, 4, 5]]


def test_no_tokens_give_no_token_sequences():
    assert list(episode(Step("o", "t", "a", 0.0, True)).sequences()) == []


@settings
class Inner:
    depth: int = 1


@settings
class Outer:
    name: str
    rate: float = 0.5
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()
    level: str | None = None
    table: dict[str, Inner] = field(default_factory=dict)


def test_settings_are_read_with_their_types():
    read = read_settings(
        Outer,
        {
            "name": "x",
            "rate": parse_yaml("1e-4"),
            "inner": {"depth": 3},
            "names": ["a"],
            "level": None,
            "table": {"k": {}},
        },
        "test",
    )
    assert read == Outer("x", 1e-4, Inner(3), ("a",), None, {"k": Inner()})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "lacks the key 'name'"),
        ({"nam": "x"}, "did you mean 'name'"),
        ({"name": 3}, "name must be a valid string, not 3"),
        ({"name": "x", "inner": {"dept": 1}}, "did you mean 'depth'"),
        ({"name": "x", "inner": {"depth": True}}, "inner.depth must be a valid integer, not True"),
        ({"name": "x", "names": "abc"}, "names must be a valid array, not 'abc'"),
        ({"name": "x", "rate": "fast"}, "rate must be a valid number, not 'fast'"),
        ([], "must be a mapping"),
    ],
)
def test_invalid_settings_name_the_key_and_the_value(values, says):
    with pytest.raises(UsageError, match=says):
        read_settings(Outer, values, "test")


def test_partial_nested_settings_keep_the_parent_defaults():
    from gentax import TrainConfig

    recipe = read_settings(TrainConfig, {"rollout": {"context": "window(2)"}}, "a recipe")
    assert (recipe.rollout.context, recipe.rollout.temperature) == ("window(2)", 0.7)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told")
def test_freed_memory_is_kept_inside_the_block_and_returned_after():
    from gentax.core.process import freed_memory_kept

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    before = resident()
    with freed_memory_kept():
        np.ones(40_000_000)  # 320 MB, freed at once
        assert resident() - before > 250
    assert resident() - before < 100
