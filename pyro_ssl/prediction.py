"""Prediction, in chunks of bounded memory; nothing is trained and no random state moves."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_ssl.checks import as_data
from pyro_ssl.elbo import TraceTopEnum_ELBO
from pyro_ssl.objective import Objective
from pyro_ssl.training import evaluating, reproducibly


def predict_proba(objective: Objective, x: Any, *, chunk: int = 4096, seed: int = 0) -> Tensor:
    """p(y|x) of each datum, `(N, K)` on the CPU, by what the method predicts with."""
    return _chunked(objective, lambda x: objective.classify(x).mean, chunk, seed, x)


def bounds(objective: Objective, x: Any, y: Tensor | None = None, *, chunk: int = 1024, seed: int = 0) -> Tensor:
    """L(x, y), or U(x) without y and summed over all classes, per datum: `(N,)` nats on the CPU. y is one-hot `(N, K)`.

    Raises:
        ValueError: There is not one row of y per datum.
    """
    if y is not None and (y.dim() != 2 or len(y) != len(x)):
        raise ValueError(f"y should be one-hot with shape ({len(x)}, K), got {tuple(y.shape)}; see pyro_ssl.one_hot")
    exact = Objective(objective.model, objective.guide, elbo=TraceTopEnum_ELBO())  # whatever training sums over
    return _chunked(objective, exact.bound, chunk, seed, x, *([] if y is None else [y]))


def _chunked(objective: Objective, function: Any, chunk: int, seed: int, x: Any, *others: Tensor) -> Tensor:
    like = next(objective.parameters())
    data = [as_data(x, dtype=like.dtype), *others]
    with evaluating(objective), reproducibly(seed), pyro.validation_enabled(False):
        parts = zip(*(d.split(chunk) for d in data), strict=True)
        return torch.cat([function(*(d.to(like) for d in part)).cpu() for part in parts])
