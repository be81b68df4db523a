"""States whose template share is known."""

import pytest

from gentax.core import Task
from gentax.metrics.axes import template_share

CONTENT = ["one", "two", "six", "ten", "red", "tan", "ash", "oak", "elm", "fir"]


def tasks(*texts: list[str]) -> dict[Task, list[str]]:
    return {Task("maze", "base", "train", index): states for index, states in enumerate(texts)}


def test_what_every_task_shows_is_template_and_what_one_shows_is_not():
    # "You are in a" has 12 characters of "You are in a red hall so fine X", whose other words change.
    states = tasks(*([f"You are in a {word} {word}{word}"] for word in CONTENT))
    assert template_share(states).value == pytest.approx(100 * 12 / 23)


def test_a_domain_of_one_text_is_all_template_however_short():
    assert template_share(tasks(*([["Nothing happens."]] * 5))).value == 100
    assert template_share(tasks(*([["a menu of five words and more"] * 3] * 5))).value == 100


def test_a_text_of_one_task_alone_is_no_template_though_it_repeats_there():
    assert template_share(tasks(*([f"{word} is all that is here"] * 9 for word in CONTENT))).value == pytest.approx(
        100 * len("is all that is here") / len("one is all that is here")
    )
    assert template_share(tasks(*([f"{word} {word} {word} {word} {word}"] * 9 for word in CONTENT))).value == 0


def test_a_phrase_of_one_kind_of_page_is_template_when_nearly_every_task_shows_it():
    # Two pages a task: 17 characters of a menu, and 9 of its own.
    pages = [["Back Next Buy Now", f"{word} {word}{word[:2]}"] for word in CONTENT]
    share = template_share(tasks(*pages))
    assert share.value == pytest.approx(100 * 17 / 26)
    pages[0] = [pages[0][1]]
    assert template_share(tasks(*pages)).value > 60  # in nine tasks of ten
    pages[1] = [pages[1][1]]
    assert template_share(tasks(*pages)).value == 0  # in eight


def test_phrases_that_overlap_are_counted_once():
    states = tasks(*([f"a b c d e f g {word}{word}"] for word in CONTENT))
    assert template_share(states).value == pytest.approx(100 * 13 / 20)


def test_the_interval_covers_tasks_and_stays_within_bounds():
    rare = template_share(tasks(["a b c d", "x"], ["a b c d", "y" * 400]))
    assert (rare.n, rare.unit) == (2, "percent")
    assert 0 == rare.low < rare.value < rare.high
    common = template_share(tasks(["a b c d"], ["a b c d", "y"]))
    assert common.low < common.value < common.high == 100


def test_text_in_fewer_than_two_tasks_tells_nothing():
    assert template_share(tasks(["a b c d"], [""])) is None
    assert template_share({}) is None
