"""The run: it learns, it is logged, it is checkpointed, and it goes on as if it had not been stopped."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gentax.core import NonFiniteLoss, UsageError
from gentax.core.settings import read_settings
from gentax.policies.local import load_local_policy
from gentax.policies.protocol import Reply
from gentax.rollouts import RolloutConfig
from gentax.training import TrainConfig, rollout_worker, run, run_folder, train
from gentax.training.run_folder import checkpoints, latest_model, result, step_line

pytestmark = pytest.mark.slow


def make_config(base: Path, **changes) -> TrainConfig:
    values = {
        "source": "toy:one",
        "model": str(base),
        "max_steps": 6,
        "tasks_per_step": 4,
        "num_generations": 4,
        "save_steps": 2,
        "eval_steps": 3,
        "rollout": {"temperature": 1.0, "max_new_tokens": 6},
    }
    if "curriculum" in changes:
        values = {key: value for key, value in values.items() if key not in ("source", "max_steps")}
    return read_settings(TrainConfig, values | changes, "recipe")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_local_policy(folder).model.state_dict()


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return all(torch.equal(a[name], b[name]) for name in a)


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_writes_its_recipe_metrics_and_checkpoints(toy, able, tmp_path):
    rows = []
    out = train(make_config(able), tmp_path / "run", rows.append)
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [2, 4, 6]
    assert out == result(tmp_path / "run") == tmp_path / "run/step-000006"
    assert logged(tmp_path / "run") == rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    told = {"success", "return", "reward", "length", "invalid", "entropy", "kl", "spread", "skipped", "left_s"}
    assert told <= rows[0].keys()
    assert [row["step"] for row in rows if "validation_success" in row] == [1, 3, 6]
    assert json.loads((tmp_path / "run/recipe.json").read_text())["num_generations"] == 4
    assert not same(able, out)
    has_state = [(folder / run_folder.STATE).is_file() for _, folder in checkpoints(tmp_path / "run")]
    assert has_state == [False, False, True]


class Stop(Exception):
    pass


TWO = {
    "phases": [
        {"mixture": {"toy:one": 2, "toy:three": 1}, "max_steps": 3},
        {"mixture": {"toy:three": 1}, "max_steps": 3},
    ]
}
EVERYTHING = {
    "plain": {},
    "sequences": {"algorithm": {"entropy_coef": 0.01, "loss_aggregation": "sequence"}},
    "ppo": {"algorithm": {"advantage_estimator": "ppo"}},
    "cascade": {"curriculum": {**TWO, "adaptive": True}},
    "gigpo": {"algorithm": {"advantage_estimator": "gigpo"}, "source": "toy:three"},
    "lora": {"lora": {"r": 4}},
    "imitation": {"sft": {"max_pairs": 40, "learning_rate": 1e-3}},
    "retention": {
        "forgetting": {
            "replay": 1.0,
            "replay_domains": ["crafting"],
            "kl_budget": 1e9,
            "merge": "interpolate",
        },
        "sft": {"max_pairs": 20},
    },
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_stopped_run_ends_with_the_same_weights(toy, able, tmp_path, name):
    """Weights are compared bit for bit: sampling is seeded by step and the optimiser's state is kept."""
    made = make_config(able, **EVERYTHING[name])

    def stop(row):
        if row.get("step") == 3:
            raise Stop

    whole = train(made, tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, tmp_path / "broken", stop)
    assert same(whole, train(made, tmp_path / "broken"))
    rows = [logged(tmp_path / run) for run in ("whole", "broken")]
    timeless = [[{k: v for k, v in row.items() if not k.endswith("_s")} for row in one] for one in rows]
    assert timeless[0] == timeless[1]


