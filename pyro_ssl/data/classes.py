"""From labels of any kind to class indices and names of classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_ssl.data.missing_labels import missing_labels, warn_of_markers, warn_of_words
from pyro_ssl.utils.arguments import MISSING_WORDS
from pyro_ssl.utils.arrays import as_array, brief, check_signed, few


def encode(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the classes of labels, sorted, and class indices `(n,)`, -1 for rows without a label.

    A row has no label if y is masked, -1, NaN, NA or None there, or such a value as text, such as
    "", "-1", "nan" and "<NA>"; `MISSING_MARKS` in `utils/arguments.py` is the list. The words in
    `MISSING_WORDS`, such as "None", "NA" and "null", are also missing labels. They could be
    classes, so a `LabelWarning` names them. It also names a class of most rows that looks like a
    missing label, such as "unknown" or 999.

    Arguments:
        y: Labels `(n,)`.
        n: Number of rows.

    Raises:
        ValueError: y has another length, no label, one class only, or labels of several types.
        TypeError: y is not an array.

    >>> classes, indices = encode(["cat", "dog", None, "cat"], 4)
    >>> classes.tolist(), indices.tolist()
    (['cat', 'dog'], [0, 1, -1, 0])
    """
    values, missing = rows_of_labels(y, n)
    known = values_of_classes(values[~missing])
    classes, counts = np.unique(known, return_counts=True)
    if len(classes) < 2:
        raise ValueError(_one_class_message(classes[0], values[missing]))
    warn_of_words(values)
    warn_of_markers(classes.tolist(), counts.tolist())
    indices = np.full(n, -1)
    indices[~missing] = np.searchsorted(classes, known)
    return classes, indices


def names_of(classes: np.ndarray) -> tuple[str, ...]:
    """Names of classes; whole numbers are written without a decimal point.

    >>> names_of(np.array([0.0, 1.0]))
    ('0', '1')
    """
    if classes.dtype.kind == "f":
        return tuple(f"{value:.0f}" for value in classes.tolist())
    return tuple(map(str, classes.tolist()))


def class_indices_of(names: Sequence[str], classes: Sequence[str], message: str) -> np.ndarray:
    """Look up the indices of class names; "1.0", as earlier versions wrote it, counts as "1".

    Arguments:
        names: Names to look up.
        classes: Names of the classes.
        message: First part of the error message.

    Raises:
        ValueError: A name is not the name of a class.

    >>> class_indices_of(["dog"], ["cat", "dog"], "the labels have other classes")
    array([1])
    """
    exact = {name: k for k, name in enumerate(classes)}
    plain = {_without_point(name): k for k, name in enumerate(classes)}
    indices = [exact.get(name, plain.get(_without_point(name), -1)) for name in names]
    unknown = [name for name, k in zip(names, indices, strict=True) if k < 0]
    if unknown:
        raise ValueError(f"{message}: {few(unknown)}; the known classes are {few(classes)}")
    return np.array(indices)


def _without_point(name: str) -> str:
    return re.sub(r"^(-?\d+)\.0$", r"\1", name)


def rows_of_labels(y: Any, n: int, name: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """Convert labels to an array `(n,)`, with a mask of the rows without a label.

    Arguments:
        y: Labels `(n,)`.
        n: Number of rows.
        name: Name of the argument, for messages.

    Raises:
        ValueError: y is None or has another length, or -1 in an unsigned dtype.
        TypeError: y is not an array.

    >>> rows_of_labels([0, -1, 2], 3)
    (array([ 0, -1,  2]), array([False,  True, False]))
    """
    from sklearn.utils.validation import column_or_1d

    if y is None:
        raise ValueError(
            f"{name} should hold labels, with -1 for unlabeled rows; "
            "requires y to be passed, but the target y is None"
        )
    values, masked = as_array(y, name)
    values = column_or_1d(values, warn=True)
    masked = masked.reshape(values.shape)
    if len(values) != n:
        raise ValueError(
            f"{name} should have one label per row of X, {n}; got {len(values)}, "
            "inconsistent numbers of samples"
        )
    check_signed(values[~masked], name)
    return values, masked | missing_labels(values)


def values_of_classes(known: np.ndarray, name: str = "y") -> np.ndarray:
    """Convert the labels of labeled rows to one type: whole numbers, truth values or strings.

    Arguments:
        known: The labels, `(n,)`.
        name: Name of the argument, for messages.

    Raises:
        ValueError: There is none, they are of several types, or they are continuous.

    >>> values_of_classes(np.array(["cat", "dog"], dtype=object))
    array(['cat', 'dog'], dtype='<U3')
    """
    if not len(known):
        raise ValueError(
            f"{name} has no label: every row is -1, NaN or None; at least two classes need one"
        )
    if known.dtype == object:
        known = _of_one_type(known, name)
    if known.dtype.kind == "f":
        _check_no_fractions(known, name)
    if known.dtype.kind not in "biufU":
        raise ValueError(
            f"{name}: Unknown label type: {known.dtype}; classes should be whole numbers or strings"
        )
    return known


def _of_one_type(known: np.ndarray, name: str) -> np.ndarray:
    """Convert objects to strings or to numbers."""
    texts = sum(isinstance(value, str) for value in known)
    if texts == len(known):
        return known.astype(str)
    if texts:
        raise ValueError(f"{name} should be of one type, strings or numbers; got both")
    return np.array(known.tolist())


def _check_no_fractions(known: np.ndarray, name: str) -> None:
    if not np.isfinite(known).all():
        raise ValueError(f"{name} holds infinity")
    if (known != np.round(known)).any():
        raise ValueError(
            f"{name}: Unknown label type: continuous values; "
            "classes should be whole numbers or strings"
        )


def _one_class_message(label: Any, unlabeled: np.ndarray) -> str:
    """Message for labels of one class, with a hint if -1 or a word may be the other class."""
    message = f"y has labels of one class only, {brief(label)}; at least two classes need one"
    texts = {str(value) for value in unlabeled.tolist()}
    if str(label) in ("1", "1.0") and texts & {"-1", "-1.0"}:
        return f"{message}; -1 means that there is no label, so write classes -1 and 1 as 0 and 1"
    strings = {value.strip() for value in unlabeled if isinstance(value, str)}
    words = sorted(MISSING_WORDS & strings)
    if words:
        return f"{message}; {few(words)} is read as a missing label, so rename a class of that name"
    return message
