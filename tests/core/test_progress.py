"""Progress: a line that is rewritten where a person is watching, and lines now and then elsewhere."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest

from gentax.core import console
from gentax.core.console import EpisodeProgress, ProgressLine, end_line, shows_progress, status
from gentax.core.env import Task
from gentax.core.episode import Episode, Outcome


def episodes(n):
    return [Episode(Task("toy", "one", "test", i), 0, "", (), Outcome.SUCCESS) for i in range(n)]


def test_progress_in_a_pipe_prints_a_line_per_quarter(capsys):
    seen, steps = [], []
    count = EpisodeProgress(8, "base", True, seen.append, steps.append)
    count.begin("sokoban")
    for episode in episodes(8):
        count.steps(3)
        count(episode)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  base: 0/8 episodes, sokoban"
    assert [line.split()[1] for line in lines] == ["0/8", "2/8", "4/8", "6/8", "8/8"]
    assert lines[-1] == "  base: 8/8 episodes in 0:00"
    assert (len(seen), sum(steps)) == (8, 24)


@pytest.mark.parametrize("setting", [None, False])
def test_no_progress_in_a_file_unless_asked_for(capsys, setting):
    seen = []
    count = EpisodeProgress(2, "base", setting, seen.append)
    count.begin()
    for episode in episodes(2):
        count.steps(1)
        count(episode)
    assert capsys.readouterr().out == ""
    assert len(seen) == 2


def test_progress_shows_speed_and_time_left_but_no_success_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    count = EpisodeProgress(100, "base", False)
    now[0] = 110.0
    count.steps(500)
    assert count.line() == "  base: 0/100 episodes, 50 steps/s"  # nothing is known yet of how long they are
    for episode in episodes(10):
        count(episode)
    assert count.line() == "  base: 10/100 episodes, 50 steps/s, about 1:30 left"
    lost = EpisodeProgress(100, "base", False)
    now[0] = 120.0
    lost.steps(500)
    for episode in episodes(10):
        lost(replace(episode, outcome=Outcome.FAILURE))
    assert lost.line() == "  base: 10/100 episodes, 50 steps/s, about 1:30 left"  # whoever wins


def test_progress_in_a_pipe_prints_once_a_minute_when_slow(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    count = EpisodeProgress(1000, "base", True)
    count.begin()
    for _ in range(130):
        now[0] += 1.0
        count.steps(10)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_status_is_transient_in_a_terminal_and_kept_in_a_pipe(capsys, monkeypatch):
    status("  loading base")
    assert capsys.readouterr().out == "  loading base\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status("  loading base")
    count = EpisodeProgress(2, "b", None)
    count.begin()
    end_line()
    assert capsys.readouterr().out == "\r  loading base\r  b: 0/2 episodes\r" + " " * 17 + "\r"
    for episode in episodes(2):
        count(episode)
    capsys.readouterr()
    count.begin("the expert's plans")
    end_line()
    assert "2/2" not in capsys.readouterr().out  # which was printed already
    status("x\ny\x1b[2J")
    assert "\n" not in capsys.readouterr().out
    end_line()


def test_progress_rewrites_one_line_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    line = ProgressLine()
    line.update("a long line\x1b[2J", 1, 3)
    line.update("short", 2, 3)
    line.update("done", 3, 3)
    first, second, third = capsys.readouterr().out.split("\r")[1:]
    assert first == "a long line⟨U+001B⟩[2J"
    assert second == "short".ljust(len(first))
    assert third == "done ".rstrip().ljust(len("short")) + "\n"


def test_two_progress_lines_can_share_a_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    one, two = ProgressLine(), ProgressLine()
    one.update("a long line", 1, 2)
    two.update("short", 2, 2)
    assert capsys.readouterr().out == "\ra long line\rshort      \n"
    two.update("next", 1, 2)
    end_line()
    assert capsys.readouterr().out == "\rnext\n"


def test_end_line_moves_other_output_to_a_line_of_its_own(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    line = ProgressLine()
    line.update("one", 1, 2)
    end_line()
    end_line()
    assert capsys.readouterr().out == "\rone\n"
    line.update("two", 2, 2)
    end_line()
    assert capsys.readouterr().out == "\rtwo\n"


def test_a_notebook_counts_as_interactive(monkeypatch, capsys):
    assert not shows_progress(None)
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert console.is_interactive()
    assert shows_progress(None)
    ProgressLine().update("x" * 200, 1, 1)
    assert "x" * 200 in capsys.readouterr().out  # a line is as long as it is where nothing is cut
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace()))
    assert not console.is_interactive()  # IPython in a pipe
