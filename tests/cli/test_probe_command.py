"""`gentax probe` and `gentax diversity` as a person meets them."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from gentax.cli.app import app
from gentax.core import UsageError
from gentax.metrics.axes import Probe
from gentax.metrics.diversity import Diversity


def run(*args: str):
    return CliRunner().invoke(app, list(args))


def test_a_table_a_file_and_a_plot_of_domains_with_and_without_distractors(tmp_path):
    out, picture = tmp_path / "probe.json", tmp_path / "axes.svg"
    told = ["--trajectories", "8", "--samples", "2", "--horizon", "6", "--policy", "random"]
    done = run("probe", "sokoban", "crafting", *told, "--distract", "--json", str(out), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    for name in ("sokoban", "sokoban + distract", "crafting", "crafting + distract"):
        assert sum(line.startswith(f"{name}  ") for line in lines) == 3, done.output  # richness, planning, pass@k
    assert "k = 2" in done.output
    assert "…" not in done.output  # nothing is cut off where output goes to a file
    rows = [Probe.from_json(row) for row in json.loads(out.read_text())["probes"]]
    assert [row.name for row in rows] == ["sokoban", "sokoban + distract", "crafting", "crafting + distract"]
    assert {row.axes.horizon for row in rows} == {6}
    assert {row.axes.planning.n for row in rows} == {4}
    assert rows[1].axes.observation_characters.value > 2 * rows[0].axes.observation_characters.value
    assert rows[0].tokenizer == "base"
    assert rows[0].axes.observation_tokens.value > 5
    assert "<svg" in picture.read_text()


def test_matrices_of_diversity_and_a_mixture(tmp_path):
    out, picture = tmp_path / "diversity.json", tmp_path / "diversity.png"
    told = [
        "--trajectories",
        "4",
        "--horizon",
        "4",
        "--policy",
        "random",
        "--weight",
        "sokoban=3",
        "--weight",
        "babyai=1",
    ]
    done = run("diversity", "sokoban", "babyai", "crafting", *told, "--json", str(out), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    written = json.loads(out.read_text())
    found = Diversity.from_json(written)
    assert found.names == ("sokoban", "babyai", "crafting")
    for measure in ("unshared", "unseen", "tfidf", "structural"):
        assert f"\n{measure}: " in done.output
        assert f"{found.pairs[measure]['sokoban']['crafting'].value:.2f} ±" in done.output
    assert "sokoban 75%, babyai 25%" in done.output
    assert f"{written['mixture']['vendi']:.2f} wholly different domains, of 2" in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_how_far_a_tuned_policy_has_moved_is_a_block_of_its_own(tmp_path):
    out = tmp_path / "diversity.json"
    told = ["--trajectories", "2", "--horizon", "3", "--tuned", "base", "--json", str(out)]
    done = run("diversity", "sokoban", "crafting", *told)
    assert done.exit_code == 0, done.output
    assert "policy: KL(base || base)" in done.output
    moved = Diversity.from_json(json.loads(out.read_text())).policy
    assert {name: round(kl.value, 6) for name, kl in moved.items()} == {"sokoban": 0, "crafting": 0}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["probe", "sokobn"], "did you mean 'sokoban'"),
        (["probe", "sokoban:7x7x7"], "7x7x7"),
        (["probe", "nowhere:make"], "nowhere"),
        (["probe", "sokoban", "--policy", "bse"], "did you mean 'base'"),
        (["probe", "sokoban", "--wrap", "distrct"], "did you mean 'distract'"),
        (["probe", "crafting", "--wrap", "sokoban_layout(symbols)"], "sokoban"),
        (["probe", "sokoban", "--plot", "axes.jpg"], ".svg, .png, .pdf"),
        (["probe", "sokoban", "--json", "."], "is a folder"),
        (["probe", "sokoban", "--trajectories", "10", "--samples", "3"], "not 10 with samples 3"),
        (["diversity", "sokoban"], "2 or more domains"),
        (["diversity", "sokoban", "sokoban"], "2 or more domains"),
        (["diversity", "sokoban", "babyai", "--tuned", "nowhere"], "no model folder 'nowhere'"),
        (["diversity", "sokoban", "babyai", "--tuned", "base", "--policy", "random"], "random has none"),
        (["diversity", "sokoban", "babyai", "--plot", "d.txt"], ".svg, .png, .pdf"),
        (["diversity", "sokoban", "babyai", "--weight", "sokobn=2"], "did you mean 'sokoban'"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban"], "as in sokoban=2"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban=lots"], "must be a number, not 'lots'"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban=-1"], "at least 0"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban=nan"], "at least 0"),
        (["diversity", "sokoban", "babyai", "--weight", "sokoban=0"], "one of them more"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_played(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*args)
    assert isinstance(done.exception, UsageError), done.output
    assert says in str(done.exception)
    assert "\n" not in str(done.exception)
    assert "episodes" not in done.output
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["probe", "diversity"])
def test_help_has_an_example(command):
    done = run(command, "--help")
    assert "Example" in done.output
    assert f"gentax {command} sokoban" in " ".join(done.output.split())
