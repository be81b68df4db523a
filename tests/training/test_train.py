"""The run: it learns, it is logged, it is checkpointed, and it goes on as if it had not been stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from gentax.core import UsageError
from gentax.policies.local import load
from gentax.rollouts import Play
from gentax.training import Recipe, train
from gentax.training.checkpoint import checkpoints


def recipe(tiny: Path, **changes) -> Recipe:
    values = {
        "source": "toy",
        "level": "one",
        "base": str(tiny),
        "steps": 6,
        "tasks_per_step": 4,
        "group": 4,
        "checkpoint_every": 2,
        "validate_every": 3,
        "validate_tasks": 4,
        "play": Play(temperature=1.0, max_new_tokens=4),
    }
    return Recipe(**(values | changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).model.state_dict()


def test_a_run_writes_its_recipe_metrics_and_checkpoints(toy, tiny, tmp_path):
    rows = []
    last = train(recipe(tiny), tmp_path / "run", rows.append)
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [2, 4, 6]
    assert last.name == "step-000006"
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert logged == rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"success", "return", "length", "invalid", "spread", "tokens_per_s", "left_s"} <= rows[0].keys()
    assert [row["step"] for row in rows if "held_out" in row] == [1, 3, 6]
    assert json.loads((tmp_path / "run/recipe.json").read_text())["group"] == 4


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [3, 4])
def test_a_stopped_run_ends_with_the_same_weights(toy, tiny, tmp_path, at):
    """Weights are compared bit for bit: sampling is seeded by step and the optimiser's state is kept."""
    dense = recipe(tiny, play=Play(temperature=1.0, max_new_tokens=4, reward="dense"))

    def stop(row):
        if row["step"] == at:
            raise Stop

    whole = weights(train(dense, tmp_path / "whole"))
    with pytest.raises(Stop):
        train(dense, tmp_path / "broken", stop)
    again = weights(train(dense, tmp_path / "broken"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "broken/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_ctrl_c_finishes_the_step_and_keeps_its_checkpoint(toy, tiny, tmp_path):
    def interrupt(row):
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(recipe(tiny), tmp_path / "run", interrupt)
    # The signal came after the step's own checkpoint was due, so it is honoured at the next safe place.
    assert checkpoints(tmp_path / "run")[-1][0] in (3, 4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_folder_of_another_run_is_refused(toy, tiny, tmp_path):
    train(recipe(tiny, steps=1), tmp_path / "run")
    with pytest.raises(UsageError, match="another recipe"):
        train(recipe(tiny, steps=2), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(recipe(tiny), tmp_path / "other")


def test_recipes_that_make_no_sense_are_refused():
    for bad in ({"group": 1}, {"steps": 0}, {"lr": -1.0}, {"kl": -0.1}, {"play": Play(temperature=0.0)}):
        with pytest.raises(UsageError):
            Recipe(**bad)


def test_unknown_sources_and_models_are_refused_before_anything_is_written(toy, tiny, tmp_path):
    for bad in ({"source": "toyy"}, {"level": "two"}, {"base": "no-such-model"}):
        with pytest.raises(UsageError):
            train(recipe(tiny, **bad), tmp_path / "run")
    assert not (tmp_path / "run").exists()
