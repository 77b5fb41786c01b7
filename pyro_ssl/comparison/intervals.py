"""Confidence intervals of accuracies, means and paired differences over few rows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from pyro_ssl.utils.arguments import check_kind

Booleans = np.ndarray[Any, np.dtype[np.bool_]]


class Interval(NamedTuple):
    """An estimate and its confidence interval.

    Arguments:
        estimate: The value on the rows at hand.
        low: Lower end.
        high: Upper end.

    >>> Interval(0.02, -0.03, 0.07).excludes_zero
    False
    """

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """True if all of the interval is above 0, or all of it below."""
        return self.low > 0 or self.high < 0


def in_points(interval: Interval, level: float) -> str:
    """A difference of accuracies in percentage points, as text.

    >>> in_points(Interval(0.02, -0.03, 0.07), 0.95)
    '2.0 points (95 % interval -3.0 to 7.0)'

    Arguments:
        interval: The difference and its interval, from -1 to 1.
        level: Confidence level of the interval.
    """
    estimate, low, high = (f"{100 * value:.1f}" for value in interval)
    return f"{estimate} points ({100 * level:.4g} % interval {low} to {high})"


def check_level(level: Any) -> None:
    """Check a confidence level.

    Raises:
        ValueError: It is not a number between 0 and 1.

    >>> check_level("a")
    Traceback (most recent call last):
    ValueError: level should be a finite number, got 'a'
    """
    check_kind("level", level, float)
    if not 0 < level < 1:
        raise ValueError(f"level should be between 0 and 1, got {level!r}")


def accuracy_interval(correct: Any, level: float = 0.95) -> Interval:
    """Wilson's interval of an accuracy.

    Arguments:
        correct: Whether each row is predicted correctly, `(n,)`.
        level: Confidence level.

    Raises:
        ValueError: There is no row.

    References:
        Wilson 1927; Brown, Cai, DasGupta 2001.

    >>> [round(end, 3) for end in accuracy_interval([True] * 18 + [False] * 2)]
    [0.9, 0.699, 0.972]
    """
    check_level(level)
    rows = _rows(correct, bool)
    result = stats.binomtest(int(rows.sum()), len(rows)).proportion_ci(level, method="wilson")
    return Interval(float(rows.mean()), float(result.low), float(result.high))


def paired_accuracy_interval(first: Any, second: Any, level: float = 0.95) -> Interval:
    r"""Interval of the difference of two accuracies on the same rows, `first` minus `second`.

    Where b rows are correct by the first alone, and c by the second alone, half a row is added to
    each cell of the table of n rows, which also keeps the interval of two equal predictions from
    having no width:

    .. math:: \frac{b - c}{n + 2} \pm z \, \frac{1}{n + 2}
              \sqrt{b + c + 1 - \frac{(b - c)^2}{n + 2}}

    Arguments:
        first: Whether each row is predicted correctly by the first method, `(n,)`.
        second: The same of the second method, `(n,)`.
        level: Confidence level.

    Returns:
        The interval, with (b - c) / n as its estimate.

    Raises:
        ValueError: There is no row, or the numbers of rows differ.

    References:
        Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
        proportions".

    >>> first = [True] * 9 + [False]
    >>> second = [True] * 6 + [False] * 4
    >>> [round(end, 2) for end in paired_accuracy_interval(first, second)]
    [0.3, -0.04, 0.54]
    """
    check_level(level)
    of_first, of_second = _rows(first, bool), _rows(second, bool)
    _check_paired(of_first, of_second)
    size = len(of_first)
    first_alone = int((of_first & ~of_second).sum())
    second_alone = int((of_second & ~of_first).sum())
    low, high = _paired_ends(first_alone, second_alone, size, level)
    return Interval((first_alone - second_alone) / size, low, high)


def rows_to_tell(first: Any, second: Any, level: float = 0.95) -> int | None:
    """Number of rows with which `paired_accuracy_interval` would exclude zero.

    As if the rows at hand were repeated: the two methods stay as different as they are here. It is
    rounded up to two digits, since it is rough: the difference itself is uncertain.

    Arguments:
        first: Whether each row is predicted correctly by the first method, `(n,)`.
        second: The same of the second method, `(n,)`.
        level: Confidence level.

    Returns:
        The number, or None if both have equally many correct predictions.

    Raises:
        ValueError: There is no row, or the numbers of rows differ.

    >>> rows_to_tell([True] * 9 + [False], [True] * 6 + [False] * 4)
    13
    """
    check_level(level)
    of_first, of_second = _rows(first, bool), _rows(second, bool)
    _check_paired(of_first, of_second)
    size = len(of_first)
    first_alone = int((of_first & ~of_second).sum())
    second_alone = int((of_second & ~of_first).sum())
    if first_alone == second_alone:
        return None
    rows = size
    while not _tells(first_alone * rows / size, second_alone * rows / size, rows, level):
        rows = math.ceil(1.02 * rows)
    digits = max(0, len(str(rows)) - 2)
    return math.ceil(rows / 10**digits) * 10**digits


def _tells(first_alone: float, second_alone: float, size: int, level: float) -> bool:
    """Whether the interval of a paired difference excludes zero."""
    low, high = _paired_ends(first_alone, second_alone, size, level)
    return low > 0 or high < 0


def _paired_ends(
    first_alone: float, second_alone: float, size: int, level: float
) -> tuple[float, float]:
    """Ends of the interval of a paired difference of accuracies, from the counts."""
    difference = first_alone - second_alone
    centre = difference / (size + 2)
    deviation = math.sqrt(first_alone + second_alone + 1 - difference**2 / (size + 2)) / (size + 2)
    half = float(stats.norm.ppf((1 + level) / 2)) * deviation
    return max(-1.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Any, level: float = 0.95) -> Interval:
    """Student's interval of a mean.

    Arguments:
        values: Values of the rows, `(n,)`.
        level: Confidence level.

    Raises:
        ValueError: There are fewer than two rows.

    >>> [round(end, 2) for end in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    check_level(level)
    rows = _rows(values, float)
    if len(rows) < 2:
        raise ValueError(f"values should be two or more, got {len(rows)}")
    mean = float(rows.mean())
    error = float(rows.std(ddof=1)) / math.sqrt(len(rows))
    half = float(stats.t.ppf((1 + level) / 2, len(rows) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def paired_mean_interval(first: Any, second: Any, level: float = 0.95) -> Interval:
    """Student's interval of the mean difference of values of the same rows.

    Arguments:
        first: Values of the first method, `(n,)`.
        second: Values of the second method, `(n,)`.
        level: Confidence level.

    Raises:
        ValueError: There are fewer than two rows, or the numbers of rows differ.

    >>> paired_mean_interval([2.0, 3.0], [1.0, 2.0]).estimate
    1.0
    """
    of_first, of_second = _rows(first, float), _rows(second, float)
    _check_paired(of_first, of_second)
    return mean_interval(of_first - of_second, level)


def _rows(values: Any, kind: type) -> Any:
    rows: Any = np.asarray(values, dtype=kind)
    if rows.ndim != 1 or not len(rows):
        raise ValueError(f"there should be values of one row or more, got shape {rows.shape}")
    return rows


def _check_paired(first: Any, second: Any) -> None:
    if len(first) != len(second):
        raise ValueError(f"both should have the same rows, got {len(first)} and {len(second)}")
