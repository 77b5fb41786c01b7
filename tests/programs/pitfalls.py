"""A small M2, its data, and stock Pyro's inference."""

import pyro
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from torch import nn

from pyro_ssl import (
    Objective,
    one_hot,
    zoo,
)

D, K, B = 4, 3, 6
X = torch.randn(60, D, generator=torch.Generator().manual_seed(0)) + torch.tensor(
    [2.0, 0.0, 0.0, 0.0]
)
INDICES = torch.arange(60) % K
Y = one_hot(INDICES, K)
SMALL = {"hidden": (6,), "z_dim": 2, "likelihood": "gaussian", "sigma": 1.0}


def small(method: str = "m2", seed: int = 0, **options) -> Objective:
    return zoo.build(method, D, K, seed=seed, **SMALL | options)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in module.named_parameters() if not torch.equal(v, before[k])}


def enum_elbo() -> TraceEnum_ELBO:
    return TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)


def svi(o, elbo=None, lr: float = 0.02) -> SVI:
    return SVI(o.model, o.guide, pyro.optim.Adam({"lr": lr}), elbo or enum_elbo())
