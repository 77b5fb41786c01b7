"""Intervals of accuracies and differences: against scipy, and by simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from pyro_ssl.comparison.intervals import (
    accuracy_interval,
    mean_interval,
    paired_accuracy_interval,
    paired_mean_interval,
    rows_to_tell,
)


def test_accuracy_has_wilsons_interval():
    interval = accuracy_interval([True] * 7 + [False] * 3, level=0.9)
    z = stats.norm.ppf(0.95)
    centre = (7 + z**2 / 2) / (10 + z**2)
    half = z / (10 + z**2) * math.sqrt(7 * 3 / 10 + z**2 / 4)
    assert np.allclose(interval, (0.7, centre - half, centre + half))


def test_means_have_students_interval():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 9))
    theirs = stats.ttest_rel(first, second).confidence_interval(0.8)
    ours = paired_mean_interval(first, second, level=0.8)
    assert np.allclose(ours[1:], (theirs.low, theirs.high))
    assert math.isclose(ours.estimate, (first - second).mean())


def test_equal_predictions_leave_a_difference_possible():
    interval = paired_accuracy_interval([True] * 20, [True] * 20)
    assert interval.estimate == 0 and interval.low < -0.05 and interval.high == -interval.low


def test_so_many_rows_would_tell_and_not_many_fewer():
    first, second = [True] * 12 + [False] * 8, [True] * 10 + [False] * 10
    rows = rows_to_tell(first, second)
    assert rows_to_tell(second, first) == rows and rows > 20

    def interval(times):
        return paired_accuracy_interval(first * times, second * times)

    assert interval(math.ceil(rows / 20)).excludes_zero
    assert not interval(math.floor(rows / 20 * 0.8)).excludes_zero
    assert rows_to_tell(first, first) is None
    assert rows_to_tell([True] * 50, [False] * 50) == 50  # enough as they are


def test_differences_change_their_sign_with_the_order():
    first = [True, True, True, False, True]
    second = [False, False, True, True, False]
    forward = paired_accuracy_interval(first, second)
    backward = paired_accuracy_interval(second, first)
    assert np.allclose(forward, (-backward.estimate, -backward.high, -backward.low))


@pytest.mark.parametrize("rows", [20, 60])
def test_nine_of_ten_paired_intervals_hold_the_difference(rows):
    rng = np.random.default_rng(rows)
    # both right, first alone, second alone, none
    cells = np.array([0.6, 0.25, 0.1, 0.05])
    first_right = np.array([True, True, False, False])
    second_right = np.array([True, False, True, False])
    covered = 0
    for _ in range(1000):
        drawn = rng.choice(4, size=rows, p=cells)
        low, high = paired_accuracy_interval(first_right[drawn], second_right[drawn], 0.9)[1:]
        covered += low <= 0.15 <= high
    assert 0.87 < covered / 1000 < 0.96


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="both should have the same rows, got 2 and 3"):
        paired_accuracy_interval([True, False], [True] * 3)
    with pytest.raises(ValueError, match="values should be two or more, got 1"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="one row or more"):
        accuracy_interval([])
