"""What is learned, and that nothing else is changed."""

import random

import numpy as np
import pyro
import pytest
import torch
from programs.estimators import tiny

from pyro_ssl import SemiSupervisedClassifier, data


def test_learns_two_moons_from_six_labels():
    moons = data.two_moons(n=300, n_test=300)
    y = data.draw_labels(moons.y, 6).masked_labels(moons.y)
    model = SemiSupervisedClassifier(min_steps=250, options={"hidden": (32, 32)}, random_state=0)
    assert model.fit(moons.x, y).score(moons.x_test.numpy(), moons.y_test.numpy()) > 0.8


def test_same_seed_same_result(blobs):
    x, blob = blobs
    one, again, other = (tiny(random_state=s).fit(x, blob).predict_proba(x) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.slow
def test_classes_are_as_frequent_as_their_labels(tmp_path):
    rng = np.random.default_rng(0)
    y = (rng.random(1500) < 0.1).astype(int)
    x = rng.normal(size=(1500, 3)) + 1.2 * y[:, None]
    labels = np.where(np.arange(1500) < 200, y, -1)
    few, even = (tiny(min_steps=100, options=o).fit(x, labels) for o in ({}, {"class_probs": None}))
    counts = np.bincount(y[:200]) + 3
    np.testing.assert_allclose(
        few.objective_.model.p_y().probs.numpy(), counts / counts.sum(), rtol=1e-6
    )
    assert even.predict(x).mean() > few.predict(x).mean()
    assert few.score(x, y) > max(even.score(x, y), 0.9)
    of_array = tiny(min_steps=100, options={"class_probs": counts / counts.sum()}).fit(x, labels)
    np.testing.assert_allclose(of_array.predict_proba(x), few.predict_proba(x), rtol=1e-5)
    of_array.save(tmp_path / "array")
    few.save(tmp_path / "m")
    np.testing.assert_array_equal(
        SemiSupervisedClassifier.load(tmp_path / "m").predict_proba(x), few.predict_proba(x)
    )


def test_leaves_random_states_and_parameter_store(blobs):
    pyro.param("mine", torch.ones(1))
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate())
    model = tiny().fit(*blobs)
    model.predict_proba(blobs[0])
    assert before == (
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        random.getstate(),
    )
    assert list(pyro.get_param_store()) == ["mine"]
