"""What a classifier's probabilities are worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pyro_ssl.checks import check_positive


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

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: Codes `(N,)`.
        bins: Their number; bin b holds confidences in (b / bins, (b + 1) / bins].
        adaptive: Bins hold equally many data, give or take one.

    Raises:
        ValueError: There are no probabilities `(N, K)`, N above 0, with a class for each; bins is not above 0.

    References:
        Guo et al. 2017; Nguyen & O'Connor 2015 for adaptive bins.
    """
    check(probs, y)
    check_positive(bins=bins)
    confidence, prediction = probs.max(-1)
    gap = (prediction == y).double() - confidence.double()
    if adaptive:
        order = torch.arange(len(y), device=gap.device) * bins // len(y)
        index = torch.empty_like(order).scatter_(0, confidence.argsort(stable=True), order)
    else:
        index = bin_of(confidence, bins)
    gaps = torch.zeros(bins, dtype=torch.float64, device=gap.device)
    return gaps.index_add(0, index, gap).abs().sum().item() / len(y)


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """Which of the bins (b / bins, (b + 1) / bins] each confidence is in, `(N,)`, the edges in its own precision.

    Raises:
        ValueError: bins is not above 0.
    """
    check_positive(bins=bins)
    return torch.bucketize(confidence, torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins)


def check(probs: Tensor, y: Tensor, name: str = "probs") -> None:
    """Raise ValueError unless there are probabilities, or logits, `(N, K)`, and a class for each of the N, N above 0."""
    if probs.dim() != 2 or y.shape != probs.shape[:1] or not len(y):
        raise ValueError(
            f"{name} should have shape (N, K) and y (N,), N above 0; got {tuple(probs.shape)} and {tuple(y.shape)}"
        )
    if not 0 <= int(y.min()) <= int(y.max()) < probs.shape[1]:
        raise ValueError(f"y should be in 0 .. {probs.shape[1] - 1}, got {int(y.min())} .. {int(y.max())}")


def evaluate(probs: Tensor, y: Tensor) -> dict[str, float]:
    """All of the above: `accuracy`, `log_likelihood`, `brier`, `ece` of 15 bins, `ece_20`, `ece_adaptive` of 15.

    Raises:
        ValueError: Shapes do not match, or there is no datum.
    """
    check(probs, y)
    metrics: dict[str, Callable[[Tensor, Tensor], float]] = {
        "accuracy": accuracy,
        "log_likelihood": log_likelihood,
        "brier": brier,
        "ece": ece,
        "ece_20": partial(ece, bins=20),
        "ece_adaptive": partial(ece, adaptive=True),
    }
    return {name: metric(probs, y) for name, metric in metrics.items()}
