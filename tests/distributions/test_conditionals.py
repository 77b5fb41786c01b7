"""Conditionals and priors: their bounds, supports and parameters."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy

from pyro_ssl import (
    Bernoulli,
    ClassPrior,
    Gaussian,
    Normal,
    OneHotCategorical,
    StandardNormal,
)
from pyro_ssl.distributions.conditionals import GreyBernoulli

B, K, Z = 4, 3, 5
IMAGE = (2, 4, 8)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Given(nn.Module):
    """A network that gives its parameter, whatever it is asked."""

    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, *inputs):
        return self.value


@pytest.mark.parametrize("raw", [-math.inf, -1e6, -40.0])
def test_the_scale_of_a_normal_stays_above_its_bound(raw):
    q = Normal(Given(torch.tensor([[0.0, 1.0, raw, 3.0]])), min_scale=0.05)(torch.zeros(1))
    assert q.event_shape == (2,) and torch.equal(q.mean, torch.tensor([[0.0, 1.0]]))
    assert q.stddev[0].tolist() == pytest.approx(
        [0.05, math.log1p(math.exp(3.0)) + 0.05], rel=1e-12
    )
    assert q.log_prob(q.mean).item() < 5


def test_grey_bernoulli_is_minus_the_cross_entropy():
    logits, x = torch.randn(B, *IMAGE) * 3, torch.rand(B, *IMAGE)
    p = Bernoulli(Given(logits), event_dim=3)()
    expected = -binary_cross_entropy(logits.sigmoid(), x, reduction="none").sum((-1, -2, -3))
    assert p.event_shape == IMAGE and torch.allclose(p.log_prob(x), expected, rtol=0, atol=1e-10)
    assert p.mean.equal(logits.sigmoid()) and set(p.sample().unique().tolist()) == {0.0, 1.0}
    assert isinstance(p.base_dist.expand((7, *p.base_dist.batch_shape)), GreyBernoulli)


@pytest.mark.parametrize(
    ("binary", "value"),
    [(False, 1.001), (False, -0.1), (False, 255.0), (False, math.nan), (True, 0.5), (True, 2.0)],
)
def test_bernoulli_refuses_what_it_does_not_model(binary, value):
    p = Bernoulli(Given(torch.zeros(B, Z)), binary=binary)()
    x = torch.ones(B, Z)
    assert torch.allclose(p.log_prob(x), torch.tensor(Z * math.log(0.5)))
    x[2, 1] = value
    with pytest.raises(ValueError, match="Expected value argument"):
        p.log_prob(x)


def test_gaussian_with_a_fixed_sigma_has_no_parameter():
    p_x = Gaussian(nn.Identity(), sigma=0.3)
    assert not list(p_x.parameters()) and "log_sigma" in p_x.state_dict()
    assert torch.allclose(p_x(torch.zeros(B, Z)).stddev, torch.tensor(0.3).expand(B, Z), rtol=1e-12)


def test_gaussian_learns_sigma():
    x = 0.37 * torch.randn(2000, 1)
    p_x = Gaussian(nn.Identity(), sigma=1.0, learn_sigma=True)
    loss = lambda: -p_x(torch.zeros_like(x)).log_prob(x).mean()  # noqa: E731
    (gradient,) = torch.autograd.grad(loss(), p_x.log_sigma)
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            p_x.log_sigma += step
            values.append(loss().item())
        p_x.log_sigma += 1e-5
    assert gradient.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-7)
    optimizer = torch.optim.Adam([p_x.log_sigma], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert p_x(x).stddev[0].item() == pytest.approx(x.square().mean().sqrt().item(), rel=1e-3)


def test_a_learned_sigma_stays_above_its_bound():
    p_x = Gaussian(nn.Identity(), sigma=0.5, learn_sigma=True, min_sigma=0.1)
    assert p_x(torch.zeros(1, 1)).stddev.item() == pytest.approx(0.5, rel=1e-12)
    nn.init.constant_(p_x.log_sigma, -1e4)
    assert p_x(torch.zeros(1, 1)).stddev.item() == 0.1


@pytest.mark.parametrize(
    ("sigma", "learn"), [(0.0, False), (-1.0, False), (math.nan, False), (0.01, True), (0.0, True)]
)
def test_gaussian_refuses_a_sigma_that_is_none(sigma, learn):
    with pytest.raises(ValueError, match="sigma should be above"):
        Gaussian(nn.Identity(), sigma=sigma, learn_sigma=learn)


def test_one_hot_categorical_has_the_networks_logits():
    logits = torch.randn(B, K)
    q = OneHotCategorical(nn.Identity())(logits)
    assert q.event_shape == (K,) and torch.allclose(q.mean, logits.softmax(-1))


@pytest.mark.parametrize(
    "classes", [0, -2, [0.5, 0.6], [0.0, 1.0], [1.5, -0.5], [math.nan, 1.0], []]
)
def test_class_prior_refuses_what_is_no_distribution(classes):
    with pytest.raises(ValueError, match="classes: .*above 0"):
        ClassPrior(classes)


@pytest.mark.parametrize("classes", [4, [0.1, 0.2, 0.3, 0.4], np.array([0.4, 0.3, 0.2, 0.1]), [1]])
def test_class_prior_has_the_given_probabilities(classes):
    expected = [0.25] * 4 if isinstance(classes, int) else list(classes)
    assert ClassPrior(classes)().mean.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("prior", [ClassPrior(3), StandardNormal(3)])
def test_priors_move_with_their_model_and_have_no_parameter(prior):
    assert not list(prior.parameters())
    for dtype in (torch.float64, torch.float32):
        p = prior.to(dtype)()
        assert p.event_shape == (3,) and p.sample().dtype == dtype
