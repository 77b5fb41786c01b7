"""Arrays from a user: checks, masks, and short text of values for messages."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_array(values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Convert an array-like to a numpy array and a mask of its masked entries.

    Values with a pandas dtype, such as Int64, become objects: as floats, whole numbers would not
    stay whole where other values are NA.

    Arguments:
        values: A tensor, array, masked array, pandas object or nested list.
        name: Name of the argument, for messages.

    Raises:
        TypeError: The values are not an array; see `check_array_like`.
        ValueError: The rows differ in shape.

    >>> as_array([1, 2], "y")
    (array([1, 2]), array([False, False]))
    """
    check_array_like(values, name)
    if isinstance(values, Tensor):
        array = _of_tensor(values)
        return array, np.zeros(array.shape, bool)
    if _is_masked(values):
        masked = np.ma.asarray(values)
        return masked.data, np.ma.getmaskarray(masked)
    dtype = object if _has_pandas_dtype(values) else None
    try:
        array = np.asarray(values, dtype)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} should be one array with rows of the same shape: {error}"
        ) from None
    return array, np.zeros(array.shape, bool)


def check_array_like(values: Any, name: str) -> None:
    """Check that numpy and torch would read values as the array that the user means.

    Arguments:
        values: The argument.
        name: Name of the argument, for messages.

    Raises:
        TypeError: The argument is sparse, a picture, a tuple of arrays or a torch Dataset. The
            message says how to fix it.

    >>> check_array_like((np.zeros(3), np.zeros(3)), "x")
    Traceback (most recent call last):
    TypeError: x should be one array whose rows are data, got a tuple of 2; ...
    """
    if isinstance(values, Tensor):
        if values.layout is not torch.strided:
            raise TypeError(
                f"{name} should be a dense array, got a sparse tensor; give {name}.to_dense()"
            )
        return
    kind = type(values).__name__
    if _is_scipy_sparse(values):
        raise TypeError(
            f"{name} should be a dense array, got a sparse {kind}; give {name}.toarray()"
        )
    if isinstance(values, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise TypeError(
            f"{name} should be an array, got a {kind}; "
            "pyro_ssl.data.from_torch reads torch Datasets, and pyro_ssl.fit, predict_proba and "
            "bounds take those with a length"
        )
    if _has_pictures(values):
        raise TypeError(
            f"{name} should be an array (N, C, H, W) in [0, 1], got PIL images; give torch.stack("
            "[torchvision.transforms.functional.to_tensor(image) for image in images])"
        )
    if isinstance(values, tuple) and any(getattr(value, "ndim", 0) for value in values):
        raise TypeError(
            f"{name} should be one array whose rows are data, got a tuple of {len(values)}; "
            "give data and labels apart, as in fit(objective, x, y), and join columns by "
            "np.column_stack"
        )


def check_unmasked(values: Any, name: str) -> None:
    """Check that no entry is masked: numpy and scikit-learn would use the number under the mask.

    Raises:
        ValueError: An entry is masked.

    >>> check_unmasked(np.ma.masked_equal([1, 2], 2), "x")
    Traceback (most recent call last):
    ValueError: x has 1 masked entries, first in row 1; ...
    """
    if not _is_masked(values):
        return
    mask = np.ma.getmaskarray(np.ma.asarray(values))
    if not mask.any():
        return
    row = int(np.argwhere(mask)[0][0]) if mask.ndim else 0
    raise ValueError(
        f"{name} has {int(mask.sum())} masked entries, first in row {row}; "
        f"drop or impute them, as by {name}.filled(value)"
    )


def check_signed(array: np.ndarray, name: str) -> None:
    """Check that unsigned labels hold no converted -1, such as 255 in uint8.

    Raises:
        ValueError: A label is the largest number of an unsigned dtype.

    >>> check_signed(np.array([0, 255], np.uint8), "y")
    Traceback (most recent call last):
    ValueError: y is uint8 and holds 255, which is what -1 becomes there; ...
    """
    if array.dtype.kind != "u" or not array.size:
        return
    largest = np.iinfo(array.dtype).max
    if array.max() == largest:
        raise ValueError(
            f"{name} is {array.dtype} and holds {largest}, which is what -1 becomes there; "
            f"if {largest} is a class, give {name}.astype(np.int64), and if it is none, "
            "write -1 into signed numbers"
        )


def extreme_rows(x: Tensor) -> Tensor:
    """Indices of two rows, `(2,)`: that of the smallest number and that of the largest.

    >>> extreme_rows(torch.tensor([[0.0], [3.0], [-1.0]]))
    tensor([2, 1])
    """
    flat = x.flatten(1)
    return torch.stack([flat.amin(1).argmin(), flat.amax(1).argmax()])


def few(values: Iterable[Any], most: int = 10) -> str:
    """The first values as text for a message, and the number of further ones.

    >>> few(range(100), most=3)
    '0, 1, 2 and 97 more'
    """
    shown = list(values)
    rest = len(shown) - most
    text = ", ".join(map(brief, shown[:most]))
    return f"{text} and {rest} more" if rest > 0 else text


def brief(value: Any) -> str:
    """The `repr` of a value, shortened if it is long.

    >>> brief(np.float64(0.5))
    '0.5'
    """
    if isinstance(value, np.generic):
        value = value.item()
    return reprlib.repr(value)


def _of_tensor(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    if values.dtype == torch.bfloat16:  # numpy has none
        values = values.float()
    return values.numpy()


def _has_pandas_dtype(values: Any) -> bool:
    """True if values, or a column of them, have a pandas dtype, such as Int64."""
    if not hasattr(values, "isna"):
        return False
    dtypes = getattr(values, "dtypes", getattr(values, "dtype", None))  # table, else column
    return not all(isinstance(dtype, np.dtype) for dtype in np.array(dtypes, object).ravel())


def _is_masked(values: Any) -> bool:
    if isinstance(values, np.ma.MaskedArray):
        return True
    if not isinstance(values, list | tuple):
        return False
    return any(isinstance(value, np.ma.MaskedArray) for value in values)


def _is_sequence(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim == 1 and values.dtype == object
    return isinstance(values, list | tuple)


def _has_pictures(values: Any) -> bool:
    """Whether the values are a picture, or a sequence with pictures."""
    if _is_sequence(values):
        return any(map(_is_picture, values))
    return _is_picture(values)


def _is_picture(value: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")  # no image exists before its import
    return pillow is not None and isinstance(value, pillow.Image)


def _is_scipy_sparse(values: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(values)
