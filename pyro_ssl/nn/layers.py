"""Linear layers over several inputs, and a wrapper for modules that know one batch dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from pyro_ssl.nn.tensor_annotations import mark_mean, mark_normal, normal_of, one_hot_index

Shape = int | Sequence[int]


def as_shape(shape: Shape) -> tuple[int, ...]:
    """Turn an int or a sequence of ints into a tuple.

    >>> as_shape(10), as_shape([1, 28, 28])
    ((10,), (1, 28, 28))
    """
    if isinstance(shape, int):
        return (shape,)
    return tuple(shape)


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raise ValueError unless it is an event shape: one or more whole numbers above 0."""
    if not shape or not all(_is_size(size) for size in shape):
        raise ValueError(
            f"{name} should be whole numbers above 0, such as (4,) or (1, 28, 28), "
            f"got {tuple(shape)}"
        )


def _is_size(size: object) -> bool:
    return isinstance(size, Integral) and not isinstance(size, bool) and int(size) > 0


class SplitLinear(nn.Module):
    r"""A linear layer over several inputs that multiplies each on its own and broadcasts the sum.

    .. math:: h = \sum_i x_i W_i + b

    It equals a linear layer over the concatenation, but an input that does not depend on an
    enumerated label is multiplied once, not once per class: `x` of shape `(B, D)` and `y` of shape
    `(K, 1, K)` give `h` of shape `(K, B, H)`. An enumerated one-hot y picks rows of its W and
    multiplies nothing.

    Arguments:
        in_shapes: Event shape of each input; an input is flattened over its event dimensions.
        out_features: Width `H` of the output.

    Raises:
        ValueError: An input does not end in its event shape, or the number of inputs differs.

    >>> layer = SplitLinear([(1, 8, 8), 10], 5)
    >>> layer(torch.rand(3, 1, 8, 8), torch.eye(10).unsqueeze(1)).shape
    torch.Size([10, 3, 5])
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
        flat: list[Tensor] = []
        for x, shape in zip(inputs, self.in_shapes, strict=True):
            is_marked = one_hot_index(x) is not None  # a flattened copy would carry no note
            flat.append(x if is_marked else x.flatten(-len(shape)))
        return affine(flat, list(self.weights), self.bias)


def check_inputs(inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError unless each input ends in its event shape."""
    if len(inputs) != len(shapes):
        raise ValueError(
            f"network: got {len(inputs)} inputs, want {len(shapes)} with event shapes "
            f"{list(shapes)}"
        )
    for i, (x, shape) in enumerate(zip(inputs, shapes, strict=True)):
        if tuple(x.shape[x.dim() - len(shape) :]) != shape:
            wanted = ", ".join(map(str, shape))
            raise ValueError(
                f"network: input {i} should have shape (*, {wanted}), got {tuple(x.shape)}"
            )


class Linear(nn.Linear):
    """`torch.nn.Linear` with Xavier initialisation, whose weights may be random; see `affine`.

    >>> Linear(4, 2)(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return affine([x], [transposed(self.weight)], self.bias)


def affine(inputs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    r"""Compute h = sum_i x_i W_i + b, or draw it if the weights are random.

    Weights that carry the note of `mark_normal` are draws from a Gaussian. If the note has a scale,
    the weights are not used. Instead h is drawn, independently for each datum, from the Gaussian
    that it has if the weights are drawn from theirs (local reparameterisation),

    .. math:: h \sim \mathcal N\Big(\sum_i x_i \mu_i + \mu_b,\;
              \sum_i x_i^2 \sigma_i^2 + \sigma_b^2\Big)

    and its mean is noted on h, for batch norm.

    Arguments:
        inputs: x_i, `(*, in_i)`.
        weights: W_i, `(in_i, out)`, or `(S, in_i, out)` for S draws of them.
        bias: b, `(out,)`, or `(S, out)`.

    References:
        Kingma et al. 2015 for local reparameterisation; paper 002, eq. 5.10 for the mean.

    >>> affine([torch.ones(3, 4)], [torch.ones(4, 2)], torch.zeros(2))[0]
    tensor([4., 4.])
    """
    bias_note = normal_of(bias)
    if bias_note is None:
        return _sum_of_products(inputs, weights, bias)
    notes = [note for note in map(normal_of, weights) if note is not None]
    mean = _sum_of_products(inputs, [note.loc for note in notes], bias_note.loc)
    if bias_note.scale is None:
        h = _sum_of_products(inputs, weights, bias)
    else:
        squares = [x if one_hot_index(x) is not None else x.square() for x in inputs]
        variances = [note.scale.square() for note in notes if note.scale is not None]
        variance = _sum_of_products(squares, variances, bias_note.scale.square())
        h = mean + variance.sqrt() * torch.randn_like(mean)
    mark_mean(h, mean)
    return h


def _sum_of_products(inputs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    products: list[Tensor] = []
    rest: Tensor | None = bias
    for x, w in zip(inputs, weights, strict=True):
        index = one_hot_index(x)
        if w.dim() > 2:
            products.append(torch.matmul(x, w))
        elif index is None:
            products.append(nn.functional.linear(x, w.t(), rest))
            rest = None  # the bias is added once
        else:
            products.append(nn.functional.embedding(index, w))
    h = sum(products[1:], start=products[0])
    if rest is None:
        return h
    if rest.dim() > 1:
        rest = rest.unsqueeze(-2)
    return h + rest


def transposed(w: Tensor) -> Tensor:
    """Transpose a matrix `(*, out, in)`, and its note with it."""
    note = normal_of(w)
    if note is None:
        return w.mT
    turned = w.mT
    scale = None if note.scale is None else note.scale.mT
    mark_normal(turned, note.loc.mT, scale)
    return turned


class Flat(nn.Module):
    """Apply a module that takes `(N, *event)` to inputs with any number of leading dimensions.

    Several inputs are broadcast against each other and concatenated along their first event
    dimension, which is what most modules written elsewhere expect. Batch norm inside sees all
    leading dimensions as one batch.

    .. warning:: Batch norm over enumerated labels mixes all K labels into its statistics, and so
       leaks y: keep it out of p(x|y, .) and of other modules with inputs that depend on y.

    Arguments:
        module: Maps `(N, *event)` to `(N, *out)`.
        event_dim: Number of event dimensions of each input.

    >>> Flat(nn.Conv2d(1, 2, 3), event_dim=3)(torch.zeros(5, 4, 1, 8, 8)).shape
    torch.Size([5, 4, 2, 6, 6])
    """

    def __init__(self, module: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        self.module = module
        self.event_dim = event_dim

    def forward(self, *inputs: Tensor) -> Tensor:
        x = _concatenated(inputs, self.event_dim)
        lead = x.shape[: x.dim() - self.event_dim]
        out: Tensor = self.module(x.reshape(-1, *x.shape[x.dim() - self.event_dim :]))
        return out.reshape(*lead, *out.shape[1:])


def _concatenated(inputs: Sequence[Tensor], event_dim: int) -> Tensor:
    """Inputs, broadcast and concatenated along their first event dimension."""
    if len(inputs) == 1:
        return inputs[0]
    lead = torch.broadcast_shapes(*(x.shape[: x.dim() - event_dim] for x in inputs))
    wide = [x.expand(*lead, *x.shape[x.dim() - event_dim :]) for x in inputs]
    return torch.cat(wide, dim=-event_dim)