def test_a_kill_in_the_middle_of_imitation_changes_nothing(toy, able, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SFT_SAVE_STEPS", 2)
    made = make_config(
        able, sft={"max_pairs": 400, "num_train_epochs": 3.0, "learning_rate": 1e-3}, max_steps=1, source="toy:three"
    )

    def stop(row):
        if row.get("sft_step") == row["of"]:
            raise Stop

    whole = train(made, tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, tmp_path / "broken", stop)
    assert checkpoints(tmp_path / "broken", "sft")
    assert not checkpoints(tmp_path / "broken")
    assert same(whole, train(made, tmp_path / "broken"))
    assert not checkpoints(tmp_path / "broken", "sft")  # what is only there to go on is deleted


def test_a_killed_process_goes_on_where_its_last_checkpoint_was(able, tmp_path):
    settings = {
        "model": str(able), "source": "sokoban", "max_steps": 5, "tasks_per_step": 2, "num_generations": 4,
        "save_steps": 2,
        "eval_steps": 0, "rollout": {"max_new_tokens": 3, "temperature": 1.0}, "reward": {"invalid_penalty": 0.1},
    }  # fmt: skip
    whole = train(read_settings(TrainConfig, settings, "recipe"), tmp_path / "whole")
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "gentax", "train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    log = tmp_path / "run/metrics.jsonl"
    for rows in (1, 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not log.is_file() or len(log.read_text().splitlines()) < rows):
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert same(whole, train(read_settings(TrainConfig, settings, "recipe"), tmp_path / "run"))


def test_every_setting_does_something_in_a_run(toy, able, tmp_path, monkeypatch):
    """Each leaves a trace in the rows that a run without it does not have."""
    asked = []

    class Strict:
        name = "judge"

        def reply(self, turns):
            asked.extend(turn.message for turn in turns)
            scores = "well …", "<action>0.2</action>", "well …", "<action>0.8</action>"  # half of them cannot be read
            return [Reply(scores[n % 4]) for n, _ in enumerate(turns)]

    monkeypatch.setattr(rollout_worker, "load_policy", lambda what, device: Strict())
    settings = {
        "source": "toy:three",
        "max_steps": 2,
        "rollout": {"temperature": 1.0, "max_new_tokens": 6},
        "reward": {"judge": "http://localhost:1/v1", "invalid_penalty": 0.0},
        "sft": {"max_pairs": 60, "learning_rate": 3e-3},
        "forgetting": {"replay": 1.0, "replay_domains": ["crafting"]},
    }
    rows = []
    train(make_config(able, **settings), tmp_path / "run", rows.append)
    learned = [row for row in rows if "step" in row]
    assert asked
    assert learned[0]["unread_scores"] == 8
    assert learned[0]["reward"] != learned[0]["return"]
    assert all(row["replay_kl"] >= 0 for row in rows)
    assert learned[0]["kl"] == pytest.approx(0, abs=1e-4)  # to where RL began, not to the start before imitation


def test_ctrl_c_at_the_end_of_imitation_keeps_it(toy, able, tmp_path):
    def interrupt(row):
        if row.get("sft_step") == row["of"]:
            os.kill(os.getpid(), signal.SIGINT)

    made = make_config(able, sft={"max_pairs": 40, "learning_rate": 1e-3}, max_steps=1)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "run", interrupt)
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [0]


