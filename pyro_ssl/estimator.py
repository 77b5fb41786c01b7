"""scikit-learn's face of the zoo: `fit(X, y)` with -1 for what has no label."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
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
from pyro_ssl.data.labels import labels_found, warn_of_marked_values
from pyro_ssl.model_selection import labeled_rows
from pyro_ssl.objectives.predictors import GibbsPredictor
from pyro_ssl.prediction.gibbs import gibbs
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import checkpoints
from pyro_ssl.training.batches import steps_per_epoch
from pyro_ssl.training.fit import fit
from pyro_ssl.utils.arguments import (
    check_event_shape,
    check_kind,
    check_positive,
    looks_channels_last,
)
from pyro_ssl.utils.arrays import as_array, brief, check_array_like, check_unmasked
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.renamed import current_options
from pyro_ssl.zoo.saved_model import SavedModel, listed, whole_or_refused

TABULAR: dict[str, Any] = {
    "hidden": (128, 128),
    "activation": "relu",
    "z_dim": 8,
    "likelihood": "gaussian",
    "sigma": 1.0,
    "noise": 0.3,
    "dropout": 0.3,
    "balance": 1.0,
}
"""Options of columns where the caller gives none; of images they are the method's own. See `experiments/tables.py`."""
LOW_DIMENSIONAL_DEFAULTS: dict[str, Any] = {"sigma": 0.3, "noise": 0.0, "dropout": 0.0}
"""Those of three columns or fewer, where noise would cover what is there: a curve in a plane, a wave over a line."""
_SHARP: dict[str, Any] = {"sigma": 0.3, "balance": 0.0}
"""For codes that are classified: at sigma 1 the code leaves out what tells two groups of rows apart."""
OF_METHODS: dict[str, dict[str, Any]] = {
    "vae": {"sigma": 0.3},
    "m1_m2": {"sigma": 0.3, "noise": 0.0},
    "latent_classifier": _SHARP | {"noise": 0.0, "dropout": 0.0},
    "latent_classifier_exact": _SHARP | {"noise": 0.0, "dropout": 0.0, "alpha": 1.0},
    "latent_classifier_simplified": _SHARP
    | {"alpha": 10.0, "consistency": 3.0, "entropy": 6.0, "mutual_information": 6.0},
    "latent_classifier_split": _SHARP | {"alpha": 10.0, "z_y_dim": 2},
    "ce": {"entropy": 1.0},
    "gm": {"entropy": 1.0},
    "vc": {"entropy": 1.0},
}
"""Those of methods that `TABULAR` does not suit: there the latent classifiers had 48 to 65 % on two blobs four deviations
apart, 20 labels of 400 rows in four columns, `m1_m2` 50 and 81, and the labels alone 91 and 96 (two draws). Chosen on these
and on such blobs in eight columns, on other draws of which they may be a few points worse."""
M1_BATCH_SIZE = 200
"""Rows per step of M1 in `m1_m2`, which trains for at least `min_steps` too: 40 epochs are 80 steps of 400 rows."""

NESTED = ("options", "training")
"""Parameters that are dictionaries, whose entries are parameters too, as in `options__z_dim`."""
EXAMPLES = {"options": "{'z_dim': 2}", "training": "{'ema': 0.999}"}
TAKEN = {"objective", "x", "y", "seed"}
"""Arguments of `pyro_ssl.fit` that are not for `training`: the estimator gives them, the seed by `random_state`."""


def column_defaults(method: str, columns: int) -> dict[str, Any]:
    """The estimator's options for a method on a table, where the caller gives none.

    Arguments:
        method: Name in the zoo.
        columns: Number of columns.
    """
    few = LOW_DIMENSIONAL_DEFAULTS if columns <= 3 else {}
    defaults = TABULAR | few | OF_METHODS.get(method, {})
    known = zoo.options_of(method)
    return {name: value for name, value in defaults.items() if name in known}


