"""Factors of a program, against what the program says line by line."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_ssl.infer.dependencies import Factor, factors, names_in, tracked

X = torch.rand(5, 4)
Y = torch.eye(3)[[0, 1, 2, 0, 1]]


def program(x, y=None):
    """A site of each kind: shared, masked, scaled, deterministic, a factor, an observed count."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.sum(-1), 1.0).mask(False))
        with pyro.plate("copies", 2):
            a = pyro.sample("a", dist.Normal(z.detach(), 1.0))
        double = pyro.deterministic("double", 2 * z)
        with poutine.scale(scale=0.5):
            pyro.sample("b", dist.Delta(double * w))
        pyro.factor("ratio", -(z + a[0]))
        if y is not None:
            pyro.sample("count", dist.Poisson(z.exp()), obs=y.argmax(-1).float())


EXPECTED = {
    "w": Factor("w"),
    "z": Factor("z", ("x",), plates=("data",)),
    "a": Factor("a", ("z",), plates=("copies", "data")),
    "double": Factor("double", ("z",), True, ("data",), "deterministic"),
    "b": Factor("b", ("double", "w"), plates=("data",)),
    "ratio": Factor("ratio", ("z", "a"), True, ("data",), "factor"),
    "count": Factor("count", ("z",), True, ("data",), "sample", frozenset({"y"})),
}


def test_factors_are_what_the_program_says():
    found = {factor.name: factor for factor in factors(program, X, Y)}
    assert list(found) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        factor = found[name]
        assert set(factor.plates) == set(expected.plates)
        same = ("parents", "observed", "kind")
        assert [getattr(factor, k) for k in same] == [getattr(expected, k) for k in same], name
    assert found["count"].arguments == {"y"}
    assert "count" not in {factor.name for factor in factors(program, X)}


def test_a_formula_has_the_data_first_and_shared_variables_last():
    texts = [factor.formula("p") for factor in factors(program, X)]
    assert texts == [
        "p(w)",
        "p(z|x)",
        "p(a|z)",
        "p(double|z)",
        "p(b|double,w)",
        "ratio(z,a)",
    ]


def test_looking_leaves_random_numbers_and_parameters_alone():
    def with_parameter(x, y=None):
        scale = pyro.param("scale", torch.ones(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, scale))

    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = factors(with_parameter, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert found == (Factor("z", plates=("data",)),)
    assert "scale" not in pyro.get_param_store()


@pytest.mark.parametrize(
    "shape_alone",
    [
        lambda x: x.new_zeros(5),
        lambda x: x.new_full((5,), 2.0),
        lambda x: torch.randn_like(x[:, 0]),
        lambda x: torch.zeros(len(x)),
        lambda x: x.new_tensor([0.0] * 5),
    ],
)
def test_a_shape_alone_is_no_dependency(shape_alone):
    def model(x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(shape_alone(x), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).expand((5, 4)).to_event(1), obs=x)

    assert [factor.formula("p") for factor in factors(model, X)] == ["p(z)", "p(x|z)"]


@pytest.mark.parametrize("function", [torch.detach, torch.exp, lambda v: v.sum().expand(2)])
def test_names_survive_functions(function):
    assert names_in(function(tracked(torch.ones(2), "x"))) == {"x"}
