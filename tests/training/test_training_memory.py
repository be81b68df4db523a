"""What a model's size decides before anything is loaded: learning rates, what is trained, and whether there is room."""

from __future__ import annotations

import json

import pytest
import torch

from gentax.core import UsageError
from gentax.models.loading import load_meta_model
from gentax.models.source import BASE
from gentax.policies.local import load_local_policy
from gentax.training import run, train
from gentax.training.config import LoraConfig, PolicyGradientConfig, SFTConfig, TrainConfig
from gentax.training.learner import check_memory, footprint, learner_of, parameters_of, with_learning_rates

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PLENTY = 1e12


def test_the_shipped_model_learns_at_the_rates_that_were_found_for_it():
    parameters = parameters_of(load_meta_model(BASE))
    assert 1.3e6 < parameters < 1.5e6
    for lora in (None, LoraConfig()):
        recipe = with_learning_rates(TrainConfig(sft=SFTConfig(), lora=lora), parameters)
        assert (recipe.learning_rate, recipe.sft.learning_rate) == (1.5e-4, 5e-4)


def test_larger_models_learn_at_smaller_rates_down_to_the_papers():
    sizes = (2.1e6, 2.7e8, 1.5e9, 8e9, 7e10)
    rates = [with_learning_rates(TrainConfig(sft=SFTConfig()), int(size)) for size in sizes]
    assert [r.learning_rate for r in rates] == sorted((r.learning_rate for r in rates), reverse=True)
    assert (rates[1].learning_rate, rates[1].sft.learning_rate) == (7.1e-6, 3e-5)
    largest = [(rate.learning_rate, rate.sft.learning_rate) for rate in rates[3:]]
    assert largest == [(1e-6, 5e-6)] * 2
    assert with_learning_rates(TrainConfig(lora=LoraConfig()), int(8e9)).learning_rate == pytest.approx(1e-5)
    assert with_learning_rates(TrainConfig(learning_rate=0.1, lora=LoraConfig()), int(8e9)).learning_rate == 0.1


def test_a_run_says_how_it_learns_and_keeps_the_rate_in_its_recipe(toy, tiny, tmp_path, capsys):
    config = TrainConfig(model=str(tiny), source="toy", max_steps=1, tasks_per_step=1, num_generations=2, eval_steps=0)
    train(config, tmp_path / "run", progress=True)
    line = capsys.readouterr().out.splitlines()[0]
    assert "parameters, weights and Adam in fp32" in line
    assert "learning rate 0.00015" in line
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["learning_rate"] == 1.5e-4
    train(config, tmp_path / "run")  # the same recipe, rate unsaid, is the same run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("lora", [None, LoraConfig(4)], ids=["full", "lora"])
def test_what_is_counted_is_what_a_learner_holds(tiny, tmp_path, dtype, lora):
    policy = load_local_policy(tiny)
    policy.model.to(dtype).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    config = TrainConfig(lora=lora, algorithm=PolicyGradientConfig(beta=0.0))
    found = footprint(load_meta_model(tmp_path), config, CPU, PLENTY)
    policy = load_local_policy(tmp_path)
    learner = learner_of(policy, config)
    assert found.trained == sum(p.numel() for p in learner.parameters)
    held = {p.data_ptr(): p.numel() * p.element_size() for m in (policy.model, learner.model) for p in m.parameters()}
    trained = sum(p.numel() * p.element_size() for p in learner.parameters)
    beside = sum(
        size for what, size in found.parts.items() if what not in ("activations", "logits", "cache of playing")
    )
    assert beside == sum(held.values()) + 3 * trained  # gradients and Adam's two moments


def test_layers_that_would_keep_too_much_compute_it_again(tiny):
    bare = load_meta_model(tiny)
    whole = footprint(bare, TrainConfig(), CPU, PLENTY)
    assert not whole.gradient_checkpointing
    again = footprint(bare, TrainConfig(), CPU, 9 * whole.parts["activations"])
    assert again.gradient_checkpointing
    assert again.parts["activations"] < whole.parts["activations"]


def test_playing_and_learning_take_turns_and_fewer_episodes_fit_into_less(tiny):
    bare = load_meta_model(tiny)
    config = TrainConfig()
    found = footprint(bare, config, CPU, PLENTY)
    learning = found.parts["activations"] + found.parts["logits"]
    playing = found.parts["cache of playing"]
    held = sum(found.parts.values()) - learning - playing
    assert found.total == held + max(learning, playing)
    one = footprint(bare, config, CPU, PLENTY, parallel=1)
    assert one.parts["cache of playing"] == playing / 128
    assert found.least == one.least == held + max(learning, playing / 128)
    check_memory(bare, config, CPU, found.least)
    with pytest.raises(UsageError, match=r"left; -s lora.r=16 takes about .*; several processes"):
        check_memory(bare, config, CPU, 1e3)
    with pytest.raises(UsageError, match=r"left; several processes under torchrun share it"):
        check_memory(bare, TrainConfig(lora=LoraConfig()), CPU, 1e3)


def test_processes_share_a_model_that_one_of_them_has_no_room_for(tiny):
    bare = load_meta_model(tiny)
    whole = footprint(bare, TrainConfig(), CPU, 0.0)
    assert not check_memory(bare, TrainConfig(), CPU, whole.least).shard  # a single process
    assert not check_memory(bare, TrainConfig(), CPU, PLENTY, processes=4).shard
    shared = check_memory(bare, TrainConfig(), CPU, whole.least, processes=4)  # next to no room is none
    assert shared.shard
    assert shared.least < whole.least


@pytest.mark.parametrize("trainer", ["gentax", "trl"])
def test_a_model_without_room_is_refused_with_the_numbers_before_it_is_loaded(
    trainer, toy, tiny, tmp_path, monkeypatch
):
    if trainer == "trl":
        pytest.importorskip("trl")
    from gentax.training import trl_trainer

    for module in (run, trl_trainer):
        monkeypatch.setattr(module, "available_memory", lambda device: 1e6)
        monkeypatch.setattr(module, "load_local_policy", None)
    with pytest.raises(UsageError, match=r"takes about 0\.\d GB \(.*playing .*\), and cpu has 0\.0 GB left; .*lora"):
        train(TrainConfig(model=str(tiny), source="toy", max_steps=1, trainer=trainer), tmp_path / "run")
    assert not (tmp_path / "run").exists()
