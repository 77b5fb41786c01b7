"""Labels in the guide under stock `TraceEnum_ELBO` and ours."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pairs import PARALLEL
from programs.scope import (
    K,
    Pair,
    Scaled,
    column,
    first,
    identity,
    label_and_code,
    labeled_by,
    normal,
    one_hot_label,
    p_y,
    plate,
)
from pyro.infer import config_enumerate
from stock_pyro import (
    assert_as_stock,
    assert_refused,
    assert_way_out,
)

pytestmark = pytest.mark.usefixtures("float64")


def categorical_label() -> Pair:
    return labeled_by(
        lambda: dist.Categorical(logits=torch.arange(3.0)),
        lambda s, x: dist.Categorical(logits=x * s.a),
        identity,
    )


def bernoulli_label() -> Pair:
    return labeled_by(
        lambda: dist.Bernoulli(0.3), lambda s, x: dist.Bernoulli(logits=x[:, 0] * s.a), identity
    )


def binomial_label() -> Pair:
    return labeled_by(
        lambda: dist.Binomial(3, 0.3), lambda s, x: dist.Binomial(3, logits=x[:, 0] * s.a), identity
    )


def class_ruled_out_by_both() -> Pair:
    out = torch.tensor([0.0, -math.inf, 0.5])
    return labeled_by(
        lambda: dist.OneHotCategorical(logits=out),
        lambda s, x: dist.OneHotCategorical(logits=out + s.a * x),
        first,
    )


def expanded_label() -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(torch.cat([y, first(y).unsqueeze(-1) * s.m], -1)), obs=x)

    class Guide(Scaled):
        @config_enumerate(default="parallel", expand=True)
        def forward(self, x, y=None):
            with plate(x):
                y = pyro.sample("y", self.classify(x))
                z = (x[:, :K] * self.a).expand(y.shape[:-2] + (len(x), K))
                torch.cat([z, y], -1)  # wants a value for each datum, as Pyro's scANVI does

    return Pair(Scaled(model, m=1.0), Guide(lambda *_: None, a=0.4))


def observed_label() -> Pair:
    pair = label_and_code()
    pair.labels = True
    return pair


def code_before_label() -> Pair:
    """An auxiliary variable v before y in the guide and after it in the model."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            v = pyro.sample("v", normal(y * s.m))
            pyro.sample("x", normal(column(first(y) * s.m + v.sum(-1))), obs=x)

    def guide(s, x, y):
        with plate(x):
            v = pyro.sample("v", normal(x[:, :2] * s.b))
            pyro.sample("y", dist.OneHotCategorical(logits=v * s.a), infer=PARALLEL)

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5, b=0.3))


def label_after_code_in_the_model() -> Pair:
    """SSLPE: p(z) p(x|z) p(y|x,z), whose z differs by class.

    Stock Pyro's validation takes that for an error.
    """

    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(z.sum(-1) * s.m)), obs=x)
            pyro.sample("y", dist.OneHotCategorical(logits=z * s.m), obs=y)

    pair = label_and_code()
    return Pair(Scaled(model, m=1.0), pair.guide, stock_validates=False)


def ladder() -> Pair:
    def model(s, x, y):
        with plate(x):
            z_2 = pyro.sample("z_2", normal(torch.zeros(2)))
            z_1 = pyro.sample("z_1", normal(z_2 * s.m))
            pyro.sample("x", normal(column(z_1.sum(-1))), obs=x)

    def guide(s, x, y):
        with plate(x):
            z_1 = pyro.sample("z_1", normal(x[:, :2] * s.a))
            pyro.sample("z_2", normal(z_1 * s.b))

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5, b=0.3))


