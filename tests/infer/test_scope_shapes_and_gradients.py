"""Plates, shapes and sites without a pathwise gradient under stock `TraceEnum_ELBO` and ours."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pairs import PARALLEL
from programs.scope import B, D, Pair, Scaled, column, first, normal, one_hot, p_y, plate
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma
from stock_pyro import assert_refused, assert_way_out

pytestmark = pytest.mark.usefixtures("float64")


def partly_reparameterised() -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Gamma(0.5 * torch.ones(len(x)), 1.0))
            pyro.sample("x", normal(column(z * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", ShapeAugmentedGamma(s.a * torch.ones(len(x)), torch.ones(len(x))))

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=1.5), refused="not .fully. reparameterised")


def not_reparameterised() -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Poisson(torch.ones(len(x))))
            pyro.sample("x", normal(column(z * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", dist.Poisson(s.a * torch.ones(len(x))))

    return Pair(
        Scaled(model, m=1.0), Scaled(guide, a=1.5), refused="'z' is not .fully. reparameterised"
    )


def observed_in_the_guide() -> Pair:
    def model(s, x, y):
        with plate(x):
            pyro.sample("x", normal(column(s.m * torch.ones(len(x)))), obs=x)

    def guide(s, x, y):
        with plate(x):
            q = s.classify(x)
            pyro.sample("y", q, obs=one_hot(len(x)), infer={"is_auxiliary": True})

    refused = "'y' is observed and has no reparameterised"
    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5), refused=refused)


def nested_plates() -> Pair:
    def model(s, x, y):
        with pyro.plate("columns", D, dim=-2), plate(x, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z * s.m, 1.0), obs=x.T)

    def guide(s, x, y):
        with pyro.plate("columns", D, dim=-2), plate(x, dim=-1):
            pyro.sample("z", dist.Normal(s.a, 1.0))

    return Pair(
        Scaled(model, m=1.0),
        Scaled(guide, a=0.5),
        refused="plate 'columns', which is not at dim -1",
        nesting=2,
    )


def plate_at_minus_2() -> Pair:
    def model(s, x, y):
        with plate(x, dim=-2):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x.unsqueeze(-2))

    def guide(s, x, y):
        with plate(x, dim=-2):
            pyro.sample(
                "y",
                dist.OneHotCategorical(logits=s.classify(x).logits.unsqueeze(-2)),
                infer=PARALLEL,
            )

    refused = "'y' .* in plate 'data', which is not at dim -1"
    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5), refused=refused, nesting=2)


def forgotten_event(columns: int) -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample(
                "x",
                dist.Normal(z.sum(-1, keepdim=True) * s.m + torch.zeros(columns), 1.0),
                obs=x[:, :1].expand(-1, columns),
            )

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", normal(x[:, :2] * s.a))

    return Pair(
        Scaled(model, m=1.0),
        Scaled(guide, a=0.5),
        refused="its event dimensions into .to_event",
        stock="tensor shape",
    )


def forgotten_event_of_one_column() -> Pair:
    return forgotten_event(1)


def forgotten_event_of_as_many_columns_as_data() -> Pair:
    return forgotten_event(B)


def codes_of_two_sizes() -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(z.sum(-1) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", normal(x[:, :1] * s.a))

    return Pair(
        Scaled(model, m=1.0),
        Scaled(guide, a=0.5),
        refused="shapes disagree",
        stock="shapes disagree",
    )


REFUSED = [
    partly_reparameterised,
    not_reparameterised,
    observed_in_the_guide,
    nested_plates,
    plate_at_minus_2,
    forgotten_event_of_one_column,
    forgotten_event_of_as_many_columns_as_data,
    codes_of_two_sizes,
]
WITHOUT_WAY_OUT = [
    forgotten_event_of_one_column,
    forgotten_event_of_as_many_columns_as_data,
    codes_of_two_sizes,
]
"""Pairs that stock Pyro refuses as well."""
WITH_WAY_OUT = [make for make in REFUSED if make not in WITHOUT_WAY_OUT]


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_shapes_and_gradients_beyond_the_scope_are_refused_in_words(make):
    assert_refused(make())


@pytest.mark.parametrize("make", WITH_WAY_OUT, ids=lambda make: make.__name__)
def test_the_way_out_trains_shapes_and_gradients_beyond_the_scope(make):
    assert_way_out(make())
