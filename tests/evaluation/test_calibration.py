"""Calibration: the reliability diagram, the temperature and the test."""

import math

import numpy as np
import pytest
import torch

from pyro_ssl.evaluation import calibration, metrics, ood
from pyro_ssl.evaluation.corruptions import corrupted


def problem(n=4000, k=6, sharp=1.0, seed=0):
    """Logits of a classifier, `sharp` times too sure, and labels that follow the right ones."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, k, generator=g, dtype=torch.float64)
    y = logits.softmax(-1).multinomial(1, generator=g).squeeze(1)
    return sharp * logits, y


def test_a_reliability_diagram_holds_the_calibration_error():
    logits, y = problem(sharp=2.0)
    probs = logits.softmax(-1)
    bins = calibration.reliability(probs, y, 20)
    gap = (bins.share * (bins.accuracy - bins.confidence).abs()).nansum()
    assert float(gap) == pytest.approx(metrics.ece(probs, y, 20), abs=1e-12)
    assert float(bins.share.sum()) == pytest.approx(1)
    for seed in range(1000):  # in float32, and on the edges
        g = torch.Generator().manual_seed(seed)
        confidence = torch.randint(11, 20, (8,), generator=g) / 20
        probs, y = torch.stack([confidence, 1 - confidence], 1), torch.randint(2, (8,), generator=g)
        bins = calibration.reliability(probs, y, 5)
        gap = (bins.share * (bins.accuracy - bins.confidence).abs()).nansum()
        assert float(gap) == pytest.approx(metrics.ece(probs, y, 5), abs=1e-9)


def test_temperature_undoes_a_scale_and_is_at_the_minimum():
    logits, y = problem(20_000, sharp=1.7)
    assert calibration.temperature(logits, y) == pytest.approx(1.7, rel=0.03)
    for seed in range(100):
        logits, y = problem(200, sharp=1.5, seed=seed)
        t = torch.tensor(
            calibration.temperature(logits, y), dtype=torch.float64, requires_grad=True
        )
        torch.nn.functional.cross_entropy(logits / t, y).backward()
        assert abs(float(t.grad)) < 1e-4


@pytest.mark.parametrize(
    "call",
    [
        lambda p, y: calibration.reliability(p, y[:-1]),
        lambda p, y: calibration.reliability(p, y, bins=0),
        lambda p, y: metrics.ece(p, y, bins=0),
        lambda p, y: metrics.ece(p, y, bins=0, adaptive=True),
        lambda p, y: calibration.calibration_test(p[:0], y[:0]),
        lambda p, y: calibration.temperature(p, y - 1),
        lambda p, y: metrics.evaluate(p, y + 2),
    ],
)
def test_bad_probabilities_and_classes_are_named(call):
    with pytest.raises(ValueError, match="should"):
        call(torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1]))


def test_the_test_of_calibration_holds_its_level_and_finds_what_is_too_sure():
    values = []
    for seed in range(200):
        logits, y = problem(1000, seed=seed)
        values.append(calibration.calibration_test(logits.softmax(-1), y, draws=100, seed=seed))
    values = torch.tensor(values)
    assert 0.4 < float(values.mean()) < 0.6 and 0.04 < float((values < 0.1).float().mean()) < 0.17
    logits, y = problem(1000, sharp=1.5)
    assert calibration.calibration_test(logits.softmax(-1), y, draws=100) < 0.02


def test_arrays_are_as_good_as_tensors():
    g = torch.Generator().manual_seed(0)
    own, foreign, z = (
        torch.rand(50, generator=g) + 0.5,
        torch.rand(40, generator=g),
        torch.randn(60, 3, generator=g),
    )
    y = torch.arange(60) % 2
    assert ood.separation(own.numpy(), foreign.tolist()) == ood.separation(own, foreign)
    of_arrays, of_tensors = (
        ood.ClassDensities(z.numpy(), y.numpy().astype(np.uint8)),
        ood.ClassDensities(z, y),
    )
    torch.testing.assert_close(of_arrays.log_prob(z.numpy()), of_tensors.log_prob(z))
    with pytest.raises(ValueError, match=r"z should have shape \(N, 3\)"):
        of_tensors.log_prob(z[:, :2])
    with pytest.raises(ValueError, match="z holds NaN"):
        of_tensors.log_prob(z.index_fill(0, torch.tensor([4]), math.nan))
    images = torch.rand(5, 1, 8, 8, generator=g)
    torch.testing.assert_close(
        corrupted(images.numpy(), "contrast", 2), corrupted(images, "contrast", 2)
    )
