"""Sites that are summed out of the model under stock `TraceEnum_ELBO` and ours."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pairs import PARALLEL
from programs.scope import (
    D,
    K,
    Pair,
    Scaled,
    column,
    data,
    first,
    identity,
    normal,
    one_hot_label,
    p_y,
    partly,
    plate,
    summed,
    summed_one_hot,
)
from pyro import poutine
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoNormal,
    init_to_value,
)
from stock_pyro import (
    assert_as_stock,
    assert_refused,
    assert_way_out,
    loss_and_gradients,
    stock_elbo,
)
from torch import Tensor

from pyro_ssl import TraceTopKEnum_ELBO
from pyro_ssl.infer.checks.scope_error import ScopeError

pytestmark = pytest.mark.usefixtures("float64")


def summed_categorical() -> Pair:
    return summed(lambda: dist.Categorical(logits=torch.arange(4.0)), identity)


def summed_bernoulli() -> Pair:
    return summed(lambda: dist.Bernoulli(0.4), identity)


def mixture(make: Callable[[Any], Any]) -> Pair:
    """Pyro's GMM tutorial: a plate of components, one of data, and the assignment summed out."""

    def model(s, x, y):
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(K)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", K):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with plate(x):
            assignment = pyro.sample("assignment", dist.Categorical(weights), infer=PARALLEL)
            pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=x[:, 0])

    program = Scaled(model)
    values = {
        "weights": torch.tensor([0.4, 0.6]),
        "scale": torch.tensor(1.3),
        "locs": torch.tensor([-1.0, 1.0]),
    }
    guide = make(
        poutine.block(program, expose=["weights", "scale", "locs"]), init_to_value(values=values)
    )
    guide(data())
    return Pair(program, guide)


def mixture_by_points() -> Pair:
    return mixture(lambda model, init: AutoDelta(model, init_loc_fn=init))


def mixture_by_normals() -> Pair:
    return mixture(lambda model, init: AutoNormal(model, init_loc_fn=init))


def mixture_by_a_joint_normal() -> Pair:
    return mixture(lambda model, init: AutoDiagonalNormal(model, init_loc_fn=init))


def observation_scaled_summed() -> Pair:
    pair = partly(
        lambda x: poutine.scale(scale=3.0),
        summed_out=True,
        refused="'x' depends on 'y', which the model sums out",
    )
    pair.stock = "share a common poutine.scale"
    return pair


def cluster_beside_the_label() -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            c = pyro.sample("c", p_y(3), infer=PARALLEL)
            pyro.sample("x", normal(column(first(y) * s.m + 3 * first(c))), obs=x)

    return Pair(
        Scaled(model, m=1.0),
        one_hot_label().guide,
        refused="sites 'y' and 'c' are both enumerated",
    )


def two_clusters() -> Pair:
    def model(s, x, y):
        with plate(x):
            a = pyro.sample("a", p_y(), infer=PARALLEL)
            c = pyro.sample("c", p_y(), infer=PARALLEL)
            pyro.sample("x", normal(column(first(a) * s.m + 3 * first(c))), obs=x)

    return Pair(
        Scaled(model, m=1.0),
        Scaled(lambda s, x, y: None, a=0.0),
        refused="sites 'a' and 'c' are both enumerated",
    )


def chain() -> Pair:
    """A discrete Markov chain of two steps, `pyro.markov`."""

    def model(s, x, y):
        with plate(x):
            state = torch.zeros((), dtype=torch.long)
            for t in pyro.markov(range(2)):
                state = pyro.sample(
                    f"s{t}", dist.Categorical(logits=torch.eye(2)[state] * s.m), infer=PARALLEL
                )
                pyro.sample(f"x{t}", dist.Normal(state.to(x), 1.0), obs=x[:, t])

    return Pair(
        Scaled(model, m=1.0),
        Scaled(lambda s, x, y: None, a=0.0),
        refused="'s0' and 's1' are both enumerated",
    )


def cluster_of_all_data() -> Pair:
    def model(s, x, y):
        c = pyro.sample("c", p_y(), infer=PARALLEL)
        with plate(x):
            pyro.sample("x", normal(column(first(c) * s.m)), obs=x)

    return Pair(
        Scaled(model, m=1.0),
        Scaled(lambda s, x, y: None, a=0.0),
        refused="'c' is enumerated outside every plate",
    )


