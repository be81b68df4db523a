"""The fast decoder must say what the stock module would: same distributions, whatever is cached, shared or copied."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from gentax.models.decoding import LlamaDecoder
from gentax.models.decoding.llama_decoder import CudaGraphStep, plan_prefill
from gentax.models.options import SamplingParams, SamplingRequest

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip


def model_of(kind: str):
    torch.manual_seed(0)
    model = (
        LlamaForCausalLM(LlamaConfig(**SMALL))
        if kind == "llama"
        else Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8))
    )
    with torch.no_grad():  # sharper than at birth, so that a wrong position or mask shows
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def ask(slot, prompt, rng, temperature=1.0, new=6):
    return SamplingRequest(slot, np.asarray(prompt, np.int32), SamplingParams(temperature), rng.random(new))


def stock_logprobs(model, prompt, ids, temperature=1.0):
    whole = torch.tensor([[*prompt, *ids]])
    with torch.no_grad():
        logp = (model(whole).logits[0] / temperature).log_softmax(-1)
    return [float(logp[len(prompt) - 1 + n, token]) for n, token in enumerate(ids)]


def test_a_row_stops_at_its_stop_and_at_its_token_limit():
    decoder, rng = LlamaDecoder(model_of("llama")), np.random.default_rng(2)
    samples = decoder.sample([ask(s, [1, 2, 3 + s], rng, new=9) for s in range(8)], stop=lambda ids: ids[-1] % 4 == 0)
    for sample in samples:
        assert len(sample.ids) <= 9
        assert all(token % 4 for token in sample.ids[:-1])
        assert len(sample.ids) == 9 or sample.ids[-1] % 4 == 0


def test_temperature_zero_takes_the_likeliest_token():
    model, rng = model_of("llama"), np.random.default_rng(4)
    sample = LlamaDecoder(model).sample([ask(0, [5, 6, 7], rng, temperature=0.0, new=1)], stop=lambda ids: True)[0]
    with torch.no_grad():
        assert sample.ids[0] == int(model(torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())


def test_two_decoders_of_one_model_share_its_weights():
    model = model_of("llama")
    LlamaDecoder(model)
    decoder, rng = LlamaDecoder(model), np.random.default_rng(6)
    sample = decoder.sample([ask(0, [1, 2, 3], rng)], stop=lambda ids: False)[0]
    assert np.allclose(sample.logprobs, stock_logprobs(model, [1, 2, 3], sample.ids.tolist()), atol=2e-4)


def test_a_common_prefix_of_prompts_is_computed_once():
    model, rng = model_of("llama"), np.random.default_rng(7)
    rules, tasks = rng.integers(0, 64, 30), rng.integers(0, 64, (3, 10))
    prompts = [np.concatenate([rules, tasks[n % 3]]).astype(np.int32) for n in range(6)]
    work = plan_prefill(prompts, [0] * 6, chunk=16)
    assert sum(len(part.ids_N) for part in work.passes) == len({tuple(p[: n + 1]) for p in prompts for n in range(40)})
    # A row that has the rules gives them to one that has nothing, and only what is new is computed.
    for kept in ([30, 0], [0, 30]):
        work = plan_prefill(prompts[:2], kept, chunk=1024)
        assert len(work.copies) == 1
        assert sum(len(part.ids_N) for part in work.passes) == 20
    decoder = LlamaDecoder(model)
    decoder.sample([ask(0, prompts[0], rng)], stop=lambda ids: False)
    samples = decoder.sample([ask(n, p, rng) for n, p in enumerate(prompts)], stop=lambda ids: False)
    for prompt, sample in zip(prompts, samples, strict=True):
        expected = stock_logprobs(model_of("llama"), prompt.tolist(), sample.ids.tolist())
        assert np.allclose(sample.logprobs, expected, atol=2e-4)


def test_a_reply_sampled_in_a_copied_row_is_in_the_cache_afterwards():
    model, rng = model_of("llama"), np.random.default_rng(8)
    decoder = LlamaDecoder(model)
    asks = [ask(s, rng.integers(0, 64, 20), rng, new=12 if s == 5 else 2) for s in range(6)]
    first = decoder.sample(asks, stop=lambda ids: False)[5]
    assert len(first.ids) == 12
    prompt = np.concatenate([asks[5].prompt, first.ids, [1, 2, 3]]).astype(np.int32)
    assert decoder.cache.cached_length(5, prompt) == 20 + 11
    sample = decoder.sample([ask(5, prompt, rng)], stop=lambda ids: False)[0]
    assert np.allclose(sample.logprobs, stock_logprobs(model, prompt.tolist(), sample.ids.tolist()), atol=2e-4)


def test_decoding_with_fixed_shapes_gives_the_same_tokens():
    model = model_of("qwen3")
    plain, padded = LlamaDecoder(model), LlamaDecoder(model)
    padded.recorder = CudaGraphStep(padded.weights)  # without a GPU the padded step is run unrecorded
    for turn in range(2):
        rng = np.random.default_rng(9 + turn)
        prompts = [rng.integers(0, 64, 10 + s + 20 * turn) for s in range(11)]
        asks = [ask(s, prompts[s], rng, temperature=s % 2, new=3 + s) for s in range(turn, 11 - 4 * turn)]
        for a, b in zip(*(d.sample(asks, stop=lambda ids: False) for d in (plain, padded)), strict=True):
            assert a.ids.tolist() == b.ids.tolist()
            assert np.allclose(a.logprobs, b.logprobs, atol=1e-5)


def test_a_context_of_a_billion_tokens_takes_no_memory_before_it_is_used():
    model, rng = LlamaForCausalLM(LlamaConfig(**SMALL | {"max_position_embeddings": 10**9})), np.random.default_rng(5)
    decoder = LlamaDecoder(model.eval())
    (sample,) = decoder.sample([ask(0, rng.integers(0, 64, 300), rng)], stop=lambda ids: False)
    assert len(sample.ids) == 6
    assert len(decoder.weights.cos) == decoder.cache.rows.length == 384


def test_rows_with_equal_replies_are_separated_where_they_differ():
    model, rng = model_of("llama"), np.random.default_rng(10)
    prompt = rng.integers(0, 64, 20)
    # The same numbers say the same; one row may write less, and one goes another way at its third token.
    numbers = np.tile(rng.random(8), (4, 1))
    numbers[3, 2:] = rng.random(6)
    asks = [
        SamplingRequest(s, prompt.astype(np.int32), SamplingParams(3.0), numbers[s][: 2 if s == 1 else 8])
        for s in range(4)
    ]
    samples = LlamaDecoder(model).sample(asks, stop=lambda ids: False)
    assert samples[0].ids.tolist() == samples[2].ids.tolist()
    assert samples[1].ids.tolist() == samples[0].ids[:2].tolist()
    assert samples[3].ids[2:].tolist() != samples[0].ids[2:].tolist()
    for sample in samples:
        expected = stock_logprobs(model_of("llama"), prompt.tolist(), sample.ids.tolist(), 3.0)
        assert np.allclose(sample.logprobs, expected, atol=2e-4)


def test_cache_memory_follows_the_rows_in_use():
    model, rng = model_of("llama"), np.random.default_rng(2)
    decoder = LlamaDecoder(model)
    decoder.sample([ask(s, [1, 2, 3], rng) for s in range(40)], stop=lambda ids: False)
    assert (decoder.cache.rows.count, decoder.cache.rows.length) == (40, 128)
    before = decoder.reserved_bytes
    decoder.clear_cache()
    talk = rng.integers(0, 64, 100).tolist()
    for length in (100, 180, 240):  # one conversation that grows past what rows had room for
        talk += rng.integers(0, 64, length - len(talk)).tolist()
        (sample,) = decoder.sample([ask(0, talk, rng)], stop=lambda ids: False)
        assert np.allclose(sample.logprobs, stock_logprobs(model_of("llama"), talk, sample.ids), atol=1e-4)
        talk += sample.ids.tolist()
    assert (decoder.cache.rows.count, decoder.cache.rows.length) == (8, 256)
    assert decoder.reserved_bytes == before * 8 * 256 // (40 * 128)
