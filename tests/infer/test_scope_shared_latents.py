"""Latents that all data share under stock `TraceEnum_ELBO` and ours."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pairs import PARALLEL
from programs.scope import B, Pair, Scaled, column, data, first, label_and_code, normal, p_y, plate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroSample
from stock_pyro import assert_as_stock, assert_refused, assert_way_out
from torch import Tensor, nn

from pyro_ssl import Objective, TraceTopKEnum_ELBO, fit
from pyro_ssl.infer.checks.scope_error import ScopeError

pytestmark = pytest.mark.usefixtures("float64")


def shared(draw: Callable[[Any, Any], Tensor], label: bool = True) -> Pair:
    """A global w, drawn by `draw(loc, scale)`, beside a label in the guide."""

    def model(s, x, y):
        w = draw(torch.zeros(()), 3.0)
        with plate(x):
            number = first(pyro.sample("y", p_y())) if label else torch.zeros(len(x))
            pyro.sample("x", normal(column(w.sum() * s.m + number)), obs=x)

    def guide(s, x, y):
        draw(s.b, 0.1)
        if label:
            with plate(x):
                pyro.sample("y", s.classify(x), infer=PARALLEL)

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5, b=0.2))


def shared_scalar() -> Pair:
    return shared(lambda loc, scale: pyro.sample("w", dist.Normal(loc, scale)))


def shared_vector() -> Pair:
    return shared(
        lambda loc, scale: pyro.sample("w", dist.Normal(loc.expand(4), scale).to_event(1))
    )


def shared_of_batch_shape_1() -> Pair:
    return shared(lambda loc, scale: pyro.sample("w", dist.Normal(loc.expand(1), scale)))


def in_components(size: int) -> Callable[[Any, Any], Tensor]:
    def draw(loc, scale):
        with pyro.plate("components", size):
            return pyro.sample("w", dist.Normal(loc, scale))

    return draw


def shared_in_a_plate_of_1() -> Pair:
    return shared(in_components(1))


def shared_in_a_plate_of_4_without_label() -> Pair:
    return shared(in_components(4), label=False)


def shared_in_a_sequential_plate() -> Pair:
    def draw(loc, scale):
        return torch.stack(
            [pyro.sample(f"w{i}", dist.Normal(loc, scale)) for i in pyro.plate("components", 3)]
        )

    return shared(draw)


def shared_in_a_plate_of_as_many_as_data() -> Pair:
    pair = shared(in_components(B))
    pair.refused = "'components', whose size 6 equals the number of data"
    return pair


def shared_in_three_runs() -> Pair:
    """Three particles: three draws of w."""
    pair = shared(in_components(4))
    pair.options = {"num_particles": 3}
    return pair


def two_particles_one_after_the_other() -> Pair:
    pair = label_and_code()
    pair.options = {"num_particles": 2, "vectorize_particles": False}
    return pair


def two_data_plates_of_which_one_has_size_1() -> Pair:
    def model(s, x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("one", 1):
            pyro.sample("t", dist.Normal(w, 1.0), obs=torch.ones(1))
        with plate(x):
            pyro.sample("x", normal(column(w * s.m * torch.ones(len(x)))), obs=x)

    return Pair(
        Scaled(model, m=1.0),
        Scaled(lambda s, x, y: pyro.sample("w", dist.Normal(s.a, 1.0)), a=0.1),
    )


class Regression(PyroModule):
    """Bayesian linear regression with `PyroSample` weights, as in Pyro's tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        mean = self.linear(x[:, :2]).squeeze(-1)
        with plate(x):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=x[:, 2])


def automatic(make: Callable[[Any], Any]) -> Pair:
    model = Regression()
    torch.manual_seed(5)
    guide = make(model)
    guide(data())
    return Pair(model, guide.double())


def regression_by_normals() -> Pair:
    return automatic(AutoNormal)


def regression_by_points() -> Pair:
    return automatic(AutoDelta)


def regression_by_a_joint_normal() -> Pair:
    return automatic(AutoDiagonalNormal)


def regression_by_a_full_normal() -> Pair:
    return automatic(AutoMultivariateNormal)


def regression_by_a_low_rank_normal() -> Pair:
    return automatic(lambda model: AutoLowRankMultivariateNormal(model, rank=1))


def test_one_datum_beside_a_plate_of_size_1():
    """Its bound leaves the shared latent out, as that of more data.

    Training, which weighs by the plate's size, is refused.
    """
    pair = shared_in_a_plate_of_1()
    elbo = TraceTopKEnum_ELBO(None)
    torch.manual_seed(0)
    several = elbo.bound(pair.model, pair.guide, data())
    torch.manual_seed(0)
    one = elbo.bound(pair.model, pair.guide, data()[:1])
    assert one.value.item() == pytest.approx(several.value[0].item(), rel=1e-12)
    assert one.shared.item() == pytest.approx(several.shared.item(), rel=1e-12)
    with pytest.raises(ScopeError, match="plate of size 1"):
        fit(Objective(pair.model, pair.guide), data(), batch_size=1, epochs=1)


EQUAL = [
    shared_scalar,
    shared_vector,
    shared_of_batch_shape_1,
    shared_in_a_plate_of_1,
    shared_in_a_plate_of_4_without_label,
    shared_in_a_sequential_plate,
    shared_in_three_runs,
    two_particles_one_after_the_other,
    two_data_plates_of_which_one_has_size_1,
    regression_by_normals,
    regression_by_points,
    regression_by_a_joint_normal,
    regression_by_a_full_normal,
    regression_by_a_low_rank_normal,
]
REFUSED = [
    shared_in_a_plate_of_as_many_as_data,
]


@pytest.mark.parametrize("make", EQUAL, ids=lambda make: make.__name__)
def test_shared_latents_have_stock_pyros_value_and_gradient(make):
    assert_as_stock(make())


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_shared_latents_beyond_the_scope_are_refused_in_words(make):
    assert_refused(make())


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_the_way_out_trains_shared_latents_beyond_the_scope(make):
    assert_way_out(make())
