"""A model and a guide that do not match are refused with the fix."""

import pyro
import pytest
import torch
from programs.training_runs import X
from torch import nn

from pyro_ssl import (
    Objective,
    fit,
)


class Program(pyro.nn.PyroModule):
    def __init__(self, body):
        super().__init__()
        self.body, self.weight = body, nn.Parameter(torch.ones(()))

    def classify(self, x):
        return pyro.distributions.OneHotCategorical(logits=x[:, :3] * self.weight)

    def forward(self, x, y=None):
        self.body(self, x, y)


def _normal(*shape):
    return pyro.distributions.Normal(torch.zeros(*shape), 1.0)


def _guide(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))


def _unguided(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
        pyro.sample("a", _normal(2).to_event(1))
        pyro.sample("x", _normal(4).to_event(1), obs=x)


def _missing(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("x", _normal(4).to_event(1), obs=x)


def _other_plate(self, x, y):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
        pyro.sample("x", _normal(4).to_event(1), obs=x)


def _no_event(self, x, y):
    pyro.sample("z", _normal(2).to_event(1).expand([len(x)]))
    pyro.sample("x", _normal(4).to_event(1), obs=x)


def _undeclared_event(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
    pyro.sample("x", _normal(len(x), 4), obs=x)


def _with_a_parameter(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
        pyro.sample(
            "x", _normal(4).to_event(1), obs=x * self.weight * pyro.param("size", torch.tensor(1.0))
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            _with_a_parameter,
            r"pyro.param\('size'\) is not a parameter of model or guide.*PyroParam",
        ),
        (_unguided, r"does not sample \['a'\].*sample them in the guide"),
        (_missing, r"samples \['z'\], which the model does not"),
        (_other_plate, r"'z' is in plates \['rows'\].*same plates"),
        (_no_event, r"'z' is in plates \[\]"),
        (_undeclared_event, r"'x': log_prob has shape \(\d+, 4\).*to_event"),
    ],
)
def test_a_pair_that_does_not_match_fails_at_once_with_the_fix(model, message):
    o = Objective(Program(model), Program(_guide))
    with pytest.raises(ValueError, match=message):
        fit(o, X, None, epochs=1, batch_size=30)


def _global(self, x, y):
    mu = pyro.sample("mu", _normal(2, 4).to_event(2))
    with pyro.plate("data", len(x)):
        pyro.sample("x", pyro.distributions.Normal(self.weight * mu[0], 1.0).to_event(1), obs=x)


def _of_global(self, x, y):
    pyro.sample("mu", pyro.distributions.Normal(torch.zeros(2, 4) + self.weight, 1.0).to_event(2))


def _strided(self, x, y):
    pyro.module("net", self.net)
    _global(self, x, y)


def test_latents_that_all_data_share_and_strided_weights_are_ones_own():
    o = Objective(Program(_global), Program(_of_global))
    assert len(fit(o, X, None, epochs=1, batch_size=30)["loss"]) == 1
    model = Program(_strided)
    model.net = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
    assert (
        len(fit(Objective(model, Program(_of_global)), X, None, epochs=1, batch_size=30)["loss"])
        == 1
    )


def test_a_guide_site_that_cannot_be_differentiated_is_refused():
    def guide(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Poisson(torch.ones(2)).to_event(1))

    def model(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Poisson(torch.ones(2)).to_event(1))
            pyro.sample("x", _normal(4).to_event(1), obs=x)

    with pytest.raises(ValueError, match="'z' is not .fully. reparameterised"):
        fit(Objective(Program(model), Program(guide)), X, None, epochs=1)
