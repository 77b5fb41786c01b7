"""Columns in any unit, and units other than those of `fit`."""

import warnings

import numpy as np
import pytest
from programs.estimators import tiny

from pyro_ssl import SemiSupervisedClassifier


def test_other_units_are_told_in_those_of_fit(blobs):
    x, blob = blobs
    model = tiny(min_steps=1).fit(100 * x + 500, blob)
    low, high = 100 * x.min(0) + 500, 100 * x.max(0) + 500
    with pytest.raises(
        ValueError, match="X is in other units than in fit: column .* give it in the units"
    ) as error:
        model.predict(x)
    column = int(str(error.value).split("column ")[1].split()[0])
    assert f"in fit from {low[column]:.4g} to {high[column]:.4g};" in str(error.value)
    model.objective_.extent = None
    model.predict(x)


def test_much_smaller_numbers_than_in_fit_are_warned_of(blobs):
    x, blob = blobs
    model = tiny().fit(1000 * x, blob)
    with pytest.warns(
        UserWarning,
        match="x varies less, in every column, than a fiftieth of its range in training",
    ):
        model.predict(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(1000 * x[blob == 0])  # one class
        model.predict(1000 * x[:5])
        model.predict(np.repeat(1000 * x[:1], 30, 0))  # one row, again and again


@pytest.mark.parametrize("unit", [1e-13, 1e-100, 1e13])
def test_columns_are_scaled_in_any_unit(blobs, unit):
    x, blob = blobs
    one, same = tiny().fit(x, blob), tiny().fit(x * unit, blob)
    np.testing.assert_allclose(same.std_ / unit, one.std_)
    np.testing.assert_allclose(same.predict_proba(x * unit), one.predict_proba(x), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1, -1e-9])
def test_a_constant_column_is_not_scaled(value):
    x = np.concatenate(
        [np.random.default_rng(0).normal(size=(400, 1)), np.full((400, 1), value)], 1
    )
    model = tiny(method="classifier", options={"hidden": (8,)}, min_steps=1).fit(
        x, np.arange(400) % 2
    )
    assert model.std_[1] == 1.0
    np.testing.assert_allclose(model.std_[0], x[:, 0].std())


def test_few_columns_are_not_noisy():
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 2
    for columns, noise, sigma in ((3, 0.0, 0.3), (4, 0.3, 1.0)):
        model = SemiSupervisedClassifier(options={"hidden": (4,)}, epochs=1, min_steps=1).fit(
            x[:, :columns], y
        )
        assert (model.options_["noise"], model.options_["dropout"], model.options_["sigma"]) == (
            noise,
            noise,
            sigma,
        )
    given = SemiSupervisedClassifier(
        options={"hidden": (4,), "noise": 0.1}, epochs=1, min_steps=1
    ).fit(x, y)
    assert given.options_["noise"] == 0.1
