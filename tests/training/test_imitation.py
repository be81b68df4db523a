"""Imitation: the mixture is counted by state-action pairs, and only the agent's tokens are learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gentax.core import NonFiniteLoss, UsageError
from gentax.core.episode import write_episodes
from gentax.domains import make
from gentax.policies.load import ExpertPolicy
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig, rollout
from gentax.training import sft as module
from gentax.training.config import CurriculumConfig, Phase, SFTConfig, TrainConfig
from gentax.training.distributed import World
from gentax.training.learner import learner_of
from gentax.training.sft import SFTData, wanted_pairs
from gentax.training.trajectories import examples, exchanges


def make_config(tiny: Path, rollout_config: RolloutConfig | None = None, **sft) -> TrainConfig:
    values = {"mixture": {"toy:three": 1.0}, "max_pairs": 30} | sft
    rollout_config = rollout_config or RolloutConfig(temperature=1.0, max_new_tokens=4)
    return TrainConfig(max_steps=0, model=str(tiny), sft=SFTConfig(**values), rollout=rollout_config, precision="fp32")


def learned(imitation: SFTData, codec) -> list[str]:
    """The text of the tokens that count, example by example."""
    examples = [example for batch in imitation.batches for example in batch]
    return [codec.tokenizer.decode(example.ids_T[example.weight_T > 0]) for example in examples]


def replies(imitation: SFTData, codec) -> int:
    """How many replies are learned, counted in the tokens themselves."""
    return sum(text.count("<action>") for text in learned(imitation, codec))


def chats(path: Path, count: int, replies: int = 3, **extra) -> str:
    """Write a file of `count` conversations with `replies` replies each."""
    with open(path, "w") as file:
        for n in range(count):
            turn = [{"role": "user", "content": f"{n} red"}, {"role": "assistant", "content": "Action: red"}]
            file.write(json.dumps({"messages": turn * replies, **extra}) + "\n")
    return str(path)


# How much of what.


@pytest.mark.parametrize("pairs", [23, 230, 100, 4000, 7])
def test_a_mixture_is_counted_by_pairs(tiny, pairs):
    made = wanted_pairs(make_config(tiny, mixture={"a": 19, "b": 3, "c": 1}, max_pairs=pairs))
    assert sum(made.values()) == pairs
    for name, weight in {"a": 19, "b": 3, "c": 1}.items():
        assert abs(made[name] - pairs * weight / 23) < 1
    assert pairs % 23 or made == {"a": 19 * pairs // 23, "b": 3 * pairs // 23, "c": pairs // 23}


def test_without_a_mixture_it_is_what_is_trained_on(tiny):
    phases = (Phase({"toy:one": 3, "toy:three": 1}, 10), Phase({"toy:three": 1.0}, 30))
    made = TrainConfig(model=str(tiny), curriculum=CurriculumConfig(phases=phases), sft=SFTConfig(max_pairs=80))
    assert wanted_pairs(made) == {"toy:one": 15, "toy:three": 65}
    assert wanted_pairs(TrainConfig(source="toy", sft=SFTConfig(max_pairs=80))) == {"toy": 80}


@pytest.mark.parametrize("context", ["full", "window(1)"])
def test_nineteen_to_three_to_one(toy, tiny, tmp_path, context):
    """The paper's mixture, from an expert, a policy's own episodes and a file: exact to the pair."""
    policy = load_local_policy(tiny)
    mix = {"toy": 19, "toy:three": 3, "toy:one": 1}
    rollout_config = RolloutConfig(context=context, temperature=1.0, max_new_tokens=8)
    with make("toy", "one") as env:
        write_episodes(tmp_path / "one.gz", rollout(ExpertPolicy(), env.tasks("train", 40)))
    teachers = {"toy:three": str(tmp_path / "teacher.gz"), "toy:one": str(tmp_path / "one.gz")}
    with make("toy", "three") as env:
        write_episodes(
            tmp_path / "teacher.gz", rollout(ExpertPolicy(0.5), env.tasks("train", 40), config=rollout_config)
        )
    made = SFTData.collect(
        make_config(tiny, rollout_config, mixture=mix, teachers=teachers, max_pairs=230, successes_only=False), policy
    )
    assert made.counts == {"toy": 190, "toy:three": 30, "toy:one": 10}
    assert replies(made, policy.codec) == 230
    assert sum(example.pairs for batch in made.batches for example in batch) == 230


def test_a_teacher_that_runs_out_gives_what_it_has(toy, tiny, tmp_path, monkeypatch):
    policy = load_local_policy(tiny)
    teachers = {"toy:one": chats(tmp_path / "few.jsonl", 2)}
    made = SFTData.collect(
        make_config(tiny, mixture={"toy:one": 1, "toy:three": 1}, teachers=teachers, max_pairs=40), policy
    )
    assert made.counts == {"toy:one": 6, "toy:three": 20}
    monkeypatch.setattr("gentax.training.rollout_worker.TRAIN_TASKS", 5)
    short = TrainConfig(source="toy:one", model=str(tiny), sft=SFTConfig(max_pairs=40))
    assert SFTData.collect(short, policy).counts == {"toy:one": 5}  # one pair a task


def test_who_plays_plays_the_tasks_that_training_may_use(toy, tiny, monkeypatch):
    played = []

    def spy(policy, tasks, **settings):
        played.extend(tasks)
        return rollout(policy, tasks, **settings)

    monkeypatch.setattr(module, "rollout", spy)
    monkeypatch.setattr("gentax.training.rollout_worker.TRAIN_TASKS", 100)
    SFTData.collect(make_config(tiny, mixture={"toy:one": 1.0}, max_pairs=10_000), load_local_policy(tiny))
    assert {task.split for task in played} == {"train"}
    assert sorted(task.index for task in played) == list(range(100))  # each once


# Which tokens.


@pytest.mark.parametrize("thinking", [False, True])
def test_only_what_the_agent_says_is_learned(toy, tiny, thinking):
    policy = load_local_policy(tiny)
    made = SFTData.collect(make_config(tiny, RolloutConfig(temperature=1.0, thinking=thinking)), policy)
    for batch in made.batches:
        for example in batch:
            text = policy.codec.tokenizer.decode(example.ids_T)
            words = [part.partition("</action>")[0] for part in text.split("<action>")[2:]]  # the first one asks
            said = "".join(
                (f"<think>It says {word}.</think>" if thinking else "") + f"<action>{word}</action>" for word in words
            )
            assert policy.codec.tokenizer.decode(example.ids_T[example.weight_T > 0]) == said
            assert set(np.unique(example.weight_T)) == {0, 1}
            assert text.startswith("Say the word you see.")


def test_the_starts_own_episodes_are_learned_by_the_tokens_it_sampled(toy, tiny):
    policy = load_local_policy(tiny)
    rollout_config = RolloutConfig(temperature=1.0, max_new_tokens=6)
    made = SFTData.collect(
        make_config(tiny, rollout_config, teachers={"toy:three": "start"}, successes_only=False, max_pairs=11),
        _obedient(policy),
    )
    assert made.counts == {"toy:three": 11}
    text = learned(made, policy.codec)
    assert sum(one.count("</action>") for one in text) == 11
    assert {word for one in text for word in one.replace("<action>", " ").replace("</action>", " ").split()} == {"red"}


def _obedient(policy):
    """Let a policy's samples be `<action>red</action>`, so that a model that knows nothing plays something."""
    ids = policy.codec.encode_reply("<action>red</action>")

    class Scripted:
        max_length, reserved_bytes = policy.decoder.max_length, 0

        def sample(self, asks, stop):
            from gentax.models.options import Sample

            return [Sample(ids, np.zeros(len(ids), np.float32)) for _ in asks]

        def cache_bytes(self, tokens):
            return 0

        def clear_cache(self):
            pass

    policy.decoder = Scripted()
    return policy


