"""Which rows have no label, how many have one of each class, and warnings where that looks wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_ssl.utils.arguments import MISSING_WORDS, is_missing
from pyro_ssl.utils.arrays import brief, few

MARKERS = frozenset(
    ["unknown", "unk", "notknown", "unlabeled", "unlabelled", "notlabeled", "notlabelled", "nolabel", "nolabels"]
    + ["undefined", "undetermined", "missing", "none", "na", "nan", "null", "nil", "notavailable", "todo", "tbd"]
)
"""Names that a row without a label may have been given in place of one: their letters, in lower case."""
MARKER_SIGNS = re.compile(r"[?.*_-]+")
"""Signs of that kind; "-" is none beside a class "+"."""
MARKER_NUMBERS = re.compile(r"(-\d+|9{2,}|255|65535|4294967295)(\.0)?")
"""Numbers of that kind: below 0, all nines, or what -1 becomes in numbers without a sign."""
SHOWN = 10
"""Classes that a message names at most."""


class LabelWarning(UserWarning):
    """Labels that may not say what was meant: a class without one, or one that looks like a missing label."""


def missing_labels(y: np.ndarray) -> np.ndarray:
    """Which rows have no label, `(N,)`: NaN or -1, and of objects and text what `is_missing` says."""
    if y.dtype.kind == "b":
        return np.zeros(y.shape, bool)
    if y.dtype.kind in "iuf":
        return np.isnan(y) | (y == -1)
    return np.array([is_missing(value) for value in y.tolist()], dtype=bool)


def warn_of_words(y: np.ndarray, name: str = "y") -> None:
    """Warn of rows that have no label by a word, such as "None", that could be the name of a class."""
    if y.dtype.kind not in "OU":
        return
    texts = [value.strip() for value in y.tolist() if isinstance(value, str)]
    words = sorted(MISSING_WORDS.intersection(texts))
    if words:
        rows = sum(text in MISSING_WORDS for text in texts)
        warnings.warn(
            f"{name}: {rows} rows of {few(words)} are taken to have no label; if that is a class, give it another name",
            LabelWarning,
            stacklevel=4,
        )


def warn_of_markers(classes: Sequence[Any], counts: Sequence[int], name: str = "y") -> None:
    """Warn if most rows have a class, such as "unknown" or 999, that looks like a missing label.

    Arguments:
        classes: The K classes.
        counts: How many rows each has, `(K,)`.
        name: What the caller calls the labels.
    """
    if not len(counts):
        return
    most = int(np.argmax(counts))
    signs = "+" in classes and classes[most] == "-"
    if 2 * counts[most] > sum(counts) and _looks_like_a_marker(classes[most]) and not signs:
        warnings.warn(
            f"{name}: class {brief(classes[most])} has {counts[most]} of the {sum(counts)} labels and looks "
            "like a mark for rows without one; if so, write -1, NaN or None there, else rename the class",
            LabelWarning,
            stacklevel=4,
        )


def warn_of_marked_values(values: np.ndarray, name: str = "y") -> None:
    """Warn if most real labels are one number, such as -1 or -999, that looks like a missing label.

    Arguments:
        values: Real labels of the rows that have one, `(n, D)`.
        name: What the caller calls the labels.
    """
    numbers, counts = np.unique(values, return_counts=True)
    most = int(np.argmax(counts))
    number = f"{numbers[most]:.10g}"
    if 2 * counts[most] > counts.sum() and _looks_like_a_marker(number):
        warnings.warn(
            f"{name} is {number} in more than half of its rows, and is taken for real labels of {number}; "
            "rows without one need NaN",
            LabelWarning,
            stacklevel=5,
        )


def warn_of_missing_classes(codes: Any, classes: Sequence[Any]) -> None:
    """Warn, by name, of classes of which no row has a label: they are learned without one.

    Arguments:
        codes: Labels as codes, -1 where there is none; `(N,)`.
        classes: Names of the K classes.
    """
    counts = _counts(codes, len(classes))
    without = [classes[k] for k in np.flatnonzero(counts == 0).tolist()]
    if not without:
        return
    number = "class" if len(without) == 1 else "classes"
    only_second = list(classes) == [0, 1] and counts[0] == 0 < counts[1]
    hint = " (-1 stands for no label: classes -1 and 1 should be written 0 and 1)" if only_second else ""
    warnings.warn(
        f"y: no row of {number} {few(without, SHOWN)} has a label; label one at least of each class{hint}",
        LabelWarning,
        stacklevel=3,
    )


def labels_found(codes: Any, classes: Sequence[Any]) -> str:
    """How many rows of each class, and how many without a label, in one line.

    Arguments:
        codes: Labels as codes, -1 where there is none; `(N,)`.
        classes: Names of the K classes.
    """
    counts = _counts(codes, len(classes))
    text = ", ".join(f"{count} of {brief(name)}" for name, count in zip(classes, counts.tolist(), strict=True))
    if len(classes) > SHOWN:
        text = f"{counts.sum()}, {counts.min()} to {counts.max()} of each of {len(classes)} classes"
    return f"labels: {text}; {len(codes) - counts.sum()} rows without a label"


def _counts(codes: Any, classes: int) -> np.ndarray:
    codes = np.asarray(codes, np.int64)
    return np.bincount(codes[codes >= 0], minlength=classes)


def _looks_like_a_marker(value: Any) -> bool:
    text = str(value).strip().lower()
    if MARKER_NUMBERS.fullmatch(text) or MARKER_SIGNS.fullmatch(text):
        return True
    return re.sub(r"[\W_]", "", text) in MARKERS  # "not labeled", "n/a", "no_label"
