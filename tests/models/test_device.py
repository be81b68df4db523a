"""Bytes of weights and caches, against what PyTorch and transformers take; stochastic rounding to 16 bits."""

from __future__ import annotations

import pytest
import torch
from zoo import ZOO

from gentax.core import UsageError
from gentax.models.checkpoint_check import build_meta_model, read_weight_headers
from gentax.models.decoding import HFDecoder, LlamaDecoder
from gentax.models.device import (
    available_memory,
    check_fits_memory,
    kv_cache_bytes,
    max_batch_size,
    stochastic_round_,
)
from gentax.models.loading import load_model


@pytest.mark.parametrize("name", ["llama", "qwen3", "deepseek-v3", "gemma3", "lfm2"])
def test_the_estimated_cache_is_the_keys_and_values_a_decoder_holds(name):
    model = ZOO[name]()
    decoder = HFDecoder(model)
    measured = (decoder.cache_bytes(100) - decoder.cache_bytes(60)) // 2  # without states; for a row and its copy
    assert kv_cache_bytes(model.config, 40, model.dtype) == measured
    if name == "llama":
        assert LlamaDecoder(model).cache_bytes(40) == measured


def test_a_recurrent_state_counts_and_does_not_grow():
    decoder = HFDecoder(ZOO["mamba2"]())
    assert decoder.cache_bytes(10) == decoder.cache_bytes(1000) > 0


def test_a_model_is_counted_on_the_meta_device_as_it_is_loaded(tiny):
    model = load_model(tiny)
    meta = build_meta_model(model.config, read_weight_headers(tiny), "it")
    assert model.get_memory_footprint() == meta.get_memory_footprint()  # tied weights once


def test_the_batch_is_as_large_as_memory_allows(monkeypatch):
    config = ZOO["llama"]().config
    row = 1000 + 8 * config.vocab_size
    for rows, expected in ((10.5, 10), (0.2, 1), (1e6, 128)):
        monkeypatch.setattr("gentax.models.device.available_memory", lambda _, n=rows: int(n * row / 0.9))
        assert max_batch_size(config, 1000, "cpu") == expected
    monkeypatch.undo()
    assert 0 < available_memory("cpu") < 1 << 50


def test_what_does_not_fit_is_refused_with_the_numbers():
    check_fits_memory(1000, "cpu", "m")
    with pytest.raises(UsageError, match=r"m takes 1125899\.9 GB, and cpu has \d+\.\d GB left"):
        check_fits_memory(1 << 50, "cpu", "m")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stochastic_rounding_takes_a_neighbouring_value_and_is_unbiased(dtype):
    exact = torch.full((1000, 64), 1.0 + 0.3 * torch.finfo(dtype).eps)
    target = torch.zeros(1000, 64, dtype=dtype)
    stochastic_round_(target, exact, "weight")
    assert target.unique().tolist() == [1.0, 1.0 + torch.finfo(dtype).eps]
    assert float((target.double() - 1).mean() / torch.finfo(dtype).eps) == pytest.approx(0.3, abs=0.02)
    stochastic_round_(target, -exact, "weight")
    assert float((target.double() + 1).mean() / torch.finfo(dtype).eps) == pytest.approx(-0.3, abs=0.02)


def test_stochastic_rounding_keeps_exact_values_and_is_reproducible(monkeypatch):
    torch.manual_seed(0)
    stored = torch.randn(70, 64).bfloat16()
    target = torch.empty_like(stored)
    stochastic_round_(target, stored.float(), "weight")
    assert torch.equal(target, stored)
    exact = torch.randn(70, 64)
    state = torch.get_rng_state()
    stochastic_round_(target, exact, "weight")
    assert torch.equal(torch.get_rng_state(), state)
    again = torch.empty_like(stored)
    monkeypatch.setattr("gentax.models.device.CHUNK_NUMEL", 640)  # numbers: ten rows
    stochastic_round_(again, exact, "weight")
    assert torch.equal(again, target)
    stochastic_round_(again, exact, "another")
    assert not torch.equal(again, target)
    whole = torch.empty(70, 64)
    stochastic_round_(whole, exact, "weight")
    assert torch.equal(whole, exact)
