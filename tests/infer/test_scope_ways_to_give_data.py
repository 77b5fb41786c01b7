"""Programs whose first argument does not count the data."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.scope import (
    Scaled,
    column,
    data,
    normal,
    plate,
)
from pyro.nn import PyroModule
from torch import Tensor

from pyro_ssl import TraceTopKEnum_ELBO

pytestmark = pytest.mark.usefixtures("float64")


class Given(PyroModule):
    """A program that gets its data in another way than as the first argument."""

    def __init__(self, program: Any, data_of: Callable[..., Tensor]) -> None:
        super().__init__()
        self.program, self.data_of = program, data_of

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self.program(self.data_of(*args, **kwargs))


WAYS = {
    "by keyword": (lambda x: x, (), {"x": data()}),
    "in a dict": (lambda batch: batch["x"], ({"x": data()},), {}),
    "in a closure": (data, (), {}),
    "columns first": (lambda x: x.T, (data().T,), {}),
}


def several_particles(
    importance_weighted: bool, data_of: Callable[..., Tensor] | None, *args, **kwargs
) -> Tensor:
    """Losses over 100 seeds, of programs whose data come in a way of their own, or as the first
    argument.
    """

    def model(s, x, y):
        with pyro.plate("components", 4):
            w = pyro.sample("w", dist.Normal(0.0, 2.0))
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(w.sum() * s.m + z.sum(-1))), obs=x)

    def guide(s, x, y):
        with pyro.plate("components", 4):
            pyro.sample("w", dist.Normal(s.b, 0.5))
        with plate(x):
            pyro.sample("z", normal(x[:, :2] * s.b))

    programs = [Scaled(model, m=1.0), Scaled(guide, a=0.5, b=0.3)]
    if data_of is not None:
        programs = [Given(p, data_of) for p in programs]
    elbo = TraceTopKEnum_ELBO(None, num_particles=3, importance_weighted=importance_weighted)
    runs = []
    for seed in range(100):  # the components counted as data are then 8.7 standard errors away
        torch.manual_seed(seed)
        with torch.no_grad():
            runs.append(elbo.differentiable_loss(*programs, *args, **kwargs))
    return torch.stack(runs)


@cache
def several_particles_of_the_first_argument(importance_weighted: bool) -> Tensor:
    return several_particles(importance_weighted, None, data())


@pytest.mark.parametrize(("data_of", "args", "kwargs"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("importance_weighted", [False, True])
def test_several_particles_tell_data_from_components_however_data_are_given(
    importance_weighted, data_of, args, kwargs
):
    """A latent in a plate of its own is drawn once a run, and those of the data S times."""
    theirs = several_particles(importance_weighted, data_of, *args, **kwargs)
    losses = [several_particles_of_the_first_argument(importance_weighted), theirs]
    difference = losses[0] - losses[1]
    error = torch.hypot(*(loss.std() / len(loss) ** 0.5 for loss in losses))
    assert difference.mean().abs() < 4 * error
