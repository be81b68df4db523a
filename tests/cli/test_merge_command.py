"""`gentax merge`: a folder that plays, or one line of what is wrong and exit code 2."""

from __future__ import annotations

import pytest
import torch

from command import run
from gentax.policies.local import load_local_policy
from gentax.training.checkpoint import save_model
from gentax.training.pretrain import new_model


@pytest.fixture
def folders(tiny, tmp_path):
    """A start, two policies that moved from it, and one that does not come from it."""
    made = {"start": str(tiny)}
    for name, size in (("one", 0.01), ("two", 0.02)):
        policy = load_local_policy(tiny)
        with torch.no_grad():
            for weight in policy.model.parameters():
                weight += size
        folder = tmp_path / name
        folder.mkdir()
        save_model(policy.model, policy.tokenizer, folder)
        made[name] = str(folder)
    larger = tmp_path / "larger"
    larger.mkdir()
    save_model(new_model("micro", policy.tokenizer), policy.tokenizer, larger)
    return made | {"larger": str(larger), "out": str(tmp_path / "out")}


@pytest.mark.parametrize(
    ("args", "moved"),
    [
        (["one", "two", "--method", "mean"], 0.015),
        (["one", "--method", "interpolate"], 0.005),
        (["two", "--method", "interpolate", "--weight", "0.25"], 0.005),
    ],
)
def test_a_merged_folder(folders, args, moved):
    done = run("merge", *(folders.get(arg, arg) for arg in [*args, "--base", "start", "--out", "out"]))
    assert done.code == 0
    assert f"--tuned {folders['out']}" in done.out
    assert done.err == ""  # no progress bar of transformers
    start, made = (load_local_policy(folders[name]).model.state_dict() for name in ("start", "out"))
    assert all(torch.allclose(made[name], start[name] + moved, atol=1e-5) for name in start)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["one", "two", "--method", "meen"], "did you mean 'mean'"),
        (["one", "larger"], "and the start's is"),
        (["one", "nowhere"], "no model folder 'nowhere'"),
        (["one", "two", "--base", "bas"], "no model folder 'bas'"),
        (["one"], "at least 2 policies"),
        (["one", "two", "--weight", "0.5"], "--weight is for --method interpolate"),
        (["one", "--method", "interpolate", "--weight", "1.5"], "from 0 to 1, not 1.5"),
        (["one", "two", "--out", "larger"], "something else"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(folders, args, says):
    rest = [part for key in ("base", "out") if f"--{key}" not in args for part in (f"--{key}", key)]
    folders = folders | {"base": folders["start"]}
    code, _, err = run("merge", *(folders.get(arg, arg) for arg in [*args, *rest]))
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("gentax: ")
