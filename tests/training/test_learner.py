"""What is trained and what plays: the same weights, whatever the number format, adapters and chat template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gentax.core import Task
from gentax.models.decoding import HFDecoder, LlamaDecoder
from gentax.models.options import ModelOptions, SamplingParams, SamplingRequest
from gentax.models.scoring import make_batches, state_logits
from gentax.policies.local import LocalPolicy, load_local_policy
from gentax.rollouts import RolloutConfig, rollout
from gentax.training import TrainConfig
from gentax.training.config import LoraConfig
from gentax.training.learner import learner_of
from gentax.training.run_folder import save_model

FULL, LORA = TrainConfig(), TrainConfig(lora=LoraConfig(r=4))
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny16(tiny, tmp_path_factory) -> Path:
    """The tiny model, stored in bf16."""
    policy = load_local_policy(tiny)
    folder = tmp_path_factory.mktemp("models16")
    save_model(policy.model.to(torch.bfloat16), policy.tokenizer, folder)
    return folder


@pytest.fixture(scope="session", params=["qwen2", "qwen3"])
def chat(request, tmp_path_factory) -> Path:
    """A random model of a family that people train, with the chat template and tokens of that family, in bf16."""
    from transformers import PreTrainedTokenizerFast

    from gentax.training.pretrain import train_tokenizer

    raw = train_tokenizer(iter(["The word is red. green blue gold No. Yes. Say the word you see."] * 20), 300)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw.backend_tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    folder = tmp_path_factory.mktemp(request.param)
    model = random_model(request.param, tokenizer, head_dim=16, eos_token_id=tokenizer.eos_token_id)
    save_model(model.to(torch.bfloat16), tokenizer, folder)
    return folder


def random_model(kind: str, tokenizer, **settings):
    """A small random model of an architecture."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **sizes, **heads, **settings)
    return AutoModelForCausalLM.from_config(config).eval()


def logits_of(model) -> torch.Tensor:
    ids = np.random.default_rng(0).integers(6, 200, 40).astype(np.int32)
    (batch,) = make_batches(model, [ids], [np.ones(40, bool)])
    with torch.no_grad():
        return state_logits(model, batch, "fp32")


def train(learner, steps=3, lr=0.05) -> None:
    """Take steps of gradient descent towards nothing in particular."""
    ids = np.random.default_rng(1).integers(6, 200, 60).astype(np.int32)
    (batch,) = make_batches(learner.model, [ids], [np.ones(60, bool)])
    for _ in range(steps):
        logp_UV = state_logits(learner.model, batch, "fp32").log_softmax(-1)
        (-logp_UV[batch.state_index_S, batch.token_S].mean()).backward()
        with torch.no_grad():
            for parameter in learner.parameters:
                parameter -= lr * parameter.grad
                parameter.grad = None


