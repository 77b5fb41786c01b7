"""The extent of the training data, and checks that other data have its shape and units."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.utils.arguments import check_event_shape

FEWEST_ROWS = 20
"""Smallest number of rows from which a range is estimated."""
OUTSIDE = 0.25
"""Limit for the distance of a typical row from the training range: mean over columns, in widths."""
OUTSIDE_OF_FEW = 3.0
"""The limit for fewer than `FEW` rows."""
FEW = 10
"""Number of rows below which `OUTSIDE_OF_FEW` applies."""
NARROW = 0.02
"""Columns are probably in larger units if they span less than this share of their range."""
ROWS_LOOKED_AT = 1000
"""Approximate number of rows that are compared with the range."""


@dataclass(frozen=True)
class Extent:
    """Event shape of training data, and the range of each column, or of all pixels of images.

    Arguments:
        shape: Event shape.
        low: Smallest number of each column, or of all pixels; empty if there were too few data.
        high: Largest number of each column, or of all pixels.

    >>> extent = Extent.of(torch.linspace(-1, 1, 60).reshape(30, 2))
    >>> extent.shape
    (2,)
    >>> extent.check(torch.full((30, 2), 1000.0))
    Traceback (most recent call last):
    ValueError: x is in other units than the training data: ...
    """

    shape: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def of(cls, x: Tensor) -> Extent:
        """The extent of data `(N, *event)`."""
        shape = tuple(x.shape[1:])
        if len(x) < FEWEST_ROWS:
            return cls(shape)
        columns = x if len(shape) == 1 else x.reshape(-1, 1)
        return cls(shape, tuple(columns.amin(0).tolist()), tuple(columns.amax(0).tolist()))

    def divided(self, number: float) -> Extent:
        """The extent of the data divided by a number.

        Arguments:
            number: The number, above 0.
        """
        low = torch.tensor(self.low) / number
        high = torch.tensor(self.high) / number
        return Extent(self.shape, tuple(low.tolist()), tuple(high.tolist()))

    @classmethod
    def read(cls, plain: Any) -> Extent | None:
        """Convert lists of `plain` back to an extent; None, of an earlier version, stays None.

        Raises:
            ValueError: The lists are not those of an extent.
        """
        if plain is None:
            return None
        shape, low, high = (tuple(part) for part in plain)
        has_numbers = all(type(v) is int for v in shape) and all(
            type(v) is float for v in (*low, *high)
        )
        if not has_numbers or len(low) != len(high) or len(low) not in (0, 1, *shape[:1]):
            raise ValueError(f"the extent of the training data is damaged: {plain!r:.100}")
        return cls(shape, low, high)

    def plain(self) -> list[list[Any]]:
        """The extent as lists, for a file."""
        return [list(self.shape), list(self.low), list(self.high)]

    def check(self, x: Tensor, name: str = "x") -> None:
        """Check that data have the shape and the units of the training data.

        The check is of a typical row: single ones may be far outside the range. If all rows are
        much closer to each other than in training, there is a warning.

        Arguments:
            x: Data `(N, *event)`.
            name: Name of the argument, for messages.

        Raises:
            ValueError: The rows have another shape, or a typical row is far outside the range.
        """
        check_event_shape(x, self.shape, name)
        column = self.column_in_other_units(x)
        if column is None:
            if self._is_narrow(x):
                warnings.warn(
                    f"{name} varies less, in every column, than a fiftieth of its range in "
                    "training; if it is in other units than the training data, scale it as for "
                    "training",
                    UserWarning,
                    stacklevel=4,
                )
            return
        values = self._columns(x)[..., column]
        where = f"column {column}" if len(self.low) > 1 else "numbers"
        raise ValueError(
            f"{name} is in other units than the training data: {where} from {values.min():.4g} to "
            f"{values.max():.4g}, in training from {self.low[column]:.4g} to "
            f"{self.high[column]:.4g}; scale it as for training (standardise columns by the "
            "training data's mean and standard deviation, divide pixels by 255), or set "
            "objective.extent = None if it is right"
        )

    def column_in_other_units(self, x: Tensor) -> int | None:
        """The column farthest outside the training range; None if a typical row is near the range.

        Arguments:
            x: Data `(N, *event)`; all pixels of images are column 0.
        """
        if not self.low:
            return None
        columns = self._columns(x)
        low, high = self._range()
        width = high - low
        # a constant column has no units
        varied = width > 1e-6 * torch.maximum(low.abs(), high.abs())
        if not varied.any():
            return None
        outside = torch.maximum(low - columns, columns - high).clamp_min(0)
        beyond = outside[..., varied] / width[varied]
        typical = float(beyond.flatten(1).mean(1).median())
        limit = OUTSIDE if len(x) >= FEW else OUTSIDE_OF_FEW
        if typical <= limit:
            return None
        farthest = int(beyond.flatten(0, -2).mean(0).argmax())
        return int(varied.nonzero()[farthest])

    def _is_narrow(self, x: Tensor) -> bool:
        """True if different rows are so close to each other that their units may be larger."""
        if not self.low or len(x) < FEWEST_ROWS:
            return False
        columns = self._columns(x).flatten(0, -2)
        low, high = self._range()
        spread = columns.amax(0) - columns.amin(0)
        if not (spread > 0).any():
            return False
        return bool((spread <= NARROW * (high - low)).all())

    def _columns(self, x: Tensor) -> Tensor:
        """About 1000 rows of data, as columns `(N, D)`; of images, one column `(N, D, 1)`."""
        step = max(1, len(x) // ROWS_LOOKED_AT)
        rows = x[::step].detach().cpu().double().flatten(1)
        return rows if len(self.low) > 1 or len(self.shape) == 1 else rows.unsqueeze(-1)

    def _range(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.low).double(), torch.tensor(self.high).double()
