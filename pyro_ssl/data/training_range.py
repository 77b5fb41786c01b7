"""Shape and range of training data, to recognise data of another shape or in other units."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.utils.arguments import check_event_shape

FEWEST_ROWS = 20
"""Smallest number of rows that a range is estimated from."""
OUTSIDE = 0.25
"""Largest distance of a typical row from the training range, in widths, as a mean over columns."""
OUTSIDE_OF_FEW = 3.0
"""The same for fewer than `FEW` rows."""
FEW = 10
NARROW = 0.02
"""A column that spans less than this share of its training range is probably in larger units."""
ROWS_LOOKED_AT = 1000


@dataclass(frozen=True)
class Extent:
    """Event shape of training data, and the smallest and largest number of each column.

    For images there is one range, over all pixels.

    Arguments:
        shape: Event shape.
        low: Smallest numbers, one for each column or one in all; empty where there were too few
            data to know.
        high: Largest numbers.

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
        """The extent that `plain` wrote; None where an earlier version wrote none.

        Raises:
            ValueError: It is not an extent.
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
        """Check that data have the shape and, as a whole, the units of the training data.

        Single rows may be far out. A warning says if all rows are much nearer to each other than
        those of training.

        Arguments:
            x: Data `(N, *event)`.
            name: Name of the argument, for messages.

        Raises:
            ValueError: A row has another shape, or the typical row is far outside the range of
                training.
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
        """The column farthest outside the training range, or None if the typical row is within it.

        Arguments:
            x: Data `(N, *event)`; for images all pixels are column 0.
        """
        if not self.low:
            return None
        columns = self._columns(x)
        low, high = self._range()
        width = high - low
        # A constant column has no units.
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
        """Whether many different rows are so close that their units may be larger ones."""
        if not self.low or len(x) < FEWEST_ROWS:
            return False
        columns = self._columns(x).flatten(0, -2)
        low, high = self._range()
        spread = columns.amax(0) - columns.amin(0)
        if not (spread > 0).any():
            return False
        return bool((spread <= NARROW * (high - low)).all())

    def _columns(self, x: Tensor) -> Tensor:
        """About 1000 rows of data, as columns `(N, D)`, or as one `(N, D, 1)` of all numbers."""
        step = max(1, len(x) // ROWS_LOOKED_AT)
        rows = x[::step].detach().cpu().double().flatten(1)
        return rows if len(self.low) > 1 or len(self.shape) == 1 else rows.unsqueeze(-1)

    def _range(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.low).double(), torch.tensor(self.high).double()
