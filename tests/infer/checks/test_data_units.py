"""Data in units that a likelihood cannot have."""

import pyro.distributions as dist
import pytest
import torch
from programs.own_pairs import INDICES, D, Guide, K, Model, X

from pyro_ssl import (
    Objective,
    fit,
    zoo,
)


@pytest.mark.parametrize("method", [name for name in zoo.METHODS if name != "m1_m2"])
def test_every_method_refuses_other_units(method):
    x = 255 * torch.rand(60, D, generator=torch.Generator().manual_seed(0))
    for y in (INDICES, INDICES.clamp_min(0)):
        with pytest.raises(ValueError, match="divide.* 255|255.* divide"):
            fit(zoo.build(method, D, K), x, y, epochs=1)


def test_standardised_columns_with_outliers_are_taken():
    x = X.clone()
    x[:, 0] = 0.0
    x[3, 0] = 60**0.5  # the largest number that a standardised column of 60 rows can have
    x[4, 1] = 300.0
    assert fit(zoo.build("classifier", D, K), x, INDICES.clamp_min(0), epochs=1)["loss"]


def test_programs_of_ones_own_take_any_units():
    objective = Objective(Model(lambda mean: dist.Normal(mean, 100.0).to_event(1)), Guide())
    assert fit(objective, 100 * X, INDICES, epochs=1)["loss"]
