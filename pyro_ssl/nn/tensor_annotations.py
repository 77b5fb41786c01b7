"""Annotations on tensors, by which programs inform layers, and a context variable.

A layer is given tensors and knows nothing of the program around it. Three annotations tell it what
it needs for speed or for batch norm; each is an attribute that is set and read here:

==================  ===========================  ==================================================
on                  says                         so that
==================  ===========================  ==================================================
one-hot labels      the classes as indices       a linear layer picks rows and multiplies nothing
random weights      their mean, perhaps a scale  outputs can be drawn in place of weights
a layer's output    its mean over the weights    batch norm can normalise by it
==================  ===========================  ==================================================

A tensor that is computed from another one carries no note. The weights of enumerated classes are a
context variable, because every layer called inside the block needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


def mark_one_hot(y: Tensor, index: Tensor) -> None:
    """Note the classes `(*,)` of one-hot labels `(*, K)`.

    >>> import torch
    >>> y = torch.eye(3)
    >>> mark_one_hot(y, torch.arange(3))
    >>> one_hot_index(y), one_hot_index(2 * y)
    (tensor([0, 1, 2]), None)
    """
    y._pyro_ssl_index = index  # type: ignore[attr-defined]


def one_hot_index(y: Tensor) -> Tensor | None:
    """The classes `(*,)` that were noted on one-hot labels; None without a note."""
    return getattr(y, "_pyro_ssl_index", None)


class GaussianNote(NamedTuple):
    """The Gaussian that weights were drawn from.

    With a scale, the weights are not used: the layer draws its output in their place.
    """

    loc: Tensor
    scale: Tensor | None


def mark_normal(w: Tensor, loc: Tensor, scale: Tensor | None) -> None:
    """Note on weights the mean, and perhaps the scale, of the Gaussian they were drawn from."""
    w._pyro_ssl_normal = GaussianNote(loc, scale)  # type: ignore[attr-defined]


def normal_of(w: Tensor) -> GaussianNote | None:
    """The Gaussian that was noted on weights; None without a note."""
    return getattr(w, "_pyro_ssl_normal", None)


def mark_mean(h: Tensor, mean: Tensor) -> None:
    """Note on a layer's output the one that the mean of its random weights gives."""
    h._pyro_ssl_mean = mean  # type: ignore[attr-defined]


def mean_of(h: Tensor) -> Tensor:
    """The mean that was noted on a layer's output; the output itself without a note."""
    mean: Tensor = getattr(h, "_pyro_ssl_mean", h)
    return mean


class_weights: ContextVar[Tensor | None] = ContextVar("class_weights", default=None)
"""While a label is enumerated: log-weight of each of its V values for each datum, `(V, B)`."""


@contextmanager
def weighted_classes(log_weights: Tensor | None = None) -> Iterator[None]:
    """Set `class_weights` inside the block; put back what was there, whoever set it in between.

    Arguments:
        log_weights: Logarithms of the weights, `(V, B)`; None while no label is enumerated.
    """
    before = class_weights.set(log_weights)
    try:
        yield
    finally:
        class_weights.reset(before)
