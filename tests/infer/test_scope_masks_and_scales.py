"""Masks, scales and missing values under stock `TraceEnum_ELBO` and ours."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pairs import PARALLEL
from programs.scope import (
    B,
    D,
    Pair,
    Scaled,
    column,
    first,
    label_and_code,
    normal,
    one_hot,
    one_hot_label,
    p_y,
    partly,
    plate,
    summed_one_hot,
)
from pyro import poutine
from stock_pyro import assert_as_stock
from torch import Tensor

pytestmark = pytest.mark.usefixtures("float64")


def under(handler: Callable[[Tensor], Any], make: Callable[[], Pair] = label_and_code) -> Pair:
    """Both programs inside a handler."""
    pair = make()

    def wrapped(program):
        body = program.body

        def inside(s, x, y):
            with handler(x):
                body(s, x, y)

        program.body = inside

    wrapped(pair.model)
    wrapped(pair.guide)
    return pair


def masked() -> Pair:
    return under(lambda x: poutine.mask(mask=torch.arange(len(x)) < 4))


def masked_summed() -> Pair:
    return under(lambda x: poutine.mask(mask=torch.arange(len(x)) < 4), summed_one_hot)


def scaled() -> Pair:
    return under(lambda x: poutine.scale(scale=0.37))


def scaled_by_datum() -> Pair:
    return under(lambda x: poutine.scale(scale=torch.linspace(0.5, 2.0, len(x))))


def scaled_summed() -> Pair:
    return under(lambda x: poutine.scale(scale=0.37), summed_one_hot)


def observation_masked() -> Pair:
    return partly(lambda x: poutine.mask(mask=torch.arange(len(x)) < 4))


def observation_scaled() -> Pair:
    return partly(lambda x: poutine.scale(scale=3.0))


def distribution_masked() -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(column(first(y) * s.m)).mask(torch.arange(len(x)) < 4), obs=x)

    return Pair(Scaled(model, m=1.0), one_hot_label().guide)


def label_by_obs_mask() -> Pair:
    """Some labels observed: Pyro splits y into y_observed and y_unobserved."""
    known = torch.arange(B) < 2

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), obs=one_hot(len(x)), obs_mask=known)
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x), poutine.mask(mask=~known):
            pyro.sample("y_unobserved", s.classify(x), infer=PARALLEL)

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5))


def values_by_obs_mask() -> Pair:
    """Missing values of x, imputed by the guide."""
    known = torch.arange(B) < 4

    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", normal(column(z * s.m)), obs=x, obs_mask=known)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", dist.Normal(s.a * torch.ones(len(x)), 1.0))
            with poutine.mask(mask=~known):
                pyro.sample("x_unobserved", normal(s.a * torch.ones(len(x), D)))

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5))


EQUAL = [
    masked,
    masked_summed,
    scaled,
    scaled_by_datum,
    scaled_summed,
    observation_masked,
    observation_scaled,
    distribution_masked,
    label_by_obs_mask,
    values_by_obs_mask,
]


@pytest.mark.parametrize("make", EQUAL, ids=lambda make: make.__name__)
def test_masks_and_scales_have_stock_pyros_value_and_gradient(make):
    assert_as_stock(make())
