"""Bounds and evidence of data sets: order, blocks, classes, memory and bad arguments."""

import subprocess
import sys

import pytest
import torch

from pyro_ssl import (
    bounds,
    class_bounds,
    log_evidence,
    one_hot,
    zoo,
)
from pyro_ssl.prediction import chunks

D, K, N = 4, 3, 50


def test_more_samples_tighten_the_bound_and_the_evidence_is_above(m2, x):
    elbo = bounds(m2, x, num_particles=20).mean()
    weighted = bounds(m2, x, num_particles=20, importance_weighted=True).mean()
    evidence = log_evidence(m2, x, num_particles=2000).mean()
    assert elbo < weighted < evidence


def test_evidence_is_the_sum_of_the_joint_over_classes(m2, x):
    """log p(x) = log sum_y p(x, y): two estimates by different samples, close if many."""
    every = [
        log_evidence(m2, x, one_hot(torch.full((N,), k), K), num_particles=20_000) for k in range(K)
    ]
    assert torch.allclose(
        log_evidence(m2, x, num_particles=20_000), torch.stack(every).logsumexp(0), atol=0.1
    )


def test_samples_come_in_blocks(m2, x, monkeypatch):
    """Blocks of samples, the last one short, estimate what all samples at once do."""
    whole = log_evidence(m2, x, num_particles=5000)
    monkeypatch.setattr(chunks, "AT_ONCE", K * 300)
    assert torch.allclose(log_evidence(m2, x, num_particles=5000), whole, atol=0.15)
    one = log_evidence(m2, x[:1], num_particles=1, seed=3)
    assert torch.equal(one, log_evidence(m2, x[:1], num_particles=1, seed=3))


def test_bounds_per_class(m2, x):
    q = m2.classify(x).probs
    u = bounds(m2, x, num_particles=1000)
    every = class_bounds(m2, x, num_particles=1000)
    assert torch.allclose((q * every).sum(-1) - (q * q.log()).sum(-1), u, atol=0.2)
    reconstruction = class_bounds(m2, x, only=("x",), num_particles=1000)
    assert reconstruction.shape == every.shape == (N, K) and (reconstruction > every).all()
    with pytest.raises(ValueError, match="the model has no site w"):
        class_bounds(m2, x, only=("w",))
    with pytest.raises(ValueError, match="no site is enumerated"):
        class_bounds(zoo.build("vae", D, K, likelihood="gaussian"), x)


@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (3, 64, 64), (3, 512, 512)])
@pytest.mark.parametrize("times", [1, 10, 10**6])
def test_large_data_are_fewer_at_once(shape, times):
    x = torch.zeros(1).expand(2, *shape)
    rows = chunks.rows_at_once(x, times)
    assert rows == 1 or rows * times * max(784, x[0].numel()) <= 2**15 * 784


def test_one_datum_outside_the_support_is_found(x):
    m2 = zoo.build("m2", D, K, likelihood="bernoulli", z_dim=1, hidden=(6,))
    within = x.repeat(10, 1).sigmoid()
    assert bounds(m2, within).isfinite().all()
    within[321, 1] = 3.0
    for function in (bounds, class_bounds, log_evidence):
        with pytest.raises(ValueError, match="'x' is observed outside"):
            function(m2, within)


@pytest.mark.parametrize("function", [bounds, log_evidence])
def test_bad_arguments_are_named(function, m2, x):
    one_each = torch.eye(K)[torch.arange(N) % K]
    assert torch.equal(function(m2, x, one_each.numpy()), function(m2, x, one_each))
    for y in (one_each[1:], one_each[:, 1:], 0.5 * one_each, one_each.argmax(-1)):
        with pytest.raises(ValueError, match=r"y should be one-hot with shape \(50, 3\), got"):
            function(m2, x, y)
    for name in ("num_particles", "chunk"):
        for value in (0, -1, 2.5):
            with pytest.raises(ValueError, match=name):
                function(m2, x, **{name: value})
    with pytest.raises(ValueError, match="a method without a model has no bound"):
        function(zoo.build("classifier", D, K), x)
    pixels = zoo.build("m2", D, K, likelihood="bernoulli")
    with pytest.raises(ValueError, match="divide by 255"):
        function(pixels, 255 * x.abs())


SCRIPT = """
import torch
from pyro_ssl import bounds, class_bounds, gibbs, log_evidence, zoo
m2 = zoo.build("m2", 2, 3, z_dim=2, hidden=(32,), noise=0.0, dropout=0.0, sigma=0.5)
x = torch.randn(400_000, 2)
for values in (log_evidence(m2, x, num_particles=4), bounds(m2, x), class_bounds(m2, x)):
    assert len(values) == len(x) and values.isfinite().all()
sslapd = zoo.build("sslapd", 2, 3, z_dim=2, hidden=(32,))
for values in gibbs(sslapd, x, steps=2, chains=2):
    assert len(values) == len(x) and values.isfinite().all()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
def test_rows_by_the_hundred_thousand_fit_in_900_megabytes():
    """One network's hidden layer for all rows, classes and particles would take 600 more."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1024 < 900


def test_a_mean_over_rows_is_as_precise_as_by_a_generator(m2, x):
    """Over seeds, the mean bound of fifty rows varies as that of fifty independent estimates."""
    values = torch.stack([bounds(m2, x, seed=seed) for seed in range(200)])
    of_means, of_rows = values.mean(1).var(), values.var(0).mean() / N
    assert 0.6 < of_means / of_rows < 1.6
