"""The time left of a study: stages weigh what they were measured to cost, and finished ones correct it."""

from __future__ import annotations

import pytest

from gentax.studies import progress
from gentax.studies.costs import UnitCosts
from gentax.studies.plan import make_plan
from gentax.studies.progress import TimeEstimate
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
    monkeypatch.setattr(progress, "time", clock)
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
