"""What holds a policy to its start: replay pulls it back, the meter reads how far it went, shares are chosen."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from conftest import TOY, Toy
from gentax.core import Task, UsageError
from gentax.domains import registry
from gentax.evals.kl_forecast import forward_kl
from gentax.models.scoring.kl import sequence_kl
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig, rollout
from gentax.training.config import CurriculumConfig, ForgettingConfig, Phase, TrainConfig
from gentax.training.curriculum import TaskPool
from gentax.training.distributed import World
from gentax.training.forgetting import KLMonitor, ReplayKL, nearest_that_keeps, replayed_domains
from gentax.training.forgetting.kl_monitor import TASKS
from gentax.training.forgetting.replay import Text, deal

PLAY = RolloutConfig(temperature=1.0, max_new_tokens=6)


def make_config(**retain) -> TrainConfig:
    return TrainConfig(
        rollout=PLAY, precision="fp32", forgetting=ForgettingConfig(**({"replay": 1.0, "replay_tasks": 6} | retain))
    )


def perturbed(model, size: float = 0.05):
    generator = torch.Generator().manual_seed(0)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for weight in moved.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)
    return moved


# Replay.


def test_replay_has_no_gradient_at_the_start_and_pulls_a_policy_back(toy, tiny):
    policy = load_local_policy(tiny)
    replay = ReplayKL.play(policy, make_config(), ["toy:one", "toy:three"])
    start = load_local_policy(tiny).model
    assert replay.backward(policy.model, start, make_config(), 1)["replay_kl"] == pytest.approx(0, abs=1e-6)
    assert all(float(p.grad.abs().max()) < 1e-6 for p in policy.model.parameters())
    model = perturbed(policy.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = []
    for step in range(1, 16):
        seen.append(replay.backward(model, start, make_config(), step)["replay_kl"])
        optimizer.step()
        optimizer.zero_grad()
    assert seen[0] > 0.01
    assert seen[-1] < seen[0] / 3


def test_replay_is_the_mean_of_the_exact_kl_over_the_tokens_the_start_wrote(toy, tiny):
    policy = load_local_policy(tiny)
    replay = ReplayKL.play(policy, make_config(), ["toy"])
    model = perturbed(policy.model)
    (part,) = replay.parts
    ids, sampled = [text.ids_T for text in part], [text.sampled_T for text in part]
    wanted = sequence_kl(policy.model, model, ids, sampled).sum() / sum(mask.sum() for mask in sampled)
    found = replay.backward(model, policy.model, make_config(), 1)
    assert found["replay_kl"] == pytest.approx(wanted, rel=1e-4)
    once = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    replay.backward(model, policy.model, make_config(replay=3.0), 1)
    assert all(torch.allclose(3 * once[name], p.grad, atol=1e-5) for name, p in model.named_parameters())


def test_replay_never_looks_at_rewards_nor_at_success(toy, tiny, monkeypatch):
    honest = ReplayKL.play(load_local_policy(tiny), make_config(), ["toy"])
    _step = Toy._step
    monkeypatch.setattr(Toy, "_step", lambda self, action: _step(self, action)._replace(reward=np.nan, success=False))
    assert same(ReplayKL.play(load_local_policy(tiny), make_config(), ["toy"]), honest)


def same(one: ReplayKL, other: ReplayKL) -> bool:
    pairs = [(a, b) for p, q in zip(one.parts, other.parts, strict=True) for a, b in zip(p, q, strict=True)]
    return all(np.array_equal(a.ids_T, b.ids_T) and np.array_equal(a.sampled_T, b.sampled_T) for a, b in pairs)


def test_replay_plays_the_same_again_and_without_the_wrappers_of_training(toy, tiny):
    first = ReplayKL.play(load_local_policy(tiny), make_config(), ["toy:one", "toy:three"])
    assert same(ReplayKL.play(load_local_policy(tiny), make_config(), ["toy:one", "toy:three"]), first)
    wrapped = dataclasses.replace(
        make_config(), rollout=dataclasses.replace(PLAY, wrap=("distract(volume=80)",), horizon=1)
    )
    assert same(ReplayKL.play(load_local_policy(tiny), wrapped, ["toy:one", "toy:three"]), first)
    other = dataclasses.replace(make_config(), seed=1)
    assert not same(ReplayKL.play(load_local_policy(tiny), other, ["toy:one", "toy:three"]), first)


def test_episodes_that_broke_are_not_replayed(toy, tiny, monkeypatch):
    monkeypatch.setattr(Toy, "fatal", True)
    monkeypatch.setattr(Toy, "_step", lambda self, action: 1 / 0)
    with pytest.raises(UsageError, match="nothing that could be replayed"):
        ReplayKL.play(load_local_policy(tiny), make_config(), ["toy"])


def test_two_processes_replay_what_one_does(toy, tiny):
    names = ["toy:one", "toy:three"]
    alone = ReplayKL.play(load_local_policy(tiny), make_config(), names)
    said: list = []

    class Says(World):
        def everyone(self, value):
            said.append(value)
            return [value, value]

    class Hears(World):
        def everyone(self, value):
            assert value == said[self.rank]
            return said

    for rank in (0, 1):
        ReplayKL.play(load_local_policy(tiny), make_config(), names, Says(rank, 2))
    model, start, kl = perturbed(load_local_policy(tiny).model), load_local_policy(tiny).model, 0.0
    for rank in (0, 1):
        replay = ReplayKL.play(load_local_policy(tiny), make_config(), names, Hears(rank, 2))
        assert same(replay, alone)
        kl += replay.backward(model, start, make_config(), 1, Hears(rank, 2))["replay_kl"]
    summed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    assert alone.backward(model, start, make_config(), 1)["replay_kl"] == pytest.approx(kl, rel=1e-4)
    assert all(torch.allclose(summed[name], p.grad, atol=1e-5) for name, p in model.named_parameters())


def text(domain: int, length: int) -> Text:
    return Text(np.full(length, domain, np.int32), np.ones(length, bool))


def test_domains_take_turns_within_a_budget():
    parts = deal([[text(0, 10)] * 40, [text(1, 30)] * 8, [text(2, 20)] * 3], 100, np.random.default_rng(0))
    assert all(sum(len(one.ids_T) for one in part) <= 100 for part in parts)
    row = [int(one.ids_T[0]) for part in parts for one in part]
    assert row == [0, 1, 2] * (len(row) // 3) + [0, 1, 2][: len(row) % 3]
    assert [len(one.ids_T) for one in deal([[text(0, 500)] * 2], 100, np.random.default_rng(0))[0]] == [500]
    assert len(deal([[text(0, 10)]], 100, np.random.default_rng(0))) == 1


def test_what_is_replayed_when_nothing_is_named(monkeypatch):
    def named(name: str, **changes):
        return dataclasses.replace(TOY, name=name, **changes)

    known = [named("a"), named("b"), named("c"), named("d", target_only=True), named("e", requires=("no_such_module",))]
    monkeypatch.setattr(registry, "domains", lambda: {record.name: record for record in known})
    monkeypatch.setattr("gentax.training.forgetting.replay.domains", lambda: {record.name: record for record in known})
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


# The meter.


def grounds() -> list[TaskPool]:
    return [
        TaskPool(f"toy:{level}", tuple(Task("toy", level, "train", i) for i in range(100)), (), 6)
        for level in ("one", "three")
    ]


def test_the_meter_reads_what_the_measure_does_on_the_same_episodes(toy, tiny):
    policy, other = load_local_policy(tiny), load_local_policy(tiny)
    meter = KLMonitor.play(policy, make_config(kl_budget=0.1), grounds())
    assert meter.read(load_local_policy(tiny).model, policy.model) == pytest.approx(0, abs=1e-6)
    other.model.load_state_dict(perturbed(policy.model).state_dict())
    found = meter.read(policy.model, other.model)
    assert found > 0.01
    from gentax.core import stable_seed

    tasks = [task for ground in grounds() for task in ground.learn[: TASKS // 2]]
    episodes = rollout(load_local_policy(tiny), tasks, config=PLAY, seed=stable_seed(0, "meter"))
    assert found == pytest.approx(forward_kl(policy, other, episodes).value, rel=1e-4)


def test_the_meter_plays_at_temperature_1(toy, tiny):
    cold = dataclasses.replace(make_config(), rollout=dataclasses.replace(PLAY, temperature=0.01))
    one, other = (KLMonitor.play(load_local_policy(tiny), how, grounds()) for how in (make_config(), cold))
    assert all(np.array_equal(a, b) for a, b in zip(one.ids, other.ids, strict=True))


def test_two_processes_read_what_one_does(toy, tiny):
    alone = KLMonitor.play(load_local_policy(tiny), make_config(), grounds())
    shares = [KLMonitor.play(load_local_policy(tiny), make_config(), grounds(), World(rank, 2)) for rank in (0, 1)]
    start, model = load_local_policy(tiny).model, perturbed(load_local_policy(tiny).model)
    assert all(0 < share.actions < alone.actions for share in shares)
    total = sum(share.read(start, model) * share.actions for share in shares) / alone.actions
    assert total == pytest.approx(alone.read(start, model), rel=1e-4)


def test_a_meter_of_broken_episodes_is_refused(toy, tiny, monkeypatch):
    monkeypatch.setattr(Toy, "_step", lambda self, action: 1 / 0)
    with pytest.raises(UsageError, match="ended in an error"):
        KLMonitor.play(load_local_policy(tiny), make_config(), grounds())


# The share of the trained weights.


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


def test_a_dip_further_on_does_not_matter_and_everything_can_be_asked_for():
    success_at, _ = curve(start=0.2, low=0.7, half=0.3, end=0.7)
    assert nearest_that_keeps(success_at, 0.9, shares=(0.25, 0.5, 0.75))[0] == 0.25
    success_at, _ = curve(start=0.2, low=0.3, half=0.4, end=0.7)
    assert nearest_that_keeps(success_at, 1.0)[0] == 1.0
    assert nearest_that_keeps(success_at, 1.0, shares=(0.25, 0.5))[0] == 1.0


@pytest.mark.parametrize("end", [0.2, 0.1])
def test_where_training_gained_nothing_the_start_is_kept(end):
    success_at, played = curve(start=0.2, low=0.5, half=0.5, end=end)
    share, rows = nearest_that_keeps(success_at, 0.5)
    assert share == 0.0
    assert played == [0.0, 1.0]
    assert [row["share"] for row in rows] == [0.0, 1.0]
