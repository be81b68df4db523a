"""Whatever the architecture, recorded log-probabilities are those of the model's own forward pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from test_sampling import expected as filtered_probabilities
from zoo import ZOO, policy_for

from gentax.core import Task, UsageError
from gentax.models.decoding import LLAMA_LIKE, HFDecoder, LlamaDecoder, UncachedDecoder, select_decoder
from gentax.models.options import SamplingParams, SamplingRequest
from gentax.rollouts import RolloutConfig, rollout

# Rows of two lengths: those of level `one` are over after a step, and their slots go to other episodes.
TASKS = [*(Task("toy", "three", "train", n) for n in range(2)), *(Task("toy", "one", "train", n) for n in range(2))]


FAST = ("llama", "gemma3", "qwen3.5")  # one for each decoder and kind of memory


@pytest.mark.parametrize("context", ["full", "window(2)"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ZOO])
def test_log_probabilities_are_those_of_the_forward_pass(name, context, toy):
    policy = policy_for(name)
    assert not isinstance(policy.decoder, UncachedDecoder)
    config = RolloutConfig(context=context, temperature=1.0, max_new_tokens=8)
    episodes = rollout(policy, TASKS, config=config, samples=2, parallel=5)
    assert max(episode.length for episode in episodes) > 3
    off, tokens, lengths = 0.0, 0, set()
    for episode in episodes:
        for sequence in episode.sequences():
            with torch.no_grad():
                ids = torch.tensor(sequence.ids_T[None].astype(np.int64))
                logp = policy.model(ids, use_cache=False).logits[0].log_softmax(-1)
            at = np.flatnonzero(sequence.sampled_T)
            off = max(off, np.abs(sequence.logprobs_T[at] - logp[at - 1, sequence.ids_T[at]].numpy()).max())
            tokens += len(at)
        lengths |= {step.written for step in episode.steps}
    assert off < 1e-4
    assert tokens > 60
    assert len(lengths) > 1  # rows left the batch at different times


@pytest.mark.slow
def test_the_llama_decoder_is_selected_exactly_where_it_is_exact():
    lean = {name for name in ZOO if isinstance(policy_for(name).decoder, LlamaDecoder)}
    exact = {"llama", "llama-llama3-rope", "llama-yarn", "llama-dynamic-rope", "llama-biases", "qwen2", "qwen3"}
    assert lean == exact


def request(slot, prompt, seed=0, new=6, **params):
    uniforms = np.random.default_rng(seed).random(new)
    return SamplingRequest(slot, np.asarray(prompt, np.int32), SamplingParams(**params), uniforms)


def expected_logprobs(model, prompt, ids):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0]
    logp = logits.log_softmax(-1)
    return [float(logp[len(prompt) - 1 + n, token]) for n, token in enumerate(ids)]


ATTENTION, WINDOW, RECURRENT = "gpt-neox", "gemma3", "qwen3.5"
KINDS = pytest.mark.parametrize("name", [ATTENTION, WINDOW, RECURRENT, "falcon-h1"])
ALL_KINDS = pytest.mark.parametrize("name", [ATTENTION, WINDOW, RECURRENT, "falcon-h1", "llama", "qwen3"])


def decoder_of(model):
    return (LlamaDecoder if model.config.model_type in LLAMA_LIKE else HFDecoder)(model)


@ALL_KINDS
def test_a_row_s_tokens_do_not_depend_on_the_rest_of_the_batch(name):
    model = ZOO[name]()
    prompts = [np.random.default_rng(s).integers(0, 300, 12 + 5 * s) for s in range(6)]
    asked = [request(s, prompts[s], seed=s, new=3 + s) for s in range(6)]
    together = decoder_of(model).sample(asked, lambda ids: False)
    for one, sample in zip(asked, together, strict=True):
        (alone,) = decoder_of(model).sample([one], lambda ids: False)
        assert alone.ids.tolist() == sample.ids.tolist()
        assert np.allclose(alone.logprobs, sample.logprobs, atol=1e-5)


@ALL_KINDS
def test_a_rewritten_history_is_decoded_correctly(name):
    """What a policy does when the history is rewritten, a slot rests, or thoughts are cut out."""
    model, rng = ZOO[name](), np.random.default_rng(3)
    decoder = decoder_of(model)
    talks = {slot: rng.integers(0, 300, 30 + slot).tolist() for slot in range(4)}
    talks[1] = talks[0].copy()
    for turn in range(5):
        slots = [slot for slot in talks if slot != turn]
        samples = decoder.sample(
            [request(slot, talks[slot], seed=10 * turn + slot) for slot in slots], lambda ids: ids[-1] % 4 == 0
        )
        for slot, sample in zip(slots, samples, strict=True):
            expected = expected_logprobs(model, talks[slot], sample.ids.tolist())
            assert np.allclose(sample.logprobs, expected, atol=1e-4)
            more = rng.integers(0, 300, 1 + 4 * slot).tolist()
            kept = talks[slot][:25] if turn == 2 else talks[slot]
            talks[slot] = [*kept, *(sample.ids.tolist() if turn != 1 else []), *more]


@KINDS
def test_only_new_tokens_are_computed(name, monkeypatch):
    model, rng = ZOO[name](), np.random.default_rng(4)
    decoder = HFDecoder(model)
    computed = []
    forward = decoder._forward
    monkeypatch.setattr(
        decoder,
        "_forward",
        lambda block, first, last, ids, *rest: computed.append(ids.size) or forward(block, first, last, ids, *rest),
    )
    rules = rng.integers(0, 300, 200).tolist()
    talks = [[*rules, *rng.integers(0, 300, 10).tolist()] for _ in range(4)]
    samples = decoder.sample([request(s, talk, new=1) for s, talk in enumerate(talks)], lambda ids: True)
    assert sum(computed) == 200 + 4 * 10  # the rules once
    computed.clear()
    talks = [[*talk, *sample.ids.tolist(), 7, 8, 9] for talk, sample in zip(talks, samples, strict=True)]
    decoder.sample([request(s, talk, new=1) for s, talk in enumerate(talks)], lambda ids: True)
    assert sum(computed) == 4 * 4
    computed.clear()
    decoder.sample([request(s, [*rules, 1, 2, 3 + s], new=1) for s in range(4)], lambda ids: True)  # `window(k)`
    assert sum(computed) <= 4 * 3
    computed.clear()
    decoder.sample([request(s, [*rules, 1, 2, 3], new=1) for s in range(4)], lambda ids: True)
    assert sum(computed) <= 3  # one prompt


@ALL_KINDS
def test_new_weights_are_used_after_clear_cache(name):
    model = ZOO[name]()
    decoder = decoder_of(model)
    prompt = list(range(30))
    decoder.sample([request(0, prompt)], lambda ids: False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    decoder.clear_cache()
    (sample,) = decoder.sample([request(0, prompt)], lambda ids: False)
    assert np.allclose(sample.logprobs, expected_logprobs(model, prompt, sample.ids.tolist()), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_the_generation_config_is_ignored(name):
    def plays(**settings):
        policy = policy_for(name)
        for key, value in settings.items():
            setattr(policy.model.generation_config, key, value)
        return policy.decoder.sample([request(0, range(20), temperature=1.5, new=20)], lambda ids: False)[0]

    plain = plays()
    swayed = plays(top_p=0.1, top_k=1, repetition_penalty=1.8, temperature=0.1, do_sample=False, min_p=0.9)
    assert plain.ids.tolist() == swayed.ids.tolist()
    assert np.array_equal(plain.logprobs, swayed.logprobs)


@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba2"])
def test_every_decoder_samples_within_the_filters(name):
    policy = policy_for(name)
    params = {"temperature": 0.7, "top_k": 10, "top_p": 0.6, "min_p": 0.02}
    (sample,) = policy.decoder.sample([request(0, range(20), new=30, **params)], lambda ids: False)
    whole = torch.tensor([[*range(20), *sample.ids.tolist()]])
    with torch.no_grad():
        logits = policy.model(whole, use_cache=False).logits[0, 19:-1]
    for row, token, logp in zip(logits, sample.ids.tolist(), sample.logprobs.tolist(), strict=True):
        p = filtered_probabilities(row, SamplingParams(**params))
        assert abs(np.log(p[token]) - logp) < 1e-4


def test_a_model_without_a_cache_can_still_be_played(monkeypatch):
    model = ZOO["gpt2"]()
    monkeypatch.setattr("gentax.models.decoding.hf_decoder.template_layers", lambda *_: [])
    with pytest.warns(UserWarning, match="generation is slow"):
        decoder = select_decoder(model)
    assert isinstance(decoder, UncachedDecoder)
    asked = [request(s, range(10 + s), seed=s, new=4 + s) for s in range(3)]
    for one, sample in zip(asked, decoder.sample(asked, lambda ids: False), strict=True):
        expected = expected_logprobs(model, one.prompt.tolist(), sample.ids.tolist())
        assert np.allclose(sample.logprobs, expected, atol=1e-4)


def test_a_decoder_with_wrong_logits_is_not_selected(monkeypatch):
    """What is wrong is found by its numbers, whatever the model is called."""
    monkeypatch.setattr("gentax.models.decoding.llama_model.LlamaLayer.finish", lambda self, x_N, mixed_N: x_N)
    assert isinstance(select_decoder(ZOO["llama"]()), HFDecoder)


@pytest.mark.parametrize("name", ["llama", "qwen3.5"])
def test_adapters_that_are_not_merged_are_played(name):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(ZOO[name](), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    decoder = select_decoder(model.eval())
    assert isinstance(decoder, HFDecoder)  # at first an adapter changes nothing, so numbers alone would not tell
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.3)
    (sample,) = decoder.sample([request(0, range(30))], lambda ids: False)
    assert np.allclose(sample.logprobs, expected_logprobs(model, range(30), sample.ids.tolist()), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3.5", "gpt-oss"])
def test_bfloat16_is_played_with_a_cache(name):
    model = ZOO[name]().bfloat16()
    decoder = select_decoder(model)
    assert not isinstance(decoder, UncachedDecoder)
    prompts = [list(range(20 + s)) for s in range(3)]
    samples = decoder.sample([request(s, prompt) for s, prompt in enumerate(prompts)], lambda ids: False)
    for prompt, sample in zip(prompts, samples, strict=True):
        expected = expected_logprobs(model.float(), prompt, sample.ids.tolist())
        assert np.abs(sample.logprobs - expected).mean() < 0.2  # experts change with the last bit
        model.bfloat16()


def test_a_finished_conversation_is_dropped_from_the_cache():
    decoder = HFDecoder(policy_for("gemma3").model)
    rng = np.random.default_rng(0)
    asked = [SamplingRequest(slot, rng.integers(2, 60, 9), SamplingParams(), rng.random(2)) for slot in range(4)]
    decoder.sample(asked, lambda ids: False)
    decoder.sample(asked[:1], lambda ids: False)
    assert set(decoder._slots) == {0}


def test_logits_that_are_not_finite_are_refused():
    model = copy.deepcopy(policy_for("gemma3").model).bfloat16()
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = float("inf")
    with pytest.raises(UsageError, match="not finite in bfloat16: say --dtype"):
        select_decoder(model)
