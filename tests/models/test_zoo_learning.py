"""Learning of every architecture of the zoo, held against plain forward passes of the model itself."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from zoo import ZOO, policy_for, tokenizer

from gentax.core import Episode, Outcome, Step, Task, Tokens
from gentax.models.options import SamplingParams, SamplingRequest
from gentax.models.scoring import make_batches, state_logits, token_logprobs
from gentax.policies.local import LocalPolicy
from gentax.rollouts import RolloutConfig
from gentax.training.config import LoraConfig, PolicyGradientConfig, TrainConfig
from gentax.training.learner import adapted_layers, footprint, learner_of
from gentax.training.policy_gradient import update

pytestmark = pytest.mark.slow

KL, CLIP = 0.3, 0.2
RECIPE = TrainConfig(algorithm=PolicyGradientConfig(beta=KL), rollout=RolloutConfig(temperature=1.0), precision="fp32")
LENGTHS = (22, 9, 13)  # of what is read before each reply: beyond a window of 16, and shorter


def episodes(context: str) -> list[Episode]:
    """Return groups of three with random tokens, which begin alike: conversations, or a prompt for each step."""
    rng = np.random.default_rng(0)
    made = []
    for task in range(2):
        rules = rng.integers(6, 280, 12)
        for sample in range(3):
            steps = []
            for n, length in enumerate(LENGTHS[: 2 + sample % 2]):
                continues = context == "full" and n > 0
                read = rng.integers(6, 280, length)
                shown = read if continues else np.concatenate([rules, read])
                said = rng.integers(6, 280, 2 + sample)
                tokens = Tokens(continues, shown.astype(np.int32), said.astype(np.int32),
                                rng.uniform(-9, -5, len(said)).astype(np.float32))  # fmt: skip
                steps.append(Step("o", "t", "a", float(sample == n), True, tokens=tokens))
            outcome = Outcome.SUCCESS if sample else Outcome.FAILURE
            made.append(Episode(Task("toy", "three", "train", task), 0, "g", tuple(steps), outcome))
    return made


def rewards(played: list[Episode]) -> list[np.ndarray]:
    return [np.array([step.reward for step in episode.steps]) for episode in played]


def perturbed(model):
    """Move the weights a little, so that the policy is not its own reference."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * parameter.abs().mean() * torch.randn_like(parameter)
    return model


def plain_loss(model, reference, played: list[Episode]) -> torch.Tensor:
    """GRPO written out: one sequence at a time through the model's own forward pass."""
    worth = [float(sum(step.reward for step in episode.steps)) for episode in played]
    terms = []
    for i, episode in enumerate(played):
        group = [w for w, other in zip(worth, played, strict=True) if other.task == episode.task]
        advantage = worth[i] - sum(group) / len(group)
        if abs(advantage) < 1e-9:
            continue
        for sequence in episode.sequences():
            ids = torch.from_numpy(sequence.ids_T.astype(np.int64))
            logp = model(ids[None]).logits[0].float().log_softmax(-1)
            with torch.no_grad():
                first = reference(ids[None]).logits[0].float().log_softmax(-1)
            for at in np.flatnonzero(sequence.sampled_T):
                new, start = logp[at - 1, ids[at]], first[at - 1, ids[at]]
                ratio = (new - float(sequence.logprobs_T[at])).exp()
                term = -torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
                terms.append(term + KL * ((start - new).exp() - (start - new) - 1))
    return torch.stack(terms).mean()


