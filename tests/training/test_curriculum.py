"""Schedules: one domain, mixtures, cascades, replay, levels, adaptive sampling."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gentax.training.config import CurriculumConfig, Phase, TrainConfig
from gentax.training.rollout_worker import Curriculum, split_groups


def curriculum(**settings) -> Curriculum:
    return Curriculum(TrainConfig(tasks_per_step=8, **settings))


def sampled(made: Curriculum, step: int, rows=()) -> Counter[str]:
    return Counter({name: len(tasks) for name, tasks in made.tasks(step, list(rows)).items()})


def test_one_domain_is_sampled_anew_at_each_step_and_alike_each_time(toy):
    made = curriculum(source="toy", max_steps=3)
    first, second = made.tasks(1, []), made.tasks(2, [])
    assert first == curriculum(source="toy", max_steps=3).tasks(1, [])
    assert first != second
    assert len(set(first["toy"])) == 8
    assert not set(first["toy"]) & set(made.pools["toy"].validation)
    assert [made.ends(n) for n in (1, 2, 3)] == [False, False, True]


def test_a_mixture_has_its_shares_and_a_group_one_domain(toy):
    made = curriculum(curriculum=CurriculumConfig((Phase({"toy:one": 3.0, "toy:three": 1.0}, 40),)))
    count = sum((sampled(made, n) for n in range(1, 41)), Counter())
    assert count == {"toy:one": 240, "toy:three": 80}
    for name, tasks in made.tasks(1, []).items():
        assert {f"{task.domain}:{task.level}" for task in tasks} == {name}


def test_shares_that_do_not_divide_are_met_on_average():
    rng = np.random.default_rng(0)
    mix = {"a": 19 / 23, "b": 3 / 23, "c": 1 / 23}
    splits = [split_groups(mix, 16, float(rng.random())) for _ in range(4000)]
    assert all(sum(counts.values()) == 16 for counts in splits)
    for name, share in mix.items():
        assert np.mean([counts.get(name, 0) for counts in splits]) == pytest.approx(16 * share, abs=0.05)


def test_a_cascade_goes_from_phase_to_phase_and_replays_what_was_before(toy):
    phases = (Phase({"toy:one": 1.0}, 2), Phase({"toy:three": 1.0}, 20))
    plain = curriculum(curriculum=CurriculumConfig(phases))
    assert [set(sampled(plain, n)) for n in (1, 2, 3, 22)] == [{"toy:one"}, {"toy:one"}, {"toy:three"}, {"toy:three"}]
    assert [plain.ends(n) for n in (1, 2, 3, 22)] == [False, True, False, True]
    replayed = curriculum(curriculum=CurriculumConfig((phases[0], Phase({"toy:three": 3.0, "toy:one": 1.0}, 20))))
    assert sampled(replayed, 1) == {"toy:one": 8}
    assert sum((sampled(replayed, n) for n in range(3, 23)), Counter()) == {"toy:one": 40, "toy:three": 120}


def test_adaptive_sampling_prefers_what_is_neither_always_nor_never_solved(toy):
    made = curriculum(curriculum=CurriculumConfig((Phase({"toy:one": 1.0, "toy:three": 1.0}, 100),), adaptive=True))
    assert sampled(made, 1) == {"toy:one": 4, "toy:three": 4}
    rows = [{"step": 1, "success/toy:one": 1.0, "success/toy:three": 0.5}]
    count = sum((sampled(made, n, rows) for n in range(2, 60)), Counter())
    assert count["toy:three"] > 8 * count["toy:one"] > 0
