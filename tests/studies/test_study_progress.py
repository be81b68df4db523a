"""What is shown of a study while it runs, and the time left: stages weigh what they cost, finished ones correct it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gentax.studies import costs
from gentax.studies.costs import TimeEstimate, UnitCosts
from gentax.studies.plan import make_plan
from gentax.studies.progress import StudyProgress
from gentax.studies.study import read_study

expected_seconds = UnitCosts().seconds


@pytest.fixture(scope="module")
def stages():
    return make_plan(read_study("demo")).stages()


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(costs, "time", clock)
    return clock


def seal(seconds):
    return {"seconds": seconds, "files": {}, "peak_memory": None}


def test_before_anything_is_done_the_table_says(stages):
    left = TimeEstimate(stages, {})
    assert left.left() == pytest.approx(sum(map(expected_seconds, stages)))
    assert left.fraction_done() == 0


def test_replay_and_steps_cost_time(stages):
    cost = {stage.title: expected_seconds(stage) for stage in stages}
    assert cost["train imitation+replay"] > 2 * cost["train imitation"]
    assert cost["random play on babyai"] < cost["base on babyai"]


def test_a_slow_machine_shows_in_the_first_stages(stages, clock):
    left = TimeEstimate(stages, {})
    before = left.left()
    for stage in stages[:12]:
        left.begin(stage)
        clock.now += 3 * expected_seconds(stage)
        assert left.end(stage) == pytest.approx(3 * expected_seconds(stage))
    rest = sum(map(expected_seconds, stages[12:]))
    assert 2 * rest < left.left() < 3.1 * rest
    assert left.left() > before
    assert 0 < left.fraction_done() < 1


def test_what_was_done_before_counts_neither_as_left_nor_as_fast(stages):
    done = {stage: seal(expected_seconds(stage)) for stage in stages[:-1]}
    left = TimeEstimate(stages, done)
    assert left.left() == pytest.approx(expected_seconds(stages[-1]))


def test_a_stage_in_progress_is_left_in_part(stages, clock):
    (train,) = (stage for stage in stages if stage.title == "train rl")
    left = TimeEstimate([train], {})
    left.begin(train)
    clock.now += expected_seconds(train) / 2
    left.advance(train, 0.5)
    assert left.left() == pytest.approx(expected_seconds(train) / 2, rel=0.05)
    assert left.fraction_done() == pytest.approx(0.5)


def test_workers_share_the_work_but_a_chain_stays_a_chain(stages):
    one, two, many = (TimeEstimate(stages, {}, slots).left() for slots in (1, 2, 1000))
    assert one / 2 < two < 0.65 * one
    longest = max(expected_seconds(stage) for stage in stages if stage.kind == "train")
    assert longest < many < two


class Terminal(io.StringIO):
    def isatty(self):
        return True


def console(terminal: bool, **settings) -> Console:
    file = Terminal() if terminal else io.StringIO()
    return Console(file=file, force_terminal=terminal, width=80, highlight=False, emoji=False, **settings)


def test_a_pipe_gets_a_line_a_stage(stages):
    out = console(False)
    with StudyProgress("small", out) as shown:
        shown.on_begin(stages, stages[:1], 1)
        for stage in stages[1:]:
            shown.on_stage_begin(stage)
            shown.on_stage_end(stage, "50.0 % of 6 tasks solved" if stage.kind == "evaluate" else "")
    lines = out.file.getvalue().splitlines()
    assert lines[0].startswith(f"study small: {len(stages)} stages, 1 of them done before; about ")
    assert len(lines) == len(stages)
    assert lines[1].startswith(f"[ 2/{len(stages)}] {stages[1].title}: 50.0 % of 6 tasks solved (0:0")
    assert all(line.endswith(" left)") for line in lines[1:-1])
    assert "left" not in lines[-1]


def test_a_terminal_gets_two_lines_that_go(stages, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    out = console(True, color_system=None)
    with StudyProgress("small", out) as shown:
        shown.on_begin(stages, [], 1)
        shown.on_stage_begin(stages[0])
        shown.on_progress(stages[0], 0.5, "3/6 episodes")
        screen = console(False)
        screen.print(shown)
        for number, stage in enumerate(stages):
            shown.on_stage_begin(stage)
            shown.on_stage_end(stage, str(number))
    first, second = screen.file.getvalue().splitlines()
    assert len(first) <= 80
    assert "about " in first
    assert "left" in first
    assert second == f"[ 1/{len(stages)}] {stages[0].title}: 3/6 episodes"
    said = out.file.getvalue()
    assert "study small" not in said  # no log
    assert said.endswith(("\x1b[2K", "\x1b[?25h"))  # taken away, the cursor given back
