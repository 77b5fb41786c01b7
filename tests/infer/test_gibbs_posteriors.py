"""Gibbs sampling against posteriors that are known exactly."""

import pyro.distributions as dist
import pytest
import torch
from programs.gibbs import (
    P_Y,
    POSTERIOR,
    Y_OF_X,
    Z_OF_X,
    A,
    B,
    G,
    Guide,
    K,
    S,
    T,
    V,
    gaussian,
    nearly_one,
    tables,
)
from scipy import stats
from torch import Tensor, nn

from pyro_ssl import (
    Objective,
    gibbs,
    guides,
    models,
)
from pyro_ssl.infer import gibbs_chain as sampling
from pyro_ssl.nn.layers import Linear
from pyro_ssl.nn.random_weights import RandomWeights

pytestmark = pytest.mark.usefixtures("float64")
WRONG = torch.rand(V, K, 2, generator=G, dtype=torch.float64).pow(3)  # what no q(z|x,y) should be
WRONG = WRONG / WRONG.sum(-1, keepdim=True)


def rows(n: int) -> Tensor:
    """Each value of x n times, scaled by next to nothing: equal rows would have the same noise."""
    return torch.eye(V).repeat_interleave(n, 0) * nearly_one(V * n)


def deviations(draws: Tensor, expected: Tensor) -> Tensor:
    """By how many standard errors the mean of `(V * n, K)` is off, for each value of x."""
    draws = draws.unflatten(0, (V, -1))
    return (draws.mean(1) - expected).abs() / (draws.std(1) / draws.shape[1] ** 0.5)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("steps", "chains"), [(1, 1), (5, 2)])
def test_gibbs_has_the_exact_posteriors_for_its_mean(steps, chains, hard):
    found = gibbs(tables(), rows(4000), steps=steps, chains=chains, hard=hard)
    assert deviations(found.mean, Y_OF_X).max() < 4
    assert deviations(found.z, Z_OF_X[:, 1:]).max() < 4
    assert torch.allclose(found.mean.sum(-1), torch.ones(4000 * V))


def test_a_wrong_encoder_shows():
    found = gibbs(tables(WRONG), rows(4000), steps=5, chains=2)
    assert deviations(found.mean, Y_OF_X).max() > 8 and deviations(found.z, Z_OF_X[:, 1:]).max() > 8


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_each_step_is_one_of_the_papers_chain(steps):
    """From any start and by any encoder.

    The law of y goes through the same matrix in each step, and all steps count.
    """
    start = torch.tensor([0.8, 0.15, 0.05]).expand(V, K)
    found = gibbs(tables(WRONG, start), rows(4000), steps=steps)
    y, mean, code = start, 0.0, 0.0
    for _ in range(steps):
        z = torch.einsum("xy,xyz->xz", y, WRONG)
        y = torch.einsum("xz,xzk->xk", z, P_Y)
        mean, code = mean + y / steps, code + z[:, 1:] / steps
    assert deviations(found.mean, mean).max() < 4 and deviations(found.z, code).max() < 4
    assert deviations(found.mean, Y_OF_X).max() > 8


def test_labels_drawn_have_the_same_mean_and_more_noise():
    soft, hard = (gibbs(tables(), rows(2000), steps=5, hard=hard) for hard in (False, True))
    assert (
        hard.mean.unflatten(0, (V, -1)).var(1) > 1.5 * soft.mean.unflatten(0, (V, -1)).var(1)
    ).all()
    assert ((hard.mean * 5).round() == hard.mean * 5).all() and torch.equal(
        hard.mean.sum(-1), torch.ones(2000 * V)
    )


@pytest.mark.parametrize("hard", [False, True])
def test_variance_is_that_of_the_prediction(hard):
    found = gibbs(tables(), rows(20), steps=5, chains=2000, hard=hard)
    assert torch.allclose(
        found.variance.unflatten(0, (V, -1)).mean(1), Y_OF_X * (1 - Y_OF_X), atol=2e-3
    )


@pytest.mark.parametrize("hard", [False, True])
def test_variance_of_real_y_is_the_total_one(hard):
    x = torch.tensor([[-1.5], [0.0], [2.0]])
    found = gibbs(gaussian(), x, steps=5, chains=30_000, hard=hard, chunk=1)
    assert torch.allclose(found.variance, torch.full((3, 1), B**2 * POSTERIOR + T**2), rtol=0.03)
    assert torch.allclose(found.mean, A * x + B * x / (1 + S**2), atol=0.02)
    assert torch.allclose(found.z, x / (1 + S**2), atol=0.02)


class Regression(nn.Module):
    """y ~ N(w (x, z) + c, T^2) with random w and c."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Linear(2, 1)

    def predict(self, x: Tensor, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(self.network(torch.cat([x.expand(z.shape), z], -1)), T).to_event(1)


@pytest.mark.parametrize(("steps", "chains"), [(1, 40_000), (100, 400)])
def test_random_weights_are_drawn_anew_for_each_chain_and_step(steps, chains):
    """The total variance has that of the weights.

    By one draw for all chains, or for all steps, it would be short of it.
    """
    model, q_z = Regression(), lambda x, y: dist.Normal(0.3 * x.expand(y.shape), 0.6).to_event(1)
    slots = RandomWeights(model)
    guide = guides.MeanField(Guide(lambda x: dist.Normal(x, 1.0).to_event(1), q_z), slots.initial)
    mean, deviation = {"weight": torch.tensor([A, B]), "bias": torch.tensor([0.2])}, 0.7
    with torch.no_grad():
        guide.loc.copy_(torch.cat([mean[name] for _, name in slots.entries]))
        guide.log_variance.fill_(2 * torch.tensor(deviation).log())
    x = torch.tensor([[-1.0], [0.5]])
    torch.manual_seed(0)
    found = sampling.gibbs(models.Bayesian(model, slots), guide, x, steps=steps, chains=chains)
    z_mean, z_var = 0.3 * x, 0.36
    of_weights = deviation**2 * (x**2 + z_mean**2 + z_var + 1)
    assert torch.allclose(found.mean, A * x + B * z_mean + 0.2, atol=0.06)
    assert torch.allclose(found.variance, B**2 * z_var + T**2 + of_weights, rtol=0.04)
    assert (of_weights > 0.3 * found.variance).all()


def p_uniform(o: Objective, steps: int, draws: int = 19, data: int = 3000) -> tuple[float, float]:
    """Simulation-based calibration.

    The p-values of uniform ranks of the true z, and of the true y, among their draws.
    """
    torch.manual_seed(1)
    z = torch.randn(data, 1)
    x = z + S * torch.randn(data, 1)
    y = A * x + B * z + T * torch.randn(data, 1)
    gibbs(o, x, steps=steps, chains=draws, chunk=data)
    ranks = [(seen[-1] < true).sum(0).flatten() for seen, true in ((o.model.z, z), (o.guide.y, y))]
    return tuple(stats.chisquare(torch.bincount(r, minlength=draws + 1)).pvalue for r in ranks)


@pytest.mark.parametrize(("start", "steps"), [(None, 1), (None, 6), (3.0, 25)])
def test_ranks_of_the_truth_among_draws_are_uniform(start, steps):
    assert min(p_uniform(gaussian(start=start), steps)) > 1e-3


def test_ranks_show_what_is_wrong():
    assert p_uniform(gaussian(variance=0.5), 6)[0] < 1e-6
    assert max(p_uniform(gaussian(start=3.0), 1)) < 1e-6  # too few steps to forget its start
