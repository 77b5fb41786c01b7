"""Mixtures of Gaussians: density, moments and pathwise gradients."""

from itertools import product

import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same, assert_unbiased
from programs.latents import Z, mixture, nodes, rows
from torch import Tensor

from pyro_ssl.distributions.mixture import MixtureOfNormals


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


def smooth(z: Tensor) -> Tensor:
    """A function of all of z that no product or sum of functions of its parts is."""
    s = z.cumsum(-1)
    return s.sin().sum(-1) + 0.3 * s[..., -1].square() + (0.5 * z[..., 0]).cos() * s[..., -1]


def test_a_mixture_has_its_density_and_its_moments():
    logits, loc, scale = mixture(3, Z)
    q = MixtureOfNormals(logits, loc, scale)
    parts = dist.Normal(loc, scale).to_event(1)
    other = dist.MixtureSameFamily(dist.Categorical(logits=logits), parts)
    z = q.rsample(torch.Size([100_000])).detach()
    assert_same(q.log_prob(z[:9]), other.log_prob(z[:9]), [logits, loc, scale])
    joint = logits.log_softmax(-1) + parts.log_prob(z[:9, None])
    assert torch.allclose(q.component_logits(z[:9]), joint.log_softmax(-1), rtol=0, atol=1e-12)
    mean = (logits.softmax(-1)[:, None] * loc).sum(0)
    second = (
        logits.softmax(-1)[:, None, None]
        * (loc[:, :, None] * loc[:, None] + scale.square().diag_embed())
    ).sum(0)
    assert torch.allclose(q.mean, mean) and q.expand(torch.Size([4, 5])).rsample().shape == (
        4,
        5,
        Z,
    )
    assert_unbiased(z, mean.detach())
    assert_unbiased(z[:, :, None] * z[:, None], second.detach())


@pytest.mark.parametrize(("z", "k"), product((1, 2, 3), (2, 5)))
def test_the_pathwise_gradient_is_that_of_the_expectation(z, k):
    """Against quadrature.

    The drawn component's own reparameterisation, a negative control, misses that of the weights.
    """
    parameters, n = mixture(k, z, seed=3), 100_000
    places, weights = nodes(*parameters[1:])
    exact = torch.autograd.grad(parameters[0].softmax(-1) @ (smooth(places) @ weights), parameters)
    own = rows(parameters, n)
    found = torch.autograd.grad(smooth(MixtureOfNormals(*own).rsample()).sum(), own)
    flat, wanted = (
        torch.cat([g.reshape(n, -1) for g in found], -1),
        torch.cat([g.flatten() for g in exact]),
    )
    assert_unbiased(flat, wanted, low=0.5, high=1.5)
    index = torch.distributions.Categorical(logits=own[0]).sample()
    loc, scale = (p[torch.arange(n), index] for p in own[1:])
    naive = torch.autograd.grad(
        smooth(loc + scale * torch.randn(n, z)).sum(), own, allow_unused=True
    )
    assert naive[0] is None and exact[0].abs().max() > 0.05
    assert_unbiased(
        torch.cat([g.reshape(n, -1) for g in naive[1:]], -1), wanted[k:], low=0.5, high=1.5
    )


def cdfs(z: Tensor, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """F_d(z_d|z_<d), `(*, Z)`, of parameters `(*, K)` and `(*, K, Z)`."""
    parts, z = dist.Normal(loc, scale), z.unsqueeze(-2)
    before = parts.log_prob(z).cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    return ((logits.unsqueeze(-1) + before).softmax(-2) * parts.cdf(z)).sum(-2)


@pytest.mark.parametrize("seed", range(4))
def test_a_samples_gradient_is_that_of_the_inverse_cdfs(seed):
    """The definition, :math:`z_d = F_d^{-1}(u_d|z_<d)`, by bisection and finite differences at one
    u.
    """
    parameters, h = mixture(3, 3, seed), 1e-4
    torch.manual_seed(seed)
    z = MixtureOfNormals(*parameters).rsample()
    found = [torch.autograd.grad(z[d], parameters, retain_graph=True) for d in range(3)]
    flat, eye = torch.cat([p.detach().flatten() for p in parameters]), h * torch.eye(21)
    logits, *others = (flat + torch.cat([eye, -eye])).split([3, 9, 9], -1)
    moved = logits, *(p.unflatten(-1, (3, 3)) for p in others)
    u, images = cdfs(z, *parameters).detach(), torch.zeros(42, 3)
    for d in range(3):
        low, high = torch.full((42,), -60.0), torch.full((42,), 60.0)
        for _ in range(70):
            images[:, d] = (low + high) / 2
            below = cdfs(images, *moved)[:, d] < u[d]
            low, high = (
                torch.where(below, images[:, d], low),
                torch.where(below, high, images[:, d]),
            )
    plus, minus = images.chunk(2)
    assert torch.allclose((plus + minus) / 2, z.expand_as(plus), atol=1e-4)
    ours = torch.stack([torch.cat([g.flatten() for g in gs]) for gs in found], -1)
    assert torch.allclose(ours, (plus - minus) / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_equal_components_are_one_gaussian(k):
    """Whose own gradient it is; the weights have none."""
    own, w = rows([p.expand(k, *p.shape[1:]) for p in mixture(1, 3)], 50), torch.randn(3)
    z = MixtureOfNormals(*own).rsample()
    found, eps = torch.autograd.grad((z * w).sum(), own), (z - own[1][:, 0]) / own[2][:, 0]
    assert found[0].abs().max() < 1e-12
    assert torch.allclose(found[1].sum(1), w.expand(50, 3), rtol=0, atol=1e-9)
    assert torch.allclose(found[2].sum(1), w * eps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logits", [(80.0, -80.0), (0.0, 0.0), (-80.0, 80.0)])
@pytest.mark.parametrize(
    ("apart", "scale"), [(0.0, 1.0), (50.0, 1.0), (1e4, 1e-3), (0.0, 1e-3), (3.0, 100.0)]
)
def test_extreme_mixtures_stay_finite(apart, scale, logits, dtype):
    loc = torch.tensor([[-apart], [apart]]).expand(2, 8)
    own = rows([p.to(dtype) for p in (torch.tensor(logits), loc, torch.full((2, 8), scale))], 200)
    q = MixtureOfNormals(*own)
    z = q.rsample()
    found = torch.autograd.grad(
        z.sin().sum() + q.log_prob(z).sum() + q.component_logits(z).exp().sum(), own
    )
    assert z.dtype == dtype and z.isfinite().all() and all(g.isfinite().all() for g in found)
