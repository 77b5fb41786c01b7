"""The shape and the range of the data that a method was trained on, by which data in other units are told."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.utils.arguments import check_event_shape

FEWEST = 20
"""Rows that it takes to know a range."""
OUTSIDE, OUTSIDE_OF_FEW = 0.25, 3.0
"""How far outside the range a typical row may be, in its widths and on the mean over columns; and a typical one of few rows."""
FEW = 10
NARROW = 0.02
"""Share of its range in training that a column of data in other units does not fill, such as metres for millimetres."""


@dataclass(frozen=True)
class Extent:
    """Event shape of training data, and the smallest and largest number of each column; of images, of all pixels together.

    Arguments:
        shape: Event shape.
        low: Smallest numbers, one for each column or one in all; none where there were too few data to know.
        high: Largest numbers.
    """

    shape: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def of(cls, x: Tensor) -> Extent:
        """The extent of data `(N, *event)`."""
        shape = tuple(x.shape[1:])
        if len(x) < FEWEST:
            return cls(shape)
        columns = x if len(shape) == 1 else x.reshape(-1, 1)
        return cls(shape, tuple(columns.amin(0).tolist()), tuple(columns.amax(0).tolist()))

    @classmethod
    def read(cls, plain: Any) -> Extent | None:
        """What `plain` gave, read from a file; None where an earlier version wrote none.

        Raises:
            ValueError: It is no extent.
        """
        if plain is None:
            return None
        shape, low, high = (tuple(part) for part in plain)
        numbers = all(type(v) is int for v in shape) and all(type(v) is float for v in (*low, *high))
        if not numbers or len(low) != len(high) or len(low) not in (0, 1, *shape[:1]):
            raise ValueError(f"the extent of the training data is damaged: {plain!r:.100}")
        return cls(shape, low, high)

    def plain(self) -> list[list[Any]]:
        """The extent as lists."""
        return [list(self.shape), list(self.low), list(self.high)]

    def check(self, x: Tensor, name: str = "x") -> None:
        """Check that data have the shape of the training data and, as a whole, their units; single rows may be far out.

        Arguments:
            x: Data `(N, *event)`.
            name: What the caller calls them.

        Warns if all rows are much nearer each other than those of training.

        Raises:
            ValueError: A row has another shape, or the typical row lies far outside the range of training.
        """
        check_event_shape(x, self.shape, name)
        column = self.column_in_other_units(x)
        if column is None:
            if self._is_narrow(x):
                warnings.warn(
                    f"{name} varies less, in every column, than a fiftieth of its range in training; "
                    "if it is in other units than the training data, scale it as for training",
                    UserWarning,
                    stacklevel=4,
                )
            return
        values = self._columns(x)[..., column]
        where = f"column {column}" if len(self.low) > 1 else "numbers"
        raise ValueError(
            f"{name} is in other units than the training data: {where} from {values.min():.4g} to {values.max():.4g}, in "
            f"training from {self.low[column]:.4g} to {self.high[column]:.4g}; scale it as for training (standardise "
            "columns by the training data's mean and standard deviation, divide pixels by 255), or set "
            "objective.extent = None if it is right"
        )

    def column_in_other_units(self, x: Tensor) -> int | None:
        """The column that is furthest outside the range of training, if the typical row is far outside; None if it is not.

        Arguments:
            x: Data `(N, *event)`; of images all pixels are column 0.
        """
        if not self.low:
            return None
        columns = self._columns(x)
        low, high = torch.tensor(self.low).double(), torch.tensor(self.high).double()
        width = high - low
        varied = width > 1e-6 * torch.maximum(low.abs(), high.abs())  # a constant column has no units
        if not varied.any():
            return None
        beyond = torch.maximum(low - columns, columns - high).clamp_min(0)[..., varied] / width[varied]
        typical = float(beyond.flatten(1).mean(1).median())
        if typical <= (OUTSIDE if len(x) >= FEW else OUTSIDE_OF_FEW):
            return None
        return int(varied.nonzero()[int(beyond.flatten(0, -2).mean(0).argmax())])

    def _is_narrow(self, x: Tensor) -> bool:
        """Whether many different rows lie so near each other that their units may be larger than those of training."""
        if not self.low or len(x) < FEWEST:
            return False
        columns = self._columns(x).flatten(0, -2)
        low, high = torch.tensor(self.low).double(), torch.tensor(self.high).double()
        spread = columns.amax(0) - columns.amin(0)
        differ = bool((spread > 0).any())
        return differ and bool((spread <= NARROW * (high - low)).all())

    def _columns(self, x: Tensor) -> Tensor:
        """About 1000 rows of data, as columns `(N, D)`, or as one `(N, D, 1)` of all numbers."""
        rows = x[:: max(1, len(x) // 1000)].detach().cpu().double().flatten(1)
        return rows if len(self.low) > 1 or len(self.shape) == 1 else rows.unsqueeze(-1)
