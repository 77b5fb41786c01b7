"""The regressor."""

import numpy as np
import pytest
from programs.estimators import UNLABELED, tiny_regressor

from pyro_ssl import SemiSupervisedRegressor


def wave(n: int = 400, labeled: int = 60):
    """y = sin 2x + noise, of which some are known."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (n, 1))
    y = np.sin(2 * x[:, 0]) + 0.05 * rng.normal(size=n)
    known = np.full(n, np.nan)
    known[:labeled] = y[:labeled]
    return x, y, known


@pytest.mark.slow
def test_regression_learns_from_rows_with_and_without_a_label(tmp_path):
    x, y, known = wave()
    model = SemiSupervisedRegressor(
        options={"hidden": (64,), "z_dim": 2},
        epochs=1,
        min_steps=300,
        batch_size=100,
        lr=2e-2,
        random_state=0,
    ).fit(x, known)
    assert model.score(x, y) > 0.85
    mean, std = model.predict(x, return_std=True)
    assert mean.shape == std.shape == (400,) and (std > 0).all()
    model.save(tmp_path / "m")
    again = SemiSupervisedRegressor.load(tmp_path / "m")
    assert np.array_equal(again.predict(x), mean)
    both = tiny_regressor().fit(x, np.stack([known, -known], 1))
    assert both.predict(x).shape == (400, 2)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (lambda y: y[:5], "one label per row of X"),
        (lambda y: np.full_like(y, np.nan), "y has no label"),
        (lambda y: np.where(np.isnan(y), y, np.inf), "infinity"),
        (
            lambda y: np.where(np.isnan(y), "", "high"),
            "real numbers, got '.*'; for classes use SemiSupervisedClassifier",
        ),
    ],
)
def test_regression_refuses_labels_by_name(y, message):
    x, _, known = wave()
    with pytest.raises(ValueError, match=message):
        tiny_regressor().fit(x, y(known))


def test_regression_takes_masked_labels_as_missing(blobs):
    x, _ = blobs
    y = np.where(UNLABELED, 1e6, x[:, 0])
    model = tiny_regressor().fit(x, np.ma.array(y, mask=UNLABELED))
    same = tiny_regressor().fit(x, np.where(UNLABELED, np.nan, y))
    assert model.n_unlabeled_ == 32 and model.objective_.sizes == (8, 32)
    np.testing.assert_array_equal(model.predict(x), same.predict(x))


def test_regression_wants_a_method_of_real_labels():
    x, _, known = wave()
    with pytest.raises(ValueError, match="method m2 does not support real labels; use sslpe"):
        SemiSupervisedRegressor(method="m2").fit(x, known)


def test_regression_in_any_unit():
    x, y, known = wave(200)
    one = tiny_regressor().fit(x, known).predict(x)
    for unit in (1e-14, 1e14):
        np.testing.assert_allclose(
            tiny_regressor().fit(x, known * unit).predict(x) / unit, one, atol=1e-3
        )


@pytest.mark.parametrize("mark", [-1, -999, 9999])
def test_regression_warns_of_a_number_for_no_label(mark):
    x, _, known = wave()
    with pytest.warns(UserWarning, match=f"y is {mark} in more than half of its rows.*NaN"):
        tiny_regressor(min_steps=1).fit(x, np.nan_to_num(known, nan=mark))


def test_regression_is_no_option_of_the_regressor():
    x, _, known = wave()
    with pytest.raises(
        ValueError, match="options should not have regression=False in a SemiSupervisedRegressor"
    ):
        tiny_regressor(options={"regression": False}).fit(x, known)
    assert tiny_regressor(min_steps=1, options={"regression": True}).fit(x, known).predict(
        x
    ).shape == (400,)
