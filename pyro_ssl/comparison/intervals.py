"""Confidence intervals of accuracies, means and paired differences over few rows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

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
    of_first, of_second = _rows(first, bool), _rows(second, bool)
    _check_paired(of_first, of_second)
    size = len(of_first)
    first_alone = int((of_first & ~of_second).sum())
    second_alone = int((of_second & ~of_first).sum())
    difference = first_alone - second_alone
    centre = difference / (size + 2)
    deviation = math.sqrt(first_alone + second_alone + 1 - difference**2 / (size + 2)) / (size + 2)
    half = stats.norm.ppf((1 + level) / 2) * deviation
    low = max(-1.0, float(centre - half))
    high = min(1.0, float(centre + half))
    return Interval(difference / size, low, high)


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
