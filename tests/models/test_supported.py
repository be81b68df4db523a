"""How a model is scored: as a tree where that is exact, in padded rows elsewhere, and not at all where neither is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from zoo import ZOO

from gentax.core import UsageError
from gentax.models.device import upcast_to_fp32
from gentax.models.scoring import make_batches, scoring_method, token_logprobs

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None,
    "eos_token_id": 1, "initializer_range": 0.3,
}  # fmt: skip
LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [1.0, 3.0, 9.0, 27.0],
    "original_max_position_embeddings": 40,
}  # fmt: skip


def made(kind: str, **settings):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **settings})
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, "tree") for name in ("llama", "gpt2", "granite", "mistral-window")),
        *((name, "padded") for name in ("gemma2", "mamba2", "bloom")),  # Gemma 2 caps attention scores
    ],
)
def test_an_architecture_is_scored_in_the_way_that_is_exact(name, method):
    model = ZOO[name]()
    attention = model.config._attn_implementation
    assert scoring_method(model) == method
    if method == "padded":
        assert model.config._attn_implementation == attention  # it is left as it was


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_sequences_on_both_sides_of_a_long_rope_s_length_are_computed_apart(kind):
    """Beyond it such a model reads all positions otherwise, those of the shorter sequences of a batch too."""
    model, own = (made(kind, rope_parameters=dict(LONG_ROPE), **({} if kind == "llama" else {"sliding_window": None}))
                  for _ in range(2))  # fmt: skip
    rng = np.random.default_rng(0)
    ids = [rng.integers(2, 64, n).astype(np.int32) for n in (37, 38, 39, 41, 44, 90)]
    for batch in make_batches(model, ids, [np.ones(len(one), bool) for one in ids]):
        with torch.no_grad():
            found_S = token_logprobs(model, batch, "fp32").logprob_S
            rows = [torch.from_numpy(ids[i].astype(np.int64)) for i in batch.sequences]
            expected = [own(one[None]).logits[0, :-1].log_softmax(-1).gather(1, one[1:, None])[:, 0] for one in rows]
        assert torch.allclose(found_S, torch.cat(expected), atol=1e-4)


def test_a_window_too_long_to_compare_is_left_to_the_model():
    assert scoring_method(made("mistral", sliding_window=10**8, max_position_embeddings=10**9)) == "padded"


def test_a_model_without_an_exact_scoring_method_is_refused_by_name():
    model = made("llama")
    head = model.lm_head
    model.lm_head = torch.nn.Linear(32, 64)  # its logits follow from how many positions there are
    model.lm_head.forward = lambda state: head(state) * state.shape[1]
    with pytest.raises(UsageError, match="models of type llama cannot be scored here"):
        scoring_method(model)


def test_copies_are_scored_like_the_model():
    import copy

    model = made("llama")
    scoring_method(model)
    calls = []
    twin = copy.deepcopy(model)
    twin.register_forward_hook(lambda *_: calls.append(1))
    assert scoring_method(twin) == "tree"
    assert not calls


@pytest.mark.parametrize(("kind", "settings", "way"), [("llama", {}, "tree"), ("gemma2", {"head_dim": 8}, "padded")])
def test_a_model_stored_in_bf16_is_checked_in_fp32(kind, settings, way):
    model = made(kind, tie_word_embeddings=False, **settings).bfloat16()
    with torch.no_grad():
        model.lm_head.weight *= 100  # now rounding moves log-probabilities by nats
    before = {name: (id(x), x.dtype, x.clone()) for name, x in model.named_parameters()}
    assert scoring_method(model) == way
    for name, x in model.named_parameters():
        assert (id(x), x.dtype) == before[name][:2]
        assert torch.equal(x, before[name][2])


def test_only_one_layer_at_a_time_is_widened():
    model = made("llama", num_hidden_layers=3).bfloat16()
    widened = []
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(
            lambda *_: widened.append([one.mlp.up_proj.weight.dtype for one in model.model.layers])
        )
    with upcast_to_fp32(model):
        logits = model(torch.arange(5)[None]).logits
    assert logits.dtype is torch.float32
    assert [row.count(torch.float32) for row in widened] == [1, 1, 1]
    with pytest.raises(RuntimeError, match="stopped"), upcast_to_fp32(model):
        model.model.layers[1].mlp.register_forward_hook(stop)
        model(torch.arange(5)[None])
    assert {x.dtype for x in model.parameters()} == {torch.bfloat16}


def stop(*_):
    raise RuntimeError("stopped")
