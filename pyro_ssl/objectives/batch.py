"""The data of one training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from pyro_ssl.utils.process_noise import sharded
from pyro_ssl.utils.process_rows import Rows


@dataclass
class Batch:
    """Labeled and unlabeled data of one step; either part may be absent.

    Arguments:
        x: Labeled data, `(B_l, *event)`.
        y: Their one-hot labels, `(B_l, K)`.
        x_unlabeled: Unlabeled data, `(B_u, *event)`.
        encoded: True if the data are already encoded by the objective's pretrained encoder.
        rows: Positions of these rows in the labeled rows of all processes; None for one process.
        rows_unlabeled: The same for the unlabeled rows.

    Raises:
        ValueError: A part is empty, or x and y have different numbers of rows.

    >>> import torch
    >>> Batch(torch.zeros(2, 4), torch.eye(2), torch.zeros(5, 4)).sizes
    (2, 5)
    """

    x: Tensor | None = None
    y: Tensor | None = None
    x_unlabeled: Tensor | None = None
    encoded: bool = False
    rows: Rows | None = None
    rows_unlabeled: Rows | None = None

    def __post_init__(self) -> None:
        rows = [None if part is None else len(part) for part in (self.x, self.y, self.x_unlabeled)]
        if 0 in rows or rows[0] != rows[1]:
            raise ValueError(
                f"batch: got {rows[0]} rows in x, {rows[1]} in y and {rows[2]} in x_unlabeled; "
                "x and y should have equally many, and a part without data should be None"
            )

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of rows B_l and B_u."""
        labeled = 0 if self.x is None else len(self.x)
        unlabeled = 0 if self.x_unlabeled is None else len(self.x_unlabeled)
        return labeled, unlabeled

    @property
    def all_rows(self) -> Rows | None:
        """Rows of both parts, the labeled ones first; None if there is one process."""
        if self.rows is None or self.rows_unlabeled is None:
            return self.rows or self.rows_unlabeled
        return self.rows.before(self.rows_unlabeled)

    def part(self, rank: int, processes: int) -> Batch:
        """The rows of one of several processes.

        >>> import torch
        >>> Batch(x_unlabeled=torch.zeros(5, 4)).part(1, 2).sizes
        (0, 3)

        Arguments:
            rank: The process, from 0.
            processes: Their number.

        Raises:
            ValueError: There are fewer rows than processes.
        """
        labeled, unlabeled = self.sizes
        for name, size in (("labeled", labeled), ("unlabeled", unlabeled)):
            if 0 < size < processes:
                raise ValueError(
                    f"batch: {size} {name} rows cannot be divided between {processes} processes; "
                    "use fewer processes, or larger batches if there are more data"
                )
        rows = Rows.of_process(rank, processes, labeled) if labeled else None
        rows_unlabeled = Rows.of_process(rank, processes, unlabeled) if unlabeled else None
        return replace(
            self,
            x=_take(self.x, rows),
            y=_take(self.y, rows),
            x_unlabeled=_take(self.x_unlabeled, rows_unlabeled),
            rows=rows,
            rows_unlabeled=rows_unlabeled,
        )


def _take(values: Tensor | None, rows: Rows | None) -> Tensor | None:
    if values is None or rows is None:
        return None
    return rows.take(values)


def transformed(batch: Batch, transform: Callable[[Tensor], Tensor] | None) -> Batch:
    """Apply a function to the data of a batch, not to its labels.

    Arguments:
        batch: The batch.
        transform: Maps data to data; None returns the batch as it is.

    >>> import torch
    >>> transformed(Batch(x_unlabeled=torch.ones(2, 1)), lambda x: 3 * x).x_unlabeled
    tensor([[3.],
            [3.]])
    """
    if transform is None:
        return batch
    with sharded(batch.rows):
        x = None if batch.x is None else transform(batch.x)
    with sharded(batch.rows_unlabeled):
        x_unlabeled = None if batch.x_unlabeled is None else transform(batch.x_unlabeled)
    return replace(batch, x=x, x_unlabeled=x_unlabeled, encoded=False)
