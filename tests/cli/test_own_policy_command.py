"""`module:policy`, `--parallel` and unreadable replies on the command line."""

from __future__ import annotations

import sys

import pytest

from gentax.cli import main

OWN = '''
SIZES = []


class Greedy:
    """Takes the first possible action."""

    def reply(self, turns):
        SIZES.append(len(turns))
        return [f"<action>{(turn.env.admissible() or ['wait'])[0]}</action>" for turn in turns]


def talk(messages):
    return "I would rather talk."


def broken(messages):
    return messages[9]
'''


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    (tmp_path / "cli_policy.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "cli_policy", raising=False)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["gentax", *args])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "cli_policy:Greedy", "-d", "babyai", "--tasks", "6"],
        ["rollout", "babyai", "--policy", "cli_policy:Greedy", "--tasks", "6", "--out", "e.jsonl.gz"],
        ["probe", "babyai", "--policy", "cli_policy:Greedy", "--trajectories", "6", "--horizon", "4"],
        ["diversity", "babyai", "crafting", "--policy", "cli_policy:Greedy", "--trajectories", "6", "--horizon", "4"],
    ],
)
def test_it_plays_and_no_more_at_once_than_asked_for(run, command):
    code, out, err = run(*command, "--parallel", "2")
    assert (code, err) == (0, "")
    assert "cli_policy:Greedy: 6/" in out
    assert max(sys.modules["cli_policy"].SIZES) == 2
    code, _, err = run(*command, "--parallel", "0")
    assert code == 2
    assert "--parallel" in err


def test_the_tax_of_one_and_a_warning_about_the_other(run):
    tax = ["tax", "--source", "babyai", "-t", "crafting", "--tasks", "4", "--looks", "1"]
    code, _, err = run(*tax, "--base", "cli_policy:Greedy", "--tuned", "cli_policy:talk", "--parallel", "3")
    assert code == 0
    assert max(sys.modules["cli_policy"].SIZES) == 3
    assert "gentax: warning: " in err
    assert "replies of cli_policy:talk hold no action that can be read, such as 'I would rather talk.'" in err
    assert len(err.splitlines()) == 1
    code, _, err = run(*tax, "--base", "cli_policy:talk", "--tuned", "cli_policy:Greedy")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "gentax: stopped: " in err
    assert run(*tax, "--base", "cli_policy:talk", "--tuned", "cli_policy:Greedy", "--allow-unreadable")[0] == 0


def test_unreadable_replies_stop_an_evaluation_unless_they_are_allowed(run):
    command = ["evaluate", "cli_policy:talk", "-d", "babyai", "--tasks", "4"]
    code, _, err = run(*command)
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.endswith("To play on all the same: --allow-unreadable\n")
    code, out, _ = run(*command, "--allow-unreadable")
    assert code == 0
    assert "cli_policy:talk on test tasks" in out


def test_a_fault_of_a_policy_is_one_line(run):
    code, _, err = run("evaluate", "cli_policy:broken", "-d", "babyai", "--tasks", "4")
    line = OWN.splitlines().index("    return messages[9]") + 1
    assert code == 1
    assert err == (
        f"gentax: policy 'cli_policy:broken' failed: cli_policy.py:{line}: IndexError: list index out of range\n"
    )
    code, _, err = run("play", "babyai", "--policy", "cli_policy:brokn")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "did you mean 'broken'" in err
