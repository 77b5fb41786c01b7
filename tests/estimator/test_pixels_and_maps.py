"""Pixels of uint8, and memory maps, in the estimators."""

import numpy as np
import pytest
import torch

from pyro_ssl import SemiSupervisedClassifier


def small_images():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)
    return pixels, np.where(np.arange(30) < 10, np.arange(30) % 2, -1)


def test_images_of_uint8_are_pixels():
    pixels, y = small_images()
    how = {"epochs": 1, "min_steps": 1, "random_state": 0, "options": {"hidden": (4,)}}
    expected = SemiSupervisedClassifier(**how).fit(pixels / 255, y)
    model = SemiSupervisedClassifier(**how).fit(pixels, y)
    for x in (pixels, torch.as_tensor(pixels), pixels / 255):
        np.testing.assert_array_equal(model.predict_proba(x), expected.predict_proba(pixels / 255))


def test_a_memory_map_is_read_where_it_fits(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 3))
    _, y = small_images()
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    how = {"epochs": 1, "min_steps": 1, "random_state": 0}
    model = SemiSupervisedClassifier(**how).fit(mapped, y)
    expected = SemiSupervisedClassifier(**how).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(mapped), expected)
    monkeypatch.setattr("pyro_ssl.estimator.inputs.physical_memory", lambda: 1000)
    for call in (lambda: model.fit(mapped, y), lambda: model.predict_proba(mapped)):
        with pytest.raises(ValueError, match=r"X is a memory map.*pyro_ssl\.fit.*batch by batch"):
            call()


def test_a_torch_dataset_is_refused_with_the_way_out():
    X = torch.utils.data.TensorDataset(torch.zeros(30, 3))
    with pytest.raises(TypeError, match=r"got a TensorDataset.*from_torch.*pyro_ssl\.fit"):
        SemiSupervisedClassifier().fit(X, np.zeros(30))
