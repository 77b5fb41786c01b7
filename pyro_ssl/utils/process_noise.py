"""Random numbers and batch norm of several processes that evaluate parts of one batch.

All processes draw the noise of the whole batch from generators in the same state, and each takes
that of its rows. So a run has the noise of one process, whatever their number; a generator's state
is the same in all of them, and so is what all data share, such as random weights. This costs each
process the random numbers of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_ssl.utils.process_rows import Rows, all_sum, current_rows

_draws_shared: ContextVar[bool] = ContextVar("draws_shared", default=False)

OF_TENSORS = {"rand_like", "randn_like", "randint_like", "bernoulli", "normal", "multinomial"}
"""Functions that draw a number for each entry of their tensors."""
IN_PLACE = {
    "bernoulli_",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "normal_",
    "random_",
    "uniform_",
}
OF_SIZES = {"rand", "randn", "randint"}
DROPOUT = {"dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"}
REFUSED = {
    "_sample_dirichlet",
    "_standard_gamma",
    "binomial",
    "gumbel_softmax",
    "poisson",
    "randperm",
}
"""Functions whose use of random numbers depends on their values, or that mix the rows."""
SWITCHES = {
    "alpha_dropout": (2, "training"),
    "feature_alpha_dropout": (2, "training"),
    "rrelu": (3, "training"),
    "multi_head_attention_forward": (10, "dropout_p"),
    "scaled_dot_product_attention": (4, "dropout_p"),
    "lstm": (5, "dropout"),
    "gru": (5, "dropout"),
    "rnn_tanh": (5, "dropout"),
    "rnn_relu": (5, "dropout"),
}
"""Functions that draw numbers which cannot be divided: position and name of what switches it on."""


@contextmanager
def sharded(rows: Rows | None) -> Iterator[None]:
    """Evaluate these rows of a batch inside the block; the other processes evaluate the others.

    Arguments:
        rows: The rows of this process; None, with one process, changes nothing.
    """
    if rows is None:
        yield
        return
    is_outermost = current_rows.get() is None
    before = current_rows.set(rows)
    try:
        if is_outermost:
            with _Sharded():
                yield
        else:
            yield
    finally:
        current_rows.reset(before)


@contextmanager
def drawing_what_all_share() -> Iterator[None]:
    """Draw what all data share inside the block, such as random weights: the same in all processes.

    >>> with drawing_what_all_share():
    ...     w = torch.randn(3)
    """
    before = _draws_shared.set(True)
    try:
        yield
    finally:
        _draws_shared.reset(before)


class _Sharded(TorchFunctionMode):
    """Draw for the whole batch and take the process's rows; synchronise batch norm."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "batch_norm":
            return _batch_norm(func, *args, **kwargs)
        handler = _HANDLERS.get(name)
        if handler is None or _draws_shared.get():
            return func(*args, **kwargs)
        rows = current_rows.get()
        assert rows is not None
        return handler(rows, func, args, kwargs)


# --- random numbers -------------------------------------------------------------------------------


def _row_dim(shape: Sequence[int], size: int) -> int | None:
    """The dimension of the rows: the first of their number; -1 where they are merged into 0.

    Where several dimensions have that size, noise of independent entries may be taken along another
    one: as many numbers, in another order.
    """
    for dim, length in enumerate(shape):
        if length == size:
            return dim
    if len(shape) > 0 and shape[0] > 0 and shape[0] % size == 0:
        return -1
    return None


def _whole_shape(shape: Sequence[int], dim: int, rows: Rows) -> list[int]:
    whole = list(shape)
    if dim == -1:
        whole[0] = whole[0] // rows.size * rows.total
    else:
        whole[dim] = rows.total
    return whole


def _taken(values: Tensor, dim: int, rows: Rows) -> Tensor:
    """The process's rows of values of the whole batch."""
    if dim != -1:
        return rows.take(values, dim)
    return rows.take(values.unflatten(0, (-1, rows.total)), 1).flatten(0, 1)


def _spread(values: Tensor, dim: int, rows: Rows) -> Tensor:
    """Values in the shape of the whole batch, in the same layout of memory."""
    if dim != -1:
        whole = rows.spread(values, dim)
    else:
        whole = rows.spread(values.unflatten(0, (-1, rows.size)), 1).flatten(0, 1)
    return _empty_whole(values, list(whole.shape)).copy_(whole)


