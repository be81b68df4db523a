"""The next token follows the distribution that temperature and filters make, whose probability is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gentax.models.decoding.sampling import batch_filters, sample_tokens
from gentax.models.options import SamplingParams

MANY = 4000
SETTINGS = [
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
    {"temperature": 2.0, "top_k": 1},
    {"temperature": 1.5, "top_p": 0.01},
    {"top_k": 1000, "top_p": 0.999},
]


def expected(logits, p: SamplingParams) -> np.ndarray:
    """Return the probabilities that transformers samples from with these settings."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(p.temperature)])
    warpers += [TopKLogitsWarper(p.top_k)] if p.top_k else []
    warpers += [TopPLogitsWarper(p.top_p)] if p.top_p < 1 else []
    warpers += [MinPLogitsWarper(p.min_p)] if p.min_p else []
    return warpers(None, logits[None].clone())[0].softmax(-1).numpy()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_tokens_follow_the_filtered_distribution_and_their_log_probabilities_are_its_own(settings):
    params = SamplingParams(**settings)
    logits = torch.randn(64, generator=torch.Generator().manual_seed(0)) * 2
    p = expected(logits, params)
    uniforms = torch.from_numpy((np.arange(MANY) + 0.5) / MANY)
    temperature = torch.full((MANY,), params.temperature)
    token_B, logp_B = sample_tokens(logits.expand(MANY, -1), temperature, uniforms, batch_filters([params] * MANY))
    assert np.abs(np.bincount(token_B.numpy(), minlength=64) / MANY - p).max() < 1e-3
    assert np.allclose(logp_B.numpy(), np.log(p[token_B.numpy()]), atol=1e-5)


def test_every_row_has_its_own_filters():
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    rows = [SamplingParams(), SamplingParams(top_k=2), SamplingParams(0.5, top_p=0.5, min_p=0.3)]
    uniform = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    temperature = torch.tensor([p.temperature for p in rows])
    together = sample_tokens(logits, temperature, uniform, batch_filters(rows))
    for n, params in enumerate(rows):
        alone = sample_tokens(logits[n : n + 1], temperature[n : n + 1], uniform[n : n + 1], batch_filters([params]))
        assert together[0][n] == alone[0][0]
        assert torch.allclose(together[1][n], alone[1][0])


def test_extreme_uniforms_never_sample_a_filtered_token():
    logits = torch.tensor([[0.0, 5.0, 4.0, 0.0]]).repeat(2, 1)
    rows = [SamplingParams(top_k=2)] * 2
    uniform = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    token_B, logp_B = sample_tokens(logits, torch.ones(2), uniform, batch_filters(rows))
    assert token_B.tolist() == [1, 2]
    assert torch.isfinite(logp_B).all()


def test_filters_that_are_off_are_not_computed():
    assert batch_filters([SamplingParams(), SamplingParams(0.0)]) is None
