"""Standardised columns: mean and standard deviation of each, and the check of its units."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from pyro_ssl.data.extent import Extent


def moments(X: np.ndarray, scale: bool, name: str = "X") -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column.

    The deviation of a constant column is 1; without `scale` means are 0 and deviations 1.

    Arguments:
        X: Rows `(N, *event)`.
        scale: Standardise the columns.
        name: Name of the rows, for the messages.

    Raises:
        ValueError: The values are too large or too small to standardise.

    >>> mean, std = moments(np.array([[0.0, 5.0], [2.0, 5.0]]), scale=True)
    >>> mean.tolist(), std.tolist()
    ([1.0, 5.0], [1.0, 1.0])
    """
    shape = X.shape[1:]
    if not scale:
        return np.zeros(shape), np.ones(shape)
    columns = X.reshape(len(X), -1)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaler = StandardScaler().fit(columns)
    if not (np.isfinite(scaler.mean_) & np.isfinite(scaler.var_)).all():
        largest = np.abs(X).max()
        raise ValueError(
            f"{name} is too large to standardise, up to {largest:.3g}; "
            "divide it by a constant first"
        )
    varies = columns.max(0) > columns.min(0)
    underflows = scaler.var_ < np.finfo(np.float64).tiny
    if (varies & underflows).any():
        smallest = np.ptp(columns, 0)[varies].min()
        raise ValueError(
            f"{name} is too small to standardise: a column varies by {smallest:.3g}, "
            "whose square underflows to 0; multiply it by a constant first"
        )
    return scaler.mean_.reshape(shape), scaler.scale_.reshape(shape)


def check_units(X: np.ndarray, extent: Extent | None, mean: np.ndarray, std: np.ndarray) -> None:
    """Check that columns are in the units of `fit`.

    Arguments:
        X: Rows as the caller gives them, `(N, *event)`.
        extent: Range of the standardised training data; None skips the check.
        mean: Means of the columns in `fit`.
        std: Standard deviations of the columns in `fit`.

    Raises:
        ValueError: A column is far outside its range in `fit`; the message is in the caller's
            units.

    >>> check_units(np.zeros((3, 2)), None, np.zeros(2), np.ones(2))
    """
    if extent is None or X.ndim != 2:
        return
    column = extent.column_in_other_units(torch.as_tensor((X - mean) / std))
    if column is None:
        return
    low = extent.low[column] * std[column] + mean[column]
    high = extent.high[column] * std[column] + mean[column]
    raise ValueError(
        f"X is in other units than in fit: column {column} from {X[:, column].min():.4g} to "
        f"{X[:, column].max():.4g}, in fit from {low:.4g} to {high:.4g}; give it in the units "
        "of fit (which scales it itself), or set objective_.extent = None if it is right"
    )
