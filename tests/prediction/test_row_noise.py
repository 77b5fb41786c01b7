"""Noise that is seeded by the values of a row."""

import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from zuko.flows import MAF

from pyro_ssl.distributions.flows import Flow
from pyro_ssl.distributions.mixture import MixtureOfNormals
from pyro_ssl.distributions.row_noise import RowNoise, draw

D, K, N = 4, 3, 50


def test_noise_differs_between_rows_draws_and_seeds(x):
    d = dist.Normal(torch.zeros(N, 3), 1.0).to_event(1)
    with RowNoise(x, 0):
        first, second = draw(d), draw(d)
    with RowNoise(x, 0):
        assert torch.equal(
            draw(d, [2]), torch.stack([first, second])
        )  # blocks of samples are parts of one
    with RowNoise(x, 1):
        assert not torch.isclose(draw(d), first).any()
    assert not torch.isclose(first, second).any() and len(first.unique()) == first.numel()
    nearly = torch.nextafter(x, x + 1)
    with RowNoise(nearly, 0):
        assert not torch.isclose(draw(d), first).any()
    with RowNoise(x - x, 0), RowNoise(-(x - x), 0):  # equal rows, of 0 and of -0
        assert len(draw(d).unique(dim=0)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_law_of_a_generators(dtype):
    """Marginals, squared lengths, and correlations between rows and draws, on a coarse grid."""
    rows = torch.arange(2000.0, dtype=dtype)[:, None].expand(-1, 4) / 255
    d = dist.Normal(torch.tensor(0.0, dtype=dtype), 1.0).expand([2000, 5]).to_event(1)
    with RowNoise(rows, 3):
        z = draw(d, [10])
    assert z.dtype == dtype and z.isfinite().all()
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(z.square().sum((0, 2)).numpy(), stats.chi2(50).cdf).pvalue > 1e-3
    for m, n in ((z.movedim(1, 0).flatten(1), 50), (z.movedim(1, -1).flatten(0, 1), 2000)):
        correlation = torch.corrcoef(m).fill_diagonal_(0)
        assert correlation.abs().max() * n**0.5 < 6.5
        assert float(correlation.square().mean() * n) == pytest.approx(1, abs=0.15)


def test_every_family_is_drawn_from_its_law():
    g = torch.Generator().manual_seed(0)
    n, rows = 20_000, torch.arange(20_000.0)[:, None]
    p, scale = (
        torch.tensor([0.0, 0.3, 0.5, 0.2, 0.0]),
        torch.randn(2, 2, generator=g).tril() + 2 * torch.eye(2),
    )
    with RowNoise(rows, 0):
        one_hots = draw(dist.OneHotCategorical(p.expand(n, 5)))
        indices = draw(dist.Categorical(p.expand(n, 5)))
        coins = draw(dist.Bernoulli(torch.tensor([0.2, 0.9]).expand(n, 2)).to_event(1))
        normal = draw(dist.MultivariateNormal(torch.ones(n, 2), scale_tril=scale))
        logs = draw(dist.LogNormal(torch.full((n,), 0.5), 0.3))
        masked = draw(dist.Normal(torch.full((n,), 2.0), 0.5).mask(False))
        means = torch.arange(3.0)[:, None].expand(n, 3, 1)
        logits = p[1:4].log().expand(n, 3)
        mixed = draw(MixtureOfNormals(logits, means, torch.full((n, 3, 1), 0.2)))
    for found in (one_hots, torch.nn.functional.one_hot(indices, 5).float()):
        assert (found.sum(0)[p == 0] == 0).all() and (found.mean(0) - p).abs().max() < 0.015
    assert (coins.mean(0) - torch.tensor([0.2, 0.9])).abs().max() < 0.015
    torch.testing.assert_close(torch.cov(normal.T), scale @ scale.T, atol=0.2, rtol=0.05)
    assert stats.kstest(logs.log().numpy(), stats.norm(0.5, 0.3).cdf).pvalue > 1e-3
    assert stats.kstest(masked.numpy(), stats.norm(2, 0.5).cdf).pvalue > 1e-3
    cdf = lambda z: sum(float(w) * stats.norm(m, 0.2).cdf(z) for m, w in enumerate(p[1:4]))  # noqa: E731
    assert stats.kstest(mixed.flatten().numpy(), cdf).pvalue > 1e-3


def test_flows_and_what_rows_share(x):
    torch.manual_seed(0)
    flow = Flow(lambda x: dist.Normal(x, 1.0).to_event(1), MAF(D).transform)
    shared = dist.Normal(torch.zeros(7), 1.0).to_event(1)

    def sample(x):
        torch.manual_seed(1)
        with torch.no_grad(), RowNoise(x, 0):
            return draw(flow(x)), draw(shared)

    (z, w), (z_some, w_some) = sample(x), sample(x[5:9])
    torch.testing.assert_close(z_some, z[5:9])
    assert torch.equal(w, w_some)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", [dist.Categorical, dist.OneHotCategorical])
@pytest.mark.parametrize("shape", [(7,), (200, 7), (5, 3, 7)])
def test_classes_are_drawn_as_by_torch(family, shape, dtype):
    """To the bit, and with as many random numbers, without reading a value."""
    q = family(logits=torch.randn(shape, dtype=dtype))
    state = torch.get_rng_state()
    expected = q.sample()
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    value = draw(q)
    assert torch.equal(value, expected) and value.dtype == expected.dtype
    assert torch.equal(torch.get_rng_state(), after)
