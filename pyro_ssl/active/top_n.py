"""Choice by scores: the n highest, or a random draw in proportion to a power of the scores."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.active.pool import check_count


def top_n(scores: Any, n: int, seed: int = 0) -> Tensor:
    """Indices of the n highest scores, highest first, `(n,)`.

    Scores that agree to nine digits of the largest one are ties; the seed decides between them.

    >>> top_n(torch.tensor([0.1, 0.7, 0.2]), 2).tolist()
    [1, 2]

    Arguments:
        scores: One score per datum, `(N,)`.
        n: Number of data.
        seed: Seed of the order among ties.

    Raises:
        ValueError: n is not in 1 .. N; a score is NaN.
    """
    scores = _as_scores(scores)
    check_count(n, len(scores))
    values = scores.cpu().double()
    finite = values[values.isfinite()].abs()
    largest = float(finite.max()) if len(finite) else 0.0
    values = (values / max(largest, 1e-300)).round(decimals=9)  # rounding errors, not preferences
    shuffled = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    ranks = values[shuffled].sort(descending=True, stable=True).indices
    return shuffled[ranks[:n]]


def power_scores(scores: Any, power: float, seed: int = 0) -> Tensor:
    r"""Perturb scores so that their top n are a random draw in proportion to :math:`s^\beta`.

    .. math:: \beta \log s + g, \qquad g \sim \mathrm{Gumbel}(0, 1)

    The draw is without replacement. The n highest scores of a pool often belong to similar data;
    a random draw is more diverse.

    >>> power_scores(torch.tensor([0.1, 0.7, 0.2]), power=1.0).shape
    torch.Size([3])

    Arguments:
        scores: s, `(N,)`, not negative.
        power: beta; a larger power is closer to the n highest scores.
        seed: Seed of the noise.

    Raises:
        ValueError: power is not positive; a score is negative or NaN.

    References:
        Kirsch et al. 2023, Stochastic batch acquisition.
    """
    check_power(power)
    scores = _as_scores(scores)
    if not (scores >= 0).all():
        raise ValueError(f"power needs scores of 0 or above, got {scores.min().item()}")
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(scores), generator=generator, dtype=torch.float64)
    gumbel = -(-uniform.log()).log()
    perturbed: Tensor = power * scores.cpu().double().log() + gumbel
    return perturbed


def check_power(power: float | None) -> None:
    """Raise ValueError unless the power is None, or positive and finite.

    >>> check_power(1.0)
    """
    if power is not None and not 0 < power < math.inf:
        raise ValueError(f"power should be above 0 and finite, got {power}")


def _as_scores(scores: Any) -> Tensor:
    values: Tensor = torch.as_tensor(scores).detach()
    if values.dim() != 1:
        raise ValueError(f"scores should have shape (N,), one per datum; got {tuple(values.shape)}")
    missing = values.isnan()
    if missing.any():
        raise ValueError(f"scores hold NaN, first for datum {int(missing.nonzero()[0])}")
    return values
