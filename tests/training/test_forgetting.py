"""Forgetting methods: the protocol with a method from outside, replay, the KL budget, interpolation."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

from conftest import TOY, Toy
from gentax.core import Task, UsageError, stable_seed
from gentax.core.settings import read_settings
from gentax.domains import registry
from gentax.evals.kl_forecast import forward_kl
from gentax.models.scoring import sequence_kl
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig, rollout
from gentax.training import TrainConfig, train
from gentax.training.check import touched_by
from gentax.training.config import CurriculumConfig, ForgettingConfig, Phase
from gentax.training.distributed import World
from gentax.training.forgetting import ForgettingMethod, Start, forgetting_methods
from gentax.training.forgetting.kl_budget import TASKS, KLBudget
from gentax.training.forgetting.merge import nearest_that_keeps
from gentax.training.forgetting.replay_kl import ReplayKL, ReplayText, replayed_domains, split_by_tokens
from gentax.training.rollout_worker import TaskPool

PLAY = RolloutConfig(temperature=1.0, max_new_tokens=6)
POOLS = [
    TaskPool(f"toy:{level}", tuple(Task("toy", level, "train", i) for i in range(100)), ())
    for level in ("one", "three")
]


def config(**forgetting) -> TrainConfig:
    settings = {"replay": 1.0, "replay_domains": ("toy:one", "toy:three")} | forgetting
    return TrainConfig(rollout=PLAY, precision="fp32", forgetting=ForgettingConfig(**settings))


def prepared(method: ForgettingMethod, folder, world: World | None = None):
    """Let the tiny model be the start of a method."""
    policy, model = load_local_policy(folder), load_local_policy(folder).model
    method.before_training(Start(policy, lambda: model, world or World()), POOLS)
    return method


def perturbed(model, size: float = 0.05):
    generator = torch.Generator().manual_seed(0)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for weight in changed.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)
    return changed


# The protocol.


class PullBack(ForgettingMethod):
    """A method from outside: an L2 penalty on the distance to the start, an end, and weights half way back."""

    result = "halved"
    calls: list[str]

    def touched_domains(self):
        return ["crafting"]

    def before_training(self, start, tasks):
        type(self).calls = ["before", *(pool.name for pool in tasks)]
        self.start = {name: weight.detach().clone() for name, weight in start.model.named_parameters()}

    def extra_loss(self, model, step):
        self.calls.append(f"loss {step}")
        loss = sum((weight - self.start[name]).square().sum() for name, weight in model.named_parameters())
        loss.backward()
        return {"l2": float(loss.detach())}

    def should_stop(self, metrics, model):
        metrics["steps_so_far"] = metrics["step"]
        return metrics["step"] >= 3

    def finalize(self, start, trained, success_of):
        half = {name: (start[name] + trained[name]) / 2 for name in start}
        return half, {"success": success_of(half)}


def test_a_method_from_outside_is_called_through_its_hooks_and_touches_no_other_file(toy, able, tmp_path):
    settings = {
        "source": "toy:one", "model": str(able), "max_steps": 6, "tasks_per_step": 2, "num_generations": 2,
        "learning_rate": 1e-3,
        "eval_steps": 0, "save_steps": 1,
        "rollout": {"temperature": 1.0, "max_new_tokens": 6},
        "sft": {"max_pairs": 40}, "forgetting": {"custom": [f"{__name__}:PullBack"]}, "precision": "fp32",
    }  # fmt: skip
    recipe = read_settings(TrainConfig, settings, "recipe")
    rows = []
    out = train(recipe, tmp_path / "run", rows.append)
    assert PullBack.calls == ["before", "toy:one", "loss 1", "loss 2", "loss 1", "loss 2", "loss 3"]
    tuning, (first, *_, last) = rows[:2], rows[2:]
    assert tuning[0]["l2"] == 0  # at the start
    assert all(row["l2"] > 0 for row in (tuning[1], first, last))
    assert (last["step"], last["steps_so_far"], first["step"]) == (3, 3, 1)
    done = json.loads((tmp_path / "run/done.json").read_text())
    assert (out.name, done["trained"]) == ("halved", "step-000002")  # the checkpoint before the stop
    assert 0 <= done["success"] <= 1
    start, trained, found = (
        load_local_policy(folder).model.state_dict() for folder in (able, tmp_path / "run/step-000002", out)
    )
    assert all(torch.allclose(found[name], (start[name] + trained[name]) / 2, atol=1e-6) for name in start)
    assert touched_by(recipe) == {"toy", "crafting"}


def test_a_config_turns_methods_on_and_a_class_that_is_none_is_refused():
    assert forgetting_methods(TrainConfig()) == []
    methods = forgetting_methods(config(kl_budget=0.1, merge="interpolate"))
    assert [type(method).__name__ for method in methods] == ["ReplayKL", "KLBudget", "Merge"]
    with pytest.raises(UsageError, match="is no subclass of"):
        forgetting_methods(config(custom=(f"{__name__}:config",)))
    with pytest.raises(UsageError, match="did you mean 'PullBack'"):
        forgetting_methods(config(custom=(f"{__name__}:PullBak",)))


# Replay.


@pytest.mark.slow
def test_replay_has_no_gradient_at_the_start_and_pulls_a_policy_back(toy, tiny):
    model = load_local_policy(tiny).model
    replay = prepared(ReplayKL(config()), tiny)
    assert replay.extra_loss(model, 1)["replay_kl"] == pytest.approx(0, abs=1e-6)
    assert all(float(p.grad.abs().max()) < 1e-6 for p in model.parameters())
    model = perturbed(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    kls = []
    for step in range(1, 16):
        kls.append(replay.extra_loss(model, step)["replay_kl"])
        optimizer.step()
        optimizer.zero_grad()
    assert kls[0] > 0.01
    assert kls[-1] < kls[0] / 3


@pytest.mark.slow
def test_replay_is_the_mean_of_the_exact_kl_over_the_tokens_the_start_sampled(toy, tiny):
    replay = prepared(ReplayKL(config(replay_domains=("toy",))), tiny)
    model = perturbed(load_local_policy(tiny).model)
    (part,) = replay.parts
    ids, sampled = [text.ids_T for text in part], [text.sampled_T for text in part]
    expected = sequence_kl(replay.start.model, model, ids, sampled).sum() / sum(mask.sum() for mask in sampled)
    assert replay.extra_loss(model, 1)["replay_kl"] == pytest.approx(expected, rel=1e-4)
    once = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    prepared(ReplayKL(config(replay_domains=("toy",), replay=3.0)), tiny).extra_loss(model, 1)
    assert all(torch.allclose(3 * once[name], p.grad, atol=1e-5) for name, p in model.named_parameters())


def same(one: ReplayKL, other: ReplayKL) -> bool:
    pairs = [(a, b) for p, q in zip(one.parts, other.parts, strict=True) for a, b in zip(p, q, strict=True)]
    return all(np.array_equal(a.ids_T, b.ids_T) and np.array_equal(a.sampled_T, b.sampled_T) for a, b in pairs)


@pytest.mark.slow
def test_replay_plays_the_same_again_without_wrappers_and_reads_no_reward(toy, tiny, monkeypatch):
    first = prepared(ReplayKL(config()), tiny)
    assert same(prepared(ReplayKL(config()), tiny), first)
    wrapped = dataclasses.replace(config(), rollout=dataclasses.replace(PLAY, wrap=("distract(volume=80)",), horizon=1))
    assert same(prepared(ReplayKL(wrapped), tiny), first)
    assert not same(prepared(ReplayKL(dataclasses.replace(config(), seed=1)), tiny), first)
    _step = Toy._step
    monkeypatch.setattr(Toy, "_step", lambda self, action: _step(self, action)._replace(reward=np.nan, success=False))
    assert same(prepared(ReplayKL(config()), tiny), first)


@pytest.mark.parametrize(("method", "error"), [(ReplayKL, "could be replayed"), (KLBudget, "ended in an error")])
def test_a_start_whose_episodes_all_broke_is_refused(toy, tiny, monkeypatch, method, error):
    monkeypatch.setattr(Toy, "fatal", True)
    monkeypatch.setattr(Toy, "_step", lambda self, action: 1 / 0)
    with pytest.raises(UsageError, match=error):
        prepared(method(config()), tiny)


@pytest.mark.slow
def test_two_processes_replay_what_one_does(toy, tiny):
    alone = prepared(ReplayKL(config()), tiny)
    sent: list = []

    class Sends(World):
        def gather(self, value):
            sent.append(value)
            return [value, value]

    class Receives(World):
        def gather(self, value):
            assert value == sent[self.rank]
            return sent

    for rank in (0, 1):
        prepared(ReplayKL(config()), tiny, Sends(rank, 2))
    model, kl = perturbed(load_local_policy(tiny).model), 0.0
    for rank in (0, 1):
        replay = prepared(ReplayKL(config()), tiny, Receives(rank, 2))
        assert same(replay, alone)
        kl += replay.extra_loss(model, 1)["replay_kl"]
    summed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    assert alone.extra_loss(model, 1)["replay_kl"] == pytest.approx(kl, rel=1e-4)
    assert all(torch.allclose(summed[name], p.grad, atol=1e-5) for name, p in model.named_parameters())


def text(domain: int, length: int) -> ReplayText:
    return ReplayText(np.full(length, domain, np.int32), np.ones(length, bool))


def test_domains_take_turns_within_a_budget():
    rng = np.random.default_rng(0)
    parts = split_by_tokens([[text(0, 10)] * 40, [text(1, 30)] * 8, [text(2, 20)] * 3], 100, rng)
    assert all(sum(len(one.ids_T) for one in part) <= 100 for part in parts)
    domains = [int(one.ids_T[0]) for part in parts for one in part]
    assert domains == [0, 1, 2] * (len(domains) // 3) + [0, 1, 2][: len(domains) % 3]
    assert [len(one.ids_T) for one in split_by_tokens([[text(0, 500)] * 2], 100, rng)[0]] == [500]
    assert len(split_by_tokens([[text(0, 10)]], 100, rng)) == 1


def test_which_domains_are_replayed_when_none_is_named(monkeypatch):
    def named(name: str, **changes):
        return dataclasses.replace(TOY, name=name, **changes)

    known = [named("a"), named("b"), named("c"), named("d", target_only=True), named("e", requires=("no_such_module",))]
    monkeypatch.setattr(registry, "domains", lambda: {record.name: record for record in known})
    monkeypatch.setattr(
        "gentax.training.forgetting.replay_kl.domains", lambda: {record.name: record for record in known}
    )
    on_a = {
        "curriculum": CurriculumConfig((Phase({"a:one": 1.0, "b": 0.0}, 5),)),
        "forgetting": ForgettingConfig(replay=0.1),
    }
    assert replayed_domains(TrainConfig(**on_a)) == ("b", "c")
    assert replayed_domains(TrainConfig(**on_a, held_out_domains=("b:one",))) == ("c",)
    assert replayed_domains(
        TrainConfig(**on_a | {"forgetting": ForgettingConfig(replay=0.1, replay_domains=("c:one",))})
    ) == ("c:one",)
    assert replayed_domains(TrainConfig(**on_a | {"forgetting": ForgettingConfig()})) == ()
    with pytest.raises(UsageError, match="none is left"):
        replayed_domains(TrainConfig(**on_a, held_out_domains=("b", "c")))


# The KL budget.


@pytest.mark.slow
def test_the_kl_is_that_of_the_measure_on_the_same_episodes_and_is_logged(toy, tiny):
    policy, other = load_local_policy(tiny), load_local_policy(tiny)
    budget = prepared(KLBudget(config(kl_budget=0.01)), tiny)
    assert budget.kl(policy.model) == pytest.approx(0, abs=1e-6)
    other.model.load_state_dict(perturbed(policy.model).state_dict())
    metrics: dict[str, float] = {}
    assert not budget.should_stop(metrics, policy.model)
    assert budget.should_stop(metrics, other.model)
    tasks = [task for pool in POOLS for task in pool.train[: TASKS // 2]]
    episodes = rollout(load_local_policy(tiny), tasks, config=PLAY, seed=stable_seed(0, "meter"))
    assert metrics["forgetting"] == pytest.approx(forward_kl(policy, other, episodes).value, rel=1e-4)


def test_the_kl_budget_plays_at_temperature_1(toy, tiny):
    cold = dataclasses.replace(config(), rollout=dataclasses.replace(PLAY, temperature=0.01))
    one, other = (prepared(KLBudget(each), tiny) for each in (config(), cold))
    assert all(np.array_equal(a, b) for a, b in zip(one.ids, other.ids, strict=True))


@pytest.mark.slow
def test_two_processes_measure_what_one_does(toy, tiny):
    alone = prepared(KLBudget(config()), tiny)
    parts = [prepared(KLBudget(config()), tiny, World(rank, 2)) for rank in (0, 1)]
    model = perturbed(load_local_policy(tiny).model)
    assert all(0 < part.actions < alone.actions for part in parts)
    total = sum(part.kl(model) * part.actions for part in parts) / alone.actions
    assert total == pytest.approx(alone.kl(model), rel=1e-4)


# Interpolation.


def curve(**points: float):
    played: list[float] = []

    def success_at(share: float) -> float:
        played.append(share)
        return float(np.interp(share, [0.0, 0.25, 0.5, 1.0], [points[k] for k in ("start", "low", "half", "end")]))

    return success_at, played


def test_the_smallest_share_that_keeps_enough_is_taken_and_no_more_is_played():
    success_at, played = curve(start=0.2, low=0.4, half=0.6, end=0.7)
    share, rows = nearest_that_keeps(success_at, 0.8)
    assert share == 0.5
    assert sorted(played) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0]
    assert [row["share"] for row in rows] == sorted(played)
    assert rows[0]["success"] == pytest.approx(0.2)
    assert rows[-1]["success"] == pytest.approx(0.7)


@pytest.mark.parametrize("end", [0.2, 0.1])
def test_where_training_gained_nothing_the_start_is_kept(end):
    success_at, played = curve(start=0.2, low=0.5, half=0.5, end=end)
    share, rows = nearest_that_keeps(success_at, 0.5)
    assert share == 0.0
    assert played == [0.0, 1.0]
    assert [row["share"] for row in rows] == [0.0, 1.0]
