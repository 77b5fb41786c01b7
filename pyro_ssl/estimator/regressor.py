"""The regressor for scikit-learn users."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin

from pyro_ssl.data.missing_labels import warn_of_marked_values
from pyro_ssl.estimator.base import FitLabels, SemiSupervised
from pyro_ssl.estimator.inputs import real_labels
from pyro_ssl.estimator.saving import saved_moments
from pyro_ssl.estimator.scaling import moments
from pyro_ssl.model_selection import labeled_rows
from pyro_ssl.prediction.gibbs import predict_real


class SemiSupervisedRegressor(RegressorMixin, SemiSupervised):
    """SSLPE or SSLAPD as a scikit-learn regressor that also learns from rows without a label.

    Predictions are averages over Gibbs chains. Labels are standardised for training.

    Arguments:
        method: `sslpe`, or `sslapd` with random weights.
        preset: Settings of paper 002, `paper-002-moons`, instead of the defaults; see
            `SemiSupervisedClassifier`. The paper itself has no real labels.
        epochs: Passes over the unlabeled or the labeled rows, see `pyro_ssl.fit`; by default 100,
            or the preset's.
        min_steps: Smallest number of steps; by default 1000, or 0 with a preset.
        batch_size: Unlabeled rows per step; labeled rows are added. By default 200, or the
            preset's.
        lr: Largest learning rate; by default 3e-3, or the preset's.
        scale: Standardise each column, see `SemiSupervisedClassifier`.
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
        super().__init__(
            method,
            preset=preset,
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
        """Predict E[y|x], `(N,)` or `(N, D)`, like y in `fit`.

        Arguments:
            X: Data `(N, *event)`.
            return_std: Also return the predictive standard deviation, of the same shape.
        """
        rows = self._rows(X)  # before `objective_`: it reports a missing fit
        prediction = predict_real(self.objective_, rows)
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

    def _labels(self, y: Any, n: int) -> FitLabels:
        y = real_labels(y, n)
        values = y[:, None] if y.ndim == 1 else y
        known = ~np.isnan(values).any(1)
        if not known.any():
            raise ValueError("y has no label: every row is NaN")
        warn_of_marked_values(values[known])
        mean, std = moments(values[known], True, "y")
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
        return FitLabels((values - mean) / std, known, values.shape[1], options, attributes)

    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        extra = {
            "y_mean": self.y_mean_.tolist(),
            "y_std": self.y_std_.tolist(),
            "flat": self.flat_,
            "n_unlabeled": self.n_unlabeled_,
        }
        return list(range(len(self.y_mean_))), extra

    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None:
        self.y_mean_, self.y_std_ = saved_moments(extra, (len(classes),), "y_mean", "y_std")
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
