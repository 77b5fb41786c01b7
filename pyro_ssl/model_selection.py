"""Cross-validation with few labels: splitters and a scorer for scikit-learn.

Scikit-learn's own splitters treat -1 as a class, fail on None and NaN, and put rows without a label
into test parts, where they count as errors. Here such rows are in every training part and in no
test part.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_regressor
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    BaseCrossValidator,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
)
from sklearn.utils import check_consistent_length

from pyro_ssl.data.missing_labels import warn_of_markers
from pyro_ssl.utils.arguments import check_positive, is_missing
from pyro_ssl.utils.arrays import check_signed


def has_label(y: Any, *, regression: bool = False) -> np.ndarray:
    """Find the rows that have a label.

    Arguments:
        y: Labels `(N,)`, or real labels `(N, D)`.
        regression: Labels are real numbers, and -1 is a label.

    Returns:
        Booleans `(N,)`: False for -1, NaN, NA, None and masked values; for real labels, False for
        rows with NaN, None or a masked value.

    Raises:
        ValueError: y is None, or holds what -1 becomes in unsigned numbers, such as 255.

    >>> has_label([0, 1, -1, None]).tolist()
    [True, True, False, False]
    """
    if y is None:
        raise ValueError(
            "y should hold labels, with -1, NaN or None for rows without one; got None"
        )
    is_masked_array = isinstance(y, np.ma.MaskedArray)
    masked = np.ma.getmaskarray(y) if is_masked_array else False
    values = np.asarray(y)
    if regression:
        missing = np.isnan(values.astype(np.float64)) | masked
        incomplete: np.ndarray = np.asarray(missing.reshape(len(missing), -1).any(1))
        return ~incomplete
    if values.ndim == 2 and values.shape[1] == 1:
        return has_label(y.ravel() if is_masked_array else values.ravel())
    check_signed(values[~np.broadcast_to(masked, values.shape)], "y")
    missing = np.array([is_missing(value) for value in values.tolist()], dtype=bool)
    known: np.ndarray = np.logical_not(np.logical_or(missing, masked))
    return known


def labeled_rows(
    X: Any, y: Any, sample_weight: Any = None, *, regression: bool = False
) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Keep the rows that have a label.

    Arguments:
        X: Rows of data: an array, a sparse matrix, a data frame or a list.
        y: Labels `(N,)`, or real labels `(N, D)`; see `has_label` for missing ones.
        sample_weight: Weights `(N,)`.
        regression: Labels are real numbers.

    Returns:
        The rows, labels and weights; None for weights that are not given.

    Raises:
        ValueError: No row has a label, or the numbers of rows, labels and weights differ.

    >>> X, y, _ = labeled_rows([[0.0], [1.0], [2.0]], [0, -1, 1])
    >>> y.tolist()
    [0, 1]
    """
    known = has_label(y, regression=regression)
    rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if len(known) != rows:
        raise ValueError(f"y should have one label per row of X, {rows}; got {len(known)}")
    if not known.any():
        raise ValueError("y has no label, so there is nothing to score; give labels of some rows")
    labels = _known_labels(y, known)
    if not regression:
        _warn_of_markers(labels)
    return _take(X, known), labels, _known_weights(sample_weight, known)


def _known_weights(sample_weight: Any, known: np.ndarray) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weights: np.ndarray = np.asarray(sample_weight)
    if weights.shape != known.shape:
        raise ValueError(
            f"sample_weight should have shape {known.shape}, one for each row of X; "
            f"got {weights.shape}"
        )
    known_weights: np.ndarray = weights[known]
    return known_weights


def _warn_of_markers(labels: np.ndarray) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    warn_of_markers(classes.tolist(), counts.tolist())


def _take(X: Any, rows: np.ndarray) -> Any:
    if hasattr(X, "iloc"):
        return X.iloc[np.flatnonzero(rows)]
    if not hasattr(X, "shape"):
        X = np.asarray(X)
    return X[rows]


def _known_labels(y: Any, known: np.ndarray) -> np.ndarray:
    """The labels of some rows; an array of objects becomes one of the labels' own type."""
    labels: np.ndarray = np.asarray(y)[known]
    if labels.dtype != object:
        return labels
    return np.array(labels.tolist())


