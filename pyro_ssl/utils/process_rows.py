"""The processes that train one objective together: the rows of each, and sums over all of them.

Each process evaluates its rows of a batch. The loss is the sum over the processes, so a mean over
the batch is a sum over a process's rows, divided by the rows of all; what all data share counts
with the process's share of the rows. Inside `sharded`, sums over all processes are differentiable
and random numbers are those of one process; see `pyro_ssl.utils.process_noise`. Outside, and so
with one process, nothing is communicated.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

Piece = tuple[int, int]
"""Start and length of consecutive rows."""


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that one process has.

    Arguments:
        pieces: Its rows of the batch: start and length of each piece.
        total: Number of rows of all processes.

    >>> rows = Rows.of_process(1, 2, total=5)
    >>> rows, rows.size, rows.share
    (Rows(pieces=((2, 3),), total=5), 3, 0.6)
    >>> rows.take(torch.arange(5))
    tensor([2, 3, 4])
    """

    pieces: tuple[Piece, ...]
    total: int

    @classmethod
    def of_process(cls, rank: int, processes: int, total: int) -> Rows:
        """Consecutive rows, as many for each process as for any other, or one more.

        Arguments:
            rank: The process, from 0.
            processes: Their number.
            total: Number of rows of all.
        """
        start = total * rank // processes
        stop = total * (rank + 1) // processes
        return cls(((start, stop - start),), total)

    @property
    def size(self) -> int:
        """Number of rows of the process."""
        return sum(length for _, length in self.pieces)

    @property
    def share(self) -> float:
        """The process's share of the rows; the shares of all processes add up to 1."""
        return self.size / self.total

    def before(self, other: Rows) -> Rows:
        """Rows of the batch of both, with the rows of this one first.

        >>> Rows(((2, 2),), 4).before(Rows(((3, 3),), 6))
        Rows(pieces=((2, 2), (7, 3)), total=10)
        """
        moved = tuple((self.total + start, length) for start, length in other.pieces)
        return Rows(self.pieces + moved, self.total + other.total)

    def take(self, values: Tensor, dim: int = 0) -> Tensor:
        """The process's rows of values of the whole batch."""
        parts = [values.narrow(dim, start, length) for start, length in self.pieces]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    def spread(self, values: Tensor, dim: int = 0) -> Tensor:
        """Values of the whole batch, with those of the process in its rows, and copies elsewhere.

        >>> Rows(((1, 2),), 4).spread(torch.tensor([7, 8]))
        tensor([7, 7, 8, 7])
        """
        index = torch.zeros(self.total, dtype=torch.int64)
        at = 0
        for start, length in self.pieces:
            index[start : start + length] = torch.arange(at, at + length)
            at += length
        return values.index_select(dim, index.to(values.device))


current_rows: ContextVar[Rows | None] = ContextVar("current_rows", default=None)
"""The rows that the process evaluates now, see `pyro_ssl.utils.process_noise.sharded`."""


def mean_over_rows(values: Tensor, rows: Rows | None) -> Tensor:
    """The process's part of the mean of all rows, a scalar; without `rows`, the mean.

    Arguments:
        values: Values of the process's rows, `(B,)`.
        rows: Its rows; None if there is one process.
    """
    if rows is None:
        return values.mean()
    return values.sum() / rows.total


def all_sum(values: Tensor) -> Tensor:
    """The sum over all processes inside `sharded`, with gradient; elsewhere the values themselves.

    >>> all_sum(torch.ones(2))
    tensor([1., 1.])
    """
    if current_rows.get() is None:
        return values
    total: Tensor = _AllSum.apply(values)
    return total


class _AllSum(torch.autograd.Function):
    """A sum over all processes; backwards, that of their gradients, since all have used it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def batch_mean(values: Tensor) -> Tensor:
    """The mean over dimension 0 of all processes' rows, with gradient.

    A `Term` with a function of a mean, such as an entropy of the mean prediction, takes the mean by
    this function.

    >>> batch_mean(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([2., 3.])
    """
    if current_rows.get() is None:
        return values.mean(0)
    count = values.new_full((1, *values.shape[1:]), len(values))
    total, counts = all_sum(torch.stack([values.sum(0), count[0]]))
    return total / counts
