"""What a classifier's probabilities are worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


def accuracy(probs: Tensor, y: Tensor) -> float:
    """Share of data whose likeliest class is right. probs `(N, K)`, y `(N,)` codes."""
    return (probs.argmax(-1) == y).double().mean().item()


def log_likelihood(probs: Tensor, y: Tensor) -> float:
    """Mean log p(y|x) in nats; probabilities are taken as at least 1e-12."""
    return probs.double().gather(-1, y[:, None]).clamp_min(1e-12).log().mean().item()


def brier(probs: Tensor, y: Tensor) -> float:
    """Mean squared distance between probabilities and one-hot class, in [0, 2]."""
    return (probs.double() - torch.nn.functional.one_hot(y, probs.shape[-1])).square().sum(-1).mean().item()


def ece(probs: Tensor, y: Tensor, bins: int = 15, *, adaptive: bool = False) -> float:
    r"""Expected calibration error in [0, 1], over bins of the confidence.

    .. math:: \sum_b \frac{n_b}{N} \, |\mathrm{acc}_b - \mathrm{conf}_b|

    Bin b holds confidences in (b / bins, (b + 1) / bins]; `adaptive` bins hold equally many data, give or take one.

    References:
        Guo et al. 2017; Nguyen & O'Connor 2015 for adaptive bins.
    """
    confidence, prediction = probs.max(-1)
    edges = torch.arange(1, bins, dtype=probs.dtype, device=probs.device) / bins  # in probs' own precision
    gap = (prediction == y).double() - confidence.double()
    if adaptive:
        order = torch.arange(len(y), device=gap.device) * bins // len(y)
        index = torch.empty_like(order).scatter_(0, confidence.argsort(stable=True), order)
    else:
        index = torch.bucketize(confidence, edges)
    gaps = torch.zeros(bins, dtype=torch.float64, device=gap.device)
    return gaps.index_add(0, index, gap).abs().sum().item() / len(y)


def evaluate(probs: Tensor, y: Tensor) -> dict[str, float]:
    """All of the above: `accuracy`, `log_likelihood`, `brier`, `ece` of 15 bins, `ece_20`, `ece_adaptive` of 15.

    Raises:
        ValueError: Shapes do not match, or there is no datum.
    """
    if probs.dim() != 2 or y.shape != probs.shape[:1] or not len(y):
        raise ValueError(
            f"probs should have shape (N, K) and y (N,), N above 0; got {tuple(probs.shape)} and {tuple(y.shape)}"
        )
    metrics: dict[str, Callable[[Tensor, Tensor], float]] = {
        "accuracy": accuracy,
        "log_likelihood": log_likelihood,
        "brier": brier,
        "ece": ece,
        "ece_20": partial(ece, bins=20),
        "ece_adaptive": partial(ece, adaptive=True),
    }
    return {name: metric(probs, y) for name, metric in metrics.items()}