@dataclass(frozen=True)
class LabeledScorer:
    """A scorer over the rows that have a label, for scikit-learn's `scoring`.

    Arguments:
        scoring: Name of a scikit-learn scorer, such as `neg_log_loss`, or a scorer
            `(estimator, X, y) -> float`.

    Raises:
        ValueError: Scikit-learn has no scorer of that name; when called, no row has a label.

    >>> LabeledScorer("neg_log_loss").scoring
    'neg_log_loss'
    """

    scoring: str | Callable[..., float] = "accuracy"

    def __post_init__(self) -> None:
        get_scorer(self.scoring)  # a misspelt name is an error here, not a score of NaN

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score an estimator on the labeled rows of `X`."""
        X, y, weights = labeled_rows(X, y, sample_weight, regression=is_regressor(estimator))
        scorer: Callable[..., float] = get_scorer(self.scoring)
        if weights is None:
            return scorer(estimator, X, y)
        return scorer(estimator, X, y, sample_weight=weights)


class _PartialLabels(BaseCrossValidator):
    """Base class of the splitters, which split the labeled rows and train on all others."""

    def __init__(self, n_splits: int, random_state: Any, regression: bool) -> None:
        check_positive(n_splits=n_splits)
        self.n_splits = n_splits
        self.random_state = random_state
        self.regression = regression

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of splits; the arguments belong to scikit-learn's protocol and are unused."""
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the row indices of each training part and its test part.

        Arguments:
            X: Data; only the number of rows is used.
            y: Labels `(N,)`, or real labels `(N, D)`; see `has_label` for missing ones.
            groups: Part of scikit-learn's protocol; unused.

        Raises:
            ValueError: y is missing, has too few labels, or is continuous without `regression`.
        """
        if groups is not None:
            warnings.warn(f"groups are ignored by {type(self).__name__}", UserWarning, stacklevel=2)
        known = has_label(y, regression=self.regression)
        check_consistent_length(X, known)
        labels = _known_labels(y, known)
        rows = np.flatnonzero(known)
        if not self.regression:
            _warn_of_markers(_as_classes(labels))
            rows, labels = self._often_enough(rows, _as_classes(labels))
        if len(rows) < 2:
            wanted = "two labels" if self.regression else "two labels of one class"
            raise ValueError(
                f"y should have at least {wanted} to split, got {int(known.sum())} in all; "
                "label more rows"
            )
        every = np.arange(len(known))
        for _, chosen in self._of_labeled(labels):
            test = rows[chosen]
            yield np.setdiff1d(every, test), test

    def _often_enough(self, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drop the rows of classes with a single label, which training needs."""
        classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if (counts == 1).any():
            names = ", ".join(map(repr, classes[counts == 1].tolist()))
            warnings.warn(
                f"one label only of {names}: it is for training in every split and never for "
                "testing; label more",
                UserWarning,
                stacklevel=3,
            )
        often = counts[place] > 1
        return rows[often], labels[often]

    @abstractmethod
    def _of_labeled(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scikit-learn's splits of the labeled rows alone."""


class PartialLabelKFold(_PartialLabels):
    """K folds of the labeled rows; rows without a label are in every training part.

    Folds are stratified by class. A class with one label stays in training, with a warning.

    Arguments:
        n_splits: Number of folds.
        shuffle: Shuffle the labeled rows before they are split.
        random_state: Seed of the shuffle.
        regression: Labels are real numbers, NaN where missing; folds are not stratified.

    Raises:
        ValueError: n_splits is below 2.

    >>> y = [0, 0, 1, 1, -1, -1]
    >>> for train, test in PartialLabelKFold(2).split(np.zeros((6, 1)), y):
    ...     print(train.tolist(), test.tolist())
    [1, 3, 4, 5] [0, 2]
    [0, 2, 4, 5] [1, 3]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        shuffle: bool = False,
        random_state: Any = None,
        regression: bool = False,
    ) -> None:
        super().__init__(n_splits, random_state, regression)
        if n_splits < 2:
            raise ValueError(
                f"n_splits should be 2 or above, got {n_splits}; "
                "for one split use PartialLabelSplit"
            )
        self.shuffle = shuffle

    def _of_labeled(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        self._check_enough(labels)
        make = KFold if self.regression else StratifiedKFold
        folds = make(self.n_splits, shuffle=self.shuffle, random_state=self.random_state)
        # with fewer labels than folds, some folds do not test a class
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            return list(folds.split(np.zeros(len(labels)), labels))

    def _check_enough(self, labels: np.ndarray) -> None:
        """Raise ValueError for more folds than labels, or than labels of the largest class."""
        if self.regression:
            most = len(labels)
            whose = "labels"
        else:
            _, counts = np.unique(labels, return_counts=True)
            most = int(counts.max())
            whose = "labels of the largest class"
        if self.n_splits > most:
            raise ValueError(f"n_splits should be at most {most}, the {whose}; got {self.n_splits}")


class PartialLabelSplit(_PartialLabels):
    """Random splits of the labeled rows; rows without a label are in every training part.

    Splits are stratified by class. A class with one label stays in training, with a warning.

    Arguments:
        n_splits: Number of splits.
        test_size: Share of the labeled rows to test on, or their number.
        random_state: Seed of the splits.
        regression: Labels are real numbers, NaN where missing; splits are not stratified.

    >>> y = [0, 0, 1, 1, -1, -1]
    >>> splits = PartialLabelSplit(1, test_size=0.5, random_state=0).split(np.zeros((6, 1)), y)
    >>> [len(test) for _, test in splits]
    [2]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        test_size: float = 0.2,
        random_state: Any = None,
        regression: bool = False,
    ) -> None:
        super().__init__(n_splits, random_state, regression)
        self.test_size = test_size

    def _of_labeled(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        make = ShuffleSplit if self.regression else StratifiedShuffleSplit
        splits = make(self.n_splits, test_size=self.test_size, random_state=self.random_state)
        return list(splits.split(np.zeros(len(labels)), labels))


def _as_classes(labels: np.ndarray) -> np.ndarray:
    if labels.ndim != 1:
        raise ValueError(
            f"y should have shape (N,), got labels of shape {labels.shape[1:]}; "
            "real ones need regression=True"
        )
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise ValueError(
            "y has continuous values, which are not classes; for real labels give regression=True"
        )
    return labels