def copies(tensors) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def same(some, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_a_model_in_fp32_is_trained_where_it_plays(toy, tiny):
    policy = load_local_policy(tiny)
    learner = learner_of(policy, FULL)
    assert learner.model is policy.model
    assert learner.parameters == list(policy.model.parameters())
    assert learner.start_model() is None
    task = [Task("toy", "three", "train", 0)]
    config = RolloutConfig(temperature=1.0, max_new_tokens=6)
    before = rollout(policy, task, config=config)[0]
    train(learner, lr=1.0)
    learner.publish()
    after = rollout(policy, task, config=config)[0]
    fresh = load_local_policy(tiny)
    fresh.model.load_state_dict(learner.weights())
    alone = rollout(fresh, task, config=config)[0]
    tokens = [[step.tokens.logprobs.tolist() for step in one.steps] for one in (before, after, alone)]
    assert tokens[0] != tokens[1]
    assert tokens[1] == tokens[2]  # nothing of the old weights was left in a cache


def test_small_steps_are_not_lost_in_bf16_and_the_player_follows(tiny16):
    policy = load_local_policy(tiny16)
    player = list(policy.model.parameters())
    assert {p.dtype for p in player} == {torch.bfloat16}
    learner = learner_of(policy, FULL)
    assert {p.dtype for p in learner.parameters} == {torch.float32}
    before = copies(player)
    with torch.no_grad():
        for _ in range(100):
            for parameter in learner.parameters:
                parameter += 1e-4  # a norm's weight of 1 does not feel it in bf16
    assert same(player, before)
    learner.publish()
    assert {p.dtype for p in policy.model.parameters()} == {torch.bfloat16}
    named = dict(policy.model.named_parameters())
    for theirs, mine in zip(named.values(), learner.parameters, strict=True):
        off = (theirs.detach().double() - mine.detach()).abs()
        assert (off <= 2**-7 * mine.detach().abs()).all()  # a neighbour in bf16
    assert named["model.norm.weight"][0].item() > 1.005


@pytest.mark.slow
@pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])
def test_what_was_learned_in_small_steps_is_played_in_bf16(tiny16, config):
    """The steps of a learning rate of RL: rounded to the nearest number nearly none of them would reach the player."""
    policy = load_local_policy(tiny16)
    start = copies(policy.model.parameters())
    learner = learner_of(policy, config)
    train(learner, steps=1, lr=0.05 if config.lora else 0.0)  # LoRA's second factor is no longer zero
    with torch.no_grad():
        for parameter in learner.parameters:
            parameter.mul_(1e-2) if config.lora else parameter.add_(3e-6)
    learner.publish()
    exact = load_local_policy(tiny16, ModelOptions(dtype="float32"))
    other = learner_of(exact, config)
    with torch.no_grad():
        for mine, theirs in zip(other.parameters, learner.parameters, strict=True):
            mine.copy_(theirs)
    other.publish()

    def change(weights) -> torch.Tensor:
        return torch.cat([(a.detach().double() - b).flatten() for a, b in zip(weights, start, strict=True)])

    played, learned = change(policy.model.parameters()), change(exact.model.parameters())
    nearest = change([p.detach().bfloat16() for p in exact.model.parameters()])
    shares = [float((one * learned.sign()).sum() / learned.abs().sum()) for one in (nearest, played)]
    assert shares[0] < 0.5
    assert shares[1] == pytest.approx(1.0, abs=0.1)


