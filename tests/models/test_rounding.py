"""What is learned in fp32 reaches a player in bf16, however small a step is beside the player's digits."""

from __future__ import annotations

import pytest
import torch

from gentax.models.device import stochastic_round_


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_weight_gets_one_of_the_two_numbers_next_to_it_and_is_right_on_average(dtype):
    exact = torch.full((1000, 64), 1.0 + 0.3 * torch.finfo(dtype).eps)
    target = torch.zeros(1000, 64, dtype=dtype)
    stochastic_round_(target, exact, "weight")
    assert target.unique().tolist() == [1.0, 1.0 + torch.finfo(dtype).eps]
    assert float((target.double() - 1).mean() / torch.finfo(dtype).eps) == pytest.approx(0.3, abs=0.02)
    stochastic_round_(target, -exact, "weight")
    assert float((target.double() + 1).mean() / torch.finfo(dtype).eps) == pytest.approx(-0.3, abs=0.02)


def test_what_is_exact_already_stays_and_the_same_weights_are_rounded_alike(monkeypatch):
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


@pytest.mark.parametrize("size", [1e-6, 1e-5])
def test_a_layer_does_what_was_learned_where_the_nearest_numbers_would_not(size):
    """A change of rank one, as of LoRA, small beside the distance of bf16 numbers; inputs like those it is for."""
    torch.manual_seed(0)
    stored = (0.02 * torch.randn(512, 1024)).bfloat16()
    into = torch.randn(1024)
    inputs = torch.randn(1024, 32) + 0.3 * into[:, None]
    exact = stored.float() + size * torch.outer(torch.randn(512), into)
    learned = (exact - stored.float()) @ inputs

    def share(weights: torch.Tensor) -> float:
        """How much of what was learned these weights do."""
        return float((((weights.float() - stored.float()) @ inputs) * learned).sum() / learned.square().sum())

    assert share(exact.bfloat16()) < 0.6
    target = torch.empty_like(stored)
    stochastic_round_(target, exact, "weight")
    assert share(target) == pytest.approx(1.0, abs=0.05)