# From whom.


def test_failures_are_left_out_unless_they_are_asked_for(toy, tiny, tmp_path):
    policy = load_local_policy(tiny)
    rollout_config = RolloutConfig(temperature=1.0, horizon=3)  # one slip, and the three words cannot be said any more
    with make("toy", "three", horizon=3) as env:
        episodes = rollout(ExpertPolicy(0.5), env.tasks("train", 40), config=rollout_config)
    won = sum(episode.length for episode in episodes if episode.success)
    every = sum(episode.length for episode in episodes)
    assert 0 < won < every
    write_episodes(tmp_path / "mixed.gz", episodes)
    teachers = {"toy:three": str(tmp_path / "mixed.gz")}
    for successes_only, pairs in ((True, won), (False, every)):
        asked = make_config(tiny, rollout_config, teachers=teachers, successes_only=successes_only, max_pairs=1000)
        assert SFTData.collect(asked, policy).counts == {"toy:three": pairs}
    failed = chats(tmp_path / "failed.jsonl", 2, success=False)
    with pytest.raises(UsageError, match=r"on toy:three: no trajectory .* succeeded; sft.successes_only: false"):
        SFTData.collect(make_config(tiny, teachers={"toy:three": failed}), policy)
    unfiltered = make_config(tiny, teachers={"toy:three": failed}, successes_only=False)
    assert SFTData.collect(unfiltered, policy).counts == {"toy:three": 6}