def _empty_whole(like: Tensor, shape: list[int]) -> Tensor:
    """An empty tensor whose dimensions are in memory in the order of another one's."""
    strides = like.stride()
    if 0 in strides:  # expanded, so in no order
        return like.new_empty(shape)
    order = sorted(range(like.dim()), key=strides.__getitem__, reverse=True)
    empty = like.new_empty([shape[dim] for dim in order])
    return empty.permute([order.index(dim) for dim in range(like.dim())])


def _of_tensors(rows: Rows, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if not tensors:  # torch.normal of numbers, with a size
        return _of_sizes(rows, func, args, kwargs)
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    dim = _row_dim(shape, rows.size)
    if func.__name__ == "multinomial":
        dim = _row_dim(shape[:-1], rows.size)
    if dim is None:
        return func(*args, **kwargs)

    def whole(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return _spread(value.detach().expand(shape), dim, rows)

    drawn = func(*map(whole, args), **{name: whole(value) for name, value in kwargs.items()})
    return _taken(drawn, dim, rows)


def _in_place(rows: Rows, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if not args:  # torch.nn.init, which gives a layer its weights
        return func(**kwargs)
    target, *others = args
    dim = _row_dim(target.shape, rows.size)
    if dim is None:
        return func(*args, **kwargs)
    for i, other in enumerate(others):
        if isinstance(other, Tensor) and other.dim():
            others[i] = _spread(other.expand(target.shape), dim, rows)
    whole = _empty_whole(target, _whole_shape(target.shape, dim, rows))
    func(whole, *others, **kwargs)
    return target.copy_(_taken(whole, dim, rows))


def _of_sizes(rows: Rows, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Functions of a size: the last positional sequence, the trailing numbers, or `size`."""
    size: Any = kwargs.get("size")
    leading = list(args)
    if args and isinstance(args[-1], Sequence):
        size = leading.pop()
    elif func.__name__ in ("rand", "randn") and args:
        size = leading
        leading = []
    dim = None if size is None else _row_dim(size, rows.size)
    if dim is None:
        return func(*args, **kwargs)
    others = {name: value for name, value in kwargs.items() if name != "size"}
    drawn = func(*leading, size=_whole_shape(size, dim, rows), **others)
    return _taken(drawn, dim, rows)


def _dropout(rows: Rows, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    values, *others = args if args else (kwargs.pop("input"),)
    dim = _row_dim(values.shape, rows.size)
    if dim is None:
        return func(values, *others, **kwargs)
    kwargs.pop("inplace", None)
    ones = _empty_whole(values, _whole_shape(values.shape, dim, rows)).fill_(1)
    kept = func(ones, *others[:2], **kwargs)
    return values * _taken(kept, dim, rows)


def _refused(rows: Rows, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    raise ValueError(
        f"torch.{func.__name__}: its random numbers cannot be divided between processes; train in "
        "one process, without torchrun"
    )


def _refused_if_random(rows: Rows, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    position, name = SWITCHES[func.__name__]
    switch = args[position] if len(args) > position else kwargs.get(name)
    if switch:
        _refused(rows, func, args, kwargs)
    return func(*args, **kwargs)


_HANDLERS: dict[str, Callable[[Rows, Any, Any, dict[str, Any]], Any]] = (
    dict.fromkeys(OF_TENSORS, _of_tensors)
    | dict.fromkeys(IN_PLACE, _in_place)
    | dict.fromkeys(OF_SIZES, _of_sizes)
    | dict.fromkeys(DROPOUT, _dropout)
    | dict.fromkeys(REFUSED, _refused)
    | dict.fromkeys(SWITCHES, _refused_if_random)
)


# --- batch norm -----------------------------------------------------------------------------------


def _batch_norm(
    func: Any,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` with the mean and variance over all processes' rows."""
    if not training:
        normalised: Tensor = func(
            input, running_mean, running_var, weight, bias, training, momentum, eps
        )
        return normalised
    values = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
    dims = [0, *range(2, input.dim())]
    along = [-1 if dim == 1 else 1 for dim in range(input.dim())]
    count = values.new_tensor([values.numel() // values.shape[1]])
    total = all_sum(torch.cat([values.sum(dims), count]))
    mean = total[:-1] / total[-1]
    centred = values - mean.view(along)
    squares = all_sum(centred.square().sum(dims))
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((squares / (total[-1] - 1)).to(running_var), momentum)
    h = centred * (squares / total[-1] + eps).rsqrt().view(along)
    if weight is not None:
        h = h * weight.view(along)
    if bias is not None:
        h = h + bias.view(along)
    return h.to(input.dtype)
