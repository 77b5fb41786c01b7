"""Predictions and bounds of memory maps and torch Datasets, read chunk by chunk."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from pyro_ssl import bounds, class_bounds, fit, gibbs, log_evidence, predict_proba, zoo
from pyro_ssl.data.sources import MemmapSource

X = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.where(torch.arange(60) < 20, torch.arange(60) % 2, -1)


class Rows(Dataset):
    """Rows of an array, with a label each that no prediction may use."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], 99


@pytest.fixture(scope="module")
def trained():
    objectives = {}
    for method in ("m2", "sslpe"):
        objectives[method] = zoo.build(method, 4, 2, hidden=(6,))
        fit(objectives[method], X, Y, epochs=1)
    return objectives


def mapped(x, folder):
    np.save(folder / "x.npy", np.asarray(x))
    return np.load(folder / "x.npy", mmap_mode="r")


FUNCTIONS = {
    "predict_proba": predict_proba,
    "bounds": bounds,
    "class_bounds": class_bounds,
    "log_evidence": log_evidence,
    "gibbs": lambda objective, x, **more: gibbs(objective, x, **more).mean,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_values_are_those_of_an_array(trained, function, tmp_path):
    objective = trained["sslpe" if function == "gibbs" else "m2"]
    expected = FUNCTIONS[function](objective, X, chunk=7)
    assert FUNCTIONS[function](objective, mapped(X, tmp_path), chunk=7).equal(expected)
    assert FUNCTIONS[function](objective, Rows(X), chunk=7).equal(expected)


def test_bounds_with_labels(trained, tmp_path):
    y = torch.eye(2)[torch.arange(60) % 2]
    expected = bounds(trained["m2"], X, y, chunk=7)
    assert bounds(trained["m2"], mapped(X, tmp_path), y, chunk=7).equal(expected)


def test_no_more_than_a_chunk_is_read_at_once(trained, tmp_path, monkeypatch):
    most = []
    read = MemmapSource.read

    def watched(self, rows):
        most.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(MemmapSource, "read", watched)
    x = mapped(torch.rand(5000, 4), tmp_path)
    assert predict_proba(trained["m2"], x, chunk=100).shape == (5000, 2)
    assert max(most) == 1000  # the rows that are looked at first
    assert most.count(100) == 50


def test_other_shapes_and_units_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"x should have shape \(N, 4\).*got \(60, 3\)"):
        predict_proba(trained["m2"], mapped(X[:, :3], tmp_path))
    with pytest.raises(ValueError, match="x is in other units than the training data"):
        predict_proba(trained["m2"], mapped(X * 255, tmp_path))


def test_data_outside_the_support_are_found_in_any_chunk(tmp_path):
    x = torch.rand(3000, 4)
    vae = zoo.build("vae", 4, 2, hidden=(6,))
    assert bounds(vae, mapped(x, tmp_path), chunk=500).shape == (3000,)
    x[2] = 3.0  # not among the rows that are looked at first
    with pytest.raises(ValueError, match="'x' is observed outside the support of its"):
        bounds(vae, mapped(x, tmp_path), chunk=500)


def test_pixels_are_divided(tmp_path):
    pixels = torch.randint(0, 256, (20, 1, 2, 2), dtype=torch.uint8)
    m2 = zoo.build("m2", (1, 2, 2), 2, hidden=(6,))
    expected = predict_proba(m2, pixels.float() / 255)
    assert predict_proba(m2, pixels).equal(expected)
    assert predict_proba(m2, mapped(pixels, tmp_path)).equal(expected)


def test_a_dataset_with_random_items_leaves_the_random_state_alone(trained):
    class Noisy(Rows):
        def __getitem__(self, i):
            return self.x[i] + 0.01 * torch.rand(4)

    before = torch.get_rng_state()
    assert predict_proba(trained["m2"], Noisy(X)).equal(predict_proba(trained["m2"], Noisy(X)))
    assert torch.get_rng_state().equal(before)
