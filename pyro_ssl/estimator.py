"""Scikit-learn estimators: `fit(X, y)`, where -1 or NaN in y marks a row without a label."""

from __future__ import annotations

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pyro_ssl import zoo
from pyro_ssl.data.classes import encode
from pyro_ssl.data.missing_labels import describe_labels, warn_of_marked_values
from pyro_ssl.model_selection import labeled_rows
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.predictors import GibbsPredictor
from pyro_ssl.prediction.gibbs import gibbs
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import checkpoints
from pyro_ssl.training.batches import steps_per_epoch
from pyro_ssl.training.fit import fit
from pyro_ssl.utils.arguments import (
    as_data,
    check_event_shape,
    check_kind,
    check_positive,
    looks_channels_last,
)
from pyro_ssl.utils.arrays import as_array, brief, check_array_like, check_unmasked
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.earlier_names import current_options
from pyro_ssl.zoo.saved_model import SavedModel, listed, whole_or_refused

EXAMPLES = {"options": "{'z_dim': 2}", "training": "{'ema': 0.999}"}
"""Parameters that are dictionaries, whose entries are parameters too, such as `options__z_dim`."""

FIT_BY_ESTIMATOR = {"objective", "x", "y", "seed"}
"""Arguments of `pyro_ssl.fit` that `training` may not hold: the estimator gives them itself."""


def column_defaults(method: str, columns: int) -> dict[str, Any]:
    """The estimators' options of a method for a table, where the caller gives none.

    Arguments:
        method: Name in the zoo.
        columns: Number of columns.

    >>> column_defaults("classifier", 2)
    {'hidden': (128, 128), 'activation': 'relu', 'noise': 0.0, 'dropout': 0.0}
    """
    defaults = dict(presets.TABULAR_DEFAULTS)
    if columns <= 3:
        defaults |= presets.LOW_DIMENSIONAL_DEFAULTS
    defaults |= presets.TABULAR_DEFAULTS_BY_METHOD.get(method, {})
    known = zoo.options_of(method)
    return {name: value for name, value in defaults.items() if name in known}


@dataclass(frozen=True)
class _Labels:
    """What an estimator makes of y.

    Arguments:
        values: y as `pyro_ssl.fit` takes it.
        known: Rows with a label, `(N,)`.
        size: K, or the size of a real y.
        options: Options that y asks for.
        attributes: Attributes of the fitted estimator.
    """

    values: np.ndarray
    known: np.ndarray
    size: int
    options: dict[str, Any]
    attributes: dict[str, Any]


