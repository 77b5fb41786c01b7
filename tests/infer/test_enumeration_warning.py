"""`strict_enumeration_warning` points at the line that calls the bound."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import TraceTopKEnum_ELBO

METHODS = ("bound", "log_evidence", "differentiable_loss", "loss", "loss_and_grads")


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0))


def warnings_of(method, **options):
    elbo = TraceTopKEnum_ELBO(strict_enumeration_warning=True, **options)
    with warnings.catch_warnings(record=True) as caught, pyro.validation_enabled():
        warnings.simplefilter("always")
        getattr(elbo, method)(model, guide, torch.randn(3))
    return [warning for warning in caught if "no site is marked" in str(warning.message)]


@pytest.mark.parametrize("options", [{}, {"num_particles": 2, "vectorize_particles": False}])
@pytest.mark.parametrize("method", METHODS)
def test_one_warning_points_at_the_caller(method, options):
    (warning,) = warnings_of(method, **options)
    assert warning.filename == __file__
    with open(__file__) as file:
        line = file.read().splitlines()[warning.lineno - 1]
    assert "getattr(elbo, method)" in line