def test_tied_weights_are_written_once(tiny, tmp_path):
    from safetensors import safe_open

    policy = load_local_policy(tiny)
    assert policy.model.config.tie_word_embeddings
    save_model(policy.model, policy.tokenizer, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        sizes = {name: file.get_tensor(name).numel() for name in file.keys()}  # noqa: SIM118  it is no mapping
    assert sum(sizes.values()) == sum(p.numel() for p in policy.model.parameters())
    assert torch.equal(logits_of(load_local_policy(tmp_path).model), logits_of(policy.model))


def test_adapters_alone_are_trained_and_the_player_has_them_merged(tiny):
    policy = load_local_policy(tiny)
    start = logits_of(load_local_policy(tiny).model)
    learner = learner_of(policy, LORA)
    names = [name for name, p in learner.model.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    assert len(names) == 2 * 7 * len(policy.model.get_decoder().layers)  # not the head, which is tied
    frozen = {name: p for name, p in learner.model.named_parameters() if not p.requires_grad}
    before = copies(frozen.values())
    learner.publish()
    assert torch.allclose(logits_of(policy.model), start, atol=1e-6)  # at first they add nothing
    train(learner)
    assert same(frozen.values(), before)
    assert torch.allclose(logits_of(policy.model), start, atol=1e-6)
    learner.publish()
    trained = logits_of(learner.model)
    assert float((trained - start).abs().max()) > 0.01
    assert torch.allclose(logits_of(policy.model), trained, atol=1e-4)


def test_publishing_again_and_again_changes_nothing(tiny16):
    policy = load_local_policy(tiny16)
    learner = learner_of(policy, LORA)
    train(learner)
    learner.publish()
    once = copies(policy.model.parameters())
    for _ in range(5):
        learner.publish()
    assert same(policy.model.parameters(), once)


def test_the_start_of_adapters_is_kept_and_takes_no_memory(tiny):
    policy = load_local_policy(tiny)
    start = logits_of(policy.model)
    learner = learner_of(policy, LORA)
    train(learner)
    learner.publish()
    assert torch.equal(logits_of(learner.start_model()), start)
    held = {p.data_ptr() for p in learner.model.parameters()}
    assert all(p.data_ptr() in held for p in learner.start_model().parameters())
    embedding = policy.model.get_input_embeddings().weight.data_ptr()
    assert embedding in held  # what has no adapter is the player's own


def test_adapters_begin_alike_and_leave_the_global_generator_alone(tiny):
    first = learner_of(load_local_policy(tiny), LORA)
    state = torch.get_rng_state()
    torch.rand(3)
    second = learner_of(load_local_policy(tiny), LORA)
    assert same(first.parameters, second.parameters)
    torch.set_rng_state(state)
    assert torch.equal(torch.get_rng_state(), state)
    other = learner_of(load_local_policy(tiny), TrainConfig(seed=1, lora=LORA.lora))
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(first.parameters, other.parameters)


@pytest.mark.slow
@pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("stored", ["tiny", "tiny16"])
def test_a_checkpoint_is_a_model_folder_and_a_continued_learner_goes_on(request, tmp_path, stored, config):
    folder = request.getfixturevalue(stored)
    policy = load_local_policy(folder)
    learner = learner_of(policy, config)
    train(learner)
    learner.publish()
    save_model(policy.model, policy.tokenizer, tmp_path, learner.weights())
    state = {name: tensor.clone() for name, tensor in learner.state().items()}
    saved = load_local_policy(tmp_path)
    assert torch.equal(logits_of(saved.model), logits_of(policy.model))
    assert {p.dtype for p in saved.model.parameters()} == {p.dtype for p in policy.model.parameters()}

    again = load_local_policy(folder)
    other = learner_of(again, config)
    other.load(saved.model.state_dict(), state)
    assert same(other.parameters, learner.parameters)
    assert same(again.model.parameters(), policy.model.parameters())
    for one in (learner, other):
        train(one)
        one.publish()
    assert same(again.model.parameters(), policy.model.parameters())


@pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])
def test_what_a_chat_model_sampled_is_what_is_trained_on(toy, chat, config):
    policy = load_local_policy(chat)
    learner = learner_of(policy, config)
    train(learner)
    learner.publish()
    tasks = [Task("toy", "three", "train", i) for i in range(4)]
    episodes = rollout(policy, tasks, config=RolloutConfig(temperature=1.0, max_new_tokens=8, horizon=3))
    sequences = [s for e in episodes for s in e.sequences()]
    assert len(sequences) == 4  # one conversation each: it was never tokenized again
    opening = policy.tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    for episode, sequence in zip(episodes, sequences, strict=True):
        said = np.concatenate([step.tokens.sampled for step in episode.steps])
        assert (sequence.ids_T[sequence.sampled_T] == said).all()
        starts = np.flatnonzero(np.diff(sequence.sampled_T.astype(int)) == 1) + 1
        assert len(starts) == episode.length
        for at in starts:
            assert sequence.ids_T[at - len(opening) : at].tolist() == opening
    for batch in make_batches(learner.model, [s.ids_T for s in sequences], [s.sampled_T for s in sequences]):
        old_S = np.concatenate([sequences[i].logprobs_T[sequences[i].sampled_T] for i in batch.sequences])
        with torch.no_grad():
            logp_UV = state_logits(learner.model, batch, "fp32").log_softmax(-1)
        assert np.allclose(logp_UV[batch.state_index_S, batch.token_S].numpy(), old_S, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "window"), [("mistral", None), ("mistral", 8), ("gemma3_text", 8)])
def test_a_model_plays_on_as_before_when_training_changes_its_attention(tiny, kind, window):
    tokenizer = load_local_policy(tiny).tokenizer
    model = random_model(kind, tokenizer, initializer_range=0.5, sliding_window=window, pad_token_id=0)
    policy = LocalPolicy(model, tokenizer)
    assert isinstance(policy.decoder, LlamaDecoder if window is None else HFDecoder)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(6, 200, length).astype(np.int32) for length in (5, 30)]  # the first one is padded
    asks = [SamplingRequest(slot, prompt, SamplingParams(1.0), np.full(4, 0.3)) for slot, prompt in enumerate(prompts)]
    before, after = [], []
    for found in (before, after):
        found += [sample.logprobs for sample in policy.decoder.sample(asks, lambda ids: False)]
        learner = learner_of(policy, FULL)
        train(learner, lr=0.0)
        learner.publish()  # and what was cached is forgotten
    assert policy.model.config._attn_implementation == "gentax_tree"
    assert np.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])
def test_gradient_checkpointing_computes_layers_again_and_changes_no_bit(tiny, config):
    found, calls = [], []
    for again in (False, True):
        learner = learner_of(load_local_policy(tiny), config, gradient_checkpointing=again)
        layers = learner.model.get_decoder().layers
        made = []
        layers[0].mlp.register_forward_pre_hook(lambda *_, made=made: made.append(1))
        train(learner, steps=2)
        found.append(copies(learner.parameters))
        calls.append(len(made))
        learner.publish()
        assert torch.allclose(logits_of(learner.policy.model), logits_of(learner.model), atol=1e-4)
    assert same(*found)
    assert calls[1] == 2 * calls[0]
