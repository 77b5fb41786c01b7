"""Bayesian linear regression, where posterior and evidence are known."""

import itertools

import pyro.distributions as dist
import pytest
import torch
from programs.bayesian import SCALE, X, regression
from torch import Tensor

from pyro_ssl import (
    Batch,
    Objective,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def optimum(o: Objective, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best mean and variance of q(W), in the order of `RandomWeights`, and the log evidence."""
    columns = [
        torch.ones(1, len(x)) if name == "bias" else x.T for _, name in o.model.slots.entries
    ]
    phi = torch.cat(columns).T
    precision = torch.eye(phi.shape[1]) / SCALE**2 + phi.T @ phi / 0.25
    covariance = 0.25 * torch.eye(len(x)) + SCALE**2 * phi @ phi.T
    evidence = dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(y.squeeze(-1))
    return torch.linalg.solve(precision, phi.T @ y / 0.25).squeeze(-1), precision, evidence


def expected_loss(o: Objective, batch: Batch, monkeypatch) -> Tensor:
    """E[loss], exactly: noise of all combinations of 1 and -1 has the moments that a square asks
    for.
    """
    if o.guide.local_reparameterisation:
        patterns = [torch.full((), s) for s in (1.0, -1.0)]
    else:
        patterns = [
            torch.tensor(p) for p in itertools.product([1.0, -1.0], repeat=len(o.guide.loc))
        ]
    losses = []
    for noise in patterns:
        monkeypatch.setattr(torch, "randn_like", lambda t, noise=noise: noise.expand(t.shape))
        rsample = lambda self, shape=torch.Size(), noise=noise: self.loc + self.scale * noise  # noqa: B008, E731
        monkeypatch.setattr(torch.distributions.Normal, "rsample", rsample)
        losses.append(o(batch))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("design", ["orthogonal", "general"])
def test_mean_field_regression_has_its_optimum_where_it_should(local, design, monkeypatch):
    signs = torch.tensor(list(itertools.product([1.0, -1.0], repeat=3)))
    x = (
        signs * torch.tensor([0.3, 1.0, 2.0]) if design == "orthogonal" else X
    )  # orthogonal to the bias's column too
    y = (x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.4) + 0.3 * torch.sin(7 * x[:, :1])
    o = regression(local)
    mean, precision, evidence = optimum(o, x, y)
    with torch.no_grad():
        o.guide.loc.copy_(mean)
        o.guide.log_variance.copy_(-precision.diag().log())
    loss = expected_loss(o, Batch(x, y), monkeypatch)
    for gradient in torch.autograd.grad(loss, [o.guide.loc, o.guide.log_variance]):
        assert gradient.abs().max() < 1e-12
    gap = 0.5 * (precision.diag().log().sum() - precision.logdet())  # KL(q || posterior)
    assert torch.allclose(-len(x) * loss, evidence - gap, rtol=1e-12)
    assert (gap < 1e-12) if design == "orthogonal" else (gap > 0.01)
    with torch.no_grad():
        o.guide.loc += 0.1
    assert (
        torch.autograd.grad(expected_loss(o, Batch(x, y), monkeypatch), o.guide.loc)[0].abs().max()
        > 1e-2
    )
