"""pass@k by hand, by brute force, and refused where it would be no estimate."""

from itertools import combinations

import numpy as np
import pytest

from gentax.core import UsageError
from gentax.metrics.axes import avg_at_k, pass_at_k, steps_of_k

# Four samples of three tasks: solved never, once and always.
SCORES_NK = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1]], float)


def test_by_hand():
    # One success among four: two samples miss it in 3 of 6 draws.
    assert pass_at_k(SCORES_NK, 1).value == pytest.approx(100 * (0 + 1 / 4 + 1) / 3)
    assert pass_at_k(SCORES_NK, 2).value == pytest.approx(100 * (0 + 1 / 2 + 1) / 3)
    assert pass_at_k(SCORES_NK, 4).value == pytest.approx(100 * (0 + 1 + 1) / 3)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
def test_it_is_the_mean_over_all_draws_of_k_samples(k):
    scores_NK = (np.random.default_rng(k).random((7, 5)) < 0.3).astype(float)
    drawn = [scores_NK[list(rows)].max(0).mean() for rows in combinations(range(7), k)]
    assert pass_at_k(scores_NK, k).value == pytest.approx(100 * np.mean(drawn))


def test_many_samples_do_not_overflow():
    scores_NK = np.zeros((5000, 2))
    scores_NK[0] = 1
    assert pass_at_k(scores_NK, 2500).value == pytest.approx(50)


def test_avg_is_pass_at_1_and_its_interval_covers_tasks():
    found = avg_at_k(SCORES_NK)
    assert found.value == pytest.approx(pass_at_k(SCORES_NK, 1).value)
    assert (found.n, found.covers, found.unit) == (3, "tasks", "percent")
    more = avg_at_k(np.repeat(SCORES_NK, 50, axis=0))  # samples of a task are no further tasks
    assert (more.low, more.high) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize(
    ("scores", "k", "says"),
    [
        (SCORES_NK, 5, "from 1 to 4, not 5"),
        (SCORES_NK, 0, "from 1 to 4, not 0"),
        (SCORES_NK / 2, 1, "0 or 1"),
        (SCORES_NK[:, :1], 1, "at least 2 tasks"),
        (np.where(SCORES_NK, np.nan, 0), 1, "NaN"),
    ],
)
def test_what_is_no_estimate_is_refused(scores, k, says):
    with pytest.raises(UsageError, match=says):
        pass_at_k(scores, k)


def test_the_k_that_are_printed():
    assert [steps_of_k(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]
