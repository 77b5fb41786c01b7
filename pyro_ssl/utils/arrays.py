"""Arrays from users: checks, masks, and short text of values for messages."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_array(values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """An array-like as a numpy array, and the mask of its masked entries.

    Values of pandas' own dtypes become objects, so that whole numbers beside NA stay whole.

    Arguments:
        values: A tensor, array, masked array, pandas object or nested list.
        name: Name of the argument, for messages.

    Raises:
        TypeError: It is not an array; see `check_array_like`.
        ValueError: Its rows differ in shape.

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
    """Check that values are an array that numpy and torch read rightly.

    Arguments:
        values: The argument.
        name: Its name, for messages.

    Raises:
        TypeError: It is sparse, a picture, a tuple of arrays or a torch Dataset; with the fix.
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
    if _is_picture(values) or (_is_sequence(values) and any(map(_is_picture, values))):
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
    """Check that no entry is masked: numpy and scikit-learn take the number under the mask.

    Raises:
        ValueError: An entry is masked.
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
    """Check that unsigned labels do not hold -1 as it is in their dtype, such as 255 in uint8.

    Raises:
        ValueError: They do.
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
    """Indices of the rows with the smallest and with the largest number, `(2,)`.

    >>> extreme_rows(torch.tensor([[0.0], [3.0], [-1.0]]))
    tensor([2, 1])
    """
    flat = x.flatten(1)
    return torch.stack([flat.amin(1).argmin(), flat.amax(1).argmax()])


def few(values: Iterable[Any], most: int = 10) -> str:
    """Values in a list for a message, which says how many it leaves out.

    >>> few(range(100), most=3)
    '0, 1, 2 and 97 more'
    """
    shown = list(values)
    rest = len(shown) - most
    text = ", ".join(map(brief, shown[:most]))
    return f"{text} and {rest} more" if rest > 0 else text


def brief(value: Any) -> str:
    """A value as Python shows it, cut where it is long.

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
    """Whether values, or a column of them, have a dtype of pandas' own, such as Int64."""
    if not hasattr(values, "isna"):
        return False
    dtypes = getattr(values, "dtypes", getattr(values, "dtype", None))  # of a table, of an array
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


def _is_picture(value: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")  # before it is imported there is no image
    return pillow is not None and isinstance(value, pillow.Image)


def _is_scipy_sparse(values: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(values)
