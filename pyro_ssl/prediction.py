"""Prediction, in chunks of bounded memory; nothing is trained and no random state moves."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_ssl.checks import as_data
from pyro_ssl.objective import Objective
from pyro_ssl.training import evaluating, reproducibly


def predict_proba(objective: Objective, x: Any, *, chunk: int = 4096, seed: int = 0) -> Tensor:
    """p(y|x) of each datum, `(N, K)` on the CPU, by what the method predicts with."""
    return _chunked(objective, x, lambda part: objective.classify(part).mean, chunk, seed)


def bounds(objective: Objective, x: Any, y: Tensor | None = None, *, chunk: int = 1024, seed: int = 0) -> Tensor:
    """L(x, y), or U(x) without y, per datum: `(N,)` nats on the CPU. y is one-hot `(N, K)`."""
    if y is None:
        return _chunked(objective, x, objective.bound, chunk, seed)
    starts = range(0, len(y), chunk)
    parts = [
        _chunked(
            objective, x[i : i + chunk], lambda part, i=i: objective.bound(part, y[i : i + chunk].to(part)), chunk, seed
        )
        for i in starts
    ]
    return torch.cat(parts)


def _chunked(objective: Objective, x: Any, function: Any, chunk: int, seed: int) -> Tensor:
    parameter = next(objective.parameters())
    x = as_data(x, dtype=parameter.dtype)
    with evaluating(objective), reproducibly(seed), pyro.validation_enabled(False):
        return torch.cat([function(part.to(parameter.device)).cpu() for part in x.split(chunk)])