def test_what_a_kill_left_half_written_is_swept_away(toy, able, tmp_path):
    (tmp_path / "run/.step-000002.abc").mkdir(parents=True)
    (tmp_path / "run/.recipe.json.abc").write_text("{")
    train(make_config(able, max_steps=1), tmp_path / "run")
    train(make_config(able, max_steps=1), tmp_path / "run")
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_ctrl_c_finishes_the_step_and_keeps_its_checkpoint(toy, able, tmp_path):
    def interrupt(row):
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make_config(able), tmp_path / "run", interrupt)
    # The signal came after the step's own checkpoint was due, so it is honoured at the next safe place.
    assert checkpoints(tmp_path / "run")[-1][0] in (3, 4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_weights_after_every_phase_are_kept(toy, able, tmp_path):
    train(make_config(able, curriculum=TWO, save_steps=100), tmp_path / "run")
    kept = checkpoints(tmp_path / "run")
    assert [step for step, _ in kept] == [3, 6]
    assert all(json.loads((folder / "training.json").read_text())["phase_ends"] for _, folder in kept)
    rows = logged(tmp_path / "run")
    assert {"success/toy:one", "success/toy:three"} <= rows[0].keys()
    assert {"validation_success/toy:one", "validation_success/toy:three"} <= rows[2].keys()


def test_imitation_alone_is_a_run(toy, tiny, tmp_path):
    rows = []
    alone = {
        "sft": {"mixture": {"toy:three": 1}, "max_pairs": 60, "num_train_epochs": 10.0, "learning_rate": 3e-3},
        "max_steps": 0,
    }
    out = train(make_config(tiny, **alone), tmp_path / "run", rows.append)
    assert out.name == "step-000000"
    losses = [row["loss"] for row in rows]
    assert losses[-1] < losses[0] / 2
    assert json.loads((out / "training.json").read_text())["sft_pairs"] == {"toy:three": 60}


def test_the_forgetting_meter_stops_the_run_at_the_last_checkpoint_below(toy, able, tmp_path):
    made = make_config(able, forgetting={"kl_budget": 1e-9}, learning_rate=1e-2)
    out = train(made, tmp_path / "run")
    rows = logged(tmp_path / "run")
    assert rows[-1]["step"] == 2
    assert rows[-1]["forgetting"] > 1e-9
    assert out.name == "step-000000"
    assert same(out, able)
    assert train(made, tmp_path / "run") == out  # and it stays stopped


def test_interpolation_ends_with_weights_between_the_start_and_the_trained_ones(toy, able, tmp_path):
    out = train(make_config(able, forgetting={"merge": "interpolate"}), tmp_path / "run")
    said = json.loads((tmp_path / "run/done.json").read_text())
    assert out.name == said["result"] == "interpolated"
    start, tuned, found = weights(able), weights(tmp_path / "run" / said["trained"]), weights(out)
    for name in start:
        assert torch.allclose(found[name], start[name] + said["share"] * (tuned[name] - start[name]), atol=1e-6)


def test_merging_trains_an_expert_for_each_part(toy, able, tmp_path):
    mixture = {"phases": [{"mixture": {"toy:one": 2, "toy:three": 1}, "max_steps": 6}]}
    teachers = {"max_pairs": 20, "teachers": {"toy:one": "expert", "toy:three": "expert"}}
    out = train(make_config(able, curriculum=mixture, forgetting={"merge": "mean"}, sft=teachers), tmp_path / "run")
    theirs = json.loads((tmp_path / "run/expert-toy-one/recipe.json").read_text())
    assert theirs["sft"]["teachers"] == {"toy:one": "expert"}
    experts = [latest_model(tmp_path / "run" / name) for name in ("expert-toy-one", "expert-toy-three")]
    assert [expert.name for expert in experts] == ["step-000004", "step-000002"]
    found, parts = weights(out), [weights(expert) for expert in experts]
    for name in found:
        assert torch.allclose(found[name], (parts[0][name] + parts[1][name]) / 2, atol=1e-6)


def test_validation_plays_without_what_only_training_has(toy, able, tmp_path, monkeypatch):
    configs, real = [], rollout_worker.rollout
    monkeypatch.setattr(
        rollout_worker, "rollout", lambda *args, **kwargs: configs.append(kwargs["config"]) or real(*args, **kwargs)
    )
    thinking = {"temperature": 1.0, "thinking": True, "max_new_tokens": 6, "wrap": ["menu"]}
    train(make_config(able, max_steps=1, rollout=thinking), tmp_path / "a")
    assert configs == [RolloutConfig(**thinking), RolloutConfig(thinking=True, max_new_tokens=6)]


def test_a_loss_that_is_no_number_names_the_batch_and_the_last_good_checkpoint(toy, able, tmp_path, monkeypatch):
    real = rollout_worker.rewards_of

    def broken(episodes, *args):
        found = real(episodes, *args)
        if len(logged(tmp_path / "run")) == 4:
            found[0][:] = float("nan")
        return found

    monkeypatch.setattr(rollout_worker, "rewards_of", broken)
    with pytest.raises(NonFiniteLoss) as stopped:
        train(make_config(able), tmp_path / "run")
    assert "step 5" in str(stopped.value)
    assert "the last whole checkpoint is" in str(stopped.value)
    assert str(tmp_path / "run/step-000004") in str(stopped.value)
    assert all(bool(tensor.isfinite().all()) for tensor in weights(tmp_path / "run/step-000004").values())


def test_a_full_disk_leaves_the_checkpoint_before(toy, able, tmp_path, monkeypatch):
    real = run_folder.save_file

    def full(tensors, path):
        if "step-000004" not in str(path):
            return real(tensors, path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a disk with room for 1,000 bytes of this file
        try:
            real(tensors, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(run_folder, "save_file", full)
    with pytest.raises(OSError, match=r"step-000004 could not be written .*step-000002"):
        train(make_config(able), tmp_path / "run")
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [2]
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    monkeypatch.setattr(run_folder, "save_file", real)
    assert same(train(make_config(able), tmp_path / "run"), train(make_config(able), tmp_path / "whole"))


def test_a_folder_of_another_run_is_refused(toy, able, tmp_path):
    train(make_config(able, max_steps=1), tmp_path / "run")
    with pytest.raises(UsageError, match=r"another recipe \(its max_steps is 1, not 2\)"):
        train(make_config(able, max_steps=2), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(make_config(able), tmp_path / "other")


def test_unknown_sources_and_models_are_refused_before_anything_is_written(toy, able, tmp_path):
    for bad in ({"source": "toyy"}, {"source": "toy:two"}, {"model": "no-such-model"}):
        with pytest.raises(UsageError):
            train(replace(make_config(able), **bad), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_plays_as_many_episodes_at_once_as_it_is_told_and_may_go_on_with_another_number(
    toy, able, tmp_path, monkeypatch
):
    told, real = [], rollout_worker.rollout
    monkeypatch.setattr(
        rollout_worker, "rollout", lambda *args, **kwargs: told.append(kwargs["parallel"]) or real(*args, **kwargs)
    )

    def stop(row):
        if row["step"] == 3:
            raise Stop

    config = make_config(able, max_steps=4)
    with pytest.raises(Stop):
        train(config, tmp_path / "run", stop, parallel=2)
    train(config, tmp_path / "run", parallel=3)
    assert set(told) == {2, 3}
    assert len(logged(tmp_path / "run")) == 4
    with pytest.raises(UsageError, match="parallel"):
        train(config, tmp_path / "other", parallel=0)


def test_the_line_of_a_step_tells_replies_that_were_cut_off_from_invalid_ones():
    row = {"step": 1, "success": 0.0, "return": 0.0, "length": 9.0, "invalid": 0.02, "tokens_per_s": 9.0, "left_s": 0.0}
    assert "invalid 2%  cut off 98%" in step_line(row | {"truncated": 0.98}, 3)
    assert "cut off" not in step_line(row | {"truncated": 0.05}, 3)