def test_a_teacher_that_never_succeeds_is_given_up(toy, tiny):
    """It plays `ATTEMPTS` episodes of many more tasks, is counted on the way, and is named with what to do."""
    shown: list[str] = []
    teacher = {"toy:three": "random"}  # three words of four in order: one in 64, and none within a step
    config = make_config(tiny, RolloutConfig(horizon=1), teachers=teacher)
    said = r"on toy:three: random succeeded in 0 of 512 episodes; name another teacher under sft\.teachers"
    with pytest.raises(UsageError, match=said):
        SFTData.collect(config, load_local_policy(tiny), status=shown.append)
    assert [text for text in shown if text.endswith("0/30 state-action pairs; 0 of 256 episodes succeeded")]
    taken = make_config(tiny, RolloutConfig(horizon=1), teachers=teacher, successes_only=False)
    SFTData.collect(taken, load_local_policy(tiny), status=shown.append)
    assert shown[-1].endswith("30/30 state-action pairs; 0 of 32 episodes succeeded")


def test_episodes_of_validation_and_test_tasks_and_of_other_domains_are_never_learned(toy, tiny, tmp_path):
    policy = load_local_policy(tiny)
    with make("toy", "three") as env:
        test, train = (rollout(ExpertPolicy(), env.tasks(split, 4)) for split in ("test", "train"))
        validation = rollout(ExpertPolicy(), env.tasks("validation", 4))
    for name, episodes in (("test", train + test), ("look", train + validation)):
        write_episodes(tmp_path / f"{name}.gz", episodes)
    with pytest.raises(UsageError, match="episodes of test tasks"):
        SFTData.collect(make_config(tiny, teachers={"toy:three": str(tmp_path / "test.gz")}), policy)
    looked = make_config(tiny, teachers={"toy:three": str(tmp_path / "look.gz")}, max_pairs=1000)
    assert SFTData.collect(looked, policy).counts == {"toy:three": sum(episode.length for episode in train)}
    with pytest.raises(UsageError, match="holds no episode of toy:one"):
        SFTData.collect(
            make_config(tiny, mixture={"toy:one": 1}, teachers={"toy:one": str(tmp_path / "look.gz")}), policy
        )


# How it is learned.


@pytest.mark.slow
def test_every_pair_is_learned_as_often_as_the_epochs_say(toy, tiny):
    counts = {}
    for epochs in (0.5, 1.0, 2.5):
        made = SFTData.collect(
            make_config(tiny, num_train_epochs=epochs, mixture={"toy:one": 1}, max_pairs=40), load_local_policy(tiny)
        )
        assert [len(batch) for batch in made.batches[:-1]] == [32] * (made.steps - 1)
        seen = [example.ids_T.tobytes() for batch in made.batches for example in batch]
        counts[epochs] = len(seen)
        if epochs > 1:
            assert seen[:40] != seen[40:80]
    assert counts == {0.5: 20, 1.0: 40, 2.5: 100}
    with_seed = [SFTData.collect(make_config(tiny), load_local_policy(tiny)) for _ in range(2)]
    assert learned(with_seed[0], load_local_policy(tiny).codec) == learned(with_seed[1], load_local_policy(tiny).codec)


