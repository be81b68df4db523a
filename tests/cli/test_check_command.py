"""`gentax check` as a person meets it: a line for each check, exit codes, a file, nothing that moves the cursor."""

from __future__ import annotations

import json

import pytest

from command import run

BAD = """
from gentax.core import StepResult, Domain, Level, ExpertAction, TextEnv

RECORD = Domain("bad", "bad_game:Bad", "Win.", "Win.", {"one": Level(3, "one step")}, "one", "MIT", "a test")


class Bad(TextEnv):
    domain = RECORD

    def _reset_task(self, task):
        return "Win.", f"Task {task.split} {task.index}."

    def _step(self, action):
        if action != "win":
            raise OSError("\\x1b[2J[bold]gone")
        return StepResult("Won.", 1.0, True, True, True)

    def expert(self):
        return ExpertAction("win", "So.")

    def size(self, split):
        return 9
"""
SMALL = ["--tasks", "4", "--starts", "20", "--seconds", "5"]


def test_what_is_sound_ends_with_0_and_is_written(tmp_path):
    done = run("check", "crafting:depth1-read0", *SMALL, "--json", "out.json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "crafting at level depth1-read0: every check passed" in done.out
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["passed"] is True
    assert {check["verdict"] for check in written["checks"]} == {"passed"}
    assert all(check["name"] in done.out for check in written["checks"])


def test_what_is_broken_ends_with_1_and_cannot_write_to_the_terminal(tmp_path):
    (tmp_path / "bad_game.py").write_text(BAD)
    done = run(
        "check", "bad_game:Bad", *SMALL, "--only", "any string", "--only", "expert", "--json", "out.json", cwd=tmp_path
    )
    assert done.code == 1, done.err
    assert "1 of 2 checks failed" in done.out
    assert "[bold]gone" in done.out
    assert "\x1b[2J" not in done.out
    assert [check["verdict"] for check in json.loads((tmp_path / "out.json").read_text())["checks"]] == [
        "passed",
        "failed",
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["sokobn"], "did you mean 'sokoban'"),
        (["sokoban:6x6-lnog"], "did you mean '6x6-long'"),
        (["sokoban", "--only", "rewrds"], "did you mean 'rewards'"),
        (["sokoban", "--tasks", "0"], "tasks must be more than 0"),
        (["sokoban", "--json", "."], "--json takes a file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, says, tmp_path):
    done = run("check", *args, cwd=tmp_path)
    assert done.code == 2, done.err
    assert says in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
