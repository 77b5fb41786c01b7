"""Small estimators and the rows and labels that they are fitted to."""

import numpy as np

from pyro_ssl import SemiSupervisedClassifier, SemiSupervisedRegressor

UNLABELED = np.array([i % 10 >= 2 for i in range(40)])


def tiny(**arguments) -> SemiSupervisedClassifier:
    options = {"hidden": (8,), "z_dim": 2, "sigma": 1.0}
    return SemiSupervisedClassifier(
        **{"epochs": 2, "min_steps": 30, "lr": 0.03, "options": options, "random_state": 0}
        | arguments
    )


def tiny_regressor(**arguments) -> SemiSupervisedRegressor:
    options = {"hidden": (8,), "z_dim": 2, "gibbs_steps": 3}
    return SemiSupervisedRegressor(
        **{"epochs": 2, "min_steps": 40, "lr": 0.03, "options": options, "random_state": 0}
        | arguments
    )


def masked(values: np.ndarray, missing) -> np.ndarray:
    """Object array of labels, `missing` where there is none."""
    y = values.astype(object)
    y[UNLABELED] = missing
    return y


class NAType:
    """As pandas' NA: it compares with nothing."""

    def __eq__(self, other):
        return self

    __ne__ = __eq__
    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


LABELS = {
    "5 and 9": lambda blob: np.where(UNLABELED, -1, np.array([5, 9])[blob]),
    "floats, nan": lambda blob: np.where(UNLABELED, np.nan, np.array([5.0, 9.0])[blob]),
    "floats, -1": lambda blob: np.where(UNLABELED, -1.0, np.array([5.0, 9.0])[blob]),
    "negative": lambda blob: np.where(UNLABELED, -1, np.array([-3, -2])[blob]),
    "strings, '-1'": lambda blob: np.where(UNLABELED, "-1", np.array(["dog", "cat"])[blob]),
    "strings, 'nan'": lambda blob: np.array(
        ["nan" if u else "ab"[b] for u, b in zip(UNLABELED, blob, strict=True)]
    ),
    "objects, None": lambda blob: masked(np.array(["dog", "cat"])[blob], None),
    "objects, nan": lambda blob: masked(np.array(["dog", "cat"])[blob], np.nan),
    "objects, -1": lambda blob: masked(np.array(["dog", "cat"])[blob], -1),
    "strings, ''": lambda blob: np.where(UNLABELED, "", np.array(["dog", "cat"])[blob]),
    "pandas' NA": lambda blob: masked(np.array(["dog", "cat"])[blob], NAType()),
    "whole numbers, None": lambda blob: masked(np.array([5, 9])[blob], None),
    "list": lambda blob: masked(np.array([True, False])[blob], None).tolist(),
    "numpy's mask": lambda blob: np.ma.array(np.array([5, 9])[blob], mask=UNLABELED),
    "numpy's mask of strings": lambda blob: np.ma.array(
        np.array(["dog", "cat"])[blob], mask=UNLABELED
    ),
    "all labeled": lambda blob: np.array(["b", "a"])[blob],
}
PIXELS = np.random.default_rng(0).random((40, 1, 6, 6))
