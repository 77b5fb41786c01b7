"""Checks of the arguments that a user gives; each error names the argument and the way out."""

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
from pyro_ssl.utils.memory import check_fits

MISSING_MARKS = frozenset(
    ["", "-1", "-1.0", "nan", "NaN", "NAN", "-nan", "-NaN", "<NA>", "#N/A", "#NA", "NaT", "--"]
)
"""Text of a missing label that cannot be the name of a class: str() of -1, NaN and NA."""
MISSING_WORDS = frozenset(["None", "NA", "N/A", "n/a", "null", "NULL"])
"""Text of a missing label, as in `pandas.read_csv`, that could be a class: users are warned."""

# --- data -----------------------------------------------------------------------------------------


def as_data(
    x: Any, name: str = "x", dtype: torch.dtype | None = None, *, integers: bool = False
) -> Tensor:
    """Convert an array-like to a finite tensor `(N, *event)`, one row per datum.

    Images `(N, C, H, W)` of uint8 are pixels 0 .. 255 and are divided by 255; all other whole
    numbers keep their values.

    Arguments:
        x: The array.
        name: Name of the argument, for messages.
        dtype: Dtype of the tensor; None keeps float64 and converts all else to float32.
        integers: Convert whole numbers to int64, whatever `dtype` is.

    Raises:
        TypeError: The array does not hold numbers, or is sparse, a picture or a tuple of arrays.
        ValueError: The array is empty, has no feature dimension, or holds NaN, infinity or masked
            entries; or it is an image of uint8 whose largest number is 1.

    >>> as_data([[1, 2], [3, 4]]).dtype
    torch.float32
    """
    data = as_tensor(x, name)
    holds_integers = not data.is_floating_point() and data.dtype != torch.bool
    if integers and holds_integers:
        dtype = torch.int64
    elif dtype is None:
        dtype = torch.float64 if data.dtype == torch.float64 else torch.float32
    if is_pixels(data, integers=integers):
        check_pixel_unit(data, name)
        data = from_pixels(data, dtype)
    else:
        data = data.to(dtype)
    if data.dim() < 2:
        raise ValueError(
            f"{name} should have shape (data, features, ...), got {tuple(data.shape)}; "
            "one feature is (data, 1)"
        )
    if data.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(data.shape)}")
    if not data.isfinite().all():
        row = int((~data.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(
            f"{name} holds NaN or infinity, first in row {row}, as {data.dtype}; drop or impute it"
        )
    return data


def is_pixels(data: Tensor, *, integers: bool = False) -> bool:
    """Whether data are images `(N, C, H, W)` of uint8, whose numbers are pixels 0 .. 255.

    >>> is_pixels(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)), is_pixels(torch.zeros(5, 1, 8, 8))
    (True, False)
    """
    return data.dtype == torch.uint8 and data.dim() == 4 and not integers


def from_pixels(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels 0 .. 255 as numbers in [0, 1].

    >>> from_pixels(torch.tensor([0, 51, 255], dtype=torch.uint8), torch.float32)
    tensor([0.0000, 0.2000, 1.0000])
    """
    return pixels.to(dtype) / 255


def as_numbers(x: Tensor) -> Tensor:
    """Rows with pixels of uint8 as numbers in [0, 1], and other rows as they are.

    Some rows of a data set may all be nearly black, which `check_pixel_unit` would refuse.

    >>> as_numbers(torch.tensor([[[[0, 1]]]], dtype=torch.uint8))
    tensor([[[[0.0000, 0.0039]]]])
    """
    return from_pixels(x, torch.float32) if is_pixels(x) else x


def check_pixel_unit(pixels: Tensor, name: str) -> None:
    """Check that pixels of uint8 are not binary ones: 1 would become 1/255.

    Raises:
        ValueError: Their largest number is 1.
    """
    if pixels.numel() and int(pixels.max()) == 1:
        raise ValueError(
            f"{name}: got images of uint8 with no number above 1; as pixels 0 .. 255 they would be "
            "divided by 255, so give binary images as float32"
        )


def embeds_integers(objective: nn.Module) -> bool:
    """Whether a method has an `nn.Embedding` or `nn.EmbeddingBag`, which take whole numbers.

    >>> embeds_integers(nn.Linear(2, 1))
    False
    """
    embeddings = (nn.Embedding, nn.EmbeddingBag)
    return any(isinstance(module, embeddings) for module in objective.modules())


def as_input(objective: nn.Module, x: Any, name: str = "x") -> Tensor:
    """Convert data to the dtype of a method's weights.

    If the method has an `nn.Embedding` or `nn.EmbeddingBag`, whole numbers become int64.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        name: Name of the argument, for messages.

    Raises:
        TypeError, ValueError: See `as_data`.

    >>> as_input(nn.Linear(2, 1).double(), [[1, 2]]).dtype
    torch.float64
    """
    dtype = next(objective.parameters()).dtype
    return as_data(x, name, dtype, integers=embeds_integers(objective))


def as_stored(objective: nn.Module, x: Any, name: str = "x") -> Tensor:
    """`as_input`, but pixels of uint8 stay as they are: a quarter of the memory of float32.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        name: Name of the argument, for messages.

    Raises:
        TypeError, ValueError: See `as_data`.

    >>> as_stored(nn.Linear(2, 1), torch.full((5, 1, 8, 8), 255, dtype=torch.uint8)).dtype
    torch.uint8
    """
    pixels = as_tensor(x, name)
    if not is_pixels(pixels, integers=embeds_integers(objective)) or not pixels.numel():
        return as_input(objective, x, name)
    check_pixel_unit(pixels, name)
    return pixels


def placed(x: Tensor, like: Tensor) -> Tensor:
    """Move a tensor of `as_input` to a parameter's device; whole numbers keep their dtype.

    >>> placed(torch.tensor([1, 2]), torch.zeros(1)).dtype
    torch.int64
    """
    return x.to(like) if x.is_floating_point() else x.to(like.device)


def as_tensor(x: Any, name: str) -> Tensor:
    """Convert an array-like of real numbers to a tensor of the same dtype and shape.

    Raises:
        TypeError: The values are not real numbers, or not an array; see `check_array_like`.
        ValueError: An entry is masked, or rows differ in shape.

    >>> as_tensor(["1", "2.5"], "x")
    tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    check_unmasked(x, name)
    if isinstance(x, Tensor):
        check_array_like(x, name)
        if x.is_complex():
            raise TypeError(f"{name} should hold real numbers, got {x.dtype}")
        return x
    check_fits(x, name)
    array, _ = as_array(x, name)
    if array.dtype.kind in "OUS":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} should hold numbers, got an array of dtype {array.dtype}: {error}"
            ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} should hold real numbers, got an array of dtype {array.dtype}")
    return torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def check_event_shape(x: Any, shape: Sequence[int], name: str = "x") -> None:
    """Check that the rows of an array have the event shape of a model; reshape nothing.

    Arguments:
        x: An array or tensor, `(N, *event)`.
        shape: The model's event shape.
        name: Name of the argument, for messages.

    Raises:
        ValueError: The rows have another shape. The message has both shapes and, if there is a
            likely one, the fix.

    >>> check_event_shape(np.zeros((5, 8, 8)), (1, 8, 8))
    Traceback (most recent call last):
    ValueError: x should have shape (N, 1, 8, 8), rows of shape (1, 8, 8), got (5, 8, 8); ...
    """
    actual = tuple(np.shape(x))
    wanted = tuple(shape)
    if actual[1:] == wanted:
        return
    with_rows = ", ".join(map(str, ("N", *wanted)))
    hint = _reshaping_hint(actual, wanted, name)
    raise ValueError(
        f"{name} should have shape ({with_rows}), rows of shape {wanted}, got {actual}{hint}"
    )


def _reshaping_hint(actual: tuple[int, ...], wanted: tuple[int, ...], name: str) -> str:
    """Advice on reshaping an array to rows of another shape; empty if there is no likely one."""
    name = name.split()[-1]  # "x" of "--input: x"
    if actual == wanted:
        return f"; for a single row give {name}[None]"
    if len(actual) == 4 and (actual[3], actual[1], actual[2]) == wanted:
        return f"; move the channels to the front, as in {name}.transpose(0, 3, 1, 2)"
    if (1, *actual[1:]) == wanted:
        return f"; add the channel, as in {name}[:, None]"
    if math.prod(actual[1:]) != math.prod(wanted):
        return ""
    sizes = ", ".join(map(str, wanted))
    return (
        "; if the values of a row are in the same order, "
        f"{name}.reshape(-1, {sizes}) has that shape"
    )


def looks_channels_last(shape: Sequence[int]) -> bool:
    """True if an image's shape looks like `(H, W, C)`: 1, 3 or 4 channels after two larger sizes.

    >>> looks_channels_last((32, 32, 3)), looks_channels_last((3, 32, 32))
    (True, False)
    """
    if len(shape) != 3:
        return False
    height, width, channels = shape
    return channels in (1, 3, 4) and min(height, width) > 4


# --- labels ---------------------------------------------------------------------------------------


def as_class_indices(y: Any, n: int, name: str = "y") -> Tensor:
    """Convert labels to class indices `(n,)`, int64: 0 .. K - 1, or -1 if missing or masked.

    Raises:
        TypeError: The labels are not whole numbers.
        ValueError: There are not n labels, or one is below -1, or is -1 in an unsigned dtype.

    >>> as_class_indices([0, -1, 2], 3)
    tensor([ 0, -1,  2])
    """
    device = y.device if isinstance(y, Tensor) else "cpu"
    array, masked = as_array(y, name)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} should hold class indices, with -1 for unlabeled, got dtype {array.dtype}; "
            "pyro_ssl.data.encode turns names into class indices"
        )
    if array.shape != (n,):
        raise ValueError(
            f"{name} should have shape ({n},), one label per row of x, got {array.shape}"
        )
    check_signed(array[~masked], name)
    indices = np.where(masked, -1, array.astype(np.int64))
    if n and indices.min() < -1:
        raise ValueError(f"{name} should be 0 .. K - 1, or -1 for unlabeled, got {indices.min()}")
    return torch.as_tensor(indices, device=device)


