"""The isotropic normal is the normal."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_ssl import (
    MLP,
    Gaussian,
)
from pyro_ssl.distributions.conditionals import IsotropicNormal

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("event", [(4,), (1, 3, 2)])
def test_the_isotropic_normal_is_the_normal(event):
    loc = torch.randn(5, 3, *event, requires_grad=True)
    sigma, x = torch.tensor(0.6, requires_grad=True), torch.randn(3, *event, requires_grad=True)
    theirs = dist.Normal(loc, sigma).to_event(len(event))
    ours = IsotropicNormal(dist.Normal(loc, sigma), len(event))
    assert ours.batch_shape == theirs.batch_shape and ours.event_shape == theirs.event_shape
    assert torch.equal(ours.mean, theirs.mean) and torch.allclose(ours.stddev, theirs.stddev)
    a, b = ours.log_prob(x), theirs.log_prob(x)
    assert a.shape == (5, 3) and torch.allclose(a, b, rtol=1e-12)
    weights = torch.randn(5, 3)
    for mine, hand in zip(
        *(torch.autograd.grad((v * weights).sum(), (loc, sigma, x)) for v in (a, b)), strict=True
    ):
        assert torch.allclose(mine, hand, rtol=1e-10)
    for p in (ours, ours.expand((2, 5, 3))):
        torch.manual_seed(0)
        sample = p.sample((7,))
        torch.manual_seed(0)
        assert torch.allclose(sample, theirs.expand(p.batch_shape).sample((7,)))
    assert ours.support.check(x).all() and ours.rsample().requires_grad
    with pytest.raises(ValueError):
        ours.log_prob(torch.full_like(x, float("nan")))
    with pytest.raises(ValueError):
        ours.log_prob(torch.zeros(3, 7))


def test_the_isotropic_normal_as_a_latents_has_its_kl_and_counts_no_event():
    q = Gaussian(MLP(3, 4, ()), 1, sigma=0.5)(torch.randn(6, 3))
    p = dist.Normal(torch.zeros(4), torch.ones(4)).to_event(1)
    plain = dist.Normal(q.mean, 0.5).to_event(1)
    assert torch.allclose(
        torch.distributions.kl_divergence(q, p), torch.distributions.kl_divergence(plain, p)
    )
    single = Gaussian(nn.Linear(3, 2), 0, sigma=0.5)(torch.randn(6, 3))
    assert single.log_prob(torch.zeros(6, 2)).shape == (6, 2)
    assert torch.allclose(
        single.log_prob(torch.zeros(6, 2)),
        dist.Normal(single.mean, 0.5).log_prob(torch.zeros(6, 2)),
    )


@pytest.mark.parametrize("batch", [(), (5,)])
def test_the_kl_to_the_isotropic_normal_is_the_normals(batch):
    given = [
        torch.randn(*batch, 3, 2),
        torch.rand(*batch, 3, 2) + 0.1,
        torch.randn(3, 2),
        torch.tensor(0.6),
    ]
    given = [t.requires_grad_() for t in given]
    loc, scale, prior_loc, sigma = given
    q = dist.Normal(loc, scale).to_event(2)
    ours, theirs = (
        torch.distributions.kl_divergence(q, p)
        for p in (
            IsotropicNormal(dist.Normal(prior_loc, sigma), 2),
            dist.Normal(prior_loc, sigma).to_event(2),
        )
    )
    assert ours.shape == batch and torch.allclose(ours, theirs, rtol=1e-12)
    weights = torch.randn(batch)
    for mine, hand in zip(
        *(torch.autograd.grad((v * weights).sum(), given) for v in (ours, theirs)), strict=True
    ):
        assert torch.allclose(mine, hand, rtol=1e-10)
    with pytest.raises(NotImplementedError):
        torch.distributions.kl_divergence(
            dist.Laplace(loc, scale).to_event(2), IsotropicNormal(dist.Normal(prior_loc, sigma), 2)
        )
