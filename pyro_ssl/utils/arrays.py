"""Arrays that users give: checks of what is none, masks, and short text of values for messages."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_array_like(values: Any, name: str) -> None:
    """Raise TypeError, with the fix, for what numpy or torch would misread.

    Arguments:
        values: What the caller was given.
        name: What the caller calls it, for the message.

    Raises:
        TypeError: It is sparse, a picture, a tuple of arrays or a torch Dataset.
    """
    if isinstance(values, Tensor):
        if values.layout is not torch.strided:
            raise TypeError(f"{name} should be a dense array, got a sparse tensor; give {name}.to_dense()")
        return
    if _is_scipy_sparse(values):
        raise TypeError(f"{name} should be a dense array, got a sparse {type(values).__name__}; give {name}.toarray()")
    if isinstance(values, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise TypeError(
            f"{name} should be an array, got a {type(values).__name__}; pyro_ssl.data.from_torch reads torch Datasets"
        )
    if _is_picture(values) or (_is_sequence(values) and any(map(_is_picture, values))):
        raise TypeError(
            f"{name} should be an array (N, C, H, W) in [0, 1], got PIL images; "
            "give torch.stack([torchvision.transforms.functional.to_tensor(image) for image in images])"
        )
    if isinstance(values, tuple) and any(getattr(value, "ndim", 0) for value in values):
        raise TypeError(
            f"{name} should be one array whose rows are data, got a tuple of {len(values)}; "
            "give data and labels apart, as in fit(objective, x, y), and join columns by np.column_stack"
        )


def as_array(values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """An array-like as a numpy array, and which of its entries are masked, of the same shape.

    Values of pandas' own dtypes come as objects: whole numbers beside NA stay whole.

    Arguments:
        values: A tensor, array, masked array, pandas object or nested list.
        name: What the caller calls it, for messages.

    Raises:
        TypeError: It is no array; see `check_array_like`.
        ValueError: Its rows differ in shape.
    """
    check_array_like(values, name)
    if isinstance(values, Tensor):
        array = _of_tensor(values)
        return array, np.zeros(array.shape, bool)
    if _is_masked(values):
        masked = np.ma.asarray(values)
        return masked.data, np.ma.getmaskarray(masked)
    try:
        array = np.asarray(values, object if _has_pandas_dtype(values) else None)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{name} should be one array with rows of the same shape: {error}") from None
    return array, np.zeros(array.shape, bool)


def check_unmasked(values: Any, name: str) -> None:
    """Raise ValueError if an entry is masked: numpy and scikit-learn take the number under the mask."""
    if not _is_masked(values):
        return
    mask = np.ma.getmaskarray(np.ma.asarray(values))
    if mask.any():
        row = int(np.argwhere(mask)[0][0]) if mask.ndim else 0
        raise ValueError(
            f"{name} has {int(mask.sum())} masked entries, first in row {row}; "
            f"drop or impute them, as by {name}.substituted(value)"
        )


def check_signed(array: np.ndarray, name: str) -> None:
    """Raise ValueError where unsigned labels hold what -1 becomes in their dtype, such as 255 in uint8."""
    if array.dtype.kind != "u" or not array.size:
        return
    largest = np.iinfo(array.dtype).max
    if array.max() == largest:
        raise ValueError(
            f"{name} is {array.dtype} and holds {largest}, which is what -1 becomes there; "
            f"if {largest} is a class, give {name}.astype(np.int64), and if it is none, write -1 into signed numbers"
        )


def few(values: Iterable[Any], most: int = 10) -> str:
    """Values in a list for a message, which says how many it leaves out."""
    shown = list(values)
    rest = len(shown) - most
    text = ", ".join(map(brief, shown[:most]))
    return f"{text} and {rest} more" if rest > 0 else text


def brief(value: Any) -> str:
    """A value as Python would show it, cut where it is long."""
    if isinstance(value, np.generic):
        value = value.item()
    return reprlib.repr(value)


def _of_tensor(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    if values.dtype == torch.bfloat16:  # which numpy has not
        values = values.float()
    return values.numpy()


def _has_pandas_dtype(values: Any) -> bool:
    """Whether values, or a column of them, have a dtype of pandas' own, such as Int64."""
    if not hasattr(values, "isna"):
        return False
    dtypes = getattr(values, "dtypes", getattr(values, "dtype", None))  # of a table, of an array
    return not all(isinstance(dtype, np.dtype) for dtype in np.array(dtypes, object).ravel())


def _is_masked(values: Any) -> bool:
    if isinstance(values, np.ma.MaskedArray):
        return True
    return isinstance(values, list | tuple) and any(isinstance(value, np.ma.MaskedArray) for value in values)


def _is_sequence(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim == 1 and values.dtype == object
    return isinstance(values, list | tuple)


def _is_picture(value: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")  # without it there is no image
    return pillow is not None and isinstance(value, pillow.Image)


def _is_scipy_sparse(values: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(values)


def extreme_rows(x: Tensor) -> Tensor:
    """Places of the two data that hold the smallest and the largest number, `(2,)`."""
    flat = x.flatten(1)
    return torch.stack([flat.amin(1).argmin(), flat.amax(1).argmax()])
