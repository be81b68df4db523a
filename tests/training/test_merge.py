"""Weights of several policies made one: by hand on small tensors, and on model folders."""

from __future__ import annotations

import json

import pytest
import torch

from gentax.core import UsageError
from gentax.models.options import ModelOptions
from gentax.policies.local import load_local_policy
from gentax.training.forgetting.merge import interpolate, mean, merge_models
from gentax.training.pretrain import new_model, train_tokenizer
from gentax.training.run_folder import save_model


def test_tied_weights_stay_tied_and_whole_numbers_are_the_starts():
    shared = torch.zeros(4)
    start = {"embed": shared, "free": torch.zeros(4), "head": shared, "table": torch.arange(3)}

    def tuned(tied: torch.Tensor, free: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"embed": tied, "free": free, "head": tied, "table": torch.arange(3)}

    made = mean(start, [tuned(torch.full((4,), 1.0), torch.full((4,), 2.0))])
    assert made["head"].data_ptr() == made["embed"].data_ptr()
    assert torch.equal(made["table"], torch.arange(3))
    assert made["embed"].tolist() == [1.0] * 4


def test_low_precision_is_merged_in_fp32_and_kept():
    start = {"w": torch.zeros(1, dtype=torch.bfloat16)}
    tuned = [{"w": torch.tensor([x], dtype=torch.bfloat16)} for x in (256.0, 1.0, 1.0)]
    made = mean(start, tuned)["w"]
    assert made.dtype is torch.bfloat16
    assert made.item() == torch.tensor(86.0, dtype=torch.bfloat16).item()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_interpolation_is_exact_at_both_ends(share):
    generator = torch.Generator().manual_seed(0)
    start, tuned = ({"w": torch.randn(1000, generator=generator)} for _ in range(2))
    made = interpolate(start, tuned, share)["w"]
    if share == 0.25:
        assert torch.allclose(made, 0.75 * start["w"] + 0.25 * tuned["w"], atol=1e-6)
    else:
        assert torch.equal(made, (tuned if share else start)["w"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"w": torch.zeros(3), "v": torch.zeros(1)}, "w of policy 2 is 3, and the start's is 2"),
        ({"w": torch.zeros(2)}, "policy 2 has no v"),
        ({"w": torch.zeros(2), "v": torch.zeros(1), "u": torch.zeros(1)}, "policy 2 has u"),
    ],
)
def test_weights_that_are_not_alike_are_refused_by_name(other, says):
    like = {"w": torch.zeros(2), "v": torch.zeros(1)}
    with pytest.raises(UsageError, match=says):
        mean(like, [like, other])


@pytest.fixture
def trained(tiny, tmp_path):
    """Two policies that differ from the tiny one."""
    folders = []
    for n in range(2):
        policy = load_local_policy(tiny)
        generator = torch.Generator().manual_seed(n)
        with torch.no_grad():
            for weight in policy.model.parameters():
                weight += 0.02 * torch.randn(weight.shape, generator=generator)
        folders.append(tmp_path / f"policy-{n}")
        folders[-1].mkdir()
        save_model(policy.model, policy.tokenizer, folders[-1])
    return folders


@pytest.mark.parametrize("method", ["mean", "interpolate"])
def test_a_merged_folder_loads_and_holds_what_merging_gives(tiny, trained, tmp_path, method):
    folders = trained[:1] if method == "interpolate" else trained
    out = merge_models(tiny, folders, method, tmp_path / "merged", 0.3)
    start, tuned = (
        load_local_policy(tiny).model.state_dict(),
        [load_local_policy(folder).model.state_dict() for folder in folders],
    )
    wanted = interpolate(start, tuned[0], 0.3) if method == "interpolate" else mean(start, tuned)
    made = load_local_policy(out).model.state_dict()
    assert made.keys() == start.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)
    record = json.loads((out / "merge.json").read_text())
    assert record["method"] == method
    assert record["of"] == [str(folder) for folder in folders]


def test_a_merged_model_has_the_format_its_start_is_loaded_in(tiny, trained, tmp_path):
    out = merge_models(tiny, trained, "mean", tmp_path / "merged", model=ModelOptions("cuda", "bfloat16"))
    assert {weight.dtype for weight in load_local_policy(out).model.parameters()} == {torch.bfloat16}


def test_only_the_result_of_the_same_merge_is_replaced(tiny, trained, tmp_path):
    out = merge_models(tiny, trained, "mean", tmp_path / "merged")
    assert merge_models(tiny, trained, "mean", out) == out
    with pytest.raises(UsageError, match="something else"):
        merge_models(tiny, trained[::-1], "mean", out)
    assert json.loads((out / "merge.json").read_text())["method"] == "mean"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        merge_models(tiny, trained, "mean", precious)
    assert (precious / "notes.txt").read_text() == "mine"


def test_policies_of_another_tokenizer_or_size_are_refused(tiny, trained, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    tokenizer = train_tokenizer(iter(["quite different words, every one of them"] * 20), 300)
    save_model(new_model("nano", tokenizer), tokenizer, other)
    with pytest.raises(UsageError, match="different tokens"):
        merge_models(tiny, [trained[0], other], "mean", tmp_path / "merged")
    larger = tmp_path / "larger"
    larger.mkdir()
    tokenizer = load_local_policy(tiny).tokenizer
    save_model(new_model("micro", tokenizer), tokenizer, larger)
    with pytest.raises(UsageError, match=r"larger is \d+x160, and the start's is \d+x96"):
        merge_models(tiny, [trained[0], larger], "mean", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_too_few_too_many_and_unknown_methods_are_refused(tiny, trained, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'mean'"):
        merge_models(tiny, trained, "meen", tmp_path / "merged")
    with pytest.raises(UsageError, match="at least 2"):
        merge_models(tiny, trained[:1], "mean", tmp_path / "merged")
    with pytest.raises(UsageError, match="to one policy, not to 2"):
        merge_models(tiny, trained, "interpolate", tmp_path / "merged")