def as_values(
    y: Any, n: int, size: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Convert real labels to a tensor `(n, D)` and a mask `(n,)` that is False for rows of NaN.

    Raises:
        TypeError: The labels are not real numbers.
        ValueError: The shape is not `(n, D)`; a row holds infinity, or NaN in part.

    >>> as_values([0.5, float("nan")], 2, 1)
    (tensor([[0.5000],
            [0.0000]]), tensor([ True, False]))
    """
    array, masked = as_array(y, "y")
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"y should hold real numbers, with NaN for unlabeled, got dtype {array.dtype}"
        )
    values = torch.as_tensor(np.where(masked, np.nan, array.astype(np.float64))).to(dtype)
    if values.dim() == 1:
        values = values[:, None]
    if values.shape != (n, size):
        raise ValueError(
            f"y should have shape {(n, size)}, one label per row of x, got {tuple(array.shape)}"
        )
    missing = values.isnan()
    is_partly_missing = (missing.any(1) != missing.all(1)).any()
    if is_partly_missing or values.isinf().any():
        raise ValueError("y should be finite, or NaN in all of a row without a label")
    return values.nan_to_num(), ~missing.all(1)


def is_missing(value: Any) -> bool:
    """True if a label is missing: None, NaN, NA, -1, masked, or one of these written as text.

    >>> is_missing("<NA>"), is_missing("cat")
    (True, False)
    """
    if value is None or value is np.ma.masked:
        return True
    if isinstance(value, str):
        return value.strip() in MISSING_MARKS or value.strip() in MISSING_WORDS
    if type(value).__name__ == "NAType":  # pandas', which cannot be compared
        return True
    return bool(value != value or value == -1)


def one_hot(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert class indices `(*,)` to one-hot labels `(*, K)`.

    Raises:
        ValueError: An index is not in 0 .. K - 1.

    >>> one_hot(torch.tensor([2, 0]), 3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"y should be in 0 .. {classes - 1}, got {int(y.min())} .. {int(y.max())}")
    return torch.nn.functional.one_hot(y.long(), classes).to(dtype)


# --- other arguments ------------------------------------------------------------------------------


def is_whole(value: Any) -> bool:
    """True for a whole number of any integer type; False for True and False.

    >>> is_whole(np.int64(3)), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_positive(**sizes: int) -> None:
    """Check that arguments are whole numbers above 0.

    Raises:
        ValueError: An argument is not; the message has its name.

    >>> check_positive(epochs=3, steps=0)
    Traceback (most recent call last):
    ValueError: steps should be a whole number above 0, got 0
    """
    for name, size in sizes.items():
        if not is_whole(size) or size < 1:
            raise ValueError(f"{name} should be a whole number above 0, got {brief(size)}")


def check_seed(seed: Any) -> None:
    """Check that a number is a seed for torch and numpy.

    Raises:
        ValueError: It is not a whole number in 0 .. 2**64 - 1.

    >>> check_seed(-1)
    Traceback (most recent call last):
    ValueError: seed should be a whole number in 0 .. 2**64 - 1, got -1
    """
    if not is_whole(seed) or not 0 <= seed < 2**64:
        raise ValueError(f"seed should be a whole number in 0 .. 2**64 - 1, got {seed!r}")


def check_probs(probs: Any, classes: int | None = None) -> list[float]:
    """Check probabilities of classes, and convert them to a list of numbers.

    Arguments:
        probs: The probabilities.
        classes: Number of classes; None accepts any number.

    Raises:
        ValueError: Their number is another, one is not above 0, or they do not sum to 1.

    >>> check_probs((0.25, 0.75))
    [0.25, 0.75]
    """
    check_unmasked(probs, "class_probs")
    array = np.asarray(probs)
    shape = (classes or array.size,)
    is_real = array.dtype.kind in "iuf" and array.shape == shape
    if not is_real or not (array > 0).all() or abs(float(array.sum()) - 1) > 1e-5:
        wanted = "probabilities" if classes is None else f"{classes} probabilities"
        raise ValueError(
            f"class_probs should be {wanted} above 0 that sum to 1, got {brief(probs)}"
        )
    values: list[float] = array.astype(float).tolist()
    return values


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Check a value against the annotation of its argument, such as `int | None`.

    `float` allows finite numbers only. Annotations other than `int`, `float`, `bool`, `Literal`,
    None and their unions are not checked.

    Raises:
        ValueError: The value does not fit.

    >>> check_kind("epochs", "ten", int | None)
    Traceback (most recent call last):
    ValueError: epochs should be a whole number or None, got 'ten'
    """
    is_union = get_origin(kind) in (Union, UnionType)
    kinds = get_args(kind) if is_union else (kind,)
    if not any(_is_of_kind(value, one) for one in kinds):
        wanted = " or ".join(map(_name_of_kind, kinds))
        raise ValueError(f"{name} should be {wanted}, got {brief(value)}")


def _is_of_kind(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(type(value) is type(word) and value == word for word in get_args(kind))
    if kind is NoneType:
        return value is None
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
    return True


def _name_of_kind(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {
        int: "a whole number",
        float: "a finite number",
        bool: "True or False",
        NoneType: "None",
    }
    return names.get(kind, str(kind))
