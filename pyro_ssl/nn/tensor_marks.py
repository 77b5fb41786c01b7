"""Annotations on tensors, by which a program informs the layers inside it.

A layer receives tensors and knows nothing of the program around it. Three annotations, which are
attributes of a tensor, give it more information:

==================  ===========================  ==================================================
tensor              annotation                   use
==================  ===========================  ==================================================
one-hot labels      their class indices          a linear layer looks up rows of its weights
random weights      their mean, perhaps a scale  a layer draws its output instead of its weights
a layer's output    its mean over the weights    batch norm computes its statistics from it
==================  ===========================  ==================================================

A tensor computed from an annotated one has no annotation. The weights of enumerated classes are a
context variable instead, because every layer called inside the block needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


def mark_one_hot(y: Tensor, index: Tensor) -> None:
    """Annotate one-hot labels `(*, K)` with their class indices `(*,)`.

    >>> import torch
    >>> y = torch.eye(3)
    >>> mark_one_hot(y, torch.arange(3))
    >>> one_hot_index(y), one_hot_index(2 * y)
    (tensor([0, 1, 2]), None)
    """
    y._pyro_ssl_index = index  # type: ignore[attr-defined]


def one_hot_index(y: Tensor) -> Tensor | None:
    """Class indices `(*,)` annotated on one-hot labels; None without annotation.

    >>> import torch
    >>> one_hot_index(torch.eye(3)) is None
    True
    """
    return getattr(y, "_pyro_ssl_index", None)


class WeightNormal(NamedTuple):
    """The Gaussian that random weights were drawn from.

    With a scale, a layer does not use the weights but draws its output; see `layers.affine`.

    Arguments:
        loc: Mean of the weights, in their shape.
        scale: Standard deviation of the weights, or None.

    >>> import torch
    >>> WeightNormal(torch.zeros(2), None).scale is None
    True
    """

    loc: Tensor
    scale: Tensor | None


def mark_normal(w: Tensor, loc: Tensor, scale: Tensor | None) -> None:
    """Annotate weights with the mean, and perhaps the scale, of their Gaussian.

    >>> import torch
    >>> w = torch.randn(2)
    >>> mark_normal(w, torch.zeros(2), None)
    >>> normal_of(w).loc
    tensor([0., 0.])
    """
    w._pyro_ssl_normal = WeightNormal(loc, scale)  # type: ignore[attr-defined]


def normal_of(w: Tensor) -> WeightNormal | None:
    """The Gaussian annotated on weights; None without annotation.

    >>> import torch
    >>> normal_of(torch.zeros(2)) is None
    True
    """
    return getattr(w, "_pyro_ssl_normal", None)


def mark_mean(h: Tensor, mean: Tensor) -> None:
    """Annotate a layer's output with its output for the mean of its random weights.

    >>> import torch
    >>> h = torch.ones(2)
    >>> mark_mean(h, torch.zeros(2))
    >>> mean_of(h)
    tensor([0., 0.])
    """
    h._pyro_ssl_mean = mean  # type: ignore[attr-defined]


def mean_of(h: Tensor) -> Tensor:
    """The mean annotated on a layer's output; the output itself without annotation.

    >>> import torch
    >>> mean_of(torch.ones(2))
    tensor([1., 1.])
    """
    mean: Tensor = getattr(h, "_pyro_ssl_mean", h)
    return mean


class_weights: ContextVar[Tensor | None] = ContextVar("class_weights", default=None)
"""While a label is enumerated: log-weight of each of its V values for each datum, `(V, B)`."""


@contextmanager
def weighted_classes(log_weights: Tensor | None = None) -> Iterator[None]:
    """Set `class_weights` inside the block, and restore the previous value afterwards.

    It is restored even if a program inside the block sets `class_weights` itself.

    Arguments:
        log_weights: Logarithms of the weights, `(V, B)`; None while no label is enumerated.

    >>> import torch
    >>> with weighted_classes(torch.zeros(3, 5)):
    ...     class_weights.get().shape
    torch.Size([3, 5])
    """
    before = class_weights.set(log_weights)
    try:
        yield
    finally:
        class_weights.reset(before)