def flow_and_other_families() -> Pair:
    """LogNormal, Gamma, Beta, Dirichlet and a transformed Gaussian, each reparameterised."""

    def sites(s, x):
        yield "v", dist.LogNormal(s.a * torch.ones(len(x)), 0.5)
        yield "g", dist.Gamma(torch.full((len(x),), 2.0), s.a.exp())
        yield "b", dist.Beta(s.a.exp() * torch.ones(len(x)), 2.0)
        yield "d", dist.Dirichlet(s.a.exp() * torch.ones(len(x), 3))
        tanh = dist.transforms.TanhTransform()
        yield "t", dist.TransformedDistribution(dist.Normal(s.a * torch.ones(len(x)), 1.0), [tanh])

    def model(s, x, y):
        with plate(x):
            values = [pyro.sample(name, q) for name, q in sites(s, x)]
            pyro.sample(
                "x",
                normal(column(values[0] + values[1] + values[2] + values[4]) + values[3]),
                obs=x,
            )

    def guide(s, x, y):
        with plate(x):
            for name, q in sites(s, x):
                pyro.sample(name, q)

    return Pair(Scaled(model, a=0.1), Scaled(guide, a=0.4))


def two_labels() -> Pair:
    def model(s, x, y):
        with plate(x):
            y, c = pyro.sample("y", p_y()), pyro.sample("c", p_y(3))
            pyro.sample("x", normal(column(first(y) * s.m + 3 * first(c))), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=PARALLEL)
            pyro.sample("c", dist.OneHotCategorical(logits=x * s.a), infer=PARALLEL)

    return Pair(
        Scaled(model, m=1.0),
        Scaled(guide, a=0.5),
        refused="sites 'y' and 'c' are both enumerated",
    )


def marked(infer: dict[str, Any], refused: str) -> Pair:
    pair = one_hot_label()

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=infer)

    pair.guide.body, pair.refused = guide, refused
    return pair


def sequential() -> Pair:
    return marked({"enumerate": "sequential"}, '"sequential"')


def several_samples() -> Pair:
    return marked({"enumerate": "parallel", "num_samples": 5}, "use num_particles")


def label_of_all_data() -> Pair:
    def model(s, x, y):
        y = pyro.sample("y", p_y())
        with plate(x):
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        pyro.sample("y", dist.OneHotCategorical(logits=torch.ones(K) * s.a), infer=PARALLEL)

    return Pair(
        Scaled(model, m=1.0),
        Scaled(guide, a=0.5),
        refused="'y' is enumerated outside every plate",
    )


def joint_of_bernoullis() -> Pair:
    def model(s, x, y):
        with plate(x):
            b = pyro.sample("b", dist.Bernoulli(0.3 * torch.ones(2)).to_event(1))
            pyro.sample("x", normal(column(b.sum(-1) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("b", dist.Bernoulli(logits=x[:, :2] * s.a).to_event(1), infer=PARALLEL)

    return Pair(
        Scaled(model, m=1.0),
        Scaled(guide, a=0.5),
        refused="marked for enumeration, but .to_event",
        stock="cartesian product",
    )


EQUAL = [
    one_hot_label,
    categorical_label,
    bernoulli_label,
    binomial_label,
    class_ruled_out_by_both,
    expanded_label,
    label_and_code,
    observed_label,
    code_before_label,
    label_after_code_in_the_model,
    ladder,
    flow_and_other_families,
]
REFUSED = [
    two_labels,
    sequential,
    several_samples,
    label_of_all_data,
    joint_of_bernoullis,
]
WITHOUT_WAY_OUT = [joint_of_bernoullis]
"""Pairs that stock Pyro refuses as well."""
WITH_WAY_OUT = [make for make in REFUSED if make not in WITHOUT_WAY_OUT]


@pytest.mark.parametrize("make", EQUAL, ids=lambda make: make.__name__)
def test_labels_have_stock_pyros_value_and_gradient(make):
    assert_as_stock(make())


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_labels_beyond_the_scope_are_refused_in_words(make):
    assert_refused(make())


@pytest.mark.parametrize("make", WITH_WAY_OUT, ids=lambda make: make.__name__)
def test_the_way_out_trains_labels_beyond_the_scope(make):
    assert_way_out(make())
