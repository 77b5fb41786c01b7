"""Pairs over columns, small enough for a bound by hand, and their data."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl import (
    MLP,
    ClassPrior,
    Gaussian,
    Normal,
    Objective,
    OneHotCategorical,
    StandardNormal,
    guides,
    one_hot,
    zoo,
)

D, Z, B = 4, 2, 6
"""Columns of x, latent dimensions, and rows."""
PARALLEL = {"enumerate": "parallel"}


class Program(PyroModule):
    """A program whose body is a function of itself, x and y.

    Arguments:
        body: Called with the program, x and y.
        classifier: Function of the program and x, for `classify`.
        parts: Conditionals and parameters by name; a number becomes a parameter.
    """

    def __init__(
        self,
        body: Callable[..., None],
        classifier: Callable[..., Any] | None = None,
        **parts: Any,
    ) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier
        for name, part in parts.items():
            if not isinstance(part, nn.Module):
                dtype = torch.get_default_dtype()
                part = nn.Parameter(torch.as_tensor(part, dtype=dtype).detach().clone())
            setattr(self, name, part)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        self.body(self, x, y)

    def classify(self, x: Tensor) -> Any:
        return self.classifier(self, x)


class InPlate(Program):
    """A program whose body stands inside the data's plate."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            self.body(self, x, y)


class Table(nn.Module):
    """Logits that are parameters, one row per datum."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows


def data(rows: int = B, classes: int = 3, seed: int = 0, columns: int = D) -> tuple[Tensor, Tensor]:
    """Normal x, `(rows, columns)`, and one-hot y with the classes in turn."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    y = one_hot(torch.arange(rows) % classes, classes, torch.get_default_dtype())
    return x, y


def m2(classes: int = 3, **options: Any) -> Objective:
    """M2 of the zoo, without noise and without regularisers."""
    plain = {"z_dim": Z, "hidden": (5,), "noise": 0.0, "dropout": 0.0, "balance": 0.0, "sigma": 0.7}
    return zoo.build("m2", D, classes, **plain | options).to(torch.get_default_dtype())


def without_z(objective: Objective) -> Objective:
    """M2 whose p(x|y,z) ignores z.

    With its KL in closed form, the bound is then a function of the classes and of no noise.
    """
    weight_of_z = objective.model.p_x.network.first.weights[1]
    with torch.no_grad():
        weight_of_z.zero_().requires_grad_(False)
    return objective


def adgm(classes: int = 3) -> tuple[Program, Program]:
    """p(y) p(z) p(x|y,z) p(a|x,y,z), guided by q(a|x) q(y|a,x) q(z|a,x,y): a is drawn before y."""

    def model(p, x, y):
        y = pyro.sample("y", p.p_y(), obs=y)
        z = pyro.sample("z", p.p_z())
        pyro.sample("a", p.p_a(x, y, z))
        pyro.sample("x", p.p_x(y, z), obs=x)

    def guide(q, x, y):
        a = pyro.sample("a", q.q_a(x))
        if y is None:
            y = pyro.sample("y", q.q_y(a, x), infer=PARALLEL)
        pyro.sample("z", q.q_z(a, x, y))

    def classify(q, x):
        a = q.q_a(x).sample((20,))
        return dist.OneHotCategorical(probs=q.q_y(a, x).mean.mean(0))

    torch.manual_seed(0)
    p_x = Gaussian(MLP([classes, Z], D, (5,)), sigma=0.7)
    p_a = Normal(MLP([D, classes, Z], 2, (5,)))
    q_a = Normal(MLP(D, 2, (5,)))
    q_y = OneHotCategorical(MLP([1, D], classes, (5,)))
    q_z = Normal(MLP([1, D, classes], 2 * Z, (5,)))
    p_y = ClassPrior(torch.arange(1.0, classes + 1) / sum(range(classes + 1)))
    return (
        InPlate(model, p_y=p_y, p_z=StandardNormal(Z), p_x=p_x, p_a=p_a),
        InPlate(guide, classify, q_a=q_a, q_y=q_y, q_z=q_z),
    )


def sslpe(classes: int = 3) -> tuple[Program, nn.Module]:
    """p(z) p(x|z) p(y|x,z), guided by q(y|x) q(z|x,y).

    The model's y depends on what the guide draws after it.
    """

    def model(p, x, y):
        z = pyro.sample("z", p.p_z())
        pyro.sample("x", p.p_x(z), obs=x)
        pyro.sample("y", p.p_y(x, z), obs=y)

    torch.manual_seed(0)
    p_x = Gaussian(MLP(Z, D, (5,)), sigma=0.7)
    p_y = OneHotCategorical(MLP([D, Z], classes, (5,)))
    q_y = OneHotCategorical(MLP(D, classes, (5,)))
    q_z = Normal(MLP([D, classes], 2 * Z, (5,)))
    return InPlate(model, p_z=StandardNormal(Z), p_x=p_x, p_y=p_y), guides.M2(q_y, q_z)


def pair_over(y_model, y_guide, z_model=None, z_guide=None, extra=lambda x: None):
    """A pair with these distributions of y and z, and something of the user's beside them in the
    guide.
    """
    z_model, z_guide = z_model or dist.Normal(0.0, 1.0), z_guide or dist.Normal(0.3, 0.7)

    def model(p, x, y):
        z, y = pyro.sample("z", z_model), pyro.sample("y", y_model, obs=y)
        pyro.sample("x", dist.Normal(z + (y[..., 0] if y_model.event_dim else y), 1.0), obs=x[:, 0])

    def guide(q, x, y):
        if y is None:
            pyro.sample("y", y_guide, infer=PARALLEL)
        pyro.sample("z", z_guide)
        extra(x)

    return InPlate(model), InPlate(guide, lambda q, x: y_guide.expand([len(x)]))
