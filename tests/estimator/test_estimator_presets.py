"""Estimators with the settings of a paper."""

import numpy as np
import pytest

from pyro_ssl import SemiSupervisedClassifier, SemiSupervisedRegressor, zoo
from pyro_ssl.estimator.defaults import OWN_TRAINING, fit_arguments, training_parameters

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.where(np.arange(30) < 12, np.arange(30) % 2, -1)
SMALL = {"hidden": (6,), "classifier_hidden": None, "z_dim": 2, "likelihood": "gaussian"}


def arguments_of(labeled: int = 12, unlabeled: int = 18, **parameters):
    model = SemiSupervisedClassifier(**parameters)
    filled = training_parameters(model.get_params(deep=False))
    return fit_arguments(filled, model.training or {}, labeled, unlabeled)


def test_without_a_preset_the_arguments_of_fit_are_as_before():
    expected = {"epochs": 1000, "batch_size": 200, "labeled_batch_size": 100, "lr": 3e-3}
    assert arguments_of() == expected | {"progress": False}
    assert OWN_TRAINING == {"epochs": 100, "min_steps": 1000, "batch_size": 200, "lr": 3e-3}


def test_training_is_the_presets_except_for_what_is_given():
    of_paper = zoo.training_of("m2", "paper-004") | {"progress": False}
    assert arguments_of(preset="paper-004") == of_paper
    changes = {"epochs": 7, "lr": 0.01, "batch_size": 5}
    shorter = zoo.training_of("m2", "paper-004", epochs=7) | {"progress": False}
    assert arguments_of(preset="paper-004", **changes) == shorter | changes
    assert shorter["warmup"] == 200.0 * (7 / 1000)  # the preset's share, not its 200 epochs
    others = {"warmup": 3.0, "epochs": 2}
    assert arguments_of(preset="paper-004", training=others) == of_paper | others
    assert arguments_of(preset="paper-004", epochs=1, min_steps=50)["epochs"] == 50


def test_the_options_are_the_presets_except_for_what_is_given(tmp_path):
    model = SemiSupervisedClassifier(
        "m2", preset="paper-004", epochs=2, options=SMALL, random_state=0
    ).fit(X, Y)
    assert model.options_ == zoo.preset_of("m2", "paper-004").option_values | SMALL
    assert model.n_iter_ == 2
    model.save(tmp_path / "model")
    again = SemiSupervisedClassifier.load(tmp_path / "model")
    assert again.preset == "paper-004" and again.epochs == 2 and again.lr is None
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("method", ["sslpe", "sslapd"])
def test_a_regressor_has_the_thesis_settings(method):
    y = np.where(Y >= 0, X[:, 0], np.nan)
    model = SemiSupervisedRegressor(
        method, preset="paper-002-moons", epochs=1, options={"hidden": (6,)}, random_state=0
    ).fit(X, y)
    assert model.options_["regression"] and model.options_["gibbs_steps"] == 10
    assert model.options_["likelihood"] == "heteroscedastic_gaussian"
    assert not model.objective_.predictor.hard
    mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all() and (std > 0).all()
