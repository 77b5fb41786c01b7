"""The classes that a bound sums over: all, or the k likeliest and one drawn from the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyro_ssl.infer.decisions import decide
from pyro_ssl.utils.arguments import is_whole
from pyro_ssl.utils.process_rows import batch_mean

TopK = int | None | Literal["auto"]
"""Number of likeliest classes; None for all classes."""

MASS = 0.95
"""With `top_k="auto"`, the likeliest classes have at least this share of q(y|x)."""
MOST = 16
"""Largest k with `top_k="auto"`."""


@dataclass(frozen=True)
class TopKPolicy:
    """The choice of k, the number of likeliest classes to sum over; see `TraceTopKEnum_ELBO`.

    Arguments:
        top_k: k; None for all classes; "auto" for the smallest of 1, 2, 4, 8 and 16 whose classes
            have a share `MASS` of q(y|x) in the mean over the batch.

    Raises:
        ValueError: top_k is something else.

    >>> log_q = torch.tensor([[0.97, 0.01, 0.01, 0.01]]).log()
    >>> TopKPolicy("auto").number(log_q), TopKPolicy(2).number(log_q), TopKPolicy(3).number(log_q)
    (1, 2, None)
    """

    top_k: TopK

    def __post_init__(self) -> None:
        if self.top_k is None or self.top_k == "auto" or is_count(self.top_k):
            return
        raise ValueError(
            f'top_k should be at least 1, None for all classes, or "auto"; got {self.top_k!r}'
        )

    def number(self, log_q: Tensor) -> int | None:
        """Return k for a batch with log q(y|x) `(B, K)`, or None for all classes.

        With k = K - 1 or above, all classes are summed, since at most one is left to draw.
        """
        classes = log_q.shape[-1]
        if self.top_k is None:
            return None
        k = _fewest(log_q) if self.top_k == "auto" else int(self.top_k)
        return None if k >= classes - 1 else k

    def at_most(self, classes: int) -> int:
        """Return the largest number of classes in a sum, if there are K classes."""
        if self.top_k is None:
            return classes
        if self.top_k == "auto":
            return min(classes, MOST)
        return min(classes, self.top_k + 1)


def _fewest(log_q: Tensor) -> int:
    most = min(MOST, log_q.shape[-1])
    candidates = [k for k in (1, 2, 4, 8) if k < most]
    if not candidates:
        return most
    likeliest = log_q.detach().exp().topk(candidates[-1], -1).values
    mass = batch_mean(likeliest).cumsum(-1)
    # the mass of k classes rises with k, so the k with too little mass are the first ones
    has_enough = torch.stack([mass[k - 1].double() >= MASS for k in candidates])
    return [*candidates, most][decide((~has_enough).sum())]


def is_count(value: Any) -> bool:
    """Return True if a value is a whole number above 0.

    >>> is_count(3), is_count(0), is_count(1.5)
    (True, False, False)
    """
    return is_whole(value) and value >= 1


def likeliest_and_one(log_q: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k likeliest classes of each datum, and one drawn from the rest.

    Arguments:
        log_q: log q(y|x), `(B, K)`.
        k: Number of likeliest classes, at most K - 2.

    Returns:
        Indices of the classes, and log-probabilities of drawing them, which are 0 for the likeliest
        ones: both `(k + 1, B)`.

    >>> log_q = torch.tensor([[0.1, 0.7, 0.1, 0.1]]).log()
    >>> classes, log_pi = likeliest_and_one(log_q, 1)
    >>> classes[0], log_pi.exp()
    (tensor([1]), tensor([[1.0000],
            [0.3333]]))
    """
    with torch.no_grad():
        likeliest = log_q.topk(k, dim=-1).indices
        # The likeliest are excluded by -inf, not by probability 0: a q of exactly (1, 0, ..., 0)
        # would have no rest to draw from.
        finite = log_q.clamp_min(torch.finfo(log_q.dtype).min)
        log_pi = finite.scatter(-1, likeliest, -torch.inf).log_softmax(-1)
        cdf = log_pi.exp().cumsum(-1)
        u = torch.rand_like(cdf[:, :1]) * cdf[:, -1:]
        drawn = torch.searchsorted(cdf, u, right=True)
        drawn = drawn.clamp_max_(log_q.shape[-1] - 1)  # if log_q is NaN, the loss is NaN too
        log_drawn = log_pi.gather(-1, drawn)
        # If rounding drew one of the likeliest after all, its weight is 0.
        log_drawn = log_drawn.masked_fill(log_drawn == -torch.inf, torch.inf)
        correction = nn.functional.pad(log_drawn, (k, 0))
    return torch.cat([likeliest, drawn], dim=-1).T, correction.T
