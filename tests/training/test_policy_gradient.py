"""The update: advantages by hand, gradients against a plain formula, and what must not be learned from."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gentax.core import Episode, NonFiniteLoss, Outcome, Step, Task, Tokens
from gentax.models.scoring import scoring_method
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig
from gentax.training import policy_gradient
from gentax.training.config import PolicyGradientConfig, RewardConfig, TrainConfig
from gentax.training.distributed import World
from gentax.training.policy_gradient import Critic, compute_advantages, gae, states_before_replies, update
from gentax.training.rewards import rewards_of


def episode(task=0, reward=0.0, ids=(5, 6), prompt=(10, 11, 12), logprob=-1.0, outcome=None):
    """One of a single step."""
    return walk(task, [("o", reward, prompt, ids)], logprob, outcome)


def walk(task, path, logprob=-1.0, outcome=None):
    """One whose steps are given as (observation, reward, new prompt tokens, sampled tokens)."""
    steps = tuple(
        Step(seen, "t", "a", reward, True, tokens=Tokens(n > 0, ints(prompt), ints(ids), floats(len(ids), logprob)))
        for n, (seen, reward, prompt, ids) in enumerate(path)
    )
    outcome = outcome or (Outcome.SUCCESS if sum(p[1] for p in path) else Outcome.FAILURE)
    return Episode(Task("toy", "three", "train", task), 0, "g", steps, outcome)


def ints(values):
    return np.array(values, np.int32)


def floats(count, value):
    return np.full(count, value, np.float32)


def seen(task, letters, rewards, outcome=None):
    """One that sees `letters`."""
    return walk(task, [(s, r, (10, 11), (5,)) for s, r in zip(letters, rewards, strict=True)], outcome=outcome)


def worth(episodes):
    return rewards_of(episodes, RewardConfig())


def advantages_of(episodes, values=(), world=World(), **algorithm):  # noqa: B008
    """The advantages of the steps of all episodes, in a row."""
    found = compute_advantages(episodes, worth(episodes), PolicyGradientConfig(**algorithm), world, values)
    assert all(one.dtype == np.float32 for one in found)
    return np.concatenate(found)


# What an episode is compared with.


def test_grpo_compares_with_the_group():
    group = [episode(reward=1.0), episode(), episode(), episode()]
    assert advantages_of(group) == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert advantages_of(group, normalize_std=True) == pytest.approx(
        (np.array([1, 0, 0, 0]) - 0.25) / (np.sqrt(0.1875) + 1e-6)
    )


def test_all_steps_of_an_episode_share_its_advantage():
    assert advantages_of([seen(0, "ab", [0.5, 0.5]), seen(0, "c", [0.0])]) == pytest.approx([0.5, 0.5, -0.5])


def test_rloo_compares_with_the_others():
    group = [episode(reward=r) for r in (1.0, 0.0, 0.5)]
    assert advantages_of(group, advantage_estimator="rloo") == pytest.approx([0.75, -0.75, 0.0])
    assert advantages_of([episode(reward=1.0)], advantage_estimator="rloo") == 0


def test_reinforce_plus_plus_compares_with_the_batch():
    # No group has any spread, the batch has.
    batch = [episode(0, 1.0), episode(0, 1.0), episode(1, 0.0), episode(1, 0.0)]
    assert advantages_of(batch, advantage_estimator="reinforce++") == pytest.approx([1, 1, -1, -1], abs=1e-5)
    assert (advantages_of(batch[:2], advantage_estimator="reinforce++") == 0).all()


def test_generalized_advantages_by_hand():
    (found,) = gae([np.array([0, 0, 1.0])], [np.array([0.5, 0.25, 0.5])])
    # Temporal-difference errors: -0.25, 0.25, 0.5; each adds 0.95 of what comes after.
    assert found == pytest.approx([0.43875, 0.725, 0.5])


def test_ppo_normalises_over_the_steps_of_the_batch():
    values = [np.array([0.5, 0.25, 0.5]), np.array([0.5])]
    batch = [seen(0, "abc", [0, 0, 1.0]), seen(1, "a", [0.0])]
    raw = np.array([0.43875, 0.725, 0.5, -0.5])
    found = advantages_of(batch, values, advantage_estimator="ppo")
    assert found == pytest.approx((raw - raw.mean()) / raw.std(), abs=1e-4)


def test_gigpo_compares_steps_that_saw_the_same():
    group = [seen(0, "ab", [0.0, 1.0]), seen(0, "aa", [0.0, 0.0])]
    # Episodes: +-0.5. Returns from `a` on: 1, 0, 0, their mean 1/3. `b` was met once.
    found = advantages_of(group, advantage_estimator="gigpo")
    assert found == pytest.approx([0.5 + 2 / 3, 0.5, -0.5 - 1 / 3, -0.5 - 1 / 3])
    divided = advantages_of(group, advantage_estimator="gigpo", normalize_std=True)
    spread = np.std([1, 0, 0])
    assert divided == pytest.approx([1 + 2 / 3 / spread, 1, -1 - 1 / 3 / spread, -1 - 1 / 3 / spread], abs=1e-4)


def test_gigpo_does_not_compare_across_groups():
    batch = [seen(0, "a", [1.0]), seen(1, "a", [0.0])]
    assert (advantages_of(batch, advantage_estimator="gigpo") == 0).all()


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "reinforce++", "ppo", "gigpo"])
def test_errors_belong_to_no_group(estimator):
    broken = seen(0, "aa", [0.0, 0.0], Outcome.ERROR)
    solved, failed = seen(0, "ab", [0.0, 1.0]), seen(0, "ab", [0.0, 0.0])
    advantages = advantages_of([broken, solved, failed], [np.zeros(2)] * 3, advantage_estimator=estimator)
    assert (advantages[:2] == 0).all()
    assert advantages[3] > 0 > advantages[5]


# The gradient.


def learner_of(model):
    return SimpleNamespace(model=model, parameters=list(model.parameters()))


def learn(model, episodes, config, reference=None, optimizer=None, **more):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=1.0)
    return update(learner_of(model), reference, optimizer, episodes, worth(episodes), config, "here", **more)


def make_config(temperature=1.0, **algorithm):
    return TrainConfig(
        algorithm=PolicyGradientConfig(**{"beta": 0.0} | algorithm),
        precision="fp32",
        rollout=RolloutConfig(temperature=temperature),
    )


def shaken(folder):
    """The tiny model with other weights than those of the folder."""
    torch.manual_seed(1)
    model = load_local_policy(folder).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


BATCH = [
    walk(0, [("o", 0.0, (10, 11), (5, 6, 7)), ("p", 1.0, (12, 13, 14), (8,))], -5.0),
    walk(0, [("o", 0.0, (10, 11), (8,)), ("p", 0.0, (13, 14), (9, 4, 4))], -6.5),
    episode(1, 0.0, (9, 9), (20,)),
    episode(1, 0.0, (4, 5), (20,)),
    episode(2, 1.0, (4, 5, 6), (21, 22), -5.5),
    episode(2, 0.0, (7,), (21, 22), -8.0),
]


def log_probabilities(model, sequence, temperature):
    ids = torch.tensor(sequence.ids_T[None].astype(np.int64))
    return model(ids).logits[0].div(temperature).log_softmax(-1)


def plain_loss(model, reference, algorithm, temperature):
    """The same loss written naively: one sequence at a time, the whole vocabulary everywhere."""
    rewards, sequences = worth(BATCH), [next(one.sequences()) for one in BATCH]
    lines = []
    values = [np.zeros(len(reward)) for reward in rewards]  # those of a new critic
    advantages = compute_advantages(BATCH, rewards, algorithm, World(), values)
    for advantage, sequence in zip(advantages, sequences, strict=True):
        if not advantage.any():
            continue
        logp = log_probabilities(model, sequence, temperature)
        first = log_probabilities(reference, sequence, temperature).detach()
        terms = []
        for at in np.flatnonzero(sequence.sampled_T):
            token, a = int(sequence.ids_T[at]), float(advantage[sequence.step_T[at]])
            new, start = logp[at - 1, token], first[at - 1, token]
            ratio = (new - float(sequence.logprobs_T[at])).exp()
            term = -torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a)
            term = term + algorithm.beta * ((start - new).exp() - (start - new) - 1)
            entropy = -(logp[at - 1].exp() * logp[at - 1]).sum()
            terms.append(term - algorithm.entropy_coef * entropy)
        lines.append(torch.stack(terms))
    if algorithm.loss_aggregation == "token":
        return torch.cat(lines).mean()
    return torch.stack([line.mean() for line in lines]).mean()


@pytest.mark.parametrize(
    "algorithm",
    [
        {"beta": 0.3},
        {"beta": 0.3, "normalize_std": True, "loss_aggregation": "sequence"},
        {"entropy_coef": 0.2},
        {"advantage_estimator": "reinforce++", "beta": 0.3, "loss_aggregation": "sequence"},
        {"advantage_estimator": "rloo", "beta": 0.1, "entropy_coef": 0.2, "loss_aggregation": "sequence"},
        {"advantage_estimator": "gigpo", "beta": 0.1},
        {"advantage_estimator": "ppo", "beta": 0.1},
    ],
    ids=lambda algorithm: " ".join(map(str, algorithm.values())),
)
def test_the_update_follows_the_plain_formula(tiny, algorithm):
    model, reference = shaken(tiny), load_local_policy(tiny).model
    expected, config = copy.deepcopy(model), make_config(0.7, **algorithm)
    loss = plain_loss(expected, reference, config.algorithm, 0.7)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    report = learn(model, BATCH, config, reference, critic=Critic(model))
    assert report["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert report["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for name, parameter in expected.named_parameters():
        moved = before[name] - dict(model.named_parameters())[name]
        assert torch.allclose(moved, parameter.grad, atol=1e-5), name


@pytest.mark.parametrize(("ratio", "clipped", "worth"), [(1.5, 0.5, 1.2), (1.1, 0.0, 1.1), (0.6, 0.5, 0.6)])
def test_a_ratio_is_clipped_where_it_would_be_worth_more(tiny, ratio, clipped, worth):
    model = load_local_policy(tiny).model

    def played(reward, token, ratio):
        chance = log_probabilities(model, next(episode(0, ids=(token,)).sequences()), 1.0)[2, token]
        return episode(0, reward, (token,), logprob=chance.item() - np.log(ratio))

    report = learn(model, [played(1.0, 5, ratio), played(0.0, 8, 1.0)], make_config())
    assert report["clipped"] == clipped
    assert report["loss"] == pytest.approx(-(0.5 * worth - 0.5) / 2, abs=1e-5)


def test_what_is_reported(tiny):
    report = learn(shaken(tiny), BATCH, make_config(beta=0.3), load_local_policy(tiny).model)
    assert report["spread"] == pytest.approx(4 / 6)
    assert report["skipped"] == 1
    assert report["learned_tokens"] == 9 + 8 + 5 + 3
    assert report["distinct_tokens"] == 9 + 6 + 5 + 1  # with a beginning of two tokens in each group
    assert report["computed_tokens"] >= report["distinct_tokens"]
    assert report["kl"] > 0
    assert 0 < report["entropy"] < np.log(load_local_policy(tiny).model.config.vocab_size)
    assert 0 < report["clipped"] <= 1
    assert "value_loss" not in report


def test_no_pass_is_made_twice(tiny):
    def passes(**algorithm):
        model, reference = load_local_policy(tiny).model, load_local_policy(tiny).model
        made = {"model": 0, "reference": 0}
        for name, one in (("model", model), ("reference", reference)):
            scoring_method(one)  # is found out by passes of its own, once
            one.get_decoder().layers[0].register_forward_hook(lambda *_, n=name: made.update({n: made[n] + 1}))
        learn(model, BATCH, make_config(**algorithm), reference)
        return made

    assert passes(beta=0.01) == {"model": 1, "reference": 1}
    assert passes(entropy_coef=0.1) == {"model": 1, "reference": 0}


def test_a_reward_makes_its_actions_likelier(tiny, monkeypatch):
    monkeypatch.setattr(policy_gradient, "EPSILON", 100.0)
    model = load_local_policy(tiny).model

    def chance(ids):
        with torch.no_grad():
            return float(model(torch.tensor([[10, 11, 12]])).logits[0, -1].softmax(-1)[ids])

    before = chance(5), chance(8)
    learn(model, [episode(0, 1.0, (5,)), episode(0, 0.0, (8,))], make_config())
    assert chance(5) > before[0]
    assert chance(8) < before[1]


# Where there is nothing to learn, and where there is too much.


def test_nothing_is_computed_where_nothing_can_be_learned(tiny):
    report = update(
        learner_of(load_local_policy(tiny).model), None, None, [episode(), episode()], [np.zeros(1)] * 2,
        make_config(), "here",
    )  # fmt: skip
    assert report == {"spread": 0.0, "skipped": 1}


def test_what_is_asked_for_beside_goes_into_every_update(tiny):
    model = load_local_policy(tiny).model
    weight = model.get_output_embeddings().weight
    calls = []

    def extra():
        (1e-6 * weight.sum()).backward()
        calls.append(weight.grad.clone())
        return {"replay": float(len(calls))}

    before = weight.detach().clone()
    assert learn(model, [episode(), episode()], make_config(), extra_loss=extra)["replay"] == 1.0
    assert torch.allclose(before - weight, torch.full_like(weight, 1e-6), atol=1e-7)
    learn(model, BATCH, make_config(), extra_loss=extra)
    assert len(calls) == 2
    assert calls[-1].std() > 0  # the policy's gradient is there too


@pytest.mark.parametrize("logprob", [float("nan"), -80.0], ids=["no number", "exploding"])
def test_a_loss_that_is_no_number_or_explodes_stops_and_leaves_the_weights(tiny, logprob):
    model = load_local_policy(tiny).model
    before = [p.detach().clone() for p in model.parameters()]
    bad = [episode(0, 1.0), episode(0, 0.0, logprob=logprob)]
    with pytest.raises(NonFiniteLoss, match=r"loss became .* at here"):
        learn(model, bad, make_config(), optimizer=torch.optim.Adam(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


# PPO's values.


def test_a_value_is_read_at_the_last_token_of_the_prompt(tiny):
    model = load_local_policy(tiny).model
    sequences = [(n, next(one.sequences())) for n, one in enumerate(BATCH)]
    places, state_BW = states_before_replies(model, sequences, "fp32", World())
    assert sorted(places) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (5, 0)]
    ids = torch.tensor(sequences[0][1].ids_T[None].astype(np.int64))
    with torch.no_grad():
        hidden = model.get_decoder()(input_ids=ids).last_hidden_state[0]
    assert torch.allclose(state_BW[places.index((0, 0))], hidden[1], atol=1e-5)
    assert torch.allclose(state_BW[places.index((0, 1))], hidden[7], atol=1e-5)


def test_ppo_learns_values(tiny, monkeypatch):
    monkeypatch.setattr("gentax.training.policy_gradient.CRITIC_LEARNING_RATE", 0.1)  # eight steps, not hundreds
    config = make_config(advantage_estimator="ppo")
    model = load_local_policy(tiny).model
    critic = Critic(model)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    errors = [learn(model, BATCH, config, optimizer=still, critic=critic)["value_loss"] for _ in range(8)]
    # Without values the targets of the only success of two steps are 0.95 and 1.
    assert errors[0] == pytest.approx((0.95**2 + 1 + 1) / 8)
    # What is left are two states from which one of two episodes succeeded.
    assert errors[-1] == pytest.approx(4 * 0.5**2 / 8, abs=1e-2)


def test_a_process_without_episodes_learns_with_the_critics_of_the_others(tiny, monkeypatch):
    """Its tensors are sums over processes: a process that left them out would stop all others."""
    calls = []
    monkeypatch.setattr(Critic, "learn", lambda critic, *states: calls.append(len(states[0])) or 0.0)
    model = load_local_policy(tiny).model
    learn(model, [], make_config(advantage_estimator="ppo"), critic=Critic(model))
    assert calls == [0]


def test_a_critic_goes_on_where_it_stopped(tiny):
    model = load_local_policy(tiny).model
    torch.manual_seed(0)
    state_BW, return_B = torch.randn(16, model.config.hidden_size), torch.rand(16)
    whole, stopped = Critic(model), Critic(model)
    assert (whole.values(state_BW) == 0).all()
    for critic in (whole, stopped):
        critic.learn(state_BW, return_B, World())
    continued = Critic(model)
    continued.load_state({name: tensor.clone() for name, tensor in stopped.state().items()})
    for critic in (whole, continued):
        critic.learn(state_BW, return_B, World())
    assert torch.equal(whole.values(state_BW), continued.values(state_BW))
    Critic(model).load_state(Critic(model).state())  # before its first step too


# Several processes.


@dataclass(frozen=True)
class Threads(World):
    """Threads that pass for processes."""

    board: list = field(default_factory=list)
    gate: threading.Barrier | None = None

    def gather(self, value):
        self.board[self.rank] = value
        self.gate.wait(60)
        found = list(self.board)
        self.gate.wait(60)
        return found

    def sum(self, value):
        return sum(self.gather(value))

    def max(self, value):
        return max(self.gather(value))

    def sum_gradients(self, parameters):
        for parameter in parameters:
            grads = [g for g in self.gather(parameter.grad) if g is not None]
            total = torch.stack(grads).sum(0) if grads else None
            self.gate.wait(60)
            parameter.grad = total


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    [
        {"beta": 0.1},
        {"beta": 0.1, "loss_aggregation": "sequence", "entropy_coef": 0.1},
        {"advantage_estimator": "reinforce++", "beta": 0.1},
        {"advantage_estimator": "ppo"},
    ],
    ids=lambda algorithm: algorithm.get("advantage_estimator", "grpo"),
)
def test_several_processes_learn_what_one_does(tiny, algorithm):
    config = make_config(**algorithm)
    alone = shaken(tiny)
    expected = learn(alone, BATCH, config, load_local_policy(tiny).model, critic=Critic(alone))
    shares = [BATCH[2:4], BATCH[:2] + BATCH[4:]]  # the first has no spread, and for GRPO nothing to do
    board, gate = [None, None], threading.Barrier(2)
    models, found = [shaken(tiny), shaken(tiny)], [None, None]

    def process(rank):
        world = Threads(rank, 2, board=board, gate=gate)
        critic = Critic(models[rank])
        found[rank] = learn(models[rank], shares[rank], config, references[rank], world=world, critic=critic)

    references = [load_local_policy(tiny).model, load_local_policy(tiny).model]
    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert found[0] is not None
    same = set(expected) - {"distinct_tokens", "computed_tokens"}
    assert {k: found[0][k] for k in same} == pytest.approx({k: expected[k] for k in same}, rel=1e-3, abs=1e-6)
    for model in models:
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone.parameters(), model.parameters(), strict=True))
