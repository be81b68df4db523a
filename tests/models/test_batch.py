"""Batches as trees: what is computed once must be what every sequence by itself would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gentax.models.scoring import make_batches, state_logits, tree_attention
from gentax.models.scoring.batch import LAST_LAYER_MULTIPLE, MAX_TOKENS, TREE_PAD_MULTIPLE, tree_batches
from gentax.policies.local import load_local_policy
from gentax.training import sft
from gentax.training.trajectories import Example


def sequences(rng: np.random.Generator, count: int, longest: int) -> list[np.ndarray]:
    """Draw sequences that begin alike, some with others inside them, some twice."""
    made = [rng.integers(6, 200, 12).astype(np.int32)]
    while len(made) < count:
        stem = made[rng.integers(len(made))]
        stem = stem[: rng.integers(1, len(stem) + 1)]
        made.append(np.concatenate([stem, rng.integers(6, 200, rng.integers(0, longest))]).astype(np.int32)[:longest])
    return made


@pytest.mark.parametrize("longest", [30, 200])
def test_batched_tokens_have_the_scores_of_their_sequence_alone(tiny, longest):
    rng = np.random.default_rng(0)
    model, plain = load_local_policy(tiny).model, load_local_policy(tiny).model
    ids = sequences(rng, 40, longest)
    wanted = [rng.random(len(one)) < 0.5 for one in ids]
    seen = []
    for batch in make_batches(model, ids, wanted):
        logp_UV = state_logits(model, batch, "fp32").log_softmax(-1)
        logp_S = batch.gather_logprobs(logp_UV).detach()
        expected = []
        for i in batch.sequences:
            at = np.flatnonzero(wanted[i])
            at = at[at > 0]
            with torch.no_grad():
                all_TV = plain(torch.tensor(ids[i][None].astype(np.int64))).logits[0].log_softmax(-1)
            expected.append(all_TV[at - 1, ids[i][at]])
        assert torch.allclose(logp_S, torch.cat(expected), atol=1e-4)
        seen += batch.sequences
    assert sorted(seen) == list(range(40))


def test_a_shared_prefix_is_computed_once():
    rules = np.arange(6, 106, dtype=np.int32)
    ids = [np.concatenate([rules, np.full(10, n, np.int32)]) for n in range(200, 220)] * 2
    (batch,) = tree_batches(ids, [np.ones(len(one), bool) for one in ids])
    assert batch.num_tokens == 100 + 20 * 10
    assert len(batch.token_S) == sum(len(one) - 1 for one in ids)  # but every sequence's tokens are learned from


def test_batch_sizes_are_rounded_and_an_overlong_sequence_has_its_own_batch():
    rng = np.random.default_rng(1)
    ids = [rng.integers(6, 900, n).astype(np.int32) for n in (MAX_TOKENS + 5, *[400] * 40)]
    for n, one in enumerate(ids):
        one[0] = n  # nothing is shared
    made = tree_batches(ids, [np.ones(len(one), bool) for one in ids])
    sizes = [len(batch.ids) for batch in made]
    assert all(size % TREE_PAD_MULTIPLE == 0 for size in sizes)
    assert sum(size > MAX_TOKENS for size in sizes) == 1
    assert sum(batch.num_tokens for batch in made) == sum(map(len, ids))


def test_sequences_without_scored_tokens_are_left_out():
    ids = [np.arange(6, 20, dtype=np.int32)]
    (batch,) = tree_batches(ids, [np.zeros(14, bool)])
    assert len(batch.token_S) == len(batch.state_U) == 0


def test_the_last_layer_runs_only_for_scored_states(tiny):
    model = load_local_policy(tiny).model
    ids = [np.arange(6, 180, dtype=np.int32) + n for n in range(4)]
    (batch,) = make_batches(model, ids, [np.arange(len(one)) % 20 == 19 for one in ids])
    rows = []
    for layer in model.get_decoder().layers:
        layer.mlp.down_proj.register_forward_hook(lambda _, given, made: rows.append(made.shape[1]))
    state_logits(model, batch, "fp32")
    assert len(batch.state_U) == 32
    assert rows[-1] == LAST_LAYER_MULTIPLE < rows[0] == len(batch.ids)
    model(input_ids=torch.arange(6, 20)[None])
    assert rows[-1] == 14  # afterwards it is as it was


@pytest.mark.parametrize("keys", [1, 63, 64, 65, 300])
def test_tiles_cover_every_token_once(keys):
    made = tree_attention.build_tree([np.arange(keys)], [np.arange(keys)], keys)
    queries = torch.cat([tile.query_BQ.flatten() for tile in made.tiles])
    assert torch.equal(queries[made.place_N], torch.arange(keys))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fp32", "bf16"])
def test_gradients_on_two_threads_are_bit_identical(how):
    """Of the shipped model: a smaller one's sums are not worth two threads to PyTorch. Indexing in place of `_taken`
    or of `ScoringBatch.gather_logprobs` was seen to give other bits in one pass of twenty."""
    rng = np.random.default_rng(1)
    model = load_local_policy("base").model
    ids = [rng.integers(6, 200, 60).astype(np.int32)] * 2 + sequences(rng, 2, 60)
    (batch,) = make_batches(model, ids, [np.ones(len(one), bool) for one in ids])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(100):
            model.zero_grad()
            batch.gather_logprobs(torch.log_softmax(state_logits(model, batch, how), dim=-1)).mean().backward()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            assert torch.equal(found[0], found[-1])
            del found[1:]
    finally:
        torch.set_num_threads(before)


def test_the_gradient_of_bf16_products_is_that_of_the_fused_kernel(tiny):
    rng = np.random.default_rng(3)
    model = load_local_policy(tiny).model
    ids = sequences(rng, 20, 150)
    (batch, *_) = make_batches(model, ids, [np.ones(len(one), bool) for one in ids])
    assert batch.num_tokens < len(batch.ids)  # padding must receive nothing
    found = []
    for how in ("fp32", "bf16"):
        model.zero_grad()
        logits_UV = state_logits(model, batch, how)
        batch.gather_logprobs(torch.log_softmax(logits_UV, dim=-1)).mean().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, exact in found[0].items():
        low = found[1][name]
        assert float(torch.cosine_similarity(exact.flatten(), low.flatten(), dim=0)) > 0.995, name


def test_bf16_products_are_more_precise_than_bf16_outputs():
    """Scores of 54, which in bf16 are off by up to an eighth: without the second pass these are 0.06 and 0.02."""

    def attended(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        rng = torch.Generator().manual_seed(0)
        common = torch.randn(64, generator=rng)
        query = 0.7 * common + 0.1 * torch.randn(1, 2, 200, 64, generator=rng)
        key = common + 0.2 * torch.randn(1, 1, 200, 64, generator=rng)
        value = torch.randn(1, 1, 200, 64, generator=rng)
        given = [x.bfloat16().to(dtype).requires_grad_() for x in (query, key, value)]
        tree = tree_attention.build_tree([np.arange(200)], [np.arange(200)], 200)
        mixed, _ = tree_attention.tree_attention_forward(None, *given, None, scaling=1.0, tree=tree)
        mixed.float().square().sum().backward()
        return mixed.detach().double(), torch.cat([x.grad.flatten() for x in given]).double()

    for exact, low in zip(attended(torch.float32), attended(torch.bfloat16), strict=True):
        assert float((low - exact).norm() / exact.norm()) < 5e-3


def test_packing_starts_a_new_batch_when_one_is_full():
    drawn = (Example(np.full(700, 6 + n, np.int32), np.ones(700, np.float32)) for n in range(10**6))
    made = sft.pack_batches(drawn)  # the examples need not end
    first, second = next(made), next(made)
    assert [int(example.ids_T[0]) for example in first + second] == list(range(6, 14))
    assert sum(len(example.ids_T) for example in first) <= sft.TOKENS
    few = [Example(np.full(n, n, np.int32), np.ones(n, np.float32)) for n in (sft.TOKENS + 1, 3, 4)]
    assert list(sft.pack_batches(few)) == [few[:1], few[1:]]
