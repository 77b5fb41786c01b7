"""The data of one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Batch:
    """What one step sees: labeled and unlabeled data together, either of which may be absent.

    Arguments:
        x: Labeled data, `(B_l, *event)`.
        y: Their one-hot labels, `(B_l, K)`.
        x_unlabeled: Unlabeled data, `(B_u, *event)`.
        encoded: Whether the data have already been encoded by the objective's pretrained encoder.

    Raises:
        ValueError: A part is empty, or x and y are not equally many.
    """

    x: Tensor | None = None
    y: Tensor | None = None
    x_unlabeled: Tensor | None = None
    encoded: bool = False

    def __post_init__(self) -> None:
        sizes = [None if t is None else len(t) for t in (self.x, self.y, self.x_unlabeled)]
        if 0 in sizes or sizes[0] != sizes[1]:
            raise ValueError(
                f"batch: got {sizes[0]} rows in x, {sizes[1]} in y and {sizes[2]} in x_unlabeled; "
                "x and y should have equally many, and a part without data should be None"
            )

    @property
    def sizes(self) -> tuple[int, int]:
        """B_l and B_u."""
        return 0 if self.x is None else len(self.x), 0 if self.x_unlabeled is None else len(self.x_unlabeled)


def transformed(batch: Batch, transform: Callable[[Tensor], Tensor] | None) -> Batch:
    """The batch with its data, not its labels, passed through a function."""
    if transform is None:
        return batch
    apply = lambda x: None if x is None else transform(x)  # noqa: E731
    return Batch(apply(batch.x), batch.y, apply(batch.x_unlabeled))
