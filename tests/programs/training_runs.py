"""A small objective, its data and its training, shared by the tests of this folder."""

import torch
from torch import nn

from pyro_ssl import (
    Objective,
    fit,
    zoo,
)

X = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
Y = torch.where(torch.arange(90) < 20, torch.arange(90) % 3, -1)
SMALL = {"hidden": (6,), "z_dim": 2, "sigma": 1.0, "noise": 0.0, "dropout": 0.0}


def small(seed: int = 0, **options) -> Objective:
    return zoo.build("m2", 4, 3, seed=seed, **SMALL | options)


def weights(objective: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in objective.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def run(objective: Objective | None = None, **arguments) -> tuple[Objective, dict]:
    objective = objective or small()
    return objective, fit(
        objective, X, Y, **{"epochs": 3, "batch_size": 10, "labeled_batch_size": 8} | arguments
    )
