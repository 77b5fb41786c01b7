"""Pairs without a loss per datum are refused, and stock Pyro's ELBO weighs plates."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.scope import B, D, Pair, Scaled, column, data, normal, plate
from stock_pyro import stock_elbo

from pyro_ssl import Batch, Objective, TraceTopKEnum_ELBO, fit

pytestmark = pytest.mark.usefixtures("float64")


def subsample_drawn_by_the_plate() -> Pair:
    def model(s, x, y):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            pyro.sample("x", normal(s.m * torch.ones(D)), obs=x[rows])

    return Pair(Scaled(model, m=1.0), Scaled(lambda s, x, y: None, a=0.1))


def regression_without_a_plate() -> Pair:
    def model(s, x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("t", dist.Normal(x[:, 0] * w * s.m, 1.0).to_event(1), obs=x[:, 1])

    return Pair(
        Scaled(model, m=1.0),
        Scaled(lambda s, x, y: pyro.sample("w", dist.Normal(s.a, 1.0)), a=0.1),
    )


def data_one_by_one() -> Pair:
    def model(s, x, y):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"x{i}", normal(s.m * torch.ones(D)), obs=x[i])

    return Pair(Scaled(model, m=1.0), Scaled(lambda s, x, y: None, a=0.1))


@pytest.mark.parametrize(
    "make",
    [subsample_drawn_by_the_plate, regression_without_a_plate, data_one_by_one],
    ids=lambda m: m.__name__,
)
@pytest.mark.parametrize("stock", [False, True])
def test_fit_refuses_a_pair_whose_plate_is_not_of_the_batch(make, stock):
    pair = make()
    objective = Objective(pair.model, pair.guide, elbo=stock_elbo(pair) if stock else None)
    with pytest.raises(
        ValueError,
        match=r"no site is inside a plate of size 6|\(\*, 6\), one value per datum",
    ):
        fit(objective, data(), epochs=1)


@pytest.mark.parametrize("size", [4, 5])
def test_stock_elbo_weighs_a_plate_that_is_as_large_as_the_batch_by_chance(size):
    """KL(W) counts once in the data set, whether or not there are as many components as data in the
    batch.
    """

    def program(body, in_plate, **parameters):
        def inside(s, x, y):
            if in_plate:
                with pyro.plate("components", size):
                    w = pyro.sample("w", dist.Normal(*body(s)))
            else:
                loc, scale = body(s)
                w = pyro.sample("w", normal(torch.as_tensor(loc).expand(size), scale))
            if hasattr(s, "m"):
                with plate(x):
                    pyro.sample("x", normal(column(w.sum() * s.m * torch.ones(len(x)))), obs=x)

        return Scaled(inside, **parameters)

    losses = []
    for in_plate in (False, True):
        model = program(lambda s: (0.0, 2.0), in_plate, m=1.0)
        guide = program(lambda s: (s.b, 0.5), in_plate, a=0.5, b=0.2)
        objective = Objective(
            model, guide, elbo=stock_elbo(Pair(model, guide)), unlabeled_weight=0.5
        )
        objective.sizes = 0, 100
        batch = Batch(x_unlabeled=data(4))
        objective.check(batch)
        torch.manual_seed(0)
        losses.append(objective(batch, kl_weight=0.3).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_a_bound_of_trained_pyro_params_is_refused():
    """It would be of their initial values."""

    def model(x):
        loc = pyro.param("loc of the test", torch.zeros(()))
        with plate(x):
            pyro.sample("x", normal(loc.expand(D)), obs=x)

    pyro.clear_param_store()
    elbo = TraceTopKEnum_ELBO()
    untrained = elbo.bound(model, lambda x: None, data())
    assert untrained.value.shape == (B,)
    svi = pyro.infer.SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.1}), elbo)
    svi.step(data())
    for call in (elbo.bound, elbo.log_evidence):
        with pytest.raises(ValueError, match=r"pyro.param\('loc of the test'\) has been trained"):
            call(model, lambda x: None, data())
    pyro.clear_param_store()