class _SemiSupervised(BaseEstimator, ABC):
    """What the classifier and the regressor share: arguments, scaling of X, training that is all or nothing."""

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
        self.method, self.epochs, self.min_steps, self.batch_size, self.lr = method, epochs, min_steps, batch_size, lr
        self.scale, self.options, self.training = scale, options, training
        self.random_state, self.verbose = random_state, verbose

    @abstractmethod
    def _labels(self, y: Any, n: int) -> tuple[dict[str, Any], int, dict[str, Any], np.ndarray, np.ndarray]:
        """Attributes to keep, the size of y, options that it asks for, y for `pyro_ssl.fit`, and which rows have one."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` also each option and training argument, as `options__z_dim`."""
        parameters = super().get_params(deep=deep)
        if not deep:
            return parameters
        nested = {
            f"{group}__{name}": value
            for group in NESTED
            if isinstance(parameters[group], Mapping)
            for name, value in parameters[group].items()
        }
        return parameters | nested

    def set_params(self, **params: Any) -> Any:
        """Set parameters by name; `options__z_dim=2` sets one option and keeps the others.

        Raises:
            ValueError: There is no parameter of that name.
        """
        nested: dict[str, dict[str, Any]] = {group: {} for group in NESTED}
        own = {}
        for name, value in params.items():
            group, delimiter, entry = name.partition("__")
            if delimiter and group in NESTED:
                nested[group][entry] = value
            else:
                own[name] = value
        super().set_params(**own)
        for group, entries in nested.items():
            if entries:
                self._set_entries(group, entries)
        return self

    def _set_entries(self, group: str, entries: dict[str, Any]) -> None:
        before = _mapping(group, getattr(self, group))
        if all(name in before and before[name] is value for name, value in entries.items()):
            return
        setattr(self, group, {**before, **entries})  # another dictionary: the old one is the caller's

    def fit(self, X: Any, y: Any) -> Any:
        """Train on labeled and unlabeled rows together.

        Arguments:
            X: Data `(N, features)`, or images `(N, C, H, W)`, without masked entries.
            y: Labels `(N,)`. Of classes any values, where a mask, -1, NaN, NA or None marks a row
                without one (in arrays of strings also what these become, such as "-1", "nan" and "";
                see `pyro_ssl.data.encode`); for regression real numbers, also `(N, D)`, where NaN or a
                mask does.

        Raises:
            ValueError: X or y does not fit, no row has a label, or there is one class only; an earlier fit is kept then.
            TypeError: X or y is no array.
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any) -> Any:
        self._check_arguments()
        _check_array(X)
        X = validate_data(self, X, ensure_min_samples=2, dtype=np.float64, allow_nd=True)
        _check_channels_first(X.shape)
        kept, size, asked, labels, known_rows = self._labels(y, len(X))
        options = self._options(len(X), X.shape[1:], asked)
        self._check_pixels(X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        objective = zoo.build(self.method, X.shape[1:], size, seed=seed, **options)
        self.mean_, self.std_ = _moments(X, X.ndim != 4 if self.scale is None else bool(self.scale))
        usual = {
            "batch_size": self.batch_size,
            "labeled_batch_size": 100,
            "lr": self.lr,
            "progress": bool(self.verbose),
        }
        given: dict[str, Any] = usual | _mapping("training", self.training)
        sizes = {name: given[name] for name in ("batch_size", "labeled_batch_size")}
        check_positive(**sizes)
        labeled = int(np.count_nonzero(known_rows))
        unlabeled = len(X) - labeled if objective.learns_unlabeled else 0
        steps = steps_per_epoch(labeled, unlabeled, **sizes)
        arguments: dict[str, Any] = {"epochs": max(self.epochs, -(-self.min_steps // steps))} | given
        self.history_ = fit(objective, self._scaled(X), labels, seed=seed, **arguments)
        self.objective_, self.options_ = objective, options
        self.n_iter_ = len(self.history_["loss"])
        self.__dict__.update(kept)
        return self

    def _options(self, rows: int, shape: tuple[int, ...], asked: dict[str, Any]) -> dict[str, Any]:
        """The method's options: the caller's, before what y asks for, before the defaults of columns."""
        known = zoo.options_of(self.method)
        if asked.keys() - known.keys():
            raise ValueError(f"method {self.method} takes no real labels; take sslpe or sslapd, which do")
        given = _mapping("options", self.options)
        if "regression" in given and bool(given["regression"]) != ("regression" in asked):
            raise ValueError(
                f"options should not have regression={given['regression']!r} in a {type(self).__name__}: "
                "SemiSupervisedRegressor is for real labels, SemiSupervisedClassifier for classes"
            )
        images = len(shape) == 3
        if images:
            return asked | given
        if not zoo.method(self.method).columns:
            warnings.warn(
                f"method {self.method} is not for columns: there it often classifies worse than the labels alone; "
                "take m2, sslpe or latent_classifier, or compare it with classifier",
                UserWarning,
                stacklevel=4,
            )
        defaults = column_defaults(self.method, math.prod(shape))
        if "m1_epochs" in known:
            steps = steps_per_epoch(0, rows, batch_size=M1_BATCH_SIZE, labeled_batch_size=M1_BATCH_SIZE)
            defaults["m1_epochs"] = max(known["m1_epochs"], math.ceil(self.min_steps / steps))
        return defaults | asked | given

    def _check_arguments(self) -> None:
        """Raise ValueError, naming the argument, unless those of the constructor are of their kind."""
        if not isinstance(self.method, str):
            raise ValueError(f"method should be a name out of the zoo, such as 'm2', got {self.method!r}")
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
                "random_state should be None, a whole number in 0 .. 2**32 - 1 or a numpy RandomState, "
                f"got {self.random_state!r}"
            ) from None

    def save(self, directory: str | Path) -> None:
        """Write the trained estimator; `load` reads it without running code from it.

        What is no plain data among `training`, such as an optimiser, is left out: predictions do not need it.

        Raises:
            NotFittedError: It has not been fitted.
            OSError: It cannot be written, or the directory holds other things.
        """
        check_is_fitted(self)
        training = self.training and {k: v for k, v in self.training.items() if _is_plain(v)}
        parameters = self.get_params(deep=False) | {
            "training": training,
            "options": self.options and listed(self.options),
        }
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else None
        extra = {
            "parameters": parameters | {"random_state": seed},
            "mean": self.mean_.tolist(),
            "std": self.std_.tolist(),
            "history": self.history_,
            "n_features_in": self.n_features_in_,
            "feature_names_in": getattr(self, "feature_names_in_", np.array([])).tolist(),
        }
        classes, of_labels = self._saved_labels()
        shape = tuple(np.shape(self.mean_))
        SavedModel(self.method, shape, classes, self.options_, self.objective_, extra | of_labels).save(directory)

    @classmethod
    @whole_or_refused
    def load(cls, directory: str | Path) -> Any:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError, CheckpointError: There is no such model, or it cannot be used.
        """
        saved = SavedModel.load(directory)
        extra = saved.extra
        if "parameters" not in extra:
            raise CheckpointError(f"{directory} is a model of the command line; read it with pyro_ssl.SavedModel.load")
        holds = "SemiSupervisedRegressor" if "y_mean" in extra else "SemiSupervisedClassifier"
        if not any(base.__name__ == holds for base in cls.__mro__):
            raise CheckpointError(f"{directory} holds a {holds}, not a {cls.__name__}; read it with {holds}.load")
        parameters = extra["parameters"]
        if parameters["options"]:
            parameters["options"] = current_options(parameters["options"])
        self = cls(**parameters)
        self._load_labels(saved.classes, extra)
        self.objective_, self.options_, self.history_ = saved.objective, saved.options, extra["history"]
        self.mean_, self.std_ = _moments_of(extra, saved.x_shape)
        self.n_features_in_, self.n_iter_ = extra["n_features_in"], len(self.history_["loss"])
        if type(self.n_features_in_) is not int or self.n_features_in_ != saved.x_shape[0]:
            wanted = f"n_features_in should be {saved.x_shape[0]}, as the model has it"
            raise ValueError(f"{wanted}, got {self.n_features_in_!r:.80}")
        if extra["feature_names_in"]:
            self.feature_names_in_ = np.array(extra["feature_names_in"], dtype=object)
        return self

    @abstractmethod
    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        """The classes, or a number per dimension of y, and what else `_load_labels` wants."""

    @abstractmethod
    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None: ...

    def _rows(self, X: Any) -> np.ndarray:
        """X, checked and scaled as it was in `fit`."""
        check_is_fitted(self)
        _check_array(X)
        shape = np.shape(self.mean_)
        if (
            len(shape) > 1 or getattr(X, "ndim", 2) > 2
        ):  # of columns, scikit-learn's own check says how many there should be
            check_event_shape(X, shape, "X")
        X = validate_data(self, X, reset=False, dtype=np.float64, allow_nd=True)
        self._check_pixels(X)
        self._check_units(X)
        return self._scaled(X)

    def _check_units(self, X: np.ndarray) -> None:
        """Refuse columns in other units than those of `fit`, told as the caller gave them."""
        extent = self.objective_.extent
        if extent is None or X.ndim != 2:
            return
        column = extent.column_in_other_units(torch.as_tensor(self._scaled(X)))
        if column is None:
            return
        mean, std = self.mean_[column], self.std_[column]
        low, high = extent.low[column] * std + mean, extent.high[column] * std + mean
        raise ValueError(
            f"X is in other units than in fit: column {column} from {X[:, column].min():.4g} to "
            f"{X[:, column].max():.4g}, in fit from {low:.4g} to {high:.4g}; give it in the units of fit "
            "(which scales it itself), or set objective_.extent = None if it is right"
        )

    def _check_pixels(self, X: np.ndarray) -> None:
        if X.ndim == 4 and self.scale is None and not (X.min() > -1e-3 and X.max() < 1.001):
            raise ValueError(
                f"X, as images, should be in [0, 1], got {X.min():.3g} to {X.max():.3g}; divide 0 .. 255 by 255, "
                "or give scale=True (each pixel standardised) or False (taken as they are)"
            )

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) / self.std_


