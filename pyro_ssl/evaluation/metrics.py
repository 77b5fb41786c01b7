"""Accuracy, log-likelihood, Brier score and calibration error of predicted probabilities."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.utils.arguments import as_class_indices, check_positive
from pyro_ssl.utils.arrays import check_unmasked


def accuracy(probs: Any, y: Any) -> float:
    """Share of correct predictions, from probabilities `(N, K)` and class indices `(N,)`.

    >>> accuracy([[0.9, 0.1], [0.6, 0.4]], [0, 1])
    0.5
    """
    probs, y = checked(probs, y)
    return float((probs.argmax(-1) == y).double().mean())


def log_likelihood(probs: Any, y: Any) -> float:
    """Mean log p(y|x) in nats, with probabilities clipped below at 1e-12.

    >>> round(log_likelihood([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 4)
    -0.5108
    """
    probs, y = checked(probs, y)
    own = probs.double().gather(-1, y[:, None])
    return float(own.clamp_min(1e-12).log().mean())


def brier(probs: Any, y: Any) -> float:
    """Mean squared distance between probabilities and one-hot label, in [0, 2].

    >>> round(brier([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 4)
    0.37
    """
    probs, y = checked(probs, y)
    difference = probs.double() - torch.nn.functional.one_hot(y, probs.shape[-1])
    return float(difference.square().sum(-1).mean())


def ece(probs: Any, y: Any, bins: int = 15, *, adaptive: bool = False) -> float:
    r"""Expected calibration error in [0, 1], over bins of the confidence.

    >>> round(ece([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 4)
    0.35

    .. math:: \sum_b \frac{n_b}{N} \, |\mathrm{acc}_b - \mathrm{conf}_b|

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: Class indices `(N,)`.
        bins: Number of bins; bin b holds confidences in (b / bins, (b + 1) / bins].
        adaptive: Use bins that hold equal numbers of data, instead of bins of equal width.

    Raises:
        ValueError: See `checked`; bins is not above 0.

    References:
        Guo et al. 2017; Nguyen & O'Connor 2015 for adaptive bins.
    """
    probs, y = checked(probs, y)
    check_positive(bins=bins)
    confidence, prediction = probs.max(-1)
    gap = (prediction == y).double() - confidence.double()
    if adaptive:
        order = torch.arange(len(y), device=gap.device) * bins // len(y)
        index = torch.empty_like(order).scatter_(0, confidence.argsort(stable=True), order)
    else:
        index = bin_of(confidence, bins)
    gaps = torch.zeros(bins, dtype=torch.float64, device=gap.device)
    return float(gaps.index_add(0, index, gap).abs().sum()) / len(y)


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """Index of the bin (b / bins, (b + 1) / bins] of each confidence, `(N,)`.

    The edges have the precision of the confidences.

    >>> bin_of(torch.tensor([0.5, 0.6]), 2).tolist()
    [0, 1]

    Raises:
        ValueError: bins is not above 0.
    """
    check_positive(bins=bins)
    return torch.bucketize(
        confidence, torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins
    )


def checked(probs: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Check probabilities and class indices, and convert them to tensors on one device.

    >>> checked([[0.9, 0.1]], [0])[1]
    tensor([0])

    Arguments:
        probs: p(y|x), `(N, K)`, a tensor or an array of floating-point numbers.
        y: Class indices `(N,)` in 0 .. K - 1, of any whole-number type.

    Raises:
        TypeError: They do not hold numbers, or y does not hold whole numbers.
        ValueError: N is 0 or K below 2; a number is not finite, or a row does not hold
            probabilities that sum to 1; y has another length, or an index of no class.
    """
    probs = as_probabilities(probs)
    return probs, _class_indices(probs, y, "probs")


def checked_logits(logits: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Check logits `(N, K)`, which must not be probabilities, and class indices; see `checked`.

    >>> checked_logits([[4.0, 0.0]], [0])[0].shape
    torch.Size([1, 2])
    """
    logits = _numbers(logits, "logits")
    _check_shape(logits, "logits", "(N, K)")
    classes = _class_indices(logits, y, "logits")
    if _are_probabilities(logits):
        raise ValueError(
            "logits should be logits or log-probabilities, got probabilities: each row sums to 1; "
            "give their logarithm, probs.log()"
        )
    return logits, classes


def as_probabilities(probs: Any, name: str = "probs", shape: str = "(N, K)") -> Tensor:
    """Check probabilities of K classes, `(N, K)` or `(S, N, K)`, and convert them to a tensor.

    >>> as_probabilities([[0.9, 0.1]]).dtype
    torch.float64

    Arguments:
        probs: The array.
        name: Name of the argument, for messages.
        shape: Expected shape, for messages; its commas are counted.

    Raises:
        TypeError: It does not hold floating-point numbers.
        ValueError: It has another shape, a number is not finite, or a row does not sum to 1.
    """
    numbers = _numbers(probs, name)
    _check_shape(numbers, name, shape)
    slack = 10 * torch.finfo(numbers.dtype).eps
    low = float(numbers.min())
    high = float(numbers.max())
    if low < -slack or high > 1 + slack:
        raise ValueError(
            f"{name} should be probabilities, got numbers from {low:.4g} to {high:.4g}; apply a "
            "softmax to logits or log-probabilities first, logits.softmax(-1), and divide "
            "percentages by 100"
        )
    sums = numbers.double().sum(-1)
    off = (sums - 1).abs()
    if float(off.max()) > 1e-3 + slack * numbers.shape[-1]:
        worst = float(sums.flatten()[off.argmax()])
        raise ValueError(
            f"{name} should sum to 1 over the classes, got a row of sum {worst:.4g}; "
            "divide it by its sum"
        )
    return numbers


def _numbers(x: Any, name: str) -> Tensor:
    """Convert an array to a tensor of finite floating-point numbers."""
    check_unmasked(x, name)
    numbers = x if isinstance(x, Tensor) else _from_array(np.asarray(x), name)
    if numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"{name} should hold real numbers, got {numbers.dtype}")
    numbers = numbers.detach()
    if not numbers.is_floating_point():
        numbers = numbers.double()
    if not numbers.isfinite().all():
        place = int((~numbers.isfinite()).flatten().nonzero()[0])
        row = place // max(1, numbers.shape[-1]) if numbers.dim() else 0
        raise ValueError(
            f"{name} holds NaN or infinity, first in row {row}; leave such rows out, or "
            "correct the model that gave them"
        )
    return numbers


def _from_array(array: Any, name: str) -> Tensor:
    """Convert a numpy array; torch needs the machine's byte order and writable memory."""
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} should hold numbers, got an array of dtype {array.dtype}")
    return torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def _are_probabilities(x: Tensor) -> bool:
    """Return True if there are several rows, all non-negative with sum 1."""
    off = (x.double().sum(-1) - 1).abs()
    rounding = 1e-5 + 10 * torch.finfo(x.dtype).eps * x.shape[-1]
    return len(x) > 1 and float(x.min()) >= 0 and float(off.max()) <= rounding


def _check_shape(x: Tensor, name: str, shape: str) -> None:
    if x.dim() != shape.count(",") + 1 or not x.numel():
        raise ValueError(
            f"{name} should have shape {shape}, without a dimension of size 0; got {tuple(x.shape)}"
        )
    if x.shape[-1] < 2:
        raise ValueError(
            f"{name} should have shape {shape} with two classes or more, got {tuple(x.shape)}; "
            "for two classes give both columns, 1 - p and p"
        )


def _class_indices(scores: Tensor, y: Any, name: str) -> Tensor:
    """Class indices of N rows, `(N,)`, on the device of the scores `(N, K)`."""
    shape = tuple(y.shape) if isinstance(y, Tensor) else tuple(np.shape(y))
    if shape != (len(scores),):
        raise ValueError(
            f"{name} should have shape (N, K) and y (N,), one class for each row; "
            f"got {tuple(scores.shape)} and {shape}"
        )
    indices: Tensor = as_class_indices(y, len(scores))
    low = int(indices.min())
    high = int(indices.max())
    classes = scores.shape[-1]
    if low < 0:
        raise ValueError(
            f"y should be in 0 .. {classes - 1}, got {low}; leave out the rows without a label, "
            "which -1 marks"
        )
    if high >= classes:
        raise ValueError(
            f"y should be in 0 .. {classes - 1}, got {high}; {name} has {classes} columns"
        )
    return indices.to(scores.device)


def evaluate(probs: Any, y: Any) -> dict[str, float]:
    """All metrics: `accuracy`, `log_likelihood`, `brier`, `ece`, `ece_20` and `ece_adaptive`.

    The ECE has 15 bins, except `ece_20`.

    >>> sorted(evaluate([[0.9, 0.1], [0.6, 0.4]], [0, 1]))[:2]
    ['accuracy', 'brier']

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: Class indices `(N,)`.

    Raises:
        TypeError, ValueError: See `checked`.
    """
    probs, y = checked(probs, y)
    metrics: dict[str, Callable[[Tensor, Tensor], float]] = {
        "accuracy": accuracy,
        "log_likelihood": log_likelihood,
        "brier": brier,
        "ece": ece,
        "ece_20": partial(ece, bins=20),
        "ece_adaptive": partial(ece, adaptive=True),
    }
    return {name: metric(probs, y) for name, metric in metrics.items()}
