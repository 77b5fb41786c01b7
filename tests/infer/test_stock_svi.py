"""Pairs of the zoo under stock `SVI`."""

import math

import pyro
import pytest
import torch
from programs.pitfalls import SMALL, D, K, X, Y, enum_elbo, moved, small, svi, weights
from pyro.infer import TraceEnum_ELBO

from pyro_ssl import (
    TraceTopKEnum_ELBO,
    zoo,
)


@pytest.mark.parametrize(
    "elbo", [enum_elbo(), TraceTopKEnum_ELBO(top_k=1)], ids=["TraceEnum", "TraceTopEnum"]
)
@pytest.mark.parametrize("given", [True, False], ids=["labeled", "unlabeled"])
@pytest.mark.parametrize("method", ["vae", "m2"])
def test_every_pair_trains_under_stock_svi(method, given, elbo):
    torch.manual_seed(0)
    o = small(method)
    before, stepper = weights(o), svi(o, elbo)
    losses = [stepper.step(X, Y if given else None) for _ in range(40)]
    assert sum(losses[-8:]) < sum(losses[:8]) - 8 * 20
    fixed = {n for n in before if "q_y" in n} if method == "vae" or given else set()
    assert moved(o, before) == set(before) - fixed


@pytest.mark.parametrize("method", [name for name, row in zoo.METHODS.items() if row.model])
def test_every_method_takes_a_step_under_stock_svi(method):
    """Of labeled and of unlabeled data, with Pyro's validation where the README does not say that
    it has to be off.
    """
    torch.manual_seed(0)
    own = {k: v for k, v in SMALL.items() if k in zoo.options_of(method)}
    own |= (
        {"z_dims": (2, 2)}
        if method == "lvae"
        else {"z1_dim": 2, "m1_hidden": (4,)}
        if method == "m1_m2"
        else {}
    )
    o = zoo.build(method, D, K, seed=0, **own)
    x, stepper = o.encode(X), svi(o, enum_elbo())
    with pyro.validation_enabled(method not in ("sslpe", "sslapd")):
        assert math.isfinite(stepper.step(x, Y)) and math.isfinite(stepper.step(x))


def test_labeled_batches_have_nothing_to_enumerate_and_do_not_warn():
    """Stock Pyro's default warns of it at every step; warnings are errors here."""
    o = small()
    o.bound(X, Y)
    svi(o).step(X, Y)
    with pytest.warns(
        UserWarning, match="TraceEnum_ELBO found no sample sites configured for enumeration"
    ):
        svi(o, TraceEnum_ELBO(max_plate_nesting=1)).step(X, Y)
