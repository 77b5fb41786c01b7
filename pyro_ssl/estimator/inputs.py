"""Checks of X and of real labels that scikit-learn's own checks leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array

from pyro_ssl.utils.arguments import as_data, looks_channels_last
from pyro_ssl.utils.arrays import as_array, brief, check_array_like, check_unmasked
from pyro_ssl.utils.memory import physical_memory


def checked_rows(X: Any) -> Any:
    """Return X, with pixels of uint8 in [0, 1]; inputs that scikit-learn would misread are refused.

    These are masked entries, pictures, tuples of arrays, and memory maps larger than the memory.

    Arguments:
        X: Data as the caller gives them.

    Raises:
        ValueError: Entries are masked, or a memory map does not fit into memory.
        TypeError: X is not an array.

    >>> checked_rows([[0.0, 1.0]])
    [[0.0, 1.0]]
    """
    is_sparse = hasattr(X, "toarray")  # which scikit-learn itself refuses
    if not is_sparse:
        check_array_like(X, "X")
    check_unmasked(X, "X")
    if isinstance(X, np.memmap):
        _check_fits(X)
    is_image = getattr(X, "ndim", 0) == 4 and str(X.dtype).endswith("uint8")
    if not is_image:
        return X
    return as_data(X, "X", torch.float64).numpy()


def _check_fits(X: np.ndarray) -> None:
    """Raise ValueError if X and a copy of it, as float64, exceed the memory of this machine."""
    needed = 2 * 8 * X.size
    memory = physical_memory()
    if memory is None or needed <= memory:
        return
    raise ValueError(
        f"X is a memory map of shape {X.shape}, which the estimator would read as a whole and "
        f"scale, in {needed / 1e9:.1f} GB of memory; this machine has {memory / 1e9:.1f} GB. "
        "pyro_ssl.fit(pyro_ssl.zoo.build(...), x, y) and pyro_ssl.predict_proba read it batch by "
        "batch"
    )


def check_channels_first(shape: tuple[int, ...]) -> None:
    """Check that the second axis of images is their channels.

    Arguments:
        shape: Shape of X.

    Raises:
        ValueError: The channels look last.

    >>> check_channels_first((100, 3, 32, 32))
    """
    if not looks_channels_last(shape[1:]):
        return
    _, channels, height, width = shape
    raise ValueError(
        f"X, as images, should have shape (N, C, H, W), got {shape}, which looks like channels "
        f"last; give X.transpose(0, 3, 1, 2), or, if it has {channels} channels of {height} x "
        f"{width}, X.transpose(0, 1, 3, 2)"
    )


def check_pixels(X: np.ndarray, scale: bool | None) -> None:
    """Check that images are in [0, 1], unless the caller chose a scale.

    Arguments:
        X: Rows `(N, *event)`; only images `(N, C, H, W)` are checked.
        scale: The estimator's parameter.

    Raises:
        ValueError: Pixels are outside [0, 1].

    >>> check_pixels(np.full((1, 1, 8, 8), 255.0), scale=True)
    """
    if X.ndim != 4 or scale is not None:
        return
    low = X.min()
    high = X.max()
    if not (low > -1e-3 and high < 1.001):
        raise ValueError(
            f"X, as images, should be in [0, 1], got {low:.3g} to {high:.3g}; divide 0 .. 255 "
            "by 255, or give scale=True (each pixel standardised) or False (taken as they are)"
        )


def real_labels(y: Any, n: int) -> np.ndarray:
    """Real labels of n rows as float64, NaN where one is missing.

    Arguments:
        y: Labels `(N,)` or `(N, D)`; NaN or a mask marks a missing one.
        n: Number of rows of X.

    Raises:
        ValueError: y is None, holds words, or has another number of rows.

    >>> real_labels([1, None], 2).tolist()
    [1.0, nan]
    """
    if y is None:
        raise ValueError(
            "y should hold labels, with NaN for unlabeled rows; requires y to be passed, "
            "but the target y is None"
        )
    _check_real(y)
    array, masked = as_array(y, "y")
    if masked.any():
        y = np.where(masked, np.nan, array.astype(np.float64))
    labels: np.ndarray = check_array(
        y, ensure_2d=False, ensure_all_finite="allow-nan", dtype=np.float64, input_name="y"
    )
    if len(labels) != n:
        raise ValueError(
            f"y should have one label per row of X, {n}; got {len(labels)}, "
            "inconsistent numbers of samples"
        )
    return labels


def _check_real(y: Any) -> None:
    """Raise ValueError for words."""
    array = np.asarray(y)
    if array.dtype.kind not in "OUS":
        return
    words = [value for value in array.ravel().tolist() if isinstance(value, str | bytes)]
    if words:
        raise ValueError(
            f"y should hold real numbers, got {brief(words[0])}; for classes use "
            "SemiSupervisedClassifier, and convert numbers that are written as text by "
            "y.astype(float)"
        )


def repeated(X: np.ndarray, y: Any, sample_weight: Any) -> tuple[np.ndarray, Any]:
    """Repeat rows as often as their weights say; rows of weight 0 are left out.

    Arguments:
        X: Rows `(N, *event)`.
        y: Their labels, of any kind.
        sample_weight: Whole numbers `(N,)`.

    Raises:
        ValueError: The weights are masked, no numbers, negative, fractions, all 0 or of another
            shape.

    >>> rows, labels = repeated(np.array([[0.0], [1.0], [2.0]]), ["no", "yes", None], [2, 0, 1])
    >>> rows.ravel().tolist(), labels
    ([0.0, 0.0, 2.0], ['no', 'no', None])
    """
    check_unmasked(sample_weight, "sample_weight")
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"sample_weight should hold whole numbers, got {brief(sample_weight)}"
        ) from None
    if weights.shape != (len(X),):
        raise ValueError(
            f"sample_weight should have shape {(len(X),)}, one weight for each row of X; "
            f"got {weights.shape}"
        )
    is_whole = np.isfinite(weights) & (weights >= 0) & (weights == np.round(weights))
    if not is_whole.all():
        row = int(np.flatnonzero(~is_whole)[0])
        raise ValueError(
            "sample_weight should hold whole numbers, 0 or above, which repeat rows; a fraction "
            "has no exact meaning where training draws whole rows in batches; got "
            f"{weights[row]:.6g} in row {row}"
        )
    if not weights.any():
        raise ValueError("sample_weight should be above 0 in some rows, got zero in all")
    rows = np.repeat(np.arange(len(X)), weights.astype(np.int64))
    if not hasattr(y, "__len__") or len(y) != len(X):
        return X, y  # the check of the labels explains what is wrong
    if hasattr(y, "iloc"):
        return X[rows], y.iloc[rows]
    if hasattr(y, "shape"):
        return X[rows], y[rows]
    return X[rows], [y[row] for row in rows]
