"""Layers that know what a bound does: inputs apart, labels by index, random weights, batch norm weighed by q(y|x)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral

import torch
from torch import Tensor, nn

Shape = int | Sequence[int]


def as_shape(shape: Shape) -> tuple[int, ...]:
    """An int or a sequence of ints as a tuple: ``10 -> (10,)``, ``(1, 28, 28)`` as it is."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raise ValueError unless it is an event shape: one or more whole numbers above 0."""
    sizes = [isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in shape]
    if not sizes or not all(sizes):
        raise ValueError(f"{name} should be whole numbers above 0, such as (4,) or (1, 28, 28), got {tuple(shape)}")


class SplitLinear(nn.Module):
    r"""A linear layer over several inputs that multiplies each on its own and broadcasts the sum.

    .. math:: h = \sum_i x_i W_i + b

    equals a linear layer over the concatenation, but an input that does not depend on an enumerated label is
    multiplied once, not once per class: `x` of shape `(B, D)` and `y` of shape `(K, 1, K)` give `h` of shape `(K, B, H)`.
    An enumerated one-hot y picks rows of its W and multiplies nothing.

    Arguments:
        in_shapes: Event shape of each input; an input is flattened over its event dimensions.
        out_features: Width `H` of the output.

    Raises:
        ValueError: An input does not end in its event shape, or the number of inputs differs.
    """

    def __init__(self, in_shapes: Sequence[Shape], out_features: int) -> None:
        super().__init__()
        self.in_shapes = [as_shape(s) for s in in_shapes]
        widths = [math.prod(s) for s in self.in_shapes]
        whole = nn.init.xavier_uniform_(torch.empty(sum(widths), out_features))
        self.weights = nn.ParameterList(w.clone() for w in whole.split(widths))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, *inputs: Tensor) -> Tensor:
        check_inputs(inputs, self.in_shapes)
        flat = [
            x if one_hot_index(x) is not None else x.flatten(-len(s))
            for x, s in zip(inputs, self.in_shapes, strict=True)
        ]
        return affine(flat, list(self.weights), self.bias)


class Linear(nn.Linear):
    """torch's linear layer, started by Xavier, whose weights may be random; see `affine`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return affine([x], [transposed(self.weight)], self.bias)


def affine(inputs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    r"""h = sum_i x_i W_i + b, of inputs `(*, in_i)` and weights `(in_i, out)`, or `(S, in_i, out)` for S draws of them.

    Weights that carry the note of `mark_normal` are draws from a Gaussian. With its scale they are not used: h is drawn in
    their place, from the Gaussian that it has under theirs, for each datum anew (local reparameterisation),

    .. math:: h \sim \mathcal N\Big(\sum_i x_i \mu_i + \mu_b,\; \sum_i x_i^2 \sigma_i^2 + \sigma_b^2\Big)

    and h carries its mean, for batch norm.

    References:
        Kingma et al. 2015 for local reparameterisation; paper 002, eq. 5.10 for the mean.
    """
    normal = normal_of(bias)
    if normal is None:
        return _products(inputs, weights, bias)
    notes = [normal_of(w) for w in weights]
    mean = _products(inputs, [note[0] for note in notes if note], normal[0])
    if normal[1] is None:
        h = _products(inputs, weights, bias)
    else:
        squares = [x if one_hot_index(x) is not None else x.square() for x in inputs]
        variance = _products(
            squares, [note[1].square() for note in notes if note and note[1] is not None], normal[1].square()
        )
        h = mean + variance.sqrt() * torch.randn_like(mean)
    h._pyro_ssl_mean = mean  # type: ignore[attr-defined]
    return h


def _products(inputs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    products: list[Tensor] = []
    rest: Tensor | None = bias
    for x, w in zip(inputs, weights, strict=True):
        index = one_hot_index(x)
        if w.dim() > 2:
            products.append(torch.matmul(x, w))
        elif index is None:
            products.append(nn.functional.linear(x, w.t(), rest))
            rest = None  # it is added once
        else:
            products.append(nn.functional.embedding(index, w))
    h = sum(products[1:], start=products[0])
    if rest is None:
        return h
    return h + (rest if rest.dim() == 1 else rest.unsqueeze(-2))


def transposed(w: Tensor) -> Tensor:
    """The matrix `(*, out, in)` as `(*, in, out)`, its note with it."""
    if (note := normal_of(w)) is None:
        return w.mT
    turned = w.mT
    mark_normal(turned, note[0].mT, None if note[1] is None else note[1].mT)
    return turned


def mark_normal(w: Tensor, loc: Tensor, scale: Tensor | None) -> None:
    """Note on weights the mean of the Gaussian that they were drawn from; and its scale, to draw what they make instead."""
    w._pyro_ssl_normal = (loc, scale)  # type: ignore[attr-defined]


def normal_of(w: Tensor) -> tuple[Tensor, Tensor | None] | None:
    return getattr(w, "_pyro_ssl_normal", None)


def mark_one_hot(y: Tensor, index: Tensor) -> None:
    """Note on one-hot `y`, `(*, K)`, its classes `(*,)`; a tensor computed from it carries no such note."""
    y._pyro_ssl_index = index  # type: ignore[attr-defined]


def one_hot_index(y: Tensor) -> Tensor | None:
    return getattr(y, "_pyro_ssl_index", None)


def check_inputs(inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError unless each input ends in its event shape."""
    if len(inputs) != len(shapes):
        raise ValueError(f"network: got {len(inputs)} inputs, want {len(shapes)} with event shapes {list(shapes)}")
    for i, (x, s) in enumerate(zip(inputs, shapes, strict=True)):
        if tuple(x.shape[x.dim() - len(s) :]) != s:
            raise ValueError(
                f"network: input {i} should have shape (*, {', '.join(map(str, s))}), got {tuple(x.shape)}"
            )


