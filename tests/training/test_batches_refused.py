"""Data that are refused before a step, where stock Pyro goes on."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pairs import Program
from programs.pitfalls import INDICES, D, K, X, Y, moved, small, svi, weights
from pyro.infer import Trace_ELBO

from pyro_ssl import (
    Batch,
    Objective,
    bounds,
    fit,
    predict_proba,
)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_an_infinite_observation_is_refused(bad):
    x = X.clone()
    x[4, 1] = bad
    o = small()
    before = weights(o)
    for call in (
        lambda: fit(o, x, INDICES),
        lambda: predict_proba(o, x),
        lambda: bounds(o, x),
        lambda: bounds(o, x, Y),
    ):
        with pytest.raises(ValueError, match="row 4"):
            call()
    assert not moved(o, before)


def test_stock_pyro_turns_an_infinite_observation_into_nan_weights():
    def model(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.theta, 1.0), obs=x)

    o = Objective(Program(model, theta=0.0), Program(lambda self, x, y: None))
    svi(o, Trace_ELBO()).step(torch.tensor([1.0, torch.inf]))
    assert o.model.theta.isnan()


def test_an_empty_batch_is_refused():
    none, o = torch.zeros(0, D), small()
    for call in (lambda: fit(o, none), lambda: predict_proba(o, none), lambda: bounds(o, none)):
        with pytest.raises(ValueError, match="x is empty"):
            call()
    for parts in (
        (none, torch.zeros(0, K)),
        (None, None, none),
        (X, Y, none),
        (X, Y[:5]),
        (X, None),
        (None, Y),
    ):
        with pytest.raises(ValueError, match="a part without data should be None"):
            Batch(*parts)
    with pytest.raises(ZeroDivisionError):
        svi(o).step(none)


def test_bounds_want_as_many_labels_as_data():
    for y in (Y[:5], torch.cat([Y, Y])):
        with pytest.raises(ValueError, match=rf"y should be one-hot with shape \(60, {K}\)"):
            bounds(small(), X, y)


def test_bounds_of_labeled_data_draw_anew_for_each_row():
    nearly_one = 1 + 1e-6 * torch.arange(60)[:, None]
    x, y = X[:1] * nearly_one, Y[:1].expand(60, K)
    assert bounds(small(), x, y, chunk=4).std() > 0.1
