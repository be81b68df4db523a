"""Bytes of weights and caches, held against what PyTorch and transformers take."""

from __future__ import annotations

import pytest
import torch

from gentax.core import UsageError
from gentax.models.checkpoint import build_meta_model, read_weight_headers
from gentax.models.loading import load_model
from gentax.models.memory import (
    available_memory,
    check_fits_memory,
    kv_cache_bytes,
    max_batch_size,
    model_bytes,
)

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip
ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
LAYERS = {"num_hidden_layers": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}
NETS = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4, "head_dim": 8,
}  # fmt: skip
KINDS = {
    "llama": {},
    "qwen3": {"head_dim": 16},
    "gemma3_text": {"head_dim": 8, "sliding_window": 16, "num_hidden_layers": 6},
    "mistral": {"sliding_window": 16, "head_dim": None},
    "gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "deepseek_v3": {
        "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
        "num_key_value_heads": 4, "first_k_dense_replace": 4, "n_group": 1, "topk_group": 1,
    },
    "qwen3_next": {**LAYERS, **NETS, "num_experts": 0, "mlp_only_layers": [0, 1, 2, 3]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "falcon_h1": {
        "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
    },
}  # fmt: skip


def made(kind: str):
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = KINDS[kind] if kind == "gpt2" else SMALL | KINDS[kind]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()


def cached(model, tokens: int) -> int:
    """Return the bytes of the keys, values and states that transformers keeps of one row."""
    with torch.no_grad():
        cache = model(torch.arange(tokens)[None] % 60 + 1, use_cache=True).past_key_values
    seen = {}
    for layer in cache.layers:
        for value in vars(layer).values():
            parts = list(value.values()) if isinstance(value, dict) else value
            for tensor in parts if isinstance(parts, (list, tuple)) else [parts]:
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                    seen[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(seen.values())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "deepseek_v3", "qwen3_next", "lfm2", "falcon_h1"])
def test_a_row_takes_what_transformers_caches_of_it(kind):
    model = made(kind)
    few, many = cached(model, 40), cached(model, 100)
    more, less = (kv_cache_bytes(model.config, tokens, torch.float32) for tokens in (100, 40))
    assert more - less == many - few
    assert kv_cache_bytes(model.config, 100, torch.float32) == pytest.approx(many, rel=0.1)  # states differ in a column


@pytest.mark.parametrize("kind", ["gemma3_text", "mistral"])
def test_windows_bound_what_a_row_takes(kind):
    model = made(kind)
    window = model.config.sliding_window
    expected = cached(model, 200)  # transformers keeps one token less of a window
    taken = kv_cache_bytes(model.config, 200, torch.float32)
    assert expected <= taken <= expected * (window + 1) / (window - 1)
    assert kv_cache_bytes(model.config, 8, torch.float32) == cached(model, 8)


def test_known_sizes():
    """The figures of models that people run, in bf16: 8 billion parameters of Llama 3.1 take 131,072 bytes a token."""
    from transformers import AutoConfig

    llama = AutoConfig.for_model(
        "llama", hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8
    )
    assert kv_cache_bytes(llama, 4096) == 131_072 * 4096
    mamba = AutoConfig.for_model("mamba")
    assert kv_cache_bytes(mamba, 4096) == kv_cache_bytes(mamba, 1)


def test_a_model_is_counted_on_the_meta_device_as_it_is_loaded(tiny):
    model = load_model(tiny)
    assert model_bytes(model) == model_bytes(
        build_meta_model(model.config, read_weight_headers(tiny), "it")
    )  # tied weights once


def test_rows_are_as_many_as_fit(monkeypatch):
    config = made("llama").config
    row = kv_cache_bytes(config, 100, torch.float32) + 8 * 64
    for rows, expected in ((10.5, 10), (0.2, 1), (1e6, 128)):
        monkeypatch.setattr("gentax.models.memory.available_memory", lambda _, n=rows: int(n * row / 0.9))
        assert max_batch_size(config, row - 8 * 64, "cpu") == expected
    monkeypatch.undo()
    assert 0 < available_memory("cpu") < 1 << 50


def test_what_does_not_fit_is_refused_with_the_numbers():
    check_fits_memory(1000, "cpu", "m")
    with pytest.raises(UsageError, match=r"m takes 1125899\.9 GB, and cpu has \d+\.\d GB left"):
        check_fits_memory(1 << 50, "cpu", "m")