def label_of_groups() -> Pair:
    """A label for each of 4 groups, summed out, and data in a plate of their own."""

    def model(s, x, y):
        with pyro.plate("groups", 4):
            y = pyro.sample("y", p_y(), infer={**PARALLEL, "expand": True})
        with plate(x):
            group = torch.arange(len(x)) % 4
            pyro.sample("x", normal(column(first(y)[..., group] * s.m)), obs=x)

    refused = "'x' depends on 'y', which is enumerated in plate 'groups', and .* in plate 'data'"
    return Pair(Scaled(model, m=1.0), Scaled(lambda s, x, y: None, a=0.0), refused=refused)


def depends_on_the_label_elsewhere(place: Callable[[Any, Tensor], None], refused: str) -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), infer=PARALLEL)
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)
        place(s, first(y))

    return Pair(Scaled(model, m=1.0), Scaled(lambda s, x, y: None, a=0.0), refused=refused)


def another_plate_depends_on_the_label() -> Pair:
    def place(s, number):
        with pyro.plate("others", 4):
            pyro.factor("t", number.mean(-1, keepdim=True) * s.m)

    return depends_on_the_label_elsewhere(place, "depends on 'y', .* in plate 'others'")


def a_factor_of_all_data_depends_on_the_label() -> Pair:
    def place(s, number):
        pyro.factor("t", number.mean(-1, keepdim=True) * s.m)

    return depends_on_the_label_elsewhere(place, "depends on 'y', .* outside every plate")


def value_depends_on_the_label_under_another_scale() -> Pair:
    """Not the distribution of x, but what is observed, differs by y."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), infer=PARALLEL)
            with poutine.scale(scale=3.0):
                pyro.sample("x", normal(torch.zeros(D) * s.m), obs=x - column(first(y)))

    return Pair(
        Scaled(model, m=1.0),
        Scaled(lambda s, x, y: None, a=0.0),
        refused="'x' depends on 'y', which the model sums out",
        stock="share a common poutine.scale",
    )


@pytest.mark.parametrize(
    "family", [dist.Poisson(2.0), dist.Normal(0.0, 1.0)], ids=["Poisson", "Normal"]
)
def test_a_marked_model_site_without_finite_support_is_refused(family):
    """Stock Pyro raises NotImplementedError; it must not be drawn from the prior in silence."""

    def model(s, x, y):
        with plate(x):
            n = pyro.sample("n", family, infer=PARALLEL)
            pyro.sample("x", normal(column(n * s.m)), obs=x)

    pair = Pair(Scaled(model, m=1.0), Scaled(lambda s, x, y: None, a=0.0))
    with pytest.raises(NotImplementedError):
        loss_and_gradients(stock_elbo(pair), pair)
    with pytest.raises(ScopeError, match="'n' is marked for enumeration, but"):
        loss_and_gradients(TraceTopKEnum_ELBO(None), pair)


EQUAL = [
    summed_one_hot,
    summed_categorical,
    summed_bernoulli,
    mixture_by_points,
    mixture_by_normals,
    mixture_by_a_joint_normal,
]
REFUSED = [
    cluster_beside_the_label,
    two_clusters,
    chain,
    cluster_of_all_data,
    observation_scaled_summed,
    label_of_groups,
    another_plate_depends_on_the_label,
    a_factor_of_all_data_depends_on_the_label,
    value_depends_on_the_label_under_another_scale,
]
WITHOUT_WAY_OUT = [
    observation_scaled_summed,
    value_depends_on_the_label_under_another_scale,
    label_of_groups,
    another_plate_depends_on_the_label,
]
"""Pairs that stock Pyro refuses as well, or whose sites have two weights in a batch."""
WITH_WAY_OUT = [make for make in REFUSED if make not in WITHOUT_WAY_OUT]


@pytest.mark.parametrize("make", EQUAL, ids=lambda make: make.__name__)
def test_summed_sites_have_stock_pyros_value_and_gradient(make):
    assert_as_stock(make())


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_summed_sites_beyond_the_scope_are_refused_in_words(make):
    assert_refused(make())


@pytest.mark.parametrize("make", WITH_WAY_OUT, ids=lambda make: make.__name__)
def test_the_way_out_trains_summed_sites_beyond_the_scope(make):
    assert_way_out(make())
