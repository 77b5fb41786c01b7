"""What the tests of prediction share: data, and small methods of the zoo."""

import pytest
import torch

from pyro_ssl import zoo

D, K, N = 4, 3, 50
SMALL = {
    "z_dim": 2,
    "a_dim": 2,
    "z_dims": (3, 2),
    "z_y_dim": 2,
    "z1_dim": 3,
    "m1_hidden": (9,),
    "hidden": (9,),
    "gibbs_steps": 3,
    "draws": 30,
    "noise": 0.0,
}


@pytest.fixture
def x():
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def m2():
    options = {"z_dim": 1, "hidden": (6,), "noise": 0.0, "dropout": 0.0, "sigma": 2.0}
    objective = zoo.build("m2", D, K, **options)
    # q(z|x,y) near the prior, so that no weight is much above the others
    head = objective.guide.q_z.network.rest[-1]
    with torch.no_grad():
        head.weight.mul_(0.1)
        head.bias.copy_(torch.tensor([0.0, 0.6]))
    return objective


@pytest.fixture(scope="session")
def build():
    """A function of a method's name and options that builds a small one."""

    def build(method, **options):
        known = zoo.options_of(method)
        small = {name: value for name, value in SMALL.items() if name in known}
        return zoo.build(method, D, K, **small | options)

    return build
