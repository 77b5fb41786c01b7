"""scikit-learn's face of the zoo: `fit(X, y)` with -1 for what has no label."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from pyro_ssl import zoo
from pyro_ssl.checkpoints import CheckpointError
from pyro_ssl.checks import check_positive, is_missing
from pyro_ssl.prediction import predict_proba
from pyro_ssl.saving import SavedModel
from pyro_ssl.training import fit

TABULAR: dict[str, Any] = {
    "hidden": (128, 128),
    "activation": "relu",
    "z_dim": 8,
    "likelihood": "gaussian",
    "sigma": 0.3,
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 1.0,
}
"""Options where the caller gives none: for standardised columns, not for images."""


class SemiSupervisedClassifier(ClassifierMixin, BaseEstimator):
    """A method of the zoo as a scikit-learn classifier that also learns from rows without a label.

    Arguments:
        method: Name in the zoo: `m2`, `classifier`, `vae`.
        epochs: Passes over the unlabeled rows (over all, if all are labeled).
        min_steps: Steps at least, with more epochs if need be: small tables have few steps per epoch.
        batch_size: Unlabeled rows per step; labeled ones come beside them.
        lr: Largest learning rate.
        scale: Standardise each column (each pixel of an image) by its mean and standard deviation.
        options: The method's other options, such as `{"z_dim": 2, "alpha": 10.0}`; see `pyro_ssl.zoo`.
        training: Other arguments of `pyro_ssl.fit`, such as `{"schedule": "cosine", "ema": 0.999}`.
        random_state: Of weights, order and noise.
        verbose: Show a progress bar.

    Attributes:
        classes_: The labels' values, sorted; the order of the columns of `predict_proba`.
        history_: Lists of one number per epoch, by part of the loss.
        objective_: The trained objective.
    """

    def __init__(
        self,
        method: str = "m2",
        *,
        epochs: int = 100,
        min_steps: int = 1000,
        batch_size: int = 200,
        lr: float = 3e-3,
        scale: bool = True,
        options: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.method, self.epochs, self.min_steps, self.batch_size, self.lr = method, epochs, min_steps, batch_size, lr
        self.scale, self.options, self.training = scale, options, training
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any) -> SemiSupervisedClassifier:
        """Train on labeled and unlabeled rows together.

        Arguments:
            X: Data `(N, features)`, or `(N, C, H, W)`.
            y: Labels `(N,)` of any values; -1, NaN or None marks a row without one (in arrays of strings also "-1", "nan").

        Raises:
            ValueError: X or y does not fit, no row has a label, or there is one class only; an earlier fit is kept then.
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any) -> SemiSupervisedClassifier:
        check_positive(epochs=self.epochs, batch_size=self.batch_size)
        X = validate_data(self, X, ensure_min_samples=2, dtype=np.float64, allow_nd=True)
        classes, codes = encode(y, len(X))
        known = zoo.options_of(self.method)
        options = {k: v for k, v in TABULAR.items() if k in known} | (self.options or {})
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        objective = zoo.build(self.method, X.shape[1:], len(classes), seed=seed, **options)
        self.mean_, self.std_ = _moments(X, self.scale)
        rows = np.count_nonzero(codes < 0) or len(X)
        steps = max(1, rows // min(self.batch_size, rows))
        arguments = {
            "epochs": max(self.epochs, -(-self.min_steps // steps)),
            "batch_size": self.batch_size,
            "lr": self.lr,
            "progress": self.verbose,
        } | (self.training or {})
        self.history_ = fit(objective, self._scaled(X), codes, seed=seed, **arguments)
        self.objective_, self.classes_, self.options_ = objective, classes, options
        self.n_iter_ = len(self.history_["loss"])
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y|x), `(N, K)`, its columns in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, allow_nd=True)
        return predict_proba(self.objective_, self._scaled(X)).double().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, `(N,)`."""
        best = self.predict_proba(X).argmax(-1)  # first, for it says if there was no fit
        return self.classes_[best]

    def save(self, directory: str | Path) -> None:
        """Write the trained classifier; `load` reads it without running code from it."""
        check_is_fitted(self)
        parameters = self.get_params()
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else None
        extra = {
            "parameters": parameters | {"random_state": seed},
            "mean": self.mean_.tolist(),
            "std": self.std_.tolist(),
            "dtype": self.classes_.dtype.str,
            "history": self.history_,
            "n_features_in": self.n_features_in_,
            "feature_names_in": getattr(self, "feature_names_in_", np.array([])).tolist(),
        }
        shape = tuple(np.shape(self.mean_))
        SavedModel(self.method, shape, self.classes_.tolist(), self.options_, self.objective_, extra).save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> SemiSupervisedClassifier:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError, CheckpointError: There is no such model, or it cannot be used.
        """
        saved = SavedModel.load(directory)
        extra = saved.extra
        if "parameters" not in extra:
            raise CheckpointError(
                f"{directory} is a model of the command line; read it with pyro_ssl.saving.SavedModel.load"
            )
        self = cls(**extra["parameters"])
        self.objective_, self.options_, self.history_ = saved.objective, saved.options, extra["history"]
        self.mean_, self.std_ = np.asarray(extra["mean"]), np.asarray(extra["std"])
        self.classes_ = np.array(saved.classes, dtype=extra["dtype"] if extra["dtype"] != "|O" else object)
        self.n_features_in_, self.n_iter_ = extra["n_features_in"], len(self.history_["loss"])
        if extra["feature_names_in"]:
            self.feature_names_in_ = np.array(extra["feature_names_in"], dtype=object)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        tags.classifier_tags.poor_score = False
        return tags

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        if X.shape[1:] != self.mean_.shape:
            raise ValueError(f"X should have rows of shape {self.mean_.shape}, got {X.shape[1:]}")
        return (X - self.mean_) / self.std_


def _moments(X: np.ndarray, scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, 1 for a constant one; 0 and 1 without `scale`."""
    if not scale:
        return np.zeros(X.shape[1:]), np.ones(X.shape[1:])
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = X.mean(0), X.std(0)
    if not (np.isfinite(mean) & np.isfinite(std)).all():
        raise ValueError(f"X is too large to standardise, up to {np.abs(X).max():.3g}; divide it by a constant first")
    return mean, np.where(std > 1e-12, std, 1.0)


def encode(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels' values, sorted, and codes `(n,)` into them, -1 where there is no label.

    Raises:
        ValueError: y has another length, no label, one class only, or labels that cannot be told apart as classes.
    """
    if y is None:
        raise ValueError(
            "y should hold labels, with -1 for unlabeled rows; requires y to be passed, but the target y is None"
        )
    y = column_or_1d(y, warn=True)
    if len(y) != n:
        raise ValueError(f"y should have one label per row of X, {n}; got {len(y)}, inconsistent numbers of samples")
    missing = np.array([is_missing(v) for v in y.tolist()], dtype=bool)
    known = y[~missing]
    if known.dtype == object and not any(isinstance(v, str) for v in known):
        known = np.array(known.tolist())
    if known.dtype.kind == "f":
        if not np.isfinite(known).all():
            raise ValueError("y holds infinity")
        if (known != np.round(known)).any():
            raise ValueError("y: Unknown label type: continuous values; classes should be whole numbers or strings")
    if not len(known):
        raise ValueError("y has no label: every row is -1, NaN or None; at least two classes need one")
    if known.dtype == object and not all(isinstance(v, str) for v in known):
        raise ValueError("y should be of one type, strings or numbers; got both")
    if known.dtype == object:
        known = known.astype(str)
    if known.dtype.kind not in "biufU":
        raise ValueError(f"y: Unknown label type: {known.dtype}; classes should be whole numbers or strings")
    classes = np.unique(known)
    if len(classes) < 2:
        raise ValueError(f"y has labels of one class only, {classes[0]!r}; at least two classes need one")
    codes = np.full(n, -1)
    codes[~missing] = np.searchsorted(classes, known)
    return classes, codes
