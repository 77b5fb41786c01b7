"""Every parameter trains, also where stock Pyro's store loses it."""

import pyro
import pytest
import torch
from programs.pitfalls import INDICES, X, enum_elbo, moved, small, svi, weights
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import nn

from pyro_ssl import (
    Batch,
    Objective,
    TraceTopKEnum_ELBO,
    fit,
    guides,
    models,
)


def test_config_enumerate_loses_the_guides_parameters_and_we_do_not_need_it():
    o = small()
    assert not [
        n
        for n, _ in TraceEnum_ELBO()(o.model, config_enumerate(o.guide)).named_parameters()
        if "q_y" in n
    ]
    assert {id(p) for p in o.parameters()} == {
        id(p) for m in (o.model, o.guide) for p in m.parameters()
    }
    trace = poutine.trace(o.guide).get_trace(X)
    assert trace.nodes["y"]["infer"]["enumerate"] == "parallel"
    o(Batch(x_unlabeled=X)).backward()
    assert all(p.grad.abs().sum() > 0 for p in o.guide.parameters())


def test_a_second_pair_in_the_process_trains_its_own_weights():
    """Under stock SVI it does not: both go by the same names in the parameter store."""
    first, second = small(), small(seed=1)
    stock = [weights(o) for o in (first, second)]
    for o in (first, second):
        for _ in range(2):
            svi(o).step(X)
    assert moved(first, stock[0]) and not moved(second, stock[1])
    pyro.clear_param_store()
    svi(second).step(X)
    assert moved(second, stock[1])
    ours = [weights(o) for o in (first, second)]
    fit(second, X, INDICES, epochs=1)
    assert moved(second, ours[1]) == set(ours[1]) and not moved(first, ours[0])


class PlainModel(nn.Module):
    """M2 as a module that is no PyroModule."""

    forward = models.M2.forward

    def __init__(self, program: PyroModule):
        super().__init__()
        for name, child in program.named_children():
            self.add_module(name, child)


class PlainGuide(PlainModel):
    forward, classify = guides.M2.forward, guides.M2.classify


def test_a_plain_module_trains():
    """Under stock SVI it does not: none of its parameters are in the store."""
    o = small()
    plain = Objective(PlainModel(o.model), PlainGuide(o.guide), o.terms)
    before = weights(plain)
    svi(plain).step(X)
    assert not moved(plain, before)
    fit(plain, X, torch.where(torch.arange(60) < 9, INDICES, -1), epochs=2)
    assert moved(plain, before) == set(before)


@pytest.mark.parametrize("elbo", [enum_elbo(), TraceTopKEnum_ELBO(), TraceTopKEnum_ELBO(1)])
@pytest.mark.parametrize("method", ["vae", "m2"])
def test_an_elbo_module_has_and_trains_all_parameters(method, elbo):
    o = small(method)
    module = elbo(o.model, o.guide)
    assert {id(p) for p in module.parameters()} == {
        id(p) for m in (o.model, o.guide) for p in m.parameters()
    }
    module(X).backward()
    unused = {n for n, p in module.named_parameters() if p.grad is None}
    assert unused == {n for n, _ in module.named_parameters() if method == "vae" and "q_y" in n}
