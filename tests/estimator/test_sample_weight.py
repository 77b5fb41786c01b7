"""Weights are repeated rows; log-probabilities; calibration by scikit-learn."""

import numpy as np
import pytest
from programs.estimators import tiny, tiny_regressor
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from pyro_ssl import SemiSupervisedClassifier
from pyro_ssl.model_selection import PartialLabelSplit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)) + 2 * (np.arange(24) % 2)[:, None]
Y = np.where(np.arange(24) < 10, np.arange(24) % 2, -1)
WEIGHTS = np.arange(24) % 3
ROWS = np.repeat(np.arange(24), WEIGHTS)


@pytest.mark.parametrize("kind", ["integers", "words", "masked"])
def test_a_weight_is_that_many_rows(kind):
    words = np.array(["no", "yes", None], dtype=object)[Y]
    y = {"integers": Y, "words": words.tolist(), "masked": np.ma.masked_less(Y, 0)}[kind]
    weighted = tiny(random_state=0).fit(X, y, sample_weight=WEIGHTS.tolist())
    chosen = [y[row] for row in ROWS] if kind == "words" else y[ROWS]
    repeated = tiny(random_state=0).fit(X[ROWS], chosen)
    assert np.array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    assert weighted.n_unlabeled_ == WEIGHTS[Y < 0].sum()
    assert weighted.class_count_.sum() == WEIGHTS[Y >= 0].sum()


def test_a_regressors_weight_is_that_many_rows():
    y = np.where(Y < 0, np.nan, X[:, 0])
    weighted = tiny_regressor(random_state=0).fit(X, y, sample_weight=WEIGHTS)
    repeated = tiny_regressor(random_state=0).fit(X[ROWS], y[ROWS])
    assert np.array_equal(weighted.predict(X), repeated.predict(X))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full(24, 0.5), "whole numbers, 0 or above, which repeat rows; .* got 0.5 in row 0"),
        (np.where(np.arange(24) == 3, -1, 1), "got -1 in row 3"),
        (np.where(np.arange(24) == 3, np.nan, 1), "got nan in row 3"),
        (np.ma.masked_less(np.arange(24), 1), "sample_weight has 1 masked entries, first in row 0"),
        (["much"] * 24, "sample_weight should hold whole numbers, got .*much"),
        (np.zeros(24), "above 0 in some rows, got zero in all"),
        (np.ones(23), r"shape \(24,\), one weight for each row of X; got \(23,\)"),
    ],
)
def test_other_weights_are_refused_and_the_fit_stays(weights, message):
    fitted = tiny(random_state=0).fit(X, Y)
    before = fitted.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        fitted.fit(X, Y, sample_weight=weights)
    assert np.array_equal(fitted.predict_proba(X), before)


def test_labels_of_another_length_are_named_as_before():
    with pytest.raises(ValueError, match="one label per row of X, 24"):
        tiny().fit(X, Y[:5], sample_weight=WEIGHTS)


def test_log_probabilities_are_those_of_the_probabilities():
    fitted = tiny(random_state=0).fit(X, Y)
    assert np.array_equal(
        np.exp(fitted.predict_log_proba(X)).round(12), fitted.predict_proba(X).round(12)
    )


def test_scikit_learn_calibrates_a_fitted_estimator():
    y = np.arange(24) % 2
    train, held_out = next(PartialLabelSplit(1, test_size=0.5, random_state=0).split(X, y))
    hidden = y.copy()
    hidden[held_out] = -1
    fitted = tiny(random_state=0).fit(X, hidden)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), method="sigmoid", cv=2)
    calibrated.fit(X[held_out], y[held_out])
    assert calibrated.predict_proba(X).shape == (24, 2)


def test_options_are_parameters_of_their_own():
    estimator = SemiSupervisedClassifier("m2").set_params(options__z_dim=3, options__alpha=2.0)
    copy = clone(estimator).set_params(options__z_dim=4)
    assert copy.options == {"z_dim": 4, "alpha": 2.0} and estimator.options["z_dim"] == 3
    assert copy.get_params()["options__alpha"] == 2.0
