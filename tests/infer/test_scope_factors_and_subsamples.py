"""Subsampling, factors and deterministic sites under stock `TraceEnum_ELBO` and ours."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
from programs.pairs import PARALLEL
from programs.scope import Pair, Scaled, column, first, normal, one_hot_label, p_y, plate
from stock_pyro import assert_as_stock, assert_refused, assert_way_out

pytestmark = pytest.mark.usefixtures("float64")


def subsampled(**arguments: Any) -> Pair:
    def rows(x):
        return pyro.plate("data", 30, **({"subsample": x} if not arguments else arguments))

    def model(s, x, y):
        w = pyro.sample("w", dist.Normal(0.0, 3.0))
        with rows(x) as batch:
            batch = batch if not arguments else x[batch % len(x)]
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", normal(column(w * s.m + z)), obs=batch)

    def guide(s, x, y):
        pyro.sample("w", dist.Normal(s.a, 1.0))
        with rows(x):
            pyro.sample("z", dist.Normal(s.b, 1.0))

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.1, b=0.2))


def subsampled_by_size() -> Pair:
    return subsampled(subsample_size=4)


def factors() -> Pair:
    """In the model's plate, outside it, and in the guide's."""

    def model(s, x, y):
        pyro.factor("of all", -s.m.square())
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.factor("of each", first(y) * s.m + x[:, 0])
            pyro.factor("the same for each", s.m)
            pyro.deterministic("twice", 2 * y)
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=PARALLEL)
            pyro.factor("of the guide", x[:, 0] * s.a, has_rsample=True)

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5))


def factor_with_a_score() -> Pair:
    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=PARALLEL)
            pyro.factor("of the guide", x[:, 0] * s.a, has_rsample=False)

    return Pair(
        one_hot_label().model,
        Scaled(guide, a=0.7),
        refused="has_rsample=True: otherwise Pyro adds a score term to its gradient",
    )


def deterministic_outside_the_plate() -> Pair:
    def model(s, x, y):
        mean = pyro.deterministic("mean", x * s.m)
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(mean + first(y).unsqueeze(-1)), obs=x)

    return Pair(Scaled(model, m=1.0), one_hot_label().guide)


EQUAL = [
    subsampled,
    subsampled_by_size,
    factors,
    deterministic_outside_the_plate,
]
REFUSED = [
    factor_with_a_score,
]


@pytest.mark.parametrize("make", EQUAL, ids=lambda make: make.__name__)
def test_factors_and_subsamples_have_stock_pyros_value_and_gradient(make):
    assert_as_stock(make())


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_factors_and_subsamples_beyond_the_scope_are_refused_in_words(make):
    assert_refused(make())


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_the_way_out_trains_factors_and_subsamples_beyond_the_scope(make):
    assert_way_out(make())
