"""`gentax evaluate --suite` as a person meets it: what it refuses, the score card, how an incomplete one says so."""

from __future__ import annotations

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from gentax.cli.app import app
from gentax.core import UsageError
from gentax.domains import registry


def evaluate(*args: str):
    return CliRunner().invoke(app, ["evaluate", *args])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--tasks", "128"], "--tasks cannot be given with --suite"),
        (["--samples", "2"], "--samples cannot"),
        (["--temperature", "0.4", "--seed", "0"], "--temperature, --seed cannot"),
        (["--context", "full"], "--context cannot"),
        (["--thinking"], "--thinking cannot"),
        (["--admissible"], "--admissible cannot"),
        (["--wrap", "menu"], "--wrap cannot"),
        (["--split", "test"], "--split cannot"),
        (["-d", "sokoban:6x6"], "fixes the level; say -d sokoban"),
        (["-d", "sokobn"], "did you mean 'sokoban'"),
        (["expert"], "the policy is given twice: 'expert' and --policy 'random'"),
    ],
)
def test_what_the_suite_fixes_cannot_be_given(args, says):
    done = evaluate("--suite", "v2", "--policy", "random", *args)
    assert isinstance(done.exception, UsageError)
    assert says in str(done.exception)
    assert "episodes" not in done.output


def test_a_suite_that_is_not_there():
    done = evaluate("--suite", "v0")
    assert "did you mean 'v2'" in str(done.exception)


def test_the_policy_may_be_an_option_without_a_suite(tmp_path):
    out = tmp_path / "out.json"
    done = evaluate("--policy", "expert", "-d", "sokoban", "--tasks", "4", "--json", str(out))
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["policy"] == "expert"


def test_an_incomplete_suite_says_so_and_how_to_complete_it(tmp_path, monkeypatch):
    gone = {name: dataclasses.replace(r, requires=("no_such_module",)) for name, r in registry.domains().items()}
    known = {**gone, "crafting": registry.domain("crafting")}
    monkeypatch.setattr(registry, "domains", lambda: known)
    out = tmp_path / "r.json"
    done = evaluate("--suite", "v2", "--policy", "expert", "--json", str(out))
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "expert on suite v2" in text
    assert "crafting shallow 100.0 (97.1 to 100.0)" in text
    assert "incomplete, so there is no mean: without sokoban, sciworld, webshop" in text
    assert "to enable alfworld: pip install 'gentax[alfworld]'" in text
    assert json.loads(out.read_text())["score"]["mean"] is None
    assert done.output.count("to enable") == 7
    assert f"gentax verify {out}" in text
