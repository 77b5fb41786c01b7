"""The classes that a bound sums over: all, or the k likeliest and one drawn, without bias."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_ssl.infer.decisions import decide

TopK = int | None | Literal["auto"]

MASS = 0.95
"""`top_k="auto"` takes as few of the likeliest classes as hold this share of q(y|x)."""
MOST = 16
"""`top_k="auto"` never takes more of the likeliest classes than these."""


@dataclass(frozen=True)
class TopKPolicy:
    """How many of the likeliest classes to sum over, see `TraceTopKEnum_ELBO`.

    Arguments:
        top_k: Their number k; None for all classes; "auto" for as few as hold `MASS` of q(y|x) in
            the mean over the batch, and at most `MOST`.

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
        """k for q(y|x), given as its logarithm `(B, K)`; None for all classes.

        With k = K - 1 or above, nothing is left to draw from: all classes are summed.
        """
        classes = log_q.shape[-1]
        if self.top_k is None:
            return None
        k = _fewest(log_q) if self.top_k == "auto" else int(self.top_k)
        return None if k >= classes - 1 else k

    def at_most(self, classes: int) -> int:
        """The largest number of values that the label may get, of so many classes."""
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
    held = likeliest.mean(0).cumsum(-1)
    # held rises with k, so the k that hold too little are the first ones
    holds_enough = torch.stack([held[k - 1].double() >= MASS for k in candidates])
    return [*candidates, most][decide((~holds_enough).sum())]


def is_count(value: object) -> bool:
    """Whether a value is a whole number above 0."""
    return isinstance(value, Integral) and int(value) >= 1


def likeliest_and_one(log_q: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k likeliest classes and one drawn from the rest.

    It returns their indices and the log-probability of drawing each, 0 for the likeliest: both
    `(k + 1, B)`.
    """
    with torch.no_grad():
        likeliest = log_q.topk(k, dim=-1).indices
        # The likeliest at -inf, not at probability 0: a float32 q that is exactly one-hot has no
        # rest.
        finite = log_q.clamp_min(torch.finfo(log_q.dtype).min)
        log_pi = finite.scatter(-1, likeliest, -torch.inf).log_softmax(-1)
        cdf = log_pi.exp().cumsum(-1)
        u = torch.rand_like(cdf[:, :1]) * cdf[:, -1:]
        drawn = torch.searchsorted(cdf, u, right=True)
        drawn = drawn.clamp_max_(log_q.shape[-1] - 1)  # of NaN: the loss is NaN too
        log_drawn = log_pi.gather(-1, drawn)
        # If a rounded sum drew one of the likeliest after all, its weight is 0.
        log_drawn = log_drawn.masked_fill(log_drawn == -torch.inf, torch.inf)
        correction = nn.functional.pad(log_drawn, (k, 0))
    return torch.cat([likeliest, drawn], dim=-1).T, correction.T
