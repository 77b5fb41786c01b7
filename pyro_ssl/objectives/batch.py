"""The data of one training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Batch:
    """Labeled and unlabeled data of one step; either part may be absent.

    Arguments:
        x: Labeled data, `(B_l, *event)`.
        y: Their one-hot labels, `(B_l, K)`.
        x_unlabeled: Unlabeled data, `(B_u, *event)`.
        encoded: True if the data are already encoded by the objective's pretrained encoder.

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
    x = None if batch.x is None else transform(batch.x)
    x_unlabeled = None if batch.x_unlabeled is None else transform(batch.x_unlabeled)
    return Batch(x, batch.y, x_unlabeled)
