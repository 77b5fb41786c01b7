"""The common part of the estimators: parameters, training, saving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from pyro_ssl import zoo
from pyro_ssl.estimator.defaults import warn_unless_for_columns
from pyro_ssl.estimator.inputs import (
    check_channels_first,
    check_pixels,
    checked_rows,
    repeated,
)
from pyro_ssl.estimator.parameters import EXAMPLES, as_mapping, check_parameters
from pyro_ssl.estimator.saving import (
    check_holds,
    current_parameters,
    plain_parameters,
    saved_features,
    saved_moments,
)
from pyro_ssl.estimator.scaling import check_units, moments
from pyro_ssl.estimator.settings import Shape, settings_for
from pyro_ssl.training.fit import fit
from pyro_ssl.utils.arguments import check_event_shape
from pyro_ssl.zoo.saved_model import SavedModel, whole_or_refused


@dataclass(frozen=True)
class FitLabels:
    """The labels passed to `fit`, and what they imply.

    Arguments:
        values: y as `pyro_ssl.fit` expects it.
        known: Rows with a label, `(N,)`.
        size: K, or the size of a real y.
        options: Options of the method that y implies, such as `regression`.
        attributes: Attributes of the fitted estimator.

    >>> FitLabels(np.array([0, 1, -1]), np.array([True, True, False]), 2, {}, {}).size
    2
    """

    values: np.ndarray
    known: np.ndarray
    size: int
    options: dict[str, Any]
    attributes: dict[str, Any]


class SemiSupervised(BaseEstimator, ABC):
    """Base class of classifier and regressor: parameters, scaling of X, training, saving.

    Arguments:
        method: Name in the zoo.
        preset: Settings of a paper instead of the defaults, such as `paper-004`; see
            `zoo.preset_names`. Other parameters that are given win over it.
        epochs: Passes over the unlabeled or the labeled rows, see `pyro_ssl.fit`; by default 100,
            or the preset's.
        min_steps: Smallest number of steps; by default 1000, or 0 with a preset.
        batch_size: Unlabeled rows per step; labeled rows are added. By default 200, or the
            preset's.
        lr: Largest learning rate; by default 3e-3, or the preset's.
        scale: Standardise each column; by default yes for tables, no for images.
        options: Other options of the method.
        training: Other arguments of `pyro_ssl.fit`.
        random_state: Seed of the weights, the order of the data and the noise.
        verbose: Show a progress bar.

    >>> from pyro_ssl import SemiSupervisedClassifier
    >>> issubclass(SemiSupervisedClassifier, SemiSupervised)
    True
    """

    def __init__(
        self,
        method: str = "m2",
        *,
        preset: str | None = None,
        epochs: int | None = None,
        min_steps: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        scale: bool | None = None,
        options: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.method = method
        self.preset = preset
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
        """Return the parameters by name; with `deep` also each option and training argument.

        Arguments:
            deep: Add the entries of dictionaries, such as `options__z_dim`.

        >>> from pyro_ssl import SemiSupervisedClassifier
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

        >>> from pyro_ssl import SemiSupervisedClassifier
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on labeled and unlabeled rows together.

        Arguments:
            X: Data `(N, features)`, or images `(N, C, H, W)`, without masked entries.
            y: Labels `(N,)`. Classes may be any values; a mask, -1, NaN, NA or None marks a row
                without a label, and so does such a value as text (see `pyro_ssl.data.encode`). For
                regression, real numbers, also `(N, D)`; NaN or a mask marks a row without a label.
            sample_weight: Whole numbers `(N,)`: a row of weight k counts as k equal rows, in every
                part of the loss, in the scale of X and in the class frequencies, and takes their
                memory; a row of weight 0 is left out. Fractions are refused: training draws whole
                rows in batches, and terms such as `balance` are not sums over rows.

        Raises:
            ValueError: X, y or sample_weight does not fit, no row has a label, or there is only one
                class; the estimator then keeps its earlier fit.
            TypeError: X or y is not an array.

        >>> from pyro_ssl import SemiSupervisedClassifier
        >>> estimator = SemiSupervisedClassifier("classifier", epochs=1, min_steps=1)
        >>> estimator.fit([[0.0], [1.0], [0.5]], ["no", "yes", None]).n_unlabeled_
        1
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y, sample_weight)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def save(self, directory: str | Path) -> None:
        """Write the trained estimator; `load` reads it without running code from it.

        Entries of `training` that are not plain data, such as an optimiser, are left out:
        predictions do not need them.

        Arguments:
            directory: Directory of the model; an earlier model there is replaced.

        Raises:
            NotFittedError: It has not been fitted.
            OSError: It cannot be written, or the directory holds other files.
        """
        check_is_fitted(self)
        classes, of_labels = self._saved_labels()
        extra = {
            "parameters": plain_parameters(self.get_params(deep=False)),
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
        saved.preset = self.preset  # its options are among options_
        saved.save(directory)

    @classmethod
    @whole_or_refused
    def load(cls, directory: str | Path) -> Any:
        """Read an estimator that `save` wrote, in this version or an earlier one.

        Arguments:
            directory: Directory that `save` wrote.

        Raises:
            FileNotFoundError: There is no such model.
            CheckpointError: It is damaged, or holds another kind of model.
        """
        saved = SavedModel.load(directory)
        extra = saved.extra
        check_holds(directory, extra, cls)
        self = cls(**current_parameters(extra["parameters"]))
        self._load_labels(saved.classes, extra)
        self.objective_ = saved.objective
        self.options_ = saved.options
        self.history_ = extra["history"]
        self.mean_, self.std_ = saved_moments(extra, saved.x_shape)
        self.n_iter_ = len(self.history_["loss"])
        self.n_features_in_ = saved_features(extra["n_features_in"], saved.x_shape)
        if extra["feature_names_in"]:
            self.feature_names_in_ = np.array(extra["feature_names_in"], dtype=object)
        return self

    @abstractmethod
    def _labels(self, y: Any, n: int) -> FitLabels:
        """Check the labels of n rows.

        Raises:
            ValueError: They do not fit.
        """

    @abstractmethod
    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        """The classes, or a number per dimension of y; and the data that `_load_labels` needs."""

    @abstractmethod
    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None:
        """Set the attributes that describe the labels, from a file."""

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        check_parameters(self.get_params(deep=False))
        X = checked_rows(X)
        X = validate_data(self, X, ensure_min_samples=2, dtype=np.float64, allow_nd=True)
        shape = X.shape[1:]
        check_channels_first(X.shape)
        if sample_weight is not None:
            X, y = repeated(X, y, sample_weight)
        labels = self._labels(y, len(X))
        given = as_mapping("options", self.options)
        self._check_options(given, labels.options)
        warn_unless_for_columns(self.method, shape)
        check_pixels(X, self.scale)
        labeled = int(np.count_nonzero(labels.known))
        size = Shape(shape, len(X), labeled, labels.size)
        settings = settings_for(self.get_params(deep=False), size, labels.options)
        objective = settings.objective
        is_image = X.ndim == 4
        scale = not is_image if self.scale is None else bool(self.scale)
        self.mean_, self.std_ = moments(X, scale)
        self.history_ = fit(
            objective, self._scaled(X), labels.values, seed=settings.seed, **settings.training
        )
        self.objective_ = objective
        self.options_ = settings.options
        self.n_iter_ = len(self.history_["loss"])
        self.__dict__.update(labels.attributes)
        return self

    def _check_options(self, given: dict[str, Any], asked: dict[str, Any]) -> None:
        """Raise ValueError for a method or an option that does not suit this kind of y."""
        if asked.keys() - zoo.options_of(self.method).keys():
            raise ValueError(
                f"method {self.method} does not support real labels; use sslpe or sslapd"
            )
        if "regression" in given and bool(given["regression"]) != ("regression" in asked):
            raise ValueError(
                f"options should not have regression={given['regression']!r} in a "
                f"{type(self).__name__}: SemiSupervisedRegressor is for real labels, "
                "SemiSupervisedClassifier for classes"
            )

    def _set_entries(self, group: str, entries: dict[str, Any]) -> None:
        before = as_mapping(group, getattr(self, group))
        unchanged = all(name in before and before[name] is entries[name] for name in entries)
        if not unchanged:
            # a new dictionary, since the old one belongs to the caller
            setattr(self, group, {**before, **entries})

    def _rows(self, X: Any) -> np.ndarray:
        """Rows to predict for: checked, and scaled as in `fit`."""
        check_is_fitted(self)
        X = checked_rows(X)
        shape = np.shape(self.mean_)
        is_image = len(shape) > 1 or getattr(X, "ndim", 2) > 2
        if is_image:  # for columns, scikit-learn's own check names their number
            check_event_shape(X, shape, "X")
        X = validate_data(self, X, reset=False, dtype=np.float64, allow_nd=True)
        check_pixels(X, self.scale)
        check_units(X, self.objective_.extent, self.mean_, self.std_)
        return self._scaled(X)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        rows: np.ndarray = (X - self.mean_) / self.std_
        return rows
