"""Training with TRL: the same updates as gentax's own, a run like any other, and what cannot be done is said first."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from gentax.core import NonFiniteLoss, UsageError
from gentax.models.options import SamplingParams, SamplingRequest
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig
from gentax.training import TrainConfig, train
from gentax.training.config import (
    CurriculumConfig,
    ForgettingConfig,
    LoraConfig,
    Phase,
    PolicyGradientConfig,
    SFTConfig,
)
from gentax.training.run_folder import checkpoints

pytestmark = pytest.mark.slow


def make_config(tiny: Path, **changes) -> TrainConfig:
    values = {
        "source": "toy:three",
        "model": str(tiny),
        "max_steps": 3,
        "tasks_per_step": 3,
        "num_generations": 3,
        "learning_rate": 1e-3,
        "save_steps": 1,
        "eval_steps": 2,
        "rollout": RolloutConfig(temperature=0.8, max_new_tokens=3, horizon=2),
        "precision": "fp32",
        "trainer": "trl",
    }
    return TrainConfig(**(values | changes))


@pytest.fixture
def trl(toy, monkeypatch):
    """TRL, and a reward that an untrained model earns now and then: each token with an even number pays 1."""
    pytest.importorskip("trl", reason="the extra gentax[trl] is not installed")

    def even(episodes, *_):
        return [np.array([float((s.tokens.sampled % 2 == 0).sum()) for s in episode.steps]) for episode in episodes]

    monkeypatch.setattr("gentax.training.rollout_worker.rewards_of", even)
    monkeypatch.setattr("gentax.training.rollout_worker.WARMUP_STEPS", 2)


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in load_local_policy(folder).model.parameters()]).double()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": PolicyGradientConfig(normalize_std=True, beta=0.5, entropy_coef=0.05)},
        # An episode is several sequences, which TRL's own arithmetic of groups does not know.
        {
            "algorithm": PolicyGradientConfig(advantage_estimator="rloo", loss_aggregation="sequence"),
            "rollout": RolloutConfig(context="window(1)", temperature=1.0, max_new_tokens=3, horizon=2),
        },
    ],
    ids=["tokens", "windows"],
)
def test_a_run_with_trl_learns_the_same_as_one_with_gentax(trl, tiny, tmp_path, changes):
    rows, moved = {}, {}
    for name in ("gentax", "trl"):
        rows[name] = []
        train(make_config(tiny, trainer=name, **changes), tmp_path / name, rows[name].append)
        moved[name] = [weights(folder) - weights(tiny) for _, folder in checkpoints(tmp_path / name)]
    assert [row["step"] for row in rows["trl"]] == [1, 2, 3]
    for ours, theirs in zip(moved["gentax"], moved["trl"], strict=True):
        assert ours.norm() > 0.1
        assert cosine(ours, theirs) > 0.999
        assert float(theirs.norm()) == pytest.approx(float(ours.norm()), rel=1e-3)
    for ours, theirs in zip(rows["gentax"], rows["trl"], strict=True):
        for key in ("success", "reward", "length", "tokens", "spread", "skipped", "loss", "entropy", "grad_norm"):
            assert theirs[key] == pytest.approx(ours[key], rel=1e-3, abs=1e-5), key
        assert ours.get("validation_success") == theirs.get("validation_success")


def test_a_run_writes_what_any_run_writes_and_goes_on_bit_for_bit(trl, tiny, tmp_path):
    mine = make_config(tiny, lora=LoraConfig(r=2), max_steps=4, save_steps=2)
    rows = []
    last = train(mine, tmp_path / "whole", rows.append)
    assert last.name == "step-000004"
    logged = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert logged == rows
    assert {"return", "invalid", "kl", "clipped", "play_s", "learn_s", "left_s", "tokens_per_s"} <= rows[0].keys()
    assert json.loads((tmp_path / "whole/done.json").read_text())["result"] == "step-000004"
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        "recipe.json", "metrics.jsonl", "done.json", "step-000002", "step-000004",
    }  # fmt: skip

    def stop(row):
        if row["step"] == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(mine, tmp_path / "broken", stop)
    again = []
    train(mine, tmp_path / "broken", again.append)
    assert [row["step"] for row in again] == [3, 4]
    assert not torch.equal(weights(last), weights(tiny))
    assert torch.equal(weights(last), weights(tmp_path / "broken/step-000004"))


def test_ctrl_c_keeps_the_step_in_flight(trl, tiny, tmp_path):
    def interrupt(row):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make_config(tiny, save_steps=25), tmp_path / "run", interrupt)
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_groups_that_teach_nothing_leave_the_weights_alone(trl, tiny, tmp_path, monkeypatch):
    """Also after steps that gave the optimiser a momentum."""
    from gentax.training import rollout_worker

    pay = rollout_worker.rewards_of
    played = []

    def at_first(episodes, *rest):
        played.append(episodes)
        return pay(episodes) if len(played) == 1 else [np.zeros(len(episode.steps)) for episode in episodes]

    monkeypatch.setattr(rollout_worker, "rewards_of", at_first)
    rows = []
    train(make_config(tiny, eval_steps=0), tmp_path / "run", rows.append)
    first, second, third = (weights(folder) for _, folder in checkpoints(tmp_path / "run"))
    assert [row["spread"] > 0 for row in rows] == [True, False, False]
    assert not torch.equal(first, weights(tiny))
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_a_loss_that_is_no_number_ends_the_run(trl, tiny, tmp_path, monkeypatch):
    from gentax.training import rollout_worker

    pay = rollout_worker.rewards_of
    steps = []

    def spoiled(episodes, *rest):
        steps.append(1)
        return [reward * (np.nan if len(steps) == 2 else 1.0) for reward in pay(episodes)]

    monkeypatch.setattr(rollout_worker, "rewards_of", spoiled)
    with pytest.raises(NonFiniteLoss, match="step 2"):
        train(make_config(tiny), tmp_path / "run")
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [1]


def test_who_plays_has_merged_adapters_and_the_trained_model_keeps_its_weights(tiny):
    peft = pytest.importorskip("peft")
    from gentax.training.trl_trainer import copy_weights

    player = load_local_policy(tiny).model
    before = [p.detach().clone() for p in player.parameters()]
    model = peft.get_peft_model(
        load_local_policy(tiny).model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    ids = torch.tensor([[5, 6, 7]])
    copy_weights(model, player)
    torch.testing.assert_close(player(ids).logits, model.eval()(ids).logits, atol=1e-4, rtol=1e-4)
    with model.disable_adapter():
        kept = model(ids).logits
    torch.testing.assert_close(kept, load_local_policy(tiny).model(ids).logits, atol=0, rtol=0)
    assert any(not torch.equal(a, b) for a, b in zip(before, player.parameters(), strict=True))


def test_a_server_is_given_token_ids_and_its_own_ids_come_back_up_to_the_stop():
    from gentax.training.trl_server import ServerDecoder

    asked = []

    def generate(**request):
        asked.append(request)
        return {"completion_ids": [[3, 9, 4]], "logprobs": [[[-1.0], [-0.5], [-2.0]]]}

    served = ServerDecoder(SimpleNamespace(generate=generate), 64)
    uniforms = np.full(8, 0.25)
    (sample,) = served.sample(
        [SamplingRequest(0, np.array([1, 2], np.int32), SamplingParams(0.7), uniforms)], lambda ids: ids[-1] == 9
    )
    assert sample.ids.tolist() == [3, 9]
    assert sample.logprobs.tolist() == [-1.0, -0.5]
    assert (asked[0]["prompts"], asked[0]["temperature"], asked[0]["max_tokens"]) == ([[1, 2]], 0.7, 8)
    assert asked[0]["generation_kwargs"]["seed"] == int(0.25 * 2**53)
    (longer,) = served.sample(  # it stopped at a tag that ends nothing, such as one in a thought
        [SamplingRequest(0, np.array([1, 2], np.int32), SamplingParams(0.7), uniforms)], lambda ids: len(ids) == 5
    )
    assert longer.ids.tolist() == [3, 9, 4, 3, 9]
    assert (asked[-1]["prompts"], asked[-1]["max_tokens"]) == ([[1, 2, 3, 9, 4]], 5)


def test_the_server_is_asked_and_read_as_trl_does(trl, tiny, tmp_path, monkeypatch):
    from trl.generation.vllm_client import VLLMClient

    from gentax.training.trl_server import ServerDecoder

    def completions(url, json):
        logprobs = {"tokens": ["token_id:3"], "token_logprobs": [-1.5], "top_logprobs": [{"token_id:3": -1.5}]}
        return {"choices": [{"prompt_token_ids": json["prompt"][0], "token_ids": [3], "logprobs": logprobs}]}

    client = VLLMClient.__new__(VLLMClient)  # without asking whether a server is there
    client.base_url, client.model, client._post = "http://server", "model", completions
    (sample,) = ServerDecoder(client, 64).sample(
        [SamplingRequest(0, np.array([1, 2], np.int32), SamplingParams(1.0), np.full(4, 0.5))], lambda ids: ids[-1] == 3
    )
    assert (sample.ids.tolist(), sample.logprobs.tolist()) == ([3], [-1.5])
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UsageError, match=r"trl\[vllm\]"):
        train(make_config(tiny), tmp_path / "run", vllm_server_base_url="http://localhost:8000")
    with pytest.raises(UsageError, match="for trainer trl alone"):
        train(make_config(tiny, trainer="gentax"), tmp_path / "run", vllm_server_base_url="http://localhost:8000")


def test_experts_that_are_merged_are_played_by_the_server_too(toy, tiny, tmp_path, monkeypatch):
    def train_with_trl(config, run, meta_model, on_step, device, parallel, vllm_server_base_url):
        raise UsageError(f"played by {vllm_server_base_url}")

    monkeypatch.setattr("gentax.training.trl_trainer.train_with_trl", train_with_trl)
    mixture = {"toy": 1.0, "toy:three": 1.0}
    config = make_config(
        tiny,
        source=TrainConfig.source,
        max_steps=TrainConfig.max_steps,
        curriculum=CurriculumConfig((Phase(mixture),)),
        forgetting=ForgettingConfig(merge="mean"),
    )
    with pytest.raises(UsageError, match="played by http://server"):
        train(config, tmp_path / "run", vllm_server_base_url="http://server")


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("sft", {"sft": SFTConfig()}),
        ("forgetting.replay", {"forgetting": ForgettingConfig(replay=0.1)}),
        ("forgetting.kl_budget", {"forgetting": ForgettingConfig(kl_budget=1.0)}),
        ("forgetting.merge", {"forgetting": ForgettingConfig(merge="interpolate")}),
    ],
)
def test_what_trl_cannot_do_is_refused_before_anything_is_written(toy, tiny, tmp_path, named, changes):
    with pytest.raises(UsageError, match=f"cannot do {named}:"):
        train(make_config(tiny, **changes), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_missing_trl_and_another_version_are_named(tiny, monkeypatch):
    from gentax.training import trl_trainer

    monkeypatch.setitem(sys.modules, "trl", ModuleType("trl"))
    monkeypatch.setattr(trl_trainer, "version", lambda name: {"trl": "0.9.9"}[name])
    with pytest.raises(UsageError, match=rf"needs TRL {trl_trainer.PINNED}, and 0\.9\.9 is installed"):
        trl_trainer.refuse(make_config(tiny), "cpu", None)
    monkeypatch.setattr(trl_trainer, "version", lambda name: trl_trainer.PINNED)
    trl_trainer.refuse(make_config(tiny), "cpu", None)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(UsageError, match=r'pip install "gentax\[trl\]"'):
        trl_trainer.refuse(make_config(tiny), "cpu", None)


def test_the_pinned_version_is_the_one_that_the_extra_installs():
    import tomllib

    from gentax.training.trl_trainer import PINNED

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"trl=={PINNED}" in project["optional-dependencies"]["trl"]


def test_several_gpus_and_one_process_are_refused(tiny, tmp_path, monkeypatch):
    from gentax.training import trl_trainer

    monkeypatch.setattr(trl_trainer, "version", lambda name: trl_trainer.PINNED)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UsageError, match="accelerate launch"):
        trl_trainer.refuse(make_config(tiny), "auto", None)
    with pytest.raises(UsageError, match="accelerate places the model"):
        trl_trainer.refuse(make_config(tiny), "cuda:1", None)
