"""Linear layers for several inputs and extra leading dimensions, with fixed or random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_ssl.nn.tensor_marks import mark_mean, mark_normal, normal_of, one_hot_index
from pyro_ssl.utils.arguments import is_whole

Shape = int | Sequence[int]
"""An event shape; an int is the length of a vector."""


def as_shape(shape: Shape) -> tuple[int, ...]:
    """Turn an int or a sequence of ints into a tuple.

    >>> as_shape(10), as_shape([1, 28, 28])
    ((10,), (1, 28, 28))
    """
    if isinstance(shape, int):
        return (shape,)
    return tuple(shape)


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Check that a shape is an event shape: one or more whole numbers above 0.

    Raises:
        ValueError: It is not.

    >>> check_shape("x_shape", (0,))
    Traceback (most recent call last):
    ValueError: x_shape should be whole numbers above 0, such as (4,) or (1, 28, 28), got (0,)
    """
    if not shape or not all(is_whole(size) and size > 0 for size in shape):
        raise ValueError(
            f"{name} should be whole numbers above 0, such as (4,) or (1, 28, 28), "
            f"got {tuple(shape)}"
        )


class SplitLinear(nn.Module):
    r"""A linear layer over several inputs, each multiplied by its weights before they are added.

    .. math:: h = \sum_i x_i W_i + b

    It equals a linear layer over the concatenation, but an input that does not depend on an
    enumerated label is multiplied once, not once per class: `x` of shape `(B, D)` and `y` of shape
    `(K, 1, K)` give `h` of shape `(K, B, H)`. For an enumerated one-hot y, rows of its W are looked
    up instead of a product.

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
            is_marked = one_hot_index(x) is not None  # a flattened copy would lose the annotation
            flat.append(x if is_marked else x.flatten(-len(shape)))
        return affine(flat, list(self.weights), self.bias)


def check_inputs(inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Check that each input ends in its event shape.

    Raises:
        ValueError: One does not, or the number of inputs is wrong.

    >>> check_inputs([torch.zeros(5, 4)], [(3,)])
    Traceback (most recent call last):
    ValueError: network: input 0 should have shape (*, 3), got (5, 4)
    """
    if len(inputs) != len(shapes):
        raise ValueError(
            f"network: got {len(inputs)} inputs, should have {len(shapes)} with event shapes "
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

    Weights annotated by `mark_normal` are draws from a Gaussian. If the annotation has a scale, the
    weights are not used: h is drawn from its own Gaussian, independently for each datum (local
    reparameterisation),

    .. math:: h \sim \mathcal N\Big(\sum_i x_i \mu_i + \mu_b,\;
              \sum_i x_i^2 \sigma_i^2 + \sigma_b^2\Big)

    and its mean is annotated on h, for batch norm.

    Arguments:
        inputs: x_i, `(*, in_i)`.
        weights: W_i, `(in_i, out)`, or `(S, in_i, out)` for S draws of them.
        bias: b, `(out,)`, or `(S, out)`.

    References:
        Kingma et al. 2015 for local reparameterisation; paper 002, eq. 5.10 for the mean.

    >>> affine([torch.ones(3, 4)], [torch.ones(4, 2)], torch.zeros(2))[0]
    tensor([4., 4.])
    """
    bias_normal = normal_of(bias)
    if bias_normal is None:
        return _sum_of_products(inputs, weights, bias)
    normals = [normal for normal in map(normal_of, weights) if normal is not None]
    mean = _sum_of_products(inputs, [normal.loc for normal in normals], bias_normal.loc)
    if bias_normal.scale is None:
        h = _sum_of_products(inputs, weights, bias)
    else:
        squares = [x if one_hot_index(x) is not None else x.square() for x in inputs]
        variances = [normal.scale.square() for normal in normals if normal.scale is not None]
        variance = _sum_of_products(squares, variances, bias_normal.scale.square())
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
    """Transpose a matrix `(*, out, in)` together with its annotation.

    >>> transposed(torch.zeros(2, 3)).shape
    torch.Size([3, 2])
    """
    result = w.mT
    normal = normal_of(w)
    if normal is not None:
        scale = None if normal.scale is None else normal.scale.mT
        mark_normal(result, normal.loc.mT, scale)
    return result


class Flat(nn.Module):
    """Apply a module that takes `(N, *event)` to inputs with any number of leading dimensions.

    Several inputs are broadcast and concatenated along their first event dimension, so that modules
    with one input can be used. Batch norm inside sees all leading dimensions as one batch.

    .. warning:: Do not use torch's batch norm in p(x|y, .) or in any other module whose inputs
       depend on an enumerated y: its statistics would mix all K labels, and so leak y.

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
    """Broadcast inputs and concatenate them along their first event dimension."""
    if len(inputs) == 1:
        return inputs[0]
    lead = torch.broadcast_shapes(*(x.shape[: x.dim() - event_dim] for x in inputs))
    wide = [x.expand(*lead, *x.shape[x.dim() - event_dim :]) for x in inputs]
    return torch.cat(wide, dim=-event_dim)
