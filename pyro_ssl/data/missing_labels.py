"""Missing and suspicious labels: masks, counts and warnings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pyro_ssl.utils.arguments import MISSING_WORDS, is_missing
from pyro_ssl.utils.arrays import brief, few

MARKERS = frozenset(
    "unknown unk notknown unlabeled unlabelled notlabeled notlabelled nolabel nolabels undefined "
    "undetermined missing none na nan null nil notavailable todo tbd".split()
)
"""Names that may mean a missing label: their letters, in lower case."""
MARKER_SIGNS = re.compile(r"[?.*_-]+")
"""Signs that may mean a missing label; "-" does not if there is a class "+"."""
MARKER_NUMBERS = re.compile(r"(-\d+|9{2,}|255|65535|4294967295)(\.0)?")
"""Numbers that may mean a missing label: below 0, all nines, or -1 as an unsigned number."""
CLASSES_SHOWN = 10
"""Largest number of classes that a message names."""


class LabelWarning(UserWarning):
    """Labels may be wrong: a class has none, or a class looks like a missing label.

    >>> issubclass(LabelWarning, UserWarning)
    True
    """


def missing_labels(y: np.ndarray) -> np.ndarray:
    """Mask of the rows without a label, `(N,)`: NaN and -1, or `is_missing` of objects and text.

    >>> missing_labels(np.array([0, -1, 2]))
    array([False,  True, False])
    """
    if y.dtype.kind == "b":
        return np.zeros(y.shape, bool)
    if y.dtype.kind in "iuf":
        missing: np.ndarray = np.isnan(y) | (y == -1)
        return missing
    return np.array([is_missing(value) for value in y.tolist()], dtype=bool)


def describe_labels(class_indices: Any, classes: Sequence[Any]) -> str:
    """Describe in one line how many rows each class has, and how many rows have no label.

    Arguments:
        class_indices: Class indices `(N,)`, -1 for rows without a label.
        classes: Names of the K classes.

    >>> describe_labels([0, 1, 1, -1], ["cat", "dog"])
    "labels: 1 of 'cat', 2 of 'dog'; 1 rows without a label"
    """
    counts = _counts(class_indices, len(classes))
    if len(classes) > CLASSES_SHOWN:
        of_each = f"{counts.min()} to {counts.max()} of each of {len(classes)} classes"
        text = f"{counts.sum()}, {of_each}"
    else:
        named = zip(classes, counts.tolist(), strict=True)
        text = ", ".join(f"{count} of {brief(name)}" for name, count in named)
    return f"labels: {text}; {len(class_indices) - counts.sum()} rows without a label"


def warn_of_missing_classes(class_indices: Any, classes: Sequence[Any]) -> None:
    """Warn of classes without a labeled row, by their names.

    Arguments:
        class_indices: Class indices `(N,)`, -1 for rows without a label.
        classes: Names of the K classes.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_missing_classes([0, -1], ["cat", "dog"])
    >>> str(caught[0].message)
    "y: no row of class 'dog' has a label; label at least one of each class"
    """
    counts = _counts(class_indices, len(classes))
    without = [classes[k] for k in np.flatnonzero(counts == 0).tolist()]
    if not without:
        return
    number = "class" if len(without) == 1 else "classes"
    hint = ""
    if list(classes) == [0, 1] and counts[0] == 0 < counts[1]:
        hint = " (-1 means that there is no label: write classes -1 and 1 as 0 and 1)"
    warnings.warn(
        f"y: no row of {number} {few(without, CLASSES_SHOWN)} has a label; "
        f"label at least one of each class{hint}",
        LabelWarning,
        stacklevel=3,
    )


def warn_of_words(y: np.ndarray, name: str = "y") -> None:
    """Warn of words, such as "None", that are read as missing labels but could be classes.

    Arguments:
        y: Labels `(N,)`.
        name: Name of the labels, for the message.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_words(np.array(["cat", "NA"]))
    >>> str(caught[0].message).partition(";")[0]
    "y: 1 rows of 'NA' are taken to have no label"
    """
    if y.dtype.kind not in "OU":
        return
    texts = [value.strip() for value in y.tolist() if isinstance(value, str)]
    words = sorted(MISSING_WORDS.intersection(texts))
    if not words:
        return
    rows = sum(text in MISSING_WORDS for text in texts)
    warnings.warn(
        f"{name}: {rows} rows of {few(words)} are taken to have no label; "
        "if that is a class, give it another name",
        LabelWarning,
        stacklevel=4,
    )


def warn_of_markers(classes: Sequence[Any], counts: Sequence[int], name: str = "y") -> None:
    """Warn if most labels are one class that looks like a missing label, such as "unknown" or 999.

    Arguments:
        classes: The K classes.
        counts: Number of rows of each class, `(K,)`.
        name: Name of the labels, for the message.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_markers(["cat", "unknown"], [1, 9])
    >>> str(caught[0].message).partition(";")[0]
    "y: class 'unknown' has 9 of the 10 labels and looks like a mark for rows without one"
    """
    if not len(counts):
        return
    largest = int(np.argmax(counts))
    label = classes[largest]
    is_sign_of_two = label == "-" and "+" in classes
    is_most = 2 * counts[largest] > sum(counts)
    if not is_most or is_sign_of_two or not _looks_like_a_marker(label):
        return
    warnings.warn(
        f"{name}: class {brief(label)} has {counts[largest]} of the {sum(counts)} labels and looks "
        "like a mark for rows without one; if so, write -1, NaN or None there, "
        "else rename the class",
        LabelWarning,
        stacklevel=4,
    )


def warn_of_marked_values(values: np.ndarray, name: str = "y") -> None:
    """Warn if most real labels are one number that looks like a missing label, such as -999.

    Arguments:
        values: Real labels of the labeled rows, `(n, D)`.
        name: Name of the labels, for the message.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_marked_values(np.array([[-999.0], [-999.0], [0.5]]))
    >>> str(caught[0].message).partition(";")[0]
    'y is -999 in more than half of its rows, and is taken for real labels of -999'
    """
    numbers, counts = np.unique(values, return_counts=True)
    most = int(np.argmax(counts))
    number = f"{numbers[most]:.10g}"
    if 2 * counts[most] <= counts.sum() or not _looks_like_a_marker(number):
        return
    warnings.warn(
        f"{name} is {number} in more than half of its rows, and is taken for real labels of "
        f"{number}; rows without one need NaN",
        LabelWarning,
        stacklevel=5,
    )


@contextmanager
def label_warnings_silenced() -> Iterator[None]:
    """Silence the warnings of `fit` that name classes by number.

    It is for programs that name the classes themselves.

    >>> with label_warnings_silenced():
    ...     warnings.warn("class 3 has no label", LabelWarning, stacklevel=1)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        yield


def _counts(class_indices: Any, classes: int) -> np.ndarray:
    class_indices = np.asarray(class_indices, np.int64)
    return np.bincount(class_indices[class_indices >= 0], minlength=classes)


def _looks_like_a_marker(value: Any) -> bool:
    text = str(value).strip().lower()
    if MARKER_NUMBERS.fullmatch(text) or MARKER_SIGNS.fullmatch(text):
        return True
    letters = re.sub(r"[\W_]", "", text)  # of "not labeled", "n/a", "no_label"
    return letters in MARKERS
