"""`gentax diagnose` on episodes that `gentax rollout` wrote, and on files that are none."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gentax.cli.app import app
from gentax.core.episode import write_episodes
from gentax.core.errors import UsageError
from gentax.evals.evaluate import evaluate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random play in two folders as a study has them, of one level of two domains."""
    root = tmp_path_factory.mktemp("episodes")
    for name, policy in {"random": "random", "expert": "expert"}.items():
        result = evaluate(policy, {"sokoban": None, "crafting": None}, tasks=12)
        (root / name).mkdir()
        write_episodes(root / name / "episodes.jsonl.gz", [e for one in result.episodes.values() for e in one])
    return root


def run(*args):
    return CliRunner().invoke(app, ["diagnose", *map(str, args)], env={"COLUMNS": "200"})


def test_one_policy(files):
    shown = run(files / "random")
    assert shown.exit_code == 0, shown.output
    assert "sokoban: 12 episodes of 12 tasks" in shown.output
    assert "crafting: 12 episodes of 12 tasks" in shown.output
    assert "invalid: % of actions that the environment refused" in shown.output
    assert shown.output.splitlines()[1].startswith("On crafting, ")  # the point first, then the tables
    assert shown.output.index("episodes succeed") < shown.output.index("12 episodes of 12 tasks")


def test_two_policies(files, tmp_path):
    shown = run(files / "random", files / "expert" / "episodes.jsonl.gz", "--json", tmp_path / "out.json")
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[1] == json.loads((tmp_path / "out.json").read_text())["sentences"][0]
    assert " went from " in shown.output.splitlines()[1]
    assert "0 % before and after: " in shown.output
    assert "\ntruncated  " not in shown.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert set(written["domains"]) == {"sokoban", "crafting"}
    one = written["domains"]["sokoban"]
    assert one["after"]["measures"]["invalid"]["value"] == 0
    assert one["change"]["ran_out"]["value"] < 0
    assert 0 <= one["p_values"]["ran_out"] <= 1
    assert written["sentences"]
    for sentence in written["sentences"]:
        assert sentence in shown.output


def test_policies_with_different_wrappers_can_be_compared(files, tmp_path):
    from gentax.rollouts import RolloutConfig

    result = evaluate("random", {"sokoban": None}, tasks=12)
    renamed = evaluate("random", {"sokoban": None}, tasks=12, play=RolloutConfig(wrap=("rename",)))
    write_episodes(tmp_path / "a.gz", result.episodes["sokoban"])
    write_episodes(tmp_path / "b.gz", renamed.episodes["sokoban"])
    shown = run(tmp_path / "a.gz", tmp_path / "b.gz")
    assert shown.exit_code == 0, shown.output
    assert "ended in a loop" in shown.output


def test_what_is_no_file_of_episodes_is_refused(files, tmp_path):
    (tmp_path / "x.gz").write_text("x")
    for args in ([tmp_path / "x.gz"], [files / "random", tmp_path], [files / "random", "--json", tmp_path]):
        failed = run(*args)
        assert isinstance(failed.exception, UsageError)
        assert str(tmp_path) in str(failed.exception)
