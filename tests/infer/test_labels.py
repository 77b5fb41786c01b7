"""Class indices in place of one-hot labels, and classifiers that are certain."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same, gradients, parameters, seeded
from programs.pairs import PARALLEL, B, D, Table, Z, data, m2, without_z
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl import (
    Gaussian,
    OneHotCategorical,
    TraceTopKEnum_ELBO,
)

pytestmark = pytest.mark.usefixtures("float64")


class Labels(PyroModule):
    """x given a class, one-hot or an index; model and guide share their tables."""

    def __init__(self, indices: bool, tables: nn.ParameterDict):
        super().__init__()
        self.family = dist.Categorical if indices else dist.OneHotCategorical
        self.indices, self.tables = indices, tables

    def rows(self, name: str, y: Tensor) -> Tensor:
        return self.tables[name][y] if self.indices else y @ self.tables[name]


class LabelModel(Labels):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.family(logits=self.tables["p_y"]), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.rows("p_x", y) + z.tanh(), 0.5).to_event(1), obs=x)


class LabelGuide(Labels):
    def classify(self, x):
        return self.family(logits=x @ self.tables["q_y"])

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.classify(x), infer=PARALLEL) if y is None else y
            pyro.sample("z", dist.Normal(self.rows("q_z", y) * x, 0.5).to_event(1))


@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@pytest.mark.parametrize("top_k", [None, 1, 2, "auto", 7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"closed_form": ()},
        {"num_particles": 3},
        {"num_particles": 3, "importance_weighted": True},
    ],
)
def test_class_indices_are_as_good_as_one_hot_labels(options, top_k, classes):
    torch.manual_seed(0)
    shapes = {"p_y": (classes,), "p_x": (classes, D), "q_y": (D, classes), "q_z": (classes, D)}
    tables = nn.ParameterDict({name: nn.Parameter(torch.randn(s)) for name, s in shapes.items()})
    (x, y), bound, of = (
        data(classes=classes),
        TraceTopKEnum_ELBO(top_k, **options),
        list(tables.values()),
    )
    pairs = [
        (LabelModel(indices, tables), LabelGuide(indices, tables)) for indices in (False, True)
    ]
    values = [seeded(bound.bound, *pair, x).value for pair in pairs]
    assert_same(values[1], values[0], of)
    labels = (y, y.argmax(-1))
    assert_same(
        *(
            seeded(bound.bound, *pair, x, each).value
            for pair, each in zip(pairs, labels, strict=True)
        ),
        of,
    )
    beside = [
        seeded(bound.bound, *pair, x, labels=each[:2]).value
        for pair, each in zip(pairs, labels, strict=True)
    ]
    assert_same(beside[1], beside[0], of)
    per_class = [seeded(bound.class_bounds, *pair, x) for pair in pairs]
    assert_same(per_class[1], per_class[0], of)


CERTAIN = {
    "80": torch.tensor([[80.0, -80.0, 0.0, 0.0]]),
    "1000": torch.tensor([[1000.0, -1000.0, 0.0, -1000.0]]),
    "-80": torch.tensor([[-80.0, -80.0, -80.0, 80.0]]),
    "-inf": torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]]),
    "one -inf": torch.tensor([[90.0, -torch.inf, -90.0, 0.0]]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top_k", [1, 2, "auto"])
@pytest.mark.parametrize("closed_form", [(), ("z",), "auto"])
@pytest.mark.parametrize("logits", CERTAIN)
def test_a_saturated_classifier_gives_the_exact_sum(logits, closed_form, top_k, dtype):
    """With q(y|x) exactly 0 or 1, and f the same whatever z.

    The class that is drawn for nothing leaves no trace.
    """
    torch.set_default_dtype(dtype)
    o, x = without_z(m2(4)), data()[0].to(dtype)
    with torch.no_grad():  # q(z|x,y) is p(z): with z sampled too, log p - log q is 0
        o.guide.q_z.network.rest[-1].weight.zero_()
        o.guide.q_z.network.rest[-1].bias[Z:] = math.log(math.expm1(1 - 1e-3))
    o.guide.q_y = OneHotCategorical(Table(CERTAIN[logits].to(dtype).expand(B, 4).clone()))
    of = parameters(o.model, o.guide.q_y)
    exact, ours = (
        TraceTopKEnum_ELBO(t, closed_form=closed_form).bound(o.model, o.guide, x).value
        for t in (None, top_k)
    )
    assert exact.isfinite().all() and exact.min() > -1e3
    assert all(g.isfinite().all() for g in gradients(ours.sum(), of))
    assert_same(ours, exact, of, {torch.float32: 1e-5, torch.float64: 1e-12}[dtype])


def test_a_conditional_of_class_indices_gives_its_networks_output():
    p_x = Gaussian(nn.Embedding(3, D), sigma=0.7)
    assert torch.equal(p_x(torch.arange(3)).mean, p_x.network.weight)


@pytest.mark.parametrize("top_k", [None, 1, "auto"])
@pytest.mark.parametrize("weighted", [False, True])
def test_certainty_leaves_gradients_finite_in_float32(weighted, top_k):
    torch.set_default_dtype(torch.float32)
    o, x = m2(top_k=top_k, num_particles=3, importance_weighted=weighted), data()[0].float()
    with torch.no_grad():
        o.guide.q_y.network.rest[-1].bias.copy_(torch.tensor([80.0, -80.0, 0.0]))
    o.bound(x).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in o.parameters())


@pytest.mark.parametrize("closed_form", [(), "auto"])
def test_a_class_that_is_ruled_out_has_a_finite_gradient_under_any_weight(closed_form):
    """A weight above 1 times the least float is infinite, and that times a probability of 0 NaN."""
    o, x = m2(), data()[0]
    logits = torch.tensor([0.0, 1.0, -torch.inf]).expand(B, 3).clone()
    o.guide.q_y = OneHotCategorical(Table(logits))
    o.model.p_y.log_probs = torch.tensor([0.5, 0.5, 0.0]).log()
    bound = TraceTopKEnum_ELBO(None, closed_form=closed_form).bound(o.model, o.guide, x).value
    (gradient,) = torch.autograd.grad(3.0 * bound.sum(), o.guide.q_y.network.rows)
    assert gradient.isfinite().all()
    assert (gradient[:, 2] == 0).all() and (gradient[:, :2] != 0).all()
