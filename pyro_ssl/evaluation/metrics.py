"""What a classifier's probabilities are worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.utils.arguments import as_codes, check_positive
from pyro_ssl.utils.arrays import check_unmasked


def accuracy(probs: Any, y: Any) -> float:
    """Share of data whose likeliest class is right. probs `(N, K)`, y `(N,)` codes."""
    probs, y = checked(probs, y)
    return (probs.argmax(-1) == y).double().mean().item()


def log_likelihood(probs: Any, y: Any) -> float:
    """Mean log p(y|x) in nats; probabilities are taken as at least 1e-12."""
    probs, y = checked(probs, y)
    return probs.double().gather(-1, y[:, None]).clamp_min(1e-12).log().mean().item()


def brier(probs: Any, y: Any) -> float:
    """Mean squared distance between probabilities and one-hot class, in [0, 2]."""
    probs, y = checked(probs, y)
    return (probs.double() - torch.nn.functional.one_hot(y, probs.shape[-1])).square().sum(-1).mean().item()


def ece(probs: Any, y: Any, bins: int = 15, *, adaptive: bool = False) -> float:
    r"""Expected calibration error in [0, 1], over bins of the confidence.

    .. math:: \sum_b \frac{n_b}{N} \, |\mathrm{acc}_b - \mathrm{conf}_b|

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: LatentOptions `(N,)`.
        bins: Their number; bin b holds confidences in (b / bins, (b + 1) / bins].
        adaptive: Bins hold equally many data, give or take one.

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
    return gaps.index_add(0, index, gap).abs().sum().item() / len(y)


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """Which of the bins (b / bins, (b + 1) / bins] each confidence is in, `(N,)`, the edges in its own precision.

    Raises:
        ValueError: bins is not above 0.
    """
    check_positive(bins=bins)
    return torch.bucketize(confidence, torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins)


def checked(probs: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Probabilities and classes as tensors on one device, or an error that says what they are in place of these.

    Arguments:
        probs: p(y|x), `(N, K)`, a tensor or an array of floating-point numbers.
        y: LatentOptions `(N,)` in 0 .. K - 1, of any whole-number type.

    Raises:
        TypeError: They do not hold numbers, or y no whole numbers.
        ValueError: N is 0 or K below 2; a number is not finite or a row of no probabilities that sum to 1; y has another
            length, or a code of no class.
    """
    probs = as_probabilities(probs)
    return probs, _codes(probs, y, "probs")


def checked_logits(logits: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Logits `(N, K)`, any finite numbers but probabilities, and classes; see `checked`."""
    logits = _numbers(logits, "logits")
    _check_shape(logits, "logits", "(N, K)")
    codes = _codes(logits, y, "logits")
    if _are_probabilities(logits):
        raise ValueError(
            "logits should be logits or log-probabilities, got probabilities: each row sums to 1; "
            "give their logarithm, probs.log()"
        )
    return logits, codes


def as_probabilities(probs: Any, name: str = "probs", shape: str = "(N, K)") -> Tensor:
    """Probabilities of K classes, `(N, K)` or `(S, N, K)`, as a tensor.

    Arguments:
        probs: The array.
        name: What the caller calls it.
        shape: The dimensions that it should have, as they are said.

    Raises:
        TypeError: It does not hold floating-point numbers.
        ValueError: It has another shape, a number is not finite, or a row does not sum to 1.
    """
    probs = _numbers(probs, name)
    _check_shape(probs, name, shape)
    slack = 10 * torch.finfo(probs.dtype).eps
    low, high = float(probs.min()), float(probs.max())
    if low < -slack or high > 1 + slack:
        raise ValueError(
            f"{name} should be probabilities, got numbers from {low:.4g} to {high:.4g}; of logits or log-probabilities "
            "take the softmax first: logits.softmax(-1), and divide percentages by 100"
        )
    off = (probs.double().sum(-1) - 1).abs()
    if float(off.max()) > 1e-3 + slack * probs.shape[-1]:
        total = float(probs.double().sum(-1).flatten()[off.argmax()])
        raise ValueError(f"{name} should sum to 1 over the classes, got a row of sum {total:.4g}; divide it by its sum")
    return probs


def _numbers(x: Any, name: str) -> Tensor:
    """Any array of finite floating-point numbers as a tensor."""
    check_unmasked(x, name)
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"{name} should hold numbers, got an array of dtype {array.dtype}")
        x = torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name} should hold real numbers, got {x.dtype}")
    x = x.detach()
    x = x if x.is_floating_point() else x.double()
    if not x.isfinite().all():
        place = int((~x.isfinite()).flatten().nonzero()[0])
        row = place // max(1, x.shape[-1]) if x.dim() else 0
        raise ValueError(
            f"{name} holds NaN or infinity, first in row {row}; leave such rows out, or see what made them"
        )
    return x


def _are_probabilities(x: Tensor) -> bool:
    """Whether all rows, of two or more, sum to 1 and hold nothing below 0: logits do so by no chance."""
    off = (x.double().sum(-1) - 1).abs()
    rounding = 1e-5 + 10 * torch.finfo(x.dtype).eps * x.shape[-1]
    return len(x) > 1 and float(x.min()) >= 0 and float(off.max()) <= rounding


def _check_shape(x: Tensor, name: str, shape: str) -> None:
    if x.dim() != shape.count(",") + 1 or not x.numel():
        raise ValueError(f"{name} should have shape {shape}, without a dimension of size 0; got {tuple(x.shape)}")
    if x.shape[-1] < 2:
        raise ValueError(
            f"{name} should have shape {shape} with two classes or more, got {tuple(x.shape)}; of two classes give both "
            "columns, 1 - p and p"
        )


def _codes(scores: Tensor, y: Any, name: str) -> Tensor:
    """Classes of N rows, `(N,)`, on the device of their scores `(N, K)`."""
    shape = tuple(np.shape(y)) if not isinstance(y, Tensor) else tuple(y.shape)
    if shape != (len(scores),):
        raise ValueError(
            f"{name} should have shape (N, K) and y (N,), one code for each row; got {tuple(scores.shape)} and {shape}"
        )
    y = as_codes(y, len(scores))
    low, high, classes = int(y.min()), int(y.max()), scores.shape[-1]
    if low < 0:
        raise ValueError(
            f"y should be in 0 .. {classes - 1}, got {low}; leave out the rows without a label, which -1 marks"
        )
    if high >= classes:
        raise ValueError(f"y should be in 0 .. {classes - 1}, got {high}; {name} has {classes} columns")
    return y.to(scores.device)


def evaluate(probs: Any, y: Any) -> dict[str, float]:
    """All of the above: `accuracy`, `log_likelihood`, `brier`, `ece` of 15 bins, `ece_20`, `ece_adaptive` of 15.

    Arguments:
        probs: p(y|x), `(N, K)`.
        y: LatentOptions `(N,)`.

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
