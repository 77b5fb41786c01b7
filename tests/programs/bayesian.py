"""A pair with random weights, and its bound by hand."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl import (
    MLP,
    Objective,
    guides,
    models,
    one_hot,
    zoo,
)
from pyro_ssl.nn.random_weights import RandomWeights

D, K, Z, H = 3, 3, 2, 5
SIGMA, SCALE = 0.7, 0.8
SMALL = {
    "hidden": (H,),
    "z_dim": Z,
    "sigma": SIGMA,
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
    "alpha": 0.0,
}
SMALL |= {
    "top_k": None,
    "common_random_numbers": False,
    "local_reparameterisation": False,
    "prior_scale": SCALE,
    "log_variance": -2.0,
    "gibbs_steps": 2,
}
X = torch.randn(18, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.where(torch.arange(18) < 6, torch.arange(18) % K, -1)


def labels() -> Tensor:
    return one_hot(Y[Y >= 0], K, X.dtype)


def sslapd(joint_pass: bool | None = None, **options) -> Objective:
    """With means and variances of q(W) that all differ."""
    o = zoo.build("sslapd", D, K, **SMALL | options).double()
    noise = torch.randn(
        2, len(o.guide.loc), generator=torch.Generator().manual_seed(1), dtype=X.dtype
    )
    with torch.no_grad():
        o.guide.loc += 0.3 * noise[0]
        o.guide.log_variance += 0.5 * noise[1]
    weights = {
        "labeled_weight": o.labeled_weight,
        "unlabeled_weight": o.unlabeled_weight,
        "joint_pass": joint_pass,
    }
    return o if joint_pass is None else Objective(o.model, o.guide, o.terms, elbo=o.elbo, **weights)


def kl_by_hand(guide: nn.Module, s: float = SCALE) -> Tensor:
    mean, variance = guide.loc, guide.log_variance.exp()
    return 0.5 * ((variance + mean**2) / s**2 - 1 + 2 * math.log(s) - variance.log()).sum()


def pieces(model: nn.Module, network: nn.Module, w: Tensor) -> dict[str, Tensor]:
    """The weights by the names that they have in a network of point estimates."""
    names = {id(part): name for name, part in network.named_modules()}
    flat = w.split([shape.numel() for shape in model.slots.shapes])
    places = [f"{names[id(owner)]}.{name}" for owner, name in model.slots.entries]
    return {name: f.reshape(s) for name, f, s in zip(places, flat, model.slots.shapes, strict=True)}


class Regression(PyroModule):
    """y ~ N(f(x), s^2), real."""

    def __init__(self, network: nn.Module, s: float) -> None:
        super().__init__()
        self.network, self.s = network, s

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(self.network(x), self.s).to_event(1), obs=y)


class Nothing(PyroModule):
    def forward(self, x: Tensor, y: Tensor | None = None) -> None: ...


def regression(local: bool, hidden=(), log_variance: float = -1.0) -> Objective:
    torch.manual_seed(0)
    network = MLP(D, 1, hidden, activation=nn.Tanh)
    slots = RandomWeights(network)
    guide = guides.MeanField(Nothing(), slots.initial, log_variance, local_reparameterisation=local)
    return Objective(models.Bayesian(Regression(network, 0.5), slots, SCALE), guide)
