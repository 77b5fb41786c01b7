"""Columns that a method should probably not learn from: identifiers, and copies of the labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_ssl.data.classes import rows_of_labels
from pyro_ssl.utils.arrays import brief

Array = np.ndarray[Any, Any]
LEAST_ROWS = 10
"""Rows, or labels, from which a column is judged; in fewer, chance would raise false alarms."""


class ColumnWarning(UserWarning):
    """A column of a table looks like an identifier, or like a copy of the labels.

    >>> issubclass(ColumnWarning, UserWarning)
    True
    """


def warn_of_columns(path: Any, names: Sequence[str], x: Array, labels: Array | None) -> None:
    """Warn of each column that looks like an identifier, or like a copy of the labels.

    Arguments:
        path: The file, for the message.
        names: Names of the columns.
        x: Their values, `(N, D)`.
        labels: Labels of any kind, `(N,)`; None if there are none.

    >>> warn_of_columns("pets.csv", ["weight"], np.array([[4.5], [30.0]]), None)
    """
    missing = np.full(len(x), True)
    if labels is not None:
        labels, missing = rows_of_labels(labels, len(x))
    for name, column in zip(names, x.T, strict=True):
        if is_identifier(column):
            warnings.warn(
                f"{path}: column {brief(name)} holds a different whole number in each row, in "
                "order or without gaps, like the number of a row; if it is an identifier, leave "
                f"it out with --ignore-columns {name}",
                ColumnWarning,
                stacklevel=2,
            )
        elif labels is not None and is_copy(column[~missing], labels[~missing]):
            warnings.warn(
                f"{path}: column {brief(name)} has one value for each class in all "
                f"{int((~missing).sum())} rows with a label; if it is made from the labels, leave "
                f"it out with --ignore-columns {name}",
                ColumnWarning,
                stacklevel=2,
            )


def is_identifier(column: Array) -> bool:
    """Whether a column holds distinct whole numbers that rise, fall, or have no gaps.

    Arguments:
        column: Values `(N,)`.

    >>> is_identifier(np.arange(100, 120)), is_identifier(np.arange(20) ** 0.5)
    (True, False)
    """
    if len(column) < LEAST_ROWS or (column != np.round(column)).any():
        return False
    steps = np.diff(column)
    is_in_order = (steps > 0).all() or (steps < 0).all()
    has_no_gaps = bool((np.diff(np.sort(column)) == 1).all())
    return bool(is_in_order) or has_no_gaps


def is_copy(column: Array, labels: Array) -> bool:
    """Whether each class has one value of its own.

    Arguments:
        column: Values `(n,)` in the rows with a label.
        labels: The labels of these rows, `(n,)`, two or more of a class on average.

    >>> is_copy(np.tile([3.0, 7.0], 5), np.tile(["cat", "dog"], 5))
    True
    """
    names = [str(label) for label in labels]
    classes = len(set(names))
    if len(names) < max(LEAST_ROWS, 2 * classes) or classes < 2:
        return False
    values = set(column.tolist())
    pairs = set(zip(column.tolist(), names, strict=True))
    return len(values) == len(pairs) == classes
