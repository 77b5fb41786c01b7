"""Calibration of class probabilities: reliability diagrams, a test, and temperature scaling."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ssl.evaluation import metrics
from pyro_ssl.utils.arguments import check_positive, check_seed


class Reliability(NamedTuple):
    """Bins of confidence, `(bins,)` each; in an empty bin, accuracy and confidence are NaN.

    Arguments:
        accuracy: Accuracy in each bin.
        confidence: Mean confidence in each bin.
        share: Share of the data in each bin.

    >>> reliability([[0.7, 0.3], [0.4, 0.6]], [0, 0], bins=2).share.tolist()
    [0.0, 1.0]
    """

    accuracy: Tensor
    confidence: Tensor
    share: Tensor


def reliability(probs: Any, y: Any, bins: int = 20) -> Reliability:
    """Accuracy and mean confidence in bins of equal width, as in a reliability diagram.

    >>> reliability([[0.7, 0.3], [0.4, 0.6]], [0, 0], bins=2).accuracy
    tensor([   nan, 0.5000], dtype=torch.float64)

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: Class indices `(N,)`.
        bins: Number of bins.

    Raises:
        TypeError, ValueError: See `metrics.checked`; bins is not above 0.
    """
    probs, y = metrics.checked(probs, y)
    confidence, prediction = probs.max(-1)
    index = metrics.bin_of(confidence, bins)
    counts = index.bincount(minlength=bins).double()
    right, sure = (
        index.bincount(v.double(), minlength=bins) / counts for v in (prediction == y, confidence)
    )
    return Reliability(right, sure, counts / len(y))


def calibration_test(
    probs: Any, y: Any, *, bins: int = 20, draws: int = 1000, seed: int = 0
) -> float:
    """P-value of the hypothesis of perfect calibration, by parametric bootstrap.

    The p-value is the share of data sets, drawn from the classifier's own probabilities, whose ECE
    is at least the observed one. Below 0.05 the classifier is miscalibrated; near 1 its accuracy is
    closer to its confidence than chance allows.

    >>> probs = torch.tensor([[0.9, 0.1]]).repeat(200, 1)
    >>> calibration_test(probs, torch.zeros(200, dtype=int), draws=100) < 0.05
    True

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: Class indices `(N,)`.
        bins: Bins of the ECE.
        draws: Number of data sets drawn.
        seed: Seed of the draws.

    Raises:
        ValueError: See `reliability`; draws is not above 0; seed is out of range.
    """
    check_positive(draws=draws)
    check_seed(seed)
    probs, y = metrics.checked(probs, y)
    observed = metrics.ece(probs, y, bins) - 1e-12  # equal values may differ by rounding
    confidence = probs.double().amax(-1)
    member = torch.nn.functional.one_hot(metrics.bin_of(probs.amax(-1), bins), bins).double()
    generator = torch.Generator(probs.device).manual_seed(seed)
    reached = 0
    at_once = max(1, 2**24 // len(y))
    for start in range(0, draws, at_once):
        shape = (min(at_once, draws - start), len(y))
        uniform = torch.rand(shape, dtype=torch.float64, generator=generator, device=probs.device)
        right = uniform < confidence
        gaps = (right.double() - confidence) @ member
        drawn = gaps.abs().sum(-1) / len(y)
        reached += int((drawn >= observed).sum())
    return (reached + 1) / (draws + 1)


def temperature(logits: Any, y: Any) -> float:
    r"""Find the T that minimises the cross-entropy of softmax(f / T) on held-out data.

    >>> round(temperature([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]], [0, 0, 1]), 2)
    5.77

    Arguments:
        logits: f, `(N, K)`.
        y: Class indices `(N,)`, of held-out data.

    Raises:
        TypeError, ValueError: See `metrics.checked` for y; the logits are not finite, or they are
            probabilities.

    References:
        Guo et al. 2017.
    """
    from scipy.optimize import minimize_scalar

    logits, y = metrics.checked_logits(logits, y)
    logits = logits.double().log_softmax(-1)

    def loss(log_t: float) -> float:
        scaled = logits / torch.tensor(log_t).exp()
        return float(torch.nn.functional.cross_entropy(scaled, y))

    return float(torch.tensor(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x).exp())