class SemiSupervisedClassifier(ClassifierMixin, _SemiSupervised):
    """A method of the zoo as a scikit-learn classifier that also learns from rows without a label.

    Classes are taken to be as frequent as their labels, with three more of each, which is what p(y) and `balance` say;
    `options={"class_probs": None}` takes them to be equally frequent, or give their frequencies.

    Arguments:
        method: Name in the zoo; `pyro-ssl list` gives them.
        epochs: Passes over the unlabeled rows, or over the labeled, as of `pyro_ssl.fit`.
        min_steps: Steps at least, with more epochs if need be: small tables have few steps per epoch.
        batch_size: Unlabeled rows per step; labeled ones come beside them.
        lr: Largest learning rate.
        scale: Standardise each column (each pixel of an image) by its mean and standard deviation. None does so with columns,
            and takes images, which have to be in [0, 1], as they are.
        options: The method's other options, such as `{"z_dim": 2, "alpha": 10.0}`; see `pyro_ssl.zoo`. What is not given is as
            `TABULAR` says, and `LOW_DIMENSIONAL_DEFAULTS` of up to three columns; of images it is the zoo's.
        training: Other arguments of `pyro_ssl.fit`, such as `{"schedule": "cosine", "ema": 0.999}`.
        random_state: Of weights, order and noise.
        verbose: Show a progress bar, and how many rows of each class and without a label were found.

    Attributes:
        classes_: The labels' values, sorted; the order of the columns of `predict_proba`.
        class_count_: How many rows `fit` found with a label of each class, `(K,)`.
        n_unlabeled_: How many it found without a label.
        history_: Lists of one number per epoch, by part of the loss.
        objective_: The trained objective.
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y|x), `(N, K)`, its columns in the order of `classes_`."""
        rows = self._rows(X)
        return predict_proba(self.objective_, rows).double().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, `(N,)`."""
        best = self.predict_proba(X).argmax(-1)  # first, for it says if there was no fit
        return self.classes_[best]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the rows that have a label; the others are left out.

        Arguments:
            X: Data `(N, *event)`.
            y: Labels `(N,)`, missing as in `fit`.
            sample_weight: Weights `(N,)`.

        Raises:
            ValueError: No row has a label.
        """
        return super().score(*labeled_rows(X, y, sample_weight))

    def _labels(self, y: Any, n: int) -> tuple[dict[str, Any], int, dict[str, Any], np.ndarray, np.ndarray]:
        classes, codes = encode(y, n)
        counts = np.bincount(codes[codes >= 0], minlength=len(classes)) + 3  # few labels tell little of p(y)
        asked = (
            {"class_probs": (counts / counts.sum()).tolist()} if "class_probs" in zoo.options_of(self.method) else {}
        )
        found = np.bincount(codes[codes >= 0], minlength=len(classes))
        if self.verbose:
            print(labels_found(codes, classes.tolist()))
        kept = {"classes_": classes, "class_count_": found, "n_unlabeled_": n - int(found.sum())}
        return kept, len(classes), asked, codes, codes >= 0

    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        found = {"class_count": self.class_count_.tolist(), "n_unlabeled": self.n_unlabeled_}
        return self.classes_.tolist(), {"dtype": self.classes_.dtype.str, **found}

    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None:
        self.classes_ = np.array(classes, dtype=extra["dtype"] if extra["dtype"] != "|O" else object)
        if "class_count" in extra:  # which earlier versions did not save
            self.class_count_ = np.array(extra["class_count"])
            self.n_unlabeled_ = extra["n_unlabeled"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        tags.classifier_tags.poor_score = False
        return tags


class SemiSupervisedRegressor(RegressorMixin, _SemiSupervised):
    """SSLPE or SSLAPD of real labels as a scikit-learn regressor that also learns from rows without one.

    Predictions are averages over Gibbs chains. Labels are standardised for training.

    Arguments:
        method: `sslpe`, or `sslapd` with random weights.
        epochs: As of `SemiSupervisedClassifier`, as are all others.
        min_steps: Steps at least.
        batch_size: Unlabeled rows per step.
        lr: Largest learning rate.
        scale: Standardise each column; None as of `SemiSupervisedClassifier`.
        options: The method's other options.
        training: Other arguments of `pyro_ssl.fit`.
        random_state: Of weights, order and noise.
        verbose: Show a progress bar, and how many rows have a label.

    Attributes:
        n_unlabeled_: How many rows `fit` found without a label.
        history_: Lists of one number per epoch, by part of the loss.
        objective_: The trained objective.

    References:
        Paper 002, section 4.2.
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
            method, epochs=epochs, min_steps=min_steps, batch_size=batch_size, lr=lr, scale=scale, options=options,
            training=training, random_state=random_state, verbose=verbose,
        )  # fmt: skip

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """E[y|x], `(N,)` or `(N, D)` as y was; with `return_std` also the predictive standard deviation, of that shape."""
        rows = self._rows(X)  # first, for it says if there was no fit
        predictor = self.objective_.predictor
        assert isinstance(predictor, GibbsPredictor)  # the zoo refuses a real y without one
        found = gibbs(self.objective_, rows, steps=predictor.steps, chains=max(4, predictor.chains))
        mean = found.mean.double().numpy() * self.y_std_ + self.y_mean_
        std = found.variance.sqrt().double().numpy() * self.y_std_
        mean, std = (v[:, 0] if self.flat_ else v for v in (mean, std))
        return (mean, std) if return_std else mean

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R squared on the rows that have a label; the others are left out.

        Arguments:
            X: Data `(N, *event)`.
            y: Labels `(N,)` or `(N, D)`, missing as in `fit`.
            sample_weight: Weights `(N,)`.

        Raises:
            ValueError: No row has a label.
        """
        return super().score(*labeled_rows(X, y, sample_weight, regression=True))

    def _labels(self, y: Any, n: int) -> tuple[dict[str, Any], int, dict[str, Any], np.ndarray, np.ndarray]:
        if y is None:
            raise ValueError(
                "y should hold labels, with NaN for unlabeled rows; requires y to be passed, but the target y is None"
            )
        _check_real(y)
        array, masked = as_array(y, "y")
        y = np.where(masked, np.nan, array.astype(np.float64)) if masked.any() else y
        y = check_array(y, ensure_2d=False, ensure_all_finite="allow-nan", dtype=np.float64, input_name="y")
        if len(y) != n:
            raise ValueError(
                f"y should have one label per row of X, {n}; got {len(y)}, inconsistent numbers of samples"
            )
        values = y[:, None] if y.ndim == 1 else y
        known = ~np.isnan(values).any(1)
        if not known.any():
            raise ValueError("y has no label: every row is NaN")
        warn_of_marked_values(values[known])
        mean, std = _moments(values[known], True, "y")
        unlabeled = n - int(known.sum())
        if self.verbose:
            print(f"labels: {n - unlabeled} rows; {unlabeled} rows without a label")
        kept = {"y_mean_": mean, "y_std_": std, "flat_": y.ndim == 1, "n_unlabeled_": unlabeled}
        return kept, values.shape[1], {"regression": True, "balance": 0.0}, (values - mean) / std, known

    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        extra = {"y_mean": self.y_mean_.tolist(), "y_std": self.y_std_.tolist(), "flat": self.flat_}
        extra["n_unlabeled"] = self.n_unlabeled_
        return list(range(len(self.y_mean_))), extra

    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None:
        self.y_mean_, self.y_std_ = _moments_of(extra, (len(classes),), "y_mean", "y_std")
        self.flat_ = extra["flat"]
        if not isinstance(self.flat_, bool):
            raise ValueError(f"flat should be true or false, got {self.flat_!r:.80}")
        if "n_unlabeled" in extra:
            self.n_unlabeled_ = extra["n_unlabeled"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.non_deterministic = False  # noise in prediction goes by what a row holds
        tags.regressor_tags.poor_score = True  # on checks' tiny tables it has few steps
        return tags


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """A dictionary by name, empty for None, or a ValueError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} should be a dictionary with names as keys, such as {EXAMPLES[name]}, got {value!r}")
    return dict(value)


def _check_real(y: Any) -> None:
    array = np.asarray(y)
    if array.dtype.kind not in "OUS":
        return
    words = [value for value in array.ravel().tolist() if isinstance(value, str | bytes)]
    if words:
        raise ValueError(
            f"y should hold real numbers, got {brief(words[0])}; for classes use SemiSupervisedClassifier, "
            "and of numbers written as text make numbers: y.astype(float)"
        )


def _check_channels_first(shape: tuple[int, ...]) -> None:
    if looks_channels_last(shape[1:]):
        _, channels, height, width = shape
        raise ValueError(
            f"X, as images, should have shape (N, C, H, W), got {shape}, which looks like channels last; "
            f"give X.transpose(0, 3, 1, 2), or, if it has {channels} channels of {height} x {width}, "
            "X.transpose(0, 1, 3, 2)"
        )


def _check_training(training: Mapping[str, Any]) -> None:
    known = signature(fit).parameters.keys() - TAKEN
    unknown = sorted(training.keys() - known)
    if not unknown:
        return
    if unknown[0] in TAKEN:
        raise ValueError(f"training should not hold {unknown[0]!r}, which the estimator gives to pyro_ssl.fit itself")
    raise ValueError(f"training: pyro_ssl.fit has no argument {unknown[0]!r}; it has {', '.join(sorted(known))}")


def _check_array(X: Any) -> None:
    """Refuse what scikit-learn would misread: masked entries, pictures and tuples of arrays."""
    if not hasattr(X, "toarray"):  # sparse, which scikit-learn refuses in words of its own
        check_array_like(X, "X")
    check_unmasked(X, "X")


def _is_plain(value: Any) -> bool:
    try:
        checkpoints.pack("", value.item() if isinstance(value, np.generic) else value, {})
    except TypeError:
        return False
    return True


def _moments_of(
    extra: dict[str, Any], shape: tuple[int, ...], mean_name: str = "mean", std_name: str = "std"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column as `save` wrote them, or a ValueError."""
    mean = np.asarray(extra[mean_name], np.float64)
    std = np.asarray(extra[std_name], np.float64)
    finite = np.isfinite(mean).all() and np.isfinite(std).all()
    if mean.shape != shape or std.shape != shape or not finite or not (std > 0).all():
        wanted = f"finite, of shape {shape}, and {std_name} above 0"
        raise ValueError(f"{mean_name} and {std_name} should be {wanted}")
    return mean, std


def _moments(X: np.ndarray, scale: bool, name: str = "X") -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, 1 for a constant one; 0 and 1 without `scale`."""
    if not scale:
        return np.zeros(X.shape[1:]), np.ones(X.shape[1:])
    columns = X.reshape(len(X), -1)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaler = StandardScaler().fit(columns)
    largest = np.abs(X).max()
    if not (np.isfinite(scaler.mean_) & np.isfinite(scaler.var_)).all():
        raise ValueError(f"{name} is too large to standardise, up to {largest:.3g}; divide it by a constant first")
    varies = columns.max(0) > columns.min(0)
    if (varies & (scaler.var_ < np.finfo(np.float64).tiny)).any():
        raise ValueError(
            f"{name} is too small to standardise: a column varies by {np.ptp(columns, 0)[varies].min():.3g}, "
            "whose square is no number; multiply it by a constant first"
        )
    return scaler.mean_.reshape(X.shape[1:]), scaler.scale_.reshape(X.shape[1:])