class _SemiSupervised(BaseEstimator, ABC):
    """What classifier and regressor share: parameters, scaling of X, training, saving."""

    def __init__(
        self,
        method: str = "m2",
        *,
        epochs: int = 100,
        min_steps: int = 1000,
        batch_size: int = 200,
        lr: float = 3e-3,
        scale: bool | None = None,
        options: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.method = method
        self.epochs = epochs
        self.min_steps = min_steps
        self.batch_size = batch_size
        self.lr = lr
        self.scale = scale
        self.options = options
        self.training = training
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` also each option and training argument.

        Arguments:
            deep: Add the entries of dictionaries, such as `options__z_dim`.

        >>> SemiSupervisedClassifier(options={"z_dim": 2}).get_params()["options__z_dim"]
        2
        """
        parameters: dict[str, Any] = super().get_params(deep=deep)
        if not deep:
            return parameters
        for group in EXAMPLES:
            entries = parameters[group]
            if isinstance(entries, Mapping):
                parameters |= {f"{group}__{name}": value for name, value in entries.items()}
        return parameters

    def set_params(self, **params: Any) -> Any:
        """Set parameters by name.

        Arguments:
            params: The parameters; `options__z_dim=2` sets one option and keeps the others.

        Raises:
            ValueError: There is no parameter of that name.

        >>> SemiSupervisedClassifier().set_params(options__z_dim=2).options
        {'z_dim': 2}
        """
        nested: dict[str, dict[str, Any]] = {group: {} for group in EXAMPLES}
        own = {}
        for name, value in params.items():
            group, delimiter, entry = name.partition("__")
            if delimiter and group in EXAMPLES:
                nested[group][entry] = value
            else:
                own[name] = value
        super().set_params(**own)
        for group, entries in nested.items():
            if entries:
                self._set_entries(group, entries)
        return self

    def fit(self, X: Any, y: Any) -> Any:
        """Train on labeled and unlabeled rows together.

        Arguments:
            X: Data `(N, features)`, or images `(N, C, H, W)`, without masked entries. Images of
                uint8 are pixels 0 .. 255 and are divided by 255. A memory map is read as a whole.
            y: Labels `(N,)`. For classes any values, where a mask, -1, NaN, NA or None marks a row
                without a label (in arrays of strings also what these become, such as "-1", "nan"
                and "", see `pyro_ssl.data.encode`); for regression real numbers, also `(N, D)`,
                where NaN or a mask does.

        Raises:
            ValueError: X or y does not fit, no row has a label, or there is one class only; an
                earlier fit is kept then.
            TypeError: X or y is not an array.
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def save(self, directory: str | Path) -> None:
        """Write the trained estimator; `load` reads it without running code from it.

        Entries of `training` that are not plain data, such as an optimiser, are left out:
        predictions do not need them.

        Arguments:
            directory: Where to write it.

        Raises:
            NotFittedError: It has not been fitted.
            OSError: It cannot be written, or the directory holds other files.
        """
        check_is_fitted(self)
        classes, of_labels = self._saved_labels()
        extra = {
            "parameters": self._saved_parameters(),
            "mean": self.mean_.tolist(),
            "std": self.std_.tolist(),
            "history": self.history_,
            "n_features_in": self.n_features_in_,
            "feature_names_in": getattr(self, "feature_names_in_", np.array([])).tolist(),
        }
        shape = tuple(np.shape(self.mean_))
        saved = SavedModel(
            self.method, shape, classes, self.options_, self.objective_, extra | of_labels
        )
        saved.save(directory)

    @classmethod
    @whole_or_refused
    def load(cls, directory: str | Path) -> Any:
        """Read an estimator that `save` wrote, in this version or an earlier one.

        Arguments:
            directory: Where it was written.

        Raises:
            FileNotFoundError: There is no such model.
            CheckpointError: It is damaged, or holds another kind of model.
        """
        saved = SavedModel.load(directory)
        extra = saved.extra
        cls._check_saved(directory, extra)
        parameters = extra["parameters"]
        if parameters["options"]:
            parameters["options"] = current_options(parameters["options"])
        self = cls(**parameters)
        self._load_labels(saved.classes, extra)
        self.objective_ = saved.objective
        self.options_ = saved.options
        self.history_ = extra["history"]
        self.mean_, self.std_ = _saved_moments(extra, saved.x_shape)
        self.n_iter_ = len(self.history_["loss"])
        self.n_features_in_ = extra["n_features_in"]
        if type(self.n_features_in_) is not int or self.n_features_in_ != saved.x_shape[0]:
            raise ValueError(
                f"n_features_in should be {saved.x_shape[0]}, as the model has it, "
                f"got {self.n_features_in_!r:.80}"
            )
        if extra["feature_names_in"]:
            self.feature_names_in_ = np.array(extra["feature_names_in"], dtype=object)
        return self

    @abstractmethod
    def _labels(self, y: Any, n: int) -> _Labels:
        """The labels of n rows, checked.

        Raises:
            ValueError: They do not fit.
        """

    @abstractmethod
    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        """The classes, or a number per dimension of y; and the data that `_load_labels` needs."""

    @abstractmethod
    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None: ...

    def _fit(self, X: Any, y: Any) -> Any:
        self._check_arguments()
        X = _checked_array(X)
        X = validate_data(self, X, ensure_min_samples=2, dtype=np.float64, allow_nd=True)
        _check_channels_first(X.shape)
        labels = self._labels(y, len(X))
        options = self._options(len(X), X.shape[1:], labels.options)
        self._check_pixels(X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        objective = zoo.build(self.method, X.shape[1:], labels.size, seed=seed, **options)
        is_image = X.ndim == 4
        scale = not is_image if self.scale is None else bool(self.scale)
        self.mean_, self.std_ = _moments(X, scale)
        arguments = self._fit_arguments(objective, labels.known)
        self.history_ = fit(objective, self._scaled(X), labels.values, seed=seed, **arguments)
        self.objective_ = objective
        self.options_ = options
        self.n_iter_ = len(self.history_["loss"])
        self.__dict__.update(labels.attributes)
        return self

    def _fit_arguments(self, objective: Objective, known: np.ndarray) -> dict[str, Any]:
        """Arguments of `pyro_ssl.fit`: those of `training` before the estimator's own."""
        given: dict[str, Any] = {
            "batch_size": self.batch_size,
            "labeled_batch_size": 100,
            "lr": self.lr,
            "progress": bool(self.verbose),
        }
        given |= _mapping("training", self.training)
        sizes = {name: given[name] for name in ("batch_size", "labeled_batch_size")}
        check_positive(**sizes)
        labeled = int(np.count_nonzero(known))
        unlabeled = len(known) - labeled if objective.learns_unlabeled else 0
        steps = steps_per_epoch(labeled, unlabeled, **sizes)
        epochs = max(self.epochs, math.ceil(self.min_steps / steps))
        return {"epochs": epochs, **given}

    def _options(self, rows: int, shape: tuple[int, ...], asked: dict[str, Any]) -> dict[str, Any]:
        """Options of the method: the caller's, before what y asks for, before the defaults."""
        given = _mapping("options", self.options)
        self._check_options(given, asked)
        is_image = len(shape) == 3
        if is_image:
            return asked | given
        if not zoo.method(self.method).columns:
            warnings.warn(
                f"method {self.method} is not for columns: there it often classifies worse than "
                "the labels alone; take m2, sslpe or latent_classifier, or compare it with "
                "classifier",
                UserWarning,
                stacklevel=4,
            )
        defaults = column_defaults(self.method, math.prod(shape))
        m1_epochs = zoo.options_of(self.method).get("m1_epochs")
        if m1_epochs is not None:  # M1 trains for at least `min_steps`, too
            size = presets.M1_TRAINING["batch_size"]
            steps = steps_per_epoch(0, rows, batch_size=size, labeled_batch_size=size)
            defaults["m1_epochs"] = max(m1_epochs, math.ceil(self.min_steps / steps))
        return defaults | asked | given

    def _check_options(self, given: dict[str, Any], asked: dict[str, Any]) -> None:
        """Raise ValueError for a method or an option that does not go with this kind of y."""
        if asked.keys() - zoo.options_of(self.method).keys():
            raise ValueError(
                f"method {self.method} takes no real labels; take sslpe or sslapd, which do"
            )
        if "regression" in given and bool(given["regression"]) != ("regression" in asked):
            raise ValueError(
                f"options should not have regression={given['regression']!r} in a "
                f"{type(self).__name__}: SemiSupervisedRegressor is for real labels, "
                "SemiSupervisedClassifier for classes"
            )

    def _check_arguments(self) -> None:
        """Raise ValueError, naming the argument, unless the constructor's are of their kind."""
        if not isinstance(self.method, str):
            raise ValueError(
                f"method should be a name out of the zoo, such as 'm2', got {self.method!r}"
            )
        zoo.method(self.method)
        check_positive(epochs=self.epochs, batch_size=self.batch_size)
        check_kind("min_steps", self.min_steps, int)
        if self.min_steps < 0:
            raise ValueError(f"min_steps should be 0 or above, got {self.min_steps}")
        check_kind("lr", self.lr, float)
        check_kind("scale", self.scale, bool | None)
        check_kind("verbose", self.verbose, bool | int)
        _mapping("options", self.options)
        _check_training(_mapping("training", self.training))
        try:
            check_random_state(self.random_state)
        except (ValueError, TypeError):
            raise ValueError(
                "random_state should be None, a whole number in 0 .. 2**32 - 1 or a numpy "
                f"RandomState, got {self.random_state!r}"
            ) from None

    def _set_entries(self, group: str, entries: dict[str, Any]) -> None:
        before = _mapping(group, getattr(self, group))
        unchanged = all(name in before and before[name] is entries[name] for name in entries)
        if not unchanged:
            setattr(self, group, {**before, **entries})  # a new dictionary: the old is the caller's

    def _saved_parameters(self) -> dict[str, Any]:
        """Parameters as plain data."""
        parameters = self.get_params(deep=False)
        if self.training:
            training = {k: value for k, value in self.training.items() if _is_plain(value)}
            parameters["training"] = training
        if self.options:
            parameters["options"] = listed(self.options)
        is_seed = isinstance(self.random_state, Integral)
        parameters["random_state"] = int(self.random_state) if is_seed else None
        return parameters

    @classmethod
    def _check_saved(cls, directory: str | Path, extra: dict[str, Any]) -> None:
        """Raise CheckpointError unless a file holds an estimator of this class."""
        if "parameters" not in extra:
            raise CheckpointError(
                f"{directory} is a model of the command line; read it with pyro_ssl.SavedModel.load"
            )
        is_regressor = "y_mean" in extra
        holds = "SemiSupervisedRegressor" if is_regressor else "SemiSupervisedClassifier"
        if not any(base.__name__ == holds for base in cls.__mro__):
            raise CheckpointError(
                f"{directory} holds a {holds}, not a {cls.__name__}; read it with {holds}.load"
            )

    def _rows(self, X: Any) -> np.ndarray:
        """X, checked, and scaled as in `fit`."""
        check_is_fitted(self)
        X = _checked_array(X)
        shape = np.shape(self.mean_)
        is_image = len(shape) > 1 or getattr(X, "ndim", 2) > 2
        if is_image:  # for columns, scikit-learn's own check names their number
            check_event_shape(X, shape, "X")
        X = validate_data(self, X, reset=False, dtype=np.float64, allow_nd=True)
        self._check_pixels(X)
        self._check_units(X)
        return self._scaled(X)

    def _check_units(self, X: np.ndarray) -> None:
        """Raise ValueError for columns in other units than in `fit`; it gives the caller's."""
        extent = self.objective_.extent
        if extent is None or X.ndim != 2:
            return
        column = extent.column_in_other_units(torch.as_tensor(self._scaled(X)))
        if column is None:
            return
        mean = self.mean_[column]
        std = self.std_[column]
        low = extent.low[column] * std + mean
        high = extent.high[column] * std + mean
        raise ValueError(
            f"X is in other units than in fit: column {column} from {X[:, column].min():.4g} to "
            f"{X[:, column].max():.4g}, in fit from {low:.4g} to {high:.4g}; give it in the units "
            "of fit (which scales it itself), or set objective_.extent = None if it is right"
        )

    def _check_pixels(self, X: np.ndarray) -> None:
        """Raise ValueError for images outside [0, 1] that are not to be scaled."""
        if X.ndim != 4 or self.scale is not None:
            return
        low = X.min()
        high = X.max()
        if not (low > -1e-3 and high < 1.001):
            raise ValueError(
                f"X, as images, should be in [0, 1], got {low:.3g} to {high:.3g}; divide 0 .. 255 "
                "by 255, or give scale=True (each pixel standardised) or False (taken as they are)"
            )

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        rows: np.ndarray = (X - self.mean_) / self.std_
        return rows


class SemiSupervisedClassifier(ClassifierMixin, _SemiSupervised):
    """A method of the zoo as a scikit-learn classifier that also learns from unlabeled rows.

    The class probabilities, for p(y) and `balance`, are the frequencies of the labels with three
    more of each class; `options={"class_probs": None}` makes them uniform.

    Arguments:
        method: Name in the zoo; `pyro-ssl list` prints them.
        epochs: Passes over the unlabeled or the labeled rows, see `pyro_ssl.fit`.
        min_steps: Smallest number of steps; small tables, with few steps per epoch, get more
            epochs.
        batch_size: Unlabeled rows per step; labeled rows are added.
        lr: Largest learning rate.
        scale: Standardise each column (each pixel of an image) by its mean and standard deviation.
            None does so for columns, and takes images as they are, which have to be in [0, 1].
        options: Other options of the method, such as `{"z_dim": 2, "alpha": 10.0}`; see
            `pyro_ssl.zoo`. The defaults for columns are in `pyro_ssl.zoo.presets`, see
            `column_defaults`; for images they are the method's own.
        training: Other arguments of `pyro_ssl.fit`, such as `{"schedule": "cosine", "ema": 0.999}`.
        random_state: Seed of the weights, the order of the data and the noise.
        verbose: Show a progress bar, and the numbers of rows of each class and without a label.

    Attributes:
        classes_: Values of the labels, sorted; the order of the columns of `predict_proba`.
        class_count_: Number of labels of each class in `fit`, `(K,)`.
        n_unlabeled_: Number of rows without a label in `fit`.
        n_iter_: Number of epochs.
        history_: Lists of one number per epoch, by part of the loss.
        objective_: The trained objective.

    >>> X = np.random.default_rng(0).normal(size=(20, 2))
    >>> y = np.where(np.arange(20) < 6, np.arange(20) % 2, -1)
    >>> m2 = SemiSupervisedClassifier("m2", epochs=1, min_steps=1).fit(X, y)
    >>> m2.predict_proba(X).shape
    (20, 2)
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y|x), `(N, K)`, with columns in the order of `classes_`.

        Arguments:
            X: Data `(N, *event)`.
        """
        rows = self._rows(X)
        return predict_proba(self.objective_, rows).double().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, `(N,)`.

        Arguments:
            X: Data `(N, *event)`.
        """
        best = self.predict_proba(X).argmax(-1)  # before `classes_`: it reports a missing fit
        classes: np.ndarray = self.classes_[best]
        return classes

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the rows that have a label.

        Arguments:
            X: Data `(N, *event)`.
            y: Labels `(N,)`, missing as in `fit`.
            sample_weight: Weights `(N,)`.

        Raises:
            ValueError: No row has a label.
        """
        accuracy: float = super().score(*labeled_rows(X, y, sample_weight))
        return accuracy

    def _labels(self, y: Any, n: int) -> _Labels:
        classes, indices = encode(y, n)
        known = indices >= 0
        counts = np.bincount(indices[known], minlength=len(classes))
        options: dict[str, Any] = {}
        if "class_probs" in zoo.options_of(self.method):
            smoothed = counts + 3  # few labels say little about p(y)
            options["class_probs"] = (smoothed / smoothed.sum()).tolist()
        if self.verbose:
            print(describe_labels(indices, classes.tolist()))
        attributes = {
            "classes_": classes,
            "class_count_": counts,
            "n_unlabeled_": n - int(counts.sum()),
        }
        return _Labels(indices, known, len(classes), options, attributes)

    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        extra = {
            "dtype": self.classes_.dtype.str,
            "class_count": self.class_count_.tolist(),
            "n_unlabeled": self.n_unlabeled_,
        }
        return self.classes_.tolist(), extra

    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None:
        dtype = object if extra["dtype"] == "|O" else extra["dtype"]
        self.classes_ = np.array(classes, dtype=dtype)
        if "class_count" in extra:  # earlier versions did not save it
            self.class_count_ = np.array(extra["class_count"])
            self.n_unlabeled_ = extra["n_unlabeled"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        tags.classifier_tags.poor_score = False
        return tags


class SemiSupervisedRegressor(RegressorMixin, _SemiSupervised):
    """SSLPE or SSLAPD as a scikit-learn regressor that also learns from rows without a label.

    Predictions are averages over Gibbs chains. Labels are standardised for training.

    Arguments:
        method: `sslpe`, or `sslapd` with random weights.
        epochs: Passes over the unlabeled or the labeled rows, see `pyro_ssl.fit`.
        min_steps: Smallest number of steps.
        batch_size: Unlabeled rows per step; labeled rows are added.
        lr: Largest learning rate.
        scale: Standardise each column; None see `SemiSupervisedClassifier`.
        options: Other options of the method.
        training: Other arguments of `pyro_ssl.fit`.
        random_state: Seed of the weights, the order of the data and the noise.
        verbose: Show a progress bar, and the number of rows with a label.

    Attributes:
        n_unlabeled_: Number of rows without a label in `fit`.
        n_iter_: Number of epochs.
        history_: Lists of one number per epoch, by part of the loss.
        objective_: The trained objective.

    References:
        Paper 002, section 4.2.

    >>> X = np.random.default_rng(0).normal(size=(20, 2))
    >>> y = np.where(np.arange(20) < 6, X[:, 0], np.nan)
    >>> sslpe = SemiSupervisedRegressor(epochs=1, min_steps=1).fit(X, y)
    >>> sslpe.predict(X).shape
    (20,)
    """

    def __init__(
        self,
        method: str = "sslpe",
        *,
        epochs: int = 100,
        min_steps: int = 1000,
        batch_size: int = 200,
        lr: float = 3e-3,
        scale: bool | None = None,
        options: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            method,
            epochs=epochs,
            min_steps=min_steps,
            batch_size=batch_size,
            lr=lr,
            scale=scale,
            options=options,
            training=training,
            random_state=random_state,
            verbose=verbose,
        )

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """E[y|x], `(N,)` or `(N, D)` as y in `fit`.

        Arguments:
            X: Data `(N, *event)`.
            return_std: Also return the predictive standard deviation, of the same shape.
        """
        rows = self._rows(X)  # before `objective_`: it reports a missing fit
        predictor = self.objective_.predictor
        assert isinstance(predictor, GibbsPredictor)  # the zoo refuses a real y without one
        chains = max(4, predictor.chains)
        prediction = gibbs(self.objective_, rows, steps=predictor.steps, chains=chains)
        mean = prediction.mean.double().numpy() * self.y_std_ + self.y_mean_
        std = prediction.variance.sqrt().double().numpy() * self.y_std_
        if self.flat_:
            mean = mean[:, 0]
            std = std[:, 0]
        return (mean, std) if return_std else mean

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R squared on the rows that have a label.

        Arguments:
            X: Data `(N, *event)`.
            y: Labels `(N,)` or `(N, D)`, missing as in `fit`.
            sample_weight: Weights `(N,)`.

        Raises:
            ValueError: No row has a label.
        """
        rows = labeled_rows(X, y, sample_weight, regression=True)
        r_squared: float = super().score(*rows)
        return r_squared

    def _labels(self, y: Any, n: int) -> _Labels:
        y = _real_labels(y, n)
        values = y[:, None] if y.ndim == 1 else y
        known = ~np.isnan(values).any(1)
        if not known.any():
            raise ValueError("y has no label: every row is NaN")
        warn_of_marked_values(values[known])
        mean, std = _moments(values[known], True, "y")
        unlabeled = n - int(known.sum())
        if self.verbose:
            print(f"labels: {n - unlabeled} rows; {unlabeled} rows without a label")
        attributes = {
            "y_mean_": mean,
            "y_std_": std,
            "flat_": y.ndim == 1,
            "n_unlabeled_": unlabeled,
        }
        options = {"regression": True, "balance": 0.0}
        return _Labels((values - mean) / std, known, values.shape[1], options, attributes)

    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        extra = {
            "y_mean": self.y_mean_.tolist(),
            "y_std": self.y_std_.tolist(),
            "flat": self.flat_,
            "n_unlabeled": self.n_unlabeled_,
        }
        return list(range(len(self.y_mean_))), extra

    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None:
        self.y_mean_, self.y_std_ = _saved_moments(extra, (len(classes),), "y_mean", "y_std")
        self.flat_ = extra["flat"]
        if not isinstance(self.flat_, bool):
            raise ValueError(f"flat should be true or false, got {self.flat_!r:.80}")
        if "n_unlabeled" in extra:  # earlier versions did not save it
            self.n_unlabeled_ = extra["n_unlabeled"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.non_deterministic = False  # the noise of a prediction depends on the row alone
        tags.regressor_tags.poor_score = True  # on the tiny tables of the checks it has few steps
        return tags


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """A dictionary with names as keys, empty for None.

    Raises:
        ValueError: It is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(
            f"{name} should be a dictionary with names as keys, such as {EXAMPLES[name]}, "
            f"got {value!r}"
        )
    return dict(value)


def _real_labels(y: Any, n: int) -> np.ndarray:
    """Real labels of n rows as float64, NaN where one is missing.

    Raises:
        ValueError: y is None, holds words, or has another number of rows.
    """
    if y is None:
        raise ValueError(
            "y should hold labels, with NaN for unlabeled rows; requires y to be passed, "
            "but the target y is None"
        )
    _check_real(y)
    array, masked = as_array(y, "y")
    if masked.any():
        y = np.where(masked, np.nan, array.astype(np.float64))
    labels: np.ndarray = check_array(
        y, ensure_2d=False, ensure_all_finite="allow-nan", dtype=np.float64, input_name="y"
    )
    if len(labels) != n:
        raise ValueError(
            f"y should have one label per row of X, {n}; got {len(labels)}, "
            "inconsistent numbers of samples"
        )
    return labels


def _check_real(y: Any) -> None:
    """Raise ValueError for words."""
    array = np.asarray(y)
    if array.dtype.kind not in "OUS":
        return
    words = [value for value in array.ravel().tolist() if isinstance(value, str | bytes)]
    if words:
        raise ValueError(
            f"y should hold real numbers, got {brief(words[0])}; for classes use "
            "SemiSupervisedClassifier, and of numbers written as text make numbers: "
            "y.astype(float)"
        )


def _check_channels_first(shape: tuple[int, ...]) -> None:
    """Raise ValueError for images whose channels look last."""
    if not looks_channels_last(shape[1:]):
        return
    _, channels, height, width = shape
    raise ValueError(
        f"X, as images, should have shape (N, C, H, W), got {shape}, which looks like channels "
        f"last; give X.transpose(0, 3, 1, 2), or, if it has {channels} channels of {height} x "
        f"{width}, X.transpose(0, 1, 3, 2)"
    )


def _check_training(training: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments that `fit` does not have, or that the estimator gives."""
    known = signature(fit).parameters.keys() - FIT_BY_ESTIMATOR
    unknown = sorted(training.keys() - known)
    if not unknown:
        return
    name = unknown[0]
    if name in FIT_BY_ESTIMATOR:
        raise ValueError(
            f"training should not hold {name!r}, which the estimator gives to pyro_ssl.fit itself"
        )
    raise ValueError(
        f"training: pyro_ssl.fit has no argument {name!r}; it has {', '.join(sorted(known))}"
    )


def _checked_array(X: Any) -> Any:
    """X, with pixels of uint8 in [0, 1]; what scikit-learn would misread is refused.

    That is masked entries, pictures, tuples of arrays, and memory maps that do not fit into memory.
    """
    is_sparse = hasattr(X, "toarray")  # which scikit-learn itself refuses
    if not is_sparse:
        check_array_like(X, "X")
    check_unmasked(X, "X")
    if isinstance(X, np.memmap):
        _check_fits(X)
    is_image = getattr(X, "ndim", 0) == 4 and str(X.dtype).endswith("uint8")
    if not is_image:
        return X
    return as_data(X, "X", torch.float64).numpy()


def _check_fits(X: np.ndarray) -> None:
    """Raise ValueError, with the way out, if X and a copy of it, as float64, exceed the memory."""
    needed = 2 * 8 * X.size
    memory = physical_memory()
    if memory is None or needed <= memory:
        return
    raise ValueError(
        f"X is a memory map of shape {X.shape}, which the estimator would read as a whole and "
        f"scale, in {needed / 1e9:.1f} GB of memory; this machine has {memory / 1e9:.1f} GB. "
        "pyro_ssl.fit(pyro_ssl.zoo.build(...), x, y) and pyro_ssl.predict_proba read it batch by "
        "batch"
    )


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say.

    >>> physical_memory() != 0
    True
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold the value."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        checkpoints.pack("", value, {})
    except TypeError:
        return False
    return True


def _saved_moments(
    extra: dict[str, Any], shape: tuple[int, ...], mean_name: str = "mean", std_name: str = "std"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column as `save` wrote them.

    Raises:
        ValueError: They are of another shape, not finite, or a deviation is not above 0.
    """
    mean = np.asarray(extra[mean_name], np.float64)
    std = np.asarray(extra[std_name], np.float64)
    finite = np.isfinite(mean).all() and np.isfinite(std).all()
    if mean.shape != shape or std.shape != shape or not finite or not (std > 0).all():
        raise ValueError(
            f"{mean_name} and {std_name} should be finite, of shape {shape}, and {std_name} above 0"
        )
    return mean, std


def _moments(X: np.ndarray, scale: bool, name: str = "X") -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, 1 for a constant one; 0 and 1 without `scale`.

    Raises:
        ValueError: The values are too large or too small to standardise.
    """
    shape = X.shape[1:]
    if not scale:
        return np.zeros(shape), np.ones(shape)
    columns = X.reshape(len(X), -1)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaler = StandardScaler().fit(columns)
    if not (np.isfinite(scaler.mean_) & np.isfinite(scaler.var_)).all():
        largest = np.abs(X).max()
        raise ValueError(
            f"{name} is too large to standardise, up to {largest:.3g}; "
            "divide it by a constant first"
        )
    varies = columns.max(0) > columns.min(0)
    has_no_square = scaler.var_ < np.finfo(np.float64).tiny
    if (varies & has_no_square).any():
        smallest = np.ptp(columns, 0)[varies].min()
        raise ValueError(
            f"{name} is too small to standardise: a column varies by {smallest:.3g}, "
            "whose square is not a number; multiply it by a constant first"
        )
    return scaler.mean_.reshape(shape), scaler.scale_.reshape(shape)
