"""Checks of what users give: arrays, labels and arguments. Each raises a ValueError that names what to mend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from pyro_ssl.utils.arrays import as_array, brief, check_array_like, check_signed, check_unmasked

MISSING_MARKS = frozenset(["", "-1", "-1.0", "nan", "NaN", "NAN", "-nan", "-NaN", "<NA>", "#N/A", "#NA", "NaT", "--"])
"""Text that stands for no label and is no name of a class: what str() makes of -1, NaN and NA."""
MISSING_WORDS = frozenset(["None", "NA", "N/A", "n/a", "null", "NULL"])
"""Text that stands for no label, as in pandas' `read_csv`, but could be a name: users are warned."""


def as_data(x: Any, name: str = "x", dtype: torch.dtype | None = None, *, integers: bool = False) -> Tensor:
    """Any array-like as a finite tensor `(N, *event)`; rows are data.

    Arguments:
        x: The array.
        name: What the caller calls it, for messages.
        dtype: Of the tensor; by default float64 stays, and all else becomes float32.
        integers: Keep whole numbers whole, as int64, whatever `dtype` is.

    Raises:
        TypeError: The array does not hold numbers, or is sparse, a picture or a tuple of arrays.
        ValueError: It is empty, has no feature dimension, or holds NaN, infinity or masked entries.
    """
    x = as_tensor(x, name)
    if integers and not x.is_floating_point() and x.dtype != torch.bool:
        x = x.to(torch.int64)
    else:
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
    name = name.split()[-1]  # "x" of "--input: x"
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


def as_input(objective: nn.Module, x: Any, name: str = "x") -> Tensor:
    """Data as a method's networks take them: of the dtype of their weights.

    Whole numbers stay whole, int64, where the method holds an `nn.Embedding` or `nn.EmbeddingBag`.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        name: What the caller calls it, for messages.

    Raises:
        TypeError, ValueError: See `as_data`.
    """
    embeddings = (nn.Embedding, nn.EmbeddingBag)
    embeds = any(isinstance(module, embeddings) for module in objective.modules())
    return as_data(x, name, next(objective.parameters()).dtype, integers=embeds)


def placed(x: Tensor, like: Tensor) -> Tensor:
    """What `as_input` gave, on the device of a parameter; numbers that are looked up stay whole."""
    return x.to(like) if x.is_floating_point() else x.to(like.device)


def as_tensor(x: Any, name: str) -> Tensor:
    """Any array-like of real numbers as a tensor of its own dtype and shape.

    Raises:
        TypeError: It does not hold real numbers, or is no array; see `check_array_like`.
        ValueError: An entry is masked, or rows differ in shape.
    """
    check_unmasked(x, name)
    if isinstance(x, Tensor):
        check_array_like(x, name)
        if x.is_complex():
            raise TypeError(f"{name} should hold real numbers, got {x.dtype}")
        return x
    array, _ = as_array(x, name)
    if array.dtype.kind in "OUS":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} should hold numbers, got an array of dtype {array.dtype}: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} should hold real numbers, got an array of dtype {array.dtype}")
    return torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def as_codes(y: Any, n: int, name: str = "y") -> Tensor:
    """Labels as int64 codes `(n,)`: 0 .. K - 1, and -1 where the label is missing or masked.

    Raises:
        TypeError: The labels are not whole numbers.
        ValueError: There are not n of them, or one is below -1, or what -1 becomes without a sign.
    """
    device = y.device if isinstance(y, Tensor) else "cpu"
    array, masked = as_array(y, name)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} should hold integer codes with -1 for unlabeled, got dtype {array.dtype}; "
            "pyro_ssl.data.encode makes codes of names"
        )
    if array.shape != (n,):
        raise ValueError(f"{name} should have shape ({n},), one label per row of x, got {array.shape}")
    check_signed(array[~masked], name)
    codes = np.where(masked, -1, array.astype(np.int64))
    if n and codes.min() < -1:
        raise ValueError(f"{name} should be 0 .. K - 1, or -1 for unlabeled, got {codes.min()}")
    return torch.as_tensor(codes, device=device)


def as_values(y: Any, n: int, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Real labels `(n, D)`, and which rows have one, `(n,)`: a row that is NaN or masked has none.

    Raises:
        TypeError: The labels are not real numbers.
        ValueError: There are not n of them, of size D; one holds infinity, or NaN in part.
    """
    array, masked = as_array(y, "y")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"y should hold real numbers, with NaN for unlabeled, got dtype {array.dtype}")
    values = torch.as_tensor(np.where(masked, np.nan, array.astype(np.float64))).to(dtype)
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
            raise ValueError(f"{name} should be a whole number above 0, got {brief(size)}")


def check_seed(seed: Any) -> None:
    """Raise ValueError unless it is a seed that torch and numpy take: a whole number in 0 .. 2**64 - 1."""
    whole = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 2**64:
        raise ValueError(f"seed should be a whole number in 0 .. 2**64 - 1, got {seed!r}")


def check_probs(probs: Any, classes: int | None = None) -> list[float]:
    """Probabilities of classes as numbers, or a ValueError unless there are as many, above 0, that sum to 1."""
    check_unmasked(probs, "class_probs")
    array = np.asarray(probs)
    fits = array.dtype.kind in "iuf" and array.shape == ((classes,) if classes else (array.size,))
    if not fits or not (array > 0).all() or abs(float(array.sum()) - 1) > 1e-5:
        many = "probabilities" if classes is None else f"{classes} probabilities"
        raise ValueError(f"class_probs should be {many} above 0 that sum to 1, got {brief(probs)}")
    return array.astype(float).tolist()


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Raise ValueError, naming the argument, unless a value is of an annotated kind, or of one of several.

    For `float` that is a finite number; what has another kind than a number, a truth value or one of some words is let pass.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not any(_is(value, k) for k in kinds):
        raise ValueError(f"{name} should be {' or '.join(map(_said, kinds))}, got {brief(value)}")


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
    """Whether a label is none: None, NaN, NA, -1, masked, or text that such a value becomes."""
    if value is None or value is np.ma.masked:
        return True
    if isinstance(value, str):
        return value.strip() in MISSING_MARKS or value.strip() in MISSING_WORDS
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