class Flat(nn.Module):
    """Apply a module that knows only `(N, *event)` to inputs with any number of leading dimensions.

    Several inputs are broadcast against each other and concatenated along their first event dimension, which is what
    most modules written elsewhere expect. Batch norm inside sees all leading dimensions as one batch.

    .. warning:: Batch norm over enumerated labels mixes all K labels into its statistics, and so leaks y: keep it out
       of p(x|y, .) and of whatever else sees an enumerated y.

    Arguments:
        module: Maps `(N, *event)` to `(N, *out)`.
        event_dim: Number of event dimensions of each input.
    """

    def __init__(self, module: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        self.module, self.event_dim = module, event_dim

    def forward(self, *inputs: Tensor) -> Tensor:
        e = self.event_dim
        x = inputs[0]
        if len(inputs) > 1:
            lead = torch.broadcast_shapes(*(t.shape[: t.dim() - e] for t in inputs))
            x = torch.cat([t.expand(*lead, *t.shape[t.dim() - e :]) for t in inputs], dim=-e)
        lead = x.shape[: x.dim() - e]
        out = self.module(x.reshape(-1, *x.shape[x.dim() - e :]))
        return out.reshape(*lead, *out.shape[1:])


class_weights: ContextVar[Tensor | None] = ContextVar("class_weights", default=None)
"""While a label is enumerated: the weight of each value for each datum, `(V, B)`."""


@contextmanager
def weighed(weights: Tensor | None = None) -> Iterator[None]:
    """Set `class_weights` inside the block, and put back what was there, whoever set it in between."""
    before = class_weights.set(weights)
    try:
        yield
    finally:
        class_weights.reset(before)


class BatchNorm(nn.BatchNorm1d):
    r"""Batch norm over all leading dimensions of `(*, F)`, fit for enumerated labels and for random weights.

    .. math:: \gamma\, \frac{h - \mathrm E[\bar h]}{\sqrt{\mathrm{Var}[\bar h] + \epsilon}} + \beta

    Of h that depends on an enumerated label, `(V, B, F)`, each value counts with its weight, q(y|x), so that a datum counts
    once: statistics over all values alike would be those of no data, and would leak y. Of a layer with random weights,
    :math:`\bar h` is what their means give; for others it is h.

    References:
        Paper 002, eq. 5.3 to 5.10.
    """

    def forward(self, h: Tensor) -> Tensor:
        if self.training:
            seen = (
                getattr(h, "_pyro_ssl_mean", h).float()
                if h.dtype == torch.bfloat16
                else getattr(h, "_pyro_ssl_mean", h)
            )
            weights = class_weights.get()
            if weights is None or seen.dim() < 3 or seen.shape[-3:-1] != weights.shape[-2:]:
                w = torch.ones_like(seen[..., :1])
            else:
                w = weights.detach().exp().unsqueeze(-1)
                seen = seen.expand(*torch.broadcast_shapes(w.shape[:-1], seen.shape[:-1]), seen.shape[-1])
                w = w.expand(*seen.shape[:-1], 1)
            dims = tuple(range(seen.dim() - 1))
            total = w.sum()
            mean = (w * seen).sum(dims) / total
            var = (w * (seen - mean).square()).sum(dims) / total
            with torch.no_grad():
                assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
        else:
            assert self.running_mean is not None and self.running_var is not None
            mean, var = self.running_mean, self.running_var
        return (h - mean) * ((var + self.eps).rsqrt() * self.weight) + self.bias
