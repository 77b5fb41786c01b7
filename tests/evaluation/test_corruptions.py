"""Corruptions of images."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from pyro_ssl.evaluation import metrics
from pyro_ssl.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupted, under_corruption
from pyro_ssl.prediction.predict import predict_proba


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_corruption_grows_with_its_severity_and_is_reproducible(name, shape):
    g = torch.Generator().manual_seed(0)
    rough = torch.nn.functional.interpolate(
        torch.rand(20, shape[0], 9, 9, generator=g), shape[1:], mode="bicubic"
    )
    x = rough.clamp(0, 1)
    state = torch.random.get_rng_state()
    far = [float((corrupted(x, name, s) - x).square().sum()) for s in SEVERITIES]
    assert far == sorted(far) and far[0] > 0
    again = corrupted(x, name, 5)
    assert (
        torch.equal(again, corrupted(x, name, 5))
        and 0 <= float(again.min())
        and float(again.max()) <= 1
    )
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"), [(("haze", 1), "haze"), (("fog", 6), "6"), (("fog", 0), "0")]
)
def test_bad_corruptions(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupted(torch.rand(2, 1, 8, 8), *arguments)
    with pytest.raises(ValueError, match="images.*within 1"):
        corrupted(2 * torch.rand(2, 1, 8, 8) + 1, "fog", 1)


def test_blurs_repeat_the_outermost_pixels():
    x = torch.rand(2, 3, 9, 7)
    at = np.arange(-4, 5)
    kernel = np.exp(-(at**2) / (2 * 0.8**2))  # of severity 3
    expected = x.numpy()
    for axis in (-2, -1):
        expected = correlate1d(expected, kernel / kernel.sum(), axis, mode="nearest")
    np.testing.assert_allclose(corrupted(x, "gaussian_blur", 3), expected, atol=1e-6)
    expected = correlate1d(x.numpy(), np.full(7, 1 / 7), -1, mode="nearest")
    np.testing.assert_allclose(corrupted(x, "motion_blur", 3), expected, atol=1e-6)


def test_fog_has_a_texture_and_each_severity_is_measured(trained):
    assert float(corrupted(torch.full((1, 1, 28, 28), 0.5), "fog", 3).std()) > 0.01
    objective, x, y = trained
    found = under_corruption(objective, x, y, ["contrast"])["contrast"]
    for severity, row in zip(SEVERITIES, found, strict=True):
        assert row == metrics.evaluate(
            predict_proba(objective, corrupted(x, "contrast", severity)), y
        )