def test_examples_that_are_kept_are_not_played_again(toy, tiny, tmp_path, monkeypatch):
    asked, kept = make_config(tiny), tmp_path / "kept.safetensors"
    first = SFTData.collect(asked, load_local_policy(tiny), kept)
    monkeypatch.setattr(module, "rollout", lambda *args, **settings: pytest.fail("played again"))
    again = SFTData.collect(
        asked, load_local_policy(tiny), kept, World(rank=1, size=2)
    )  # another process of the run reads too
    assert (again.counts, again.steps) == (first.counts, first.steps)
    for a, b in zip(sum(first.batches, ()), sum(again.batches, ()), strict=True):
        assert np.array_equal(a.ids_T, b.ids_T)
        assert np.array_equal(a.weight_T, b.weight_T)
        assert a.pairs == b.pairs


@pytest.mark.slow
def test_imitation_teaches(toy, tiny):
    policy = load_local_policy(tiny)
    asked = make_config(tiny, mixture={"toy:one": 1}, max_pairs=100, num_train_epochs=8.0, learning_rate=3e-3)
    learner = learner_of(policy, asked)
    made = SFTData.collect(asked, policy)
    optimizer = made.optimizer(learner.parameters)
    losses = [made.step(step, learner, optimizer)["loss"] for step in range(1, made.steps + 1)]
    assert losses[-1] < 0.2 * losses[0]
    learner.publish()
    with make("toy", "one") as env:
        episodes = rollout(policy, env.tasks("test", 10), config=RolloutConfig(temperature=0.0))
    said = {step.action for episode in episodes for step in episode.steps}
    assert said <= {"red", "green", "blue", "gold"}  # it knew no word and no grammar before


def test_a_loss_that_is_no_number_names_its_step_and_changes_nothing(toy, tiny):
    policy = load_local_policy(tiny)
    learner = learner_of(policy, make_config(tiny))
    made = SFTData.collect(make_config(tiny), policy)
    with torch.no_grad():
        learner.parameters[0][:] = float("nan")
    before = [parameter.clone() for parameter in learner.parameters[1:]]
    with pytest.raises(NonFiniteLoss, match="step 1 of supervised fine-tuning"):
        made.step(1, learner, made.optimizer(learner.parameters))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters[1:], strict=True))


@pytest.mark.slow
def test_processes_share_a_batch(toy, tiny):
    """Each has the loss of its part, over the tokens of all: they sum to the loss of one process alone."""
    made = SFTData.collect(make_config(tiny), load_local_policy(tiny))
    losses = []
    for world in (World(), World(0, 2), World(1, 2)):
        learner = learner_of(load_local_policy(tiny), make_config(tiny))
        losses.append(made.step(1, learner, made.optimizer(learner.parameters), world)["loss"])
    assert min(losses) > 0
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-4)


def test_the_gradient_is_that_of_the_mean_over_the_agents_tokens(toy, tiny):
    """One step of plain arithmetic: no tree, no packing, each conversation by itself."""
    policy, plain = load_local_policy(tiny), load_local_policy(tiny)
    with make("toy", "three") as env:
        episodes = rollout(ExpertPolicy(), env.tasks("train", 4))
    made = [e for episode in episodes for e in examples(exchanges(episode, RolloutConfig()), policy.codec)]
    one = SFTData((tuple(made),), {}, module.SFTSettings(steps=1, precision="fp32"))
    learner = learner_of(policy, make_config(tiny))
    row = one.step(1, learner, torch.optim.SGD(learner.parameters, lr=0.0))
    losses = []
    for example in made:
        logp_TV = plain.model(torch.tensor(example.ids_T[None].astype(np.int64))).logits[0].log_softmax(-1)
        at = np.flatnonzero(example.weight_T)
        losses.append(-logp_TV[at - 1, example.ids_T[at]])
    loss = torch.cat(losses).mean()
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in plain.model.parameters()]).norm()
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
