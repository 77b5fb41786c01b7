"""Checks of what users give: arrays, labels and arguments. Each raises a ValueError that names what to mend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor


def as_data(x: Any, name: str = "x", dtype: torch.dtype | None = None) -> Tensor:
    """Any array-like as a finite tensor `(N, *event)`; rows are data.

    Arguments:
        x: The array.
        name: What the caller calls it, for messages.
        dtype: Of the tensor; by default float64 stays, and all else becomes float32.

    Raises:
        TypeError: The array does not hold numbers.
        ValueError: It is empty, has no feature dimension, or holds NaN or infinity.
    """
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        if array.dtype.kind in "OUS":
            try:
                array = array.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise TypeError(f"{name} should hold numbers, got an array of dtype {array.dtype}: {error}") from None
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} should hold real numbers, got an array of dtype {array.dtype}")
        x = torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if x.is_complex():
        raise TypeError(f"{name} should hold real numbers, got {x.dtype}")
    x = x.to(dtype or (torch.float64 if x.dtype == torch.float64 else torch.float32))
    if x.dim() < 2:
        raise ValueError(
            f"{name} should have shape (data, features, ...), got {tuple(x.shape)}; one feature is (data, 1)"
        )
    if x.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}")
    if not x.isfinite().all():
        row = int((~x.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinity, first in row {row}, as {x.dtype}; drop or impute it")
    return x


def check_event_shape(x: Any, shape: Sequence[int], name: str = "x") -> None:
    """Check that each row of an array has the event shape of a model; nothing is reshaped.

    Arguments:
        x: An array or tensor, `(N, *event)`.
        shape: The model's event shape.
        name: Name of the argument, for the message.

    Raises:
        ValueError: The rows have another shape; the message gives both shapes and, where one is likely, the fix.
    """
    got = tuple(np.shape(x))
    wanted = tuple(shape)
    if got[1:] == wanted:
        return
    rows = ", ".join(map(str, ("N", *wanted)))
    hint = _reshaping_hint(got, wanted, name)
    raise ValueError(f"{name} should have shape ({rows}), rows of shape {wanted}, got {got}{hint}")


def _reshaping_hint(got: tuple[int, ...], wanted: tuple[int, ...], name: str) -> str:
    """What probably turns an array of one shape into rows of another; empty if nothing suggests itself."""
    if got == wanted:
        return f"; for a single row give {name}[None]"
    if len(got) == 4 and (got[3], got[1], got[2]) == wanted:
        return f"; move the channels to the front, as in {name}.transpose(0, 3, 1, 2)"
    if (1, *got[1:]) == wanted:
        return f"; add the channel, as in {name}[:, None]"
    if math.prod(got[1:]) != math.prod(wanted):
        return ""
    sizes = ", ".join(map(str, wanted))
    return f"; if the values of a row are in the same order, {name}.reshape(-1, {sizes}) has that shape"


def looks_channels_last(shape: Sequence[int]) -> bool:
    """Whether the shape of an image reads as `(H, W, C)`: 1, 3 or 4 values last, after two larger sizes."""
    if len(shape) != 3:
        return False
    height, width, channels = shape
    return channels in (1, 3, 4) and min(height, width) > 4


def as_codes(y: Any, n: int, name: str = "y") -> Tensor:
    """Labels as int64 codes `(n,)`: 0 .. K - 1, and -1 where the label is missing.

    Raises:
        TypeError: The labels are not whole numbers.
        ValueError: There are not n of them, or one is below -1.
    """
    if not isinstance(y, Tensor):
        array = np.asarray(y)
        if array.dtype.kind not in "iufcb":
            raise TypeError(f"{name} should hold integer codes with -1 for unlabeled, got dtype {array.dtype}")
        y = torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if y.shape != (n,):
        raise ValueError(f"{name} should have shape ({n},), one label per row of x, got {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"{name} should hold integer codes with -1 for unlabeled, got {y.dtype}")
    y = y.to(torch.int64)
    if int(y.min()) < -1:
        raise ValueError(f"{name} should be 0 .. K - 1, or -1 for unlabeled, got {int(y.min())}")
    return y


def as_values(y: Any, n: int, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Real labels `(n, D)`, and which rows have one, `(n,)`: a row of NaN has none.

    Raises:
        TypeError: The labels are not real numbers.
        ValueError: There are not n of them, of size D; one holds infinity, or NaN in part.
    """
    array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"y should hold real numbers, with NaN for unlabeled, got dtype {array.dtype}")
    values = torch.as_tensor(array.astype(np.float64)).to(dtype)
    values = values[:, None] if values.dim() == 1 else values
    if values.shape != (n, size):
        raise ValueError(f"y should have shape {(n, size)}, one label per row of x, got {tuple(array.shape)}")
    missing = values.isnan()
    if (missing.any(1) != missing.all(1)).any() or values.isinf().any():
        raise ValueError("y should be finite, or NaN in all of a row without a label")
    return values.nan_to_num(), ~missing.all(1)


def check_positive(**sizes: int) -> None:
    """Raise ValueError, naming the argument, unless each is a whole number above 0."""
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} should be a whole number above 0, got {size!r}")


def check_probs(probs: Any, classes: int | None = None) -> list[float]:
    """Probabilities of classes as numbers, or a ValueError unless there are as many, above 0, that sum to 1."""
    array = np.asarray(probs)
    fits = array.dtype.kind in "iuf" and array.shape == ((classes,) if classes else (array.size,))
    if not fits or not (array > 0).all() or abs(float(array.sum()) - 1) > 1e-5:
        many = "probabilities" if classes is None else f"{classes} probabilities"
        raise ValueError(f"class_probs should be {many} above 0 that sum to 1, got {probs!r}")
    return array.astype(float).tolist()


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Raise ValueError, naming the argument, unless a value is of an annotated kind, or of one of several.

    For `float` that is a finite number; what has another kind than a number, a truth value or one of some words is let pass.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not any(_is(value, k) for k in kinds):
        raise ValueError(f"{name} should be {' or '.join(map(_said, kinds))}, got {value!r}")


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(type(value) is type(word) and value == word for word in get_args(kind))
    if kind is NoneType:
        return value is None
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
    return kind is not bool or isinstance(value, bool | np.bool_)


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {int: "a whole number", float: "a finite number", bool: "True or False", NoneType: "None"}
    return names.get(kind, str(kind))


def is_missing(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return value is None or value in ("-1", "nan", "")
    if type(value).__name__ == "NAType":  # pandas', which compares with nothing
        return True
    return bool(value != value or value == -1)


def one_hot(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Codes `(*,)` as one-hot `(*, K)`.

    Raises:
        ValueError: A code is not in 0 .. K - 1.
    """
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"y should be in 0 .. {classes - 1}, got {int(y.min())} .. {int(y.max())}")
    return torch.nn.functional.one_hot(y.long(), classes).to(dtype)
