"""Each measure counts what it says, on episodes written by hand; the intervals cover as often as they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_episodes import played

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.metrics.behaviour import (
    KINDS,
    LostEpisodes,
    annotate,
    behaviour,
    compare,
    end_sentence,
    holm,
    lost_episodes,
    sentences,
    task_changes,
)  # fmt: skip
from gentax.metrics.statistics import success_rate
from gentax.metrics.statistics.intervals import TaskRatio


def of(*episodes):
    """The values of the only domain there is."""
    (one,) = behaviour(episodes).values()
    return {name: None if value is None else pytest.approx(value.value) for name, value in one.measures.items()}


def test_actions_are_repeated_done_before_and_lead_back():
    walked = annotate(played(0, "right>B", "right>C", "right!", "right!", "up>D", "right>D", "right>D"), 9)
    assert walked.repeated == (False, False, False, True, False, False, True)  # the same one had changed nothing
    one = annotate(played(0, "up!>Blocked.", "left!>A wall.", "up!>Blocked.", "go>B", "up>A", "up!>Blocked."), 9)
    assert one.redone == (False, False, True, False, False, True)  # whatever the refusal said
    assert not any(one.repeated)
    one = annotate(played(0, "go>B", "look>B", "back>A", "on>C", "fly!>A", "go>D"), 9)
    assert one.back == (False, True, True, False, False, False)  # accepted, to what was seen


@pytest.mark.parametrize(
    ("moves", "loops"),
    [
        (["x!"] * 3, True),
        (["x!"] * 2, False),
        (["a>B", "b>A"] * 3, True),
        (["a>B", "b>A"] * 2, False),
        (["go>Z", *["a>B", "b>C", "c>D", "d>Z"] * 3], True),
        (["a>B", "b>C", "c>D", "d>E", "e>A"] * 3, False),  # longer than a round may be
        ([*["a>B", "b>A"] * 3, "out>F"], False),  # it got out
        (["right>B", "right>C", "right>D"], False),  # the same action, but it gets somewhere
    ],
)
def test_an_episode_ends_in_a_loop(moves, loops):
    assert annotate(played(0, *moves), 99).loop is loops


def test_an_episode_has_one_of_four_ends():
    tries = [f"try {n}>{n}" for n in range(12)]
    stuck = [*tries[:9], "x!", "y!", "x!"]
    nearly = [*tries[:9], "x!", "y!", "new>Q"]
    ends = {
        "success": played(0, *stuck, won=True),
        "ended_early": played(1, *stuck[:11]),
        "gave_up": played(2, *stuck),
        "ran_out": played(3, *nearly),
    }
    for name, episode in ends.items():
        others = [one for one in ends.values() if one is not episode]
        assert of(episode, *others)[name] == 25
    assert not annotate(played(0, "x!", "x!"), 2).gave_up  # two actions tell nothing
    assert annotate(played(0, *["a>B", "b>A"] * 6), 12).gave_up  # accepted, but done before


def test_shares_are_of_all_actions_and_costs_of_all_episodes():
    values = of(
        played(0, "go>B", "out>F", won=True, written=4),
        played(1, "!", "fly!", "fly!", "go>B", "go>C", "go>D", written=2),
    )
    assert values["invalid"] == 100 * 3 / 8
    assert values["unreadable"] == 100 / 8
    assert values["repeated"] == 100 / 8
    assert values["success"] == 50


def test_costs():
    won = [played(n, "go>B", *["fly!"] * (n % 3), "out>F", won=True, written=4) for n in range(20)]
    lost = [played(n, *["fly!"] * 6, written=2) for n in range(20, 25)]
    values = of(*won, *lost)
    steps = sum(one.length for one in won)
    assert values["steps_per_success"] == (steps + 30) / 20
    assert values["length_given_success"] == steps / 20
    assert values["tokens_per_success"] == (4 * steps + 2 * 30) / 20
    assert values["tokens_per_step"] == (4 * steps + 60) / (steps + 30)
    unknown = of(*won, played(30, "go>B", written=None), *lost)
    assert unknown["tokens_per_success"] is None
    assert unknown["tokens_per_step"] is None
    assert of(*lost)["steps_per_success"] is None
    assert of(*won[:2], *lost)["steps_per_success"] is None  # two successes of seven: the interval has no end


def test_a_comparison_is_paired_by_task_and_leaves_errors_out_of_both():
    before = [played(n, "x!", "go>B", broke=n == 7) for n in range(100)]
    after = [played(n, "go>B", "on>C", broke=n == 8) for n in range(100)]
    both = compare(before, after)["room"]
    assert (both.before.tasks, both.after.episodes, both.before.excluded_tasks) == (98, 98, 2)
    assert both.change["invalid"].value == pytest.approx(-50)
    assert both.before.measures["invalid"].value == pytest.approx(50)
    json.dumps(both.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ([], [], "no episodes"),
        ([played(0, "a"), played(0, "b")], [played(0, "a")], "two episodes of sample 0 of room/small/test/0"),
        ([played(0, "a"), played(1, "a")], [played(0, "a"), played(2, "a")], "test/1 .* by the first"),
        ([played(0, "a")], [played(0, "a")], "at least 2 tasks"),
        ([played(n, "a", broke=n < 3) for n in range(50)], [played(n, "a") for n in range(50)], "3 of 50 tasks"),
    ],
)
def test_what_cannot_be_compared_is_refused(before, after, says):
    with pytest.raises(UsageError, match=says):
        compare(before, after)


def test_the_interval_of_success_is_that_of_every_other_table():
    scores = np.array([1.0] * 20 + [0.0] * 45)
    found = TaskRatio(scores, np.ones(65), "percent").estimate()
    rate = success_rate(scores)
    assert (found.value, found.low, found.high) == pytest.approx((rate.value, rate.low, rate.high))


def test_a_mean_without_spread_is_a_number_without_an_interval_and_is_not_tested():
    alike = TaskRatio(np.full(50, 3.0), np.ones(50), "tokens")
    assert (alike.estimate().value, alike.estimate().low, alike.estimate().high) == (3, 3, 3)
    moved = TaskRatio(np.ones(50), np.ones(50), "tokens").change(alike)
    assert (moved.value, moved.low, moved.high) == (2, 2, 2)
    before, after = ([played(n, "go>B", written=written) for n in range(9)] for written in (1, 3))
    assert compare(before, after)["room"].change["tokens_per_step"].value == 2
    assert ("room", "tokens_per_step") not in holm(compare(before, after))


def test_intervals_do_not_collapse_when_all_tasks_are_alike():
    none, all_ = (
        TaskRatio(np.zeros(50), np.full(50, 7.0), "percent"),
        TaskRatio(np.full(50, 7.0), np.full(50, 7.0), "percent"),
    )
    assert none.estimate().low == 0 < 5 < none.estimate().high < 10
    half = TaskRatio(np.tile([0.0, 7.0], 25), np.full(50, 7.0), "percent")
    for one in (none, all_, half):
        same = one.change(one)
        assert same.value == 0
        assert same.low < -1
        assert same.high > 1


def simulated(rng, tasks, rates, wins):
    """Actions and refused ones, steps and successes of two policies; tasks differ and are shared by both."""
    hard = rng.normal(size=tasks)
    sides = []
    for rate, win in zip(rates, wins, strict=True):
        logit = np.log(rate / (1 - rate)) + hard + 0.5 * rng.normal(size=tasks)
        won = rng.random(tasks) < 1 / (1 + np.exp(-(np.log(win / (1 - win)) - hard)))
        actions = np.where(won, rng.integers(3, 20, tasks), 20).astype(float)
        refused = rng.binomial(actions.astype(int), 1 / (1 + np.exp(-logit))).astype(float)
        sides.append((refused, actions, won.astype(float)))
    return sides


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [24, 150])
@pytest.mark.parametrize("measure", ["share", "cost"])
def test_intervals_of_a_policy_and_of_a_change_cover(tasks, measure):
    rng = np.random.default_rng(3)
    rates, wins = (0.1, 0.4), (0.6, 0.4)
    (a, b) = simulated(rng, 400_000, rates, wins)

    def ratio(side):
        refused, actions, won = side
        return TaskRatio(refused, actions, "percent") if measure == "share" else TaskRatio(actions, won, "steps")

    scale = 100 if measure == "share" else 1
    true = [scale * ratio(side).numerator_K.sum() / ratio(side).denominator_K.sum() for side in (a, b)]
    rounds, held = 1200, np.zeros(2)
    for _ in range(rounds):
        first, second = map(ratio, simulated(rng, tasks, rates, wins))
        one, moved = second.estimate(), first.change(second)
        held += [one is None or one.contains(true[1]), moved is None or moved.contains(true[1] - true[0])]
    assert (held / rounds > 0.93).all()
    assert (held / rounds < 0.985).all()


def test_a_p_value_is_five_percent_where_a_limit_is_0():
    rng = np.random.default_rng(1)
    sides = [TaskRatio(rng.integers(0, 5, 60).astype(float), np.full(60, 5.0), "percent") for _ in range(2)]
    moved = sides[0].change(sides[1])
    assert (moved.p_value() < 0.05) == (not moved.contains(0))
    touching = type(moved)(3.0, 0.0, 5.0, "tasks", "points", 60)
    assert touching.p_value() == pytest.approx(0.05)


def test_sentences_allow_for_how_many_changes_were_looked_at():
    before = [played(n, "go>B", "x!", "x!", "x!") for n in range(60)]
    after = [played(n, "go>B", "on>C", "on>D", "on>E") for n in range(60)]
    changed, same = compare(before, after), compare(before, before)
    said = sentences(changed, most=9)
    assert said[0].startswith("On room, ")
    assert "interval" in said[0]
    standing = [p for p in holm(changed).values() if p < 0.05]
    assert f"{len(standing)} of {len(holm(changed))} changes tested are significant" in " ".join(said)
    changes = [one for one in said if " went from " in one]
    largest = max(abs(changed["room"].change[name].value) for (_, name), p in holm(changed).items() if p < 0.05)
    assert f"{largest:.1f}" in changes[0]
    assert len(changes) == 2 < len(standing)  # one of the ends, one of the actions
    assert len([one for one in sentences(changed, most=1) if " went from " in one]) == 1
    (nothing,) = sentences(same)
    assert nothing.startswith(f"No change of behaviour is significant, of {len(holm(same))} changes tested")


def test_a_policy_alone_is_said_in_a_sentence():
    stuck = [played(n, *["x!"] * 8) for n in range(3)]
    won = [played(3, "go>B", won=True)]
    (one,) = behaviour([*stuck, *won]).values()
    assert (
        end_sentence(one)
        == "On room, 25 % of 4 episodes succeed; most failures are episodes that gave up (75 % of all)."
    )
    (one,) = behaviour([played(n, "go>B", won=True) for n in range(2)]).values()
    assert end_sentence(one) == "On room, 100 % of 2 episodes succeed."


# --- lost episodes ---

YES, NO, ERROR = Outcome.SUCCESS, Outcome.FAILURE, Outcome.ERROR


def failing(index: int, outcome: Outcome, *actions: str, horizon: int = 0) -> Episode:
    """An episode whose states all differ; an action `!` is refused, `` could not be read, `…` was cut off."""
    actions = actions * (horizon // len(actions)) if horizon else actions
    steps = [
        Step(f"state {n}", a, "" if a in ("", "…") else a, 0.0, a not in ("!", "", "…"), truncated=a == "…")
        for n, a in enumerate(actions)
    ]
    return Episode(Task("crafting", "easy", "test", index), 0, "goal", tuple(steps), outcome, "the end")


def test_changes_and_kinds_of_failure():
    before = [failing(n, outcome, "a") for n, outcome in enumerate((YES, YES, YES, NO, YES, NO))]
    after = [
        failing(0, NO, "a", "b"),  # ended early
        failing(1, NO, "!", horizon=12),  # refused to the end, in a loop
        failing(2, YES, "a"),
        failing(3, YES, "a"),
        failing(4, ERROR, "a"),
        failing(5, NO, "a", "", "b", "…", *"cdefghij"[:8]),  # out of steps, and still trying
    ]
    changes = list(task_changes(before, after))
    assert [one.change for one in changes] == ["lost", "lost", "solved twice", "gained", "an error", "failed twice"]
    assert changes[0].kinds == ("ended early",)
    assert changes[1].kinds == ("gave up", "ended in a loop", "an invalid action")
    assert changes[5].kinds == ("ran out of steps", "an invalid action", "no action read", "a reply cut off")
    assert not any(one.kinds for one in changes[2:5])
    assert all(kind in KINDS for one in changes for kind in one.kinds)

    counted = lost_episodes(changes)
    assert (counted.solved, counted.lost) == (3, 2)  # the one with an error is left out
    assert counted.kinds["gave up"] == 1
    assert counted.actions == (2, 14)
    assert counted.invalid == (0, 12)
    assert counted.invalid_percent == (0, pytest.approx(100 * 12 / 14))
    twice = counted + counted
    assert (twice.solved, twice.lost, twice.kinds["gave up"], twice.actions) == (6, 4, 2, (4, 28))
    assert LostEpisodes().invalid_percent is None


def test_episodes_that_do_not_pair_are_refused():
    one, two = failing(1, YES, "a"), failing(2, YES, "a")
    for other in ([two], [one, one], [replace(one, sample=1)]):
        with pytest.raises(UsageError):
            list(task_changes([one], other))
