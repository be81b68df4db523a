"""Bytes of weights and caches, held against what PyTorch and transformers take."""

from __future__ import annotations

import pytest
from zoo import ZOO

from gentax.core import UsageError
from gentax.models.checkpoint_check import build_meta_model, read_weight_headers
from gentax.models.decoding import HFDecoder, LlamaDecoder
from gentax.models.device import available_memory, check_fits_memory, kv_cache_bytes, max_batch_size, model_bytes
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
    assert model_bytes(model) == model_bytes(meta)  # tied weights once


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
