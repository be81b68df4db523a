"""Progress: a line that is rewritten where a person is watching, and lines now and then elsewhere."""

from __future__ import annotations

import sys
import types

import pytest

from gentax.core import progress
from gentax.core.episode import Episode, Outcome
from gentax.core.progress import Progress, count_episodes, end_line, is_shown
from gentax.core.task import Task


def episodes(n):
    return [Episode(Task("toy", "one", "test", i), 0, "", (), Outcome.SUCCESS) for i in range(n)]


def test_a_file_gets_a_line_now_and_then(capsys):
    seen = []
    count = count_episodes(8, "base", True, seen.append)
    for episode in episodes(8):
        count(episode)
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "  base: 1/8 episodes, 100% solved"
    assert len(out.splitlines()) == 5
    assert "\r" not in out
    assert len(seen) == 8


@pytest.mark.parametrize("setting", [None, False])
def test_nothing_is_printed_into_a_file_unless_asked(capsys, setting):
    seen = []
    count = count_episodes(2, "base", setting, seen.append)
    for episode in episodes(2):
        count(episode)
    assert capsys.readouterr().out == ""
    assert len(seen) == 2


def test_a_terminal_gets_one_line_that_is_rewritten(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    line = Progress()
    line.say("a long line\x1b[2J", 1, 3)
    line.say("short", 2, 3)
    line.say("done", 3, 3)
    first, second, third = capsys.readouterr().out.split("\r")[1:]
    assert first == "a long line\ufffd[2J"
    assert second == "short".ljust(len(first))
    assert third == "done ".rstrip().ljust(len("short")) + "\n"


def test_two_counts_that_share_a_line_leave_nothing_of_one_another(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    one, two = Progress(), Progress()
    one.say("a long line", 1, 2)
    two.say("short", 2, 2)
    assert capsys.readouterr().out == "\ra long line\rshort      \n"
    two.say("next", 1, 2)
    end_line()
    assert capsys.readouterr().out == "\rnext\n"


def test_what_else_is_printed_stands_on_a_line_of_its_own(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    line = Progress()
    line.say("one", 1, 2)
    end_line()
    end_line()
    assert capsys.readouterr().out == "\rone\n"
    line.say("two", 2, 2)
    end_line()
    assert capsys.readouterr().out == "\rtwo\n"


def test_a_notebook_is_a_place_where_a_person_is_watching(monkeypatch, capsys):
    assert not is_shown(None)
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert progress.is_interactive()
    assert is_shown(None)
    Progress().say("x" * 200, 1, 1)
    assert "x" * 200 in capsys.readouterr().out  # a line is as long as it is where nothing is cut
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace()))
    assert not progress.is_interactive()  # IPython in a pipe
