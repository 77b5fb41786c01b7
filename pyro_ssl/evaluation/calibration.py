"""Whether a classifier's probabilities are frequencies, and a temperature that brings them nearer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ssl.evaluation import metrics
from pyro_ssl.utils.arguments import check_positive, check_seed


class Reliability(NamedTuple):
    """Bins of confidence, `(bins,)` each: where a bin is empty, `accuracy` and `confidence` are NaN."""

    accuracy: Tensor
    confidence: Tensor
    share: Tensor


def reliability(probs: Any, y: Any, bins: int = 20) -> Reliability:
    """Accuracy and mean confidence by bins of equal width in the confidence, as a reliability diagram shows them.

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: LatentOptions `(N,)`.
        bins: Their number.

    Raises:
        TypeError, ValueError: See `metrics.checked`; bins is not above 0.
    """
    probs, y = metrics.checked(probs, y)
    confidence, prediction = probs.max(-1)
    index = metrics.bin_of(confidence, bins)
    counts = index.bincount(minlength=bins).double()
    right, sure = (index.bincount(v.double(), minlength=bins) / counts for v in (prediction == y, confidence))
    return Reliability(right, sure, counts / len(y))


def calibration_test(probs: Any, y: Any, *, bins: int = 20, draws: int = 1000, seed: int = 0) -> float:
    """The share of data sets, drawn from the classifier's own probabilities, whose ECE is at least the observed one.

    Its p-value under the hypothesis that the classifier is perfectly calibrated, by a parametric bootstrap: below 0.05 it
    is not; near 1 its labels are closer to its confidence than chance would have them.

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: LatentOptions `(N,)`.
        bins: Of the ECE.
        draws: Data sets drawn.
        seed: Of the draws.

    Raises:
        ValueError: See `reliability`; draws is not above 0; seed is no seed.
    """
    check_positive(draws=draws)
    check_seed(seed)
    probs, y = metrics.checked(probs, y)
    observed = metrics.ece(probs, y, bins) - 1e-12  # of equals, some are less by rounding
    confidence = probs.double().amax(-1)
    member = torch.nn.functional.one_hot(metrics.bin_of(probs.amax(-1), bins), bins).double()
    generator = torch.Generator(probs.device).manual_seed(seed)
    reached, at_once = 0, max(1, 2**24 // len(y))
    for start in range(0, draws, at_once):
        shape = (min(at_once, draws - start), len(y))
        right = torch.rand(shape, dtype=torch.float64, generator=generator, device=probs.device) < confidence
        reached += int((((right.double() - confidence) @ member).abs().sum(-1) / len(y) >= observed).sum())
    return (reached + 1) / (draws + 1)


def temperature(logits: Any, y: Any) -> float:
    r"""The T that minimises the cross-entropy of :math:`\mathrm{softmax}(f / T)` on held-out data.

    Arguments:
        logits: f, `(N, K)`.
        y: LatentOptions `(N,)`, of data that were not trained on.

    Raises:
        TypeError, ValueError: y is as `metrics.checked` wants it, logits are any finite numbers `(N, K)`,
            but no probabilities, of which it would take the softmax.

    References:
        Guo et al. 2017.
    """
    from scipy.optimize import minimize_scalar

    logits, y = metrics.checked_logits(logits, y)
    logits = logits.double().log_softmax(-1)
    loss = lambda log_t: float(torch.nn.functional.cross_entropy(logits / torch.tensor(log_t).exp(), y))  # noqa: E731
    return float(torch.tensor(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x).exp())