def update_gradients(learner, reference, played: list[Episode]) -> tuple[list[torch.Tensor], dict[str, float]]:
    """Make an update; return the gradients that it was made with, before they are cut, and its report."""
    grads: list[torch.Tensor] = []
    optimizer = torch.optim.SGD(learner.parameters, lr=0.0)
    optimizer.register_step_pre_hook(
        lambda *_: grads.extend(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.parameters)
    )
    report = update(learner, reference, optimizer, played, rewards(played), RECIPE, "here")
    cut = max(1.0, report["grad_norm"] + 1e-6)  # `clip_grad_norm_` divides by the norm and a millionth
    return [cut * grad for grad in grads], report


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("name", ZOO)
def test_the_gradient_is_that_of_plain_forward_passes(name):
    policy = policy_for(name)
    reference, own = ZOO[name](), perturbed(ZOO[name]())
    policy.model.load_state_dict(own.state_dict())
    learner = learner_of(policy, RECIPE, gradient_checkpointing=True)
    assert learner.model is policy.model
    for context in ("full", "window(2)"):
        played = episodes(context)
        own.zero_grad()
        loss = plain_loss(own, reference, played)
        loss.backward()
        mine = dict(own.named_parameters())
        expected = flat(
            torch.zeros_like(p) if mine[n].grad is None else mine[n].grad for n, p in learner.model.named_parameters()
        )
        grads, report = update_gradients(learner, reference, played)
        assert report["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-5)
        assert float((flat(grads) - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("name", ZOO)
def test_sampled_tokens_score_their_recorded_log_probabilities(name):
    policy = policy_for(name)
    rng = np.random.default_rng(4)
    asks = [
        SamplingRequest(n, rng.integers(6, 280, 9 + 9 * n).astype(np.int32), SamplingParams(0.7), rng.random(8))
        for n in range(4)
    ]
    samples = policy.decoder.sample(asks, lambda ids: False)
    ids = [np.concatenate([ask.prompt, sample.ids]).astype(np.int32) for ask, sample in zip(asks, samples, strict=True)]
    sampled = [np.arange(len(one)) >= len(ask.prompt) for one, ask in zip(ids, asks, strict=True)]
    for batch in make_batches(policy.model, ids, sampled):
        recorded_S = torch.from_numpy(np.concatenate([samples[i].logprobs for i in batch.sequences]))
        scored_S = token_logprobs(policy.model, batch, "fp32", 0.7).logprob_S
        assert torch.allclose(scored_S, recorded_S, atol=1e-4)
        scored_S.sum().backward()  # what playing has left in the model does not stand in the way of learning


@pytest.mark.parametrize("name", ["gemma3", "gpt2", "gpt-oss", "lfm2", "mixtral", "qwen3-next", "falcon-h1", "mamba2"])
def test_adapter_gradients_are_those_of_plain_passes_and_the_player_has_them_merged(name):
    """Of every kind of layer that is adapted: attention, convolutions with projections, experts, routers, mixers."""
    policy = policy_for(name)
    start = copy.deepcopy(policy.model)
    learner = learner_of(policy, TrainConfig(lora=LoraConfig(r=4)))
    with torch.no_grad():
        torch.manual_seed(2)
        for parameter in learner.parameters:  # those that begin with zeros would hide the others
            parameter += 0.05 * torch.randn_like(parameter)
    learner.publish()
    played = episodes("full")
    ids = [next(episode.sequences()).ids_T for episode in played]
    moved = 0.0
    for one in ids:
        tokens = torch.from_numpy(one[None].astype(np.int64))
        with torch.no_grad():
            trained, plays, before = (m(tokens).logits for m in (learner.model, policy.model, start))
        assert torch.allclose(trained, plays, atol=1e-3)
        moved = max(moved, float((plays - before).abs().max()))
    assert moved > 0.1
    before = dict(start.named_parameters())
    changed = {n.removesuffix(".weight") for n, p in policy.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(adapted_layers(start))

    plain_loss(learner.model, start, played).backward()
    expected = flat(torch.zeros_like(p) if p.grad is None else p.grad for p in learner.parameters)
    for parameter in learner.parameters:
        parameter.grad = None
    grads, _ = update_gradients(learner, learner.start_model(), played)
    assert float((flat(grads) - expected).norm() / expected.norm()) < 1e-3


def test_a_large_vocabulary_is_scored_in_chunks_and_gives_the_same(monkeypatch):
    from gentax.models import scoring
    from gentax.models.scoring import token_kl

    model, start = perturbed(ZOO["gemma2"]()), ZOO["gemma2"]()
    rng = np.random.default_rng(3)
    ids = [rng.integers(6, 380, n).astype(np.int32) for n in (40, 38)]
    ids += [np.append(ids[0][:-1], 7).astype(np.int32)]
    (batch,) = make_batches(model, ids, [rng.random(len(one)) < 0.6 for one in ids])
    found, largest = {}, {}
    real = scoring.logits
    for rows in (10**6, 5):
        monkeypatch.setattr(scoring, "CHUNK", {"cpu": rows * 384})
        sizes = []
        monkeypatch.setattr(scoring, "logits", lambda *args, s=sizes: s.append(len(args[1])) or real(*args))
        model.zero_grad()
        scores = token_logprobs(model, batch, "fp32", 0.7, entropy="gradient")
        kl_U = token_kl(start, model, batch, "fp32")
        (scores.logprob_S.sum() + batch.expand_to_tokens(scores.entropy_U).sum() + kl_U.square().sum()).backward()
        grad = flat(p.grad for p in model.parameters() if p.grad is not None)
        found[rows] = [scores.logprob_S, scores.entropy_U, kl_U, grad]
        largest[rows] = max(sizes)
    assert largest == {10**6: len(batch.state_U), 5: 5}
    for one, other in zip(*found.values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)
    expected = batch.gather_logprobs((state_logits(model, batch, "fp32") / 0.7).log_softmax(-1))
    assert torch.allclose(found[5][0], expected, atol=1e-5)


@pytest.mark.parametrize("lora", [None, LoraConfig(4)], ids=["full", "lora"])
def test_the_memory_of_training_is_estimated_for_every_architecture(lora):
    for name, build in ZOO.items():
        model = build()
        found = footprint(model, TrainConfig(lora=lora), torch.device("cpu"), 1e12)
        learned = learner_of(LocalPolicy(model, tokenizer()), TrainConfig(lora=lora)).parameters
        assert found.trained == sum(p.numel() for p in learned), name
        assert {"weights", "activations", "logits"} <= found.parts.keys()
