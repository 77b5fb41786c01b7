"""What scikit-learn makes of the same labels: logistic regression and label spreading."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from pyro_ssl.estimator import SemiSupervisedClassifier
from pyro_ssl.estimator.inputs import checked_rows

Array = np.ndarray[Any, Any]
NEIGHBOURS = 7
MOST_STEPS = 1000
"""Steps in which logistic regression and label spreading should converge."""
LOGISTIC_REGRESSION = (
    f"make_pipeline(StandardScaler(), LogisticRegression(max_iter={MOST_STEPS}))"
    ".fit(X[y >= 0], y[y >= 0])"
)
LABEL_SPREADING = (
    f"LabelSpreading(kernel='knn', n_neighbors={NEIGHBOURS}, max_iter={MOST_STEPS})"
    ".fit(StandardScaler().fit_transform(X), y)"
)
"""Lines of Python, for labels y of -1 where there is none."""


class Fold(Protocol):
    """A competitor: class probabilities of held-out rows, which are unlabeled in training."""

    def __call__(self, X: Array, y: Array, held_out: Array) -> Array:
        """Predict p(y|x) of some rows, `(n, K)`.

        Arguments:
            X: All rows `(N, *event)`.
            y: Class indices `(N,)`; -1 for rows without a label, held-out rows among them.
            held_out: Indices of the rows to predict, `(n,)`.
        """
        ...


def by_estimator(estimator: SemiSupervisedClassifier) -> Fold:
    """Train an estimator on all rows.

    >>> estimator = SemiSupervisedClassifier("classifier", epochs=1, min_steps=1)
    >>> X, y = np.random.default_rng(0).normal(size=(6, 2)), np.array([0, 1, 0, 1, -1, -1])
    >>> by_estimator(estimator)(X, y, np.array([4, 5])).shape
    (2, 2)
    """

    def predict(X: Array, y: Array, held_out: Array) -> Array:
        probs: Array = estimator.fit(X, y).predict_proba(X[held_out])
        return probs

    return predict


def logistic_regression(X: Array, y: Array, held_out: Array) -> Array:
    """Train scikit-learn's logistic regression on the labeled rows; all rows set the scale.

    >>> X, y = np.array([[0.0], [1.0], [0.1], [0.9]]), np.array([0, 1, -1, -1])
    >>> logistic_regression(X, y, np.array([2, 3])).argmax(1).tolist()
    [0, 1]
    """
    rows = scaled_columns(X)
    known = y >= 0
    model = LogisticRegression(max_iter=MOST_STEPS).fit(rows[known], y[known])
    probs: Array = model.predict_proba(rows[held_out])
    return probs


def label_spreading(X: Array, y: Array, held_out: Array) -> Array:
    """Spread the labels over a graph of all rows, each with its nearest neighbours.

    Rows that no label reaches have uniform probabilities.

    >>> X, y = np.linspace(0, 1, 20)[:, None] ** 3, np.full(20, -1)
    >>> y[0], y[-1] = 0, 1
    >>> label_spreading(X, y, np.array([1, 18])).argmax(1).tolist()
    [0, 1]
    """
    rows = scaled_columns(X)
    neighbours = min(NEIGHBOURS, len(rows) - 1)
    model = LabelSpreading(kernel="knn", n_neighbors=neighbours, max_iter=MOST_STEPS)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 in rows that no label reaches
        model.fit(rows, y)
    probs: Array = np.nan_to_num(model.label_distributions_[held_out])
    is_reached = probs.sum(1, keepdims=True) > 0
    return np.where(is_reached, probs, 1 / probs.shape[1])


def scaled_columns(X: Array) -> Array:
    """Rows as standardised columns, `(N, D)`.

    >>> scaled_columns(np.array([[[0.0]], [[2.0]]])).tolist()
    [[-1.0], [1.0]]
    """
    rows = np.asarray(checked_rows(X), dtype=np.float64).reshape(len(X), -1)
    scaled: Array = StandardScaler().fit_transform(rows)
    return scaled
