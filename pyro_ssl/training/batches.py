"""The batch of every step, as a function of the step alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from torch import Tensor

from pyro_ssl.data.row_order import listed_order
from pyro_ssl.objectives.batch import Batch, transformed
from pyro_ssl.utils.arguments import from_pixels, is_pixels
from pyro_ssl.utils.arrays import extreme_rows


def steps_per_epoch(labeled: int, unlabeled: int, batch_size: int, labeled_batch_size: int) -> int:
    """Steps of one pass over the unlabeled data, or over the labeled data if that takes more.

    >>> steps_per_epoch(labeled=20, unlabeled=70, batch_size=10, labeled_batch_size=8)
    7

    Arguments:
        labeled: Number of labeled data.
        unlabeled: Number of unlabeled data.
        batch_size: Unlabeled data per step (labeled, if all are).
        labeled_batch_size: Labeled data per step.
    """
    if unlabeled == 0:
        return max(1, labeled // batch_size)
    return max(1, unlabeled // batch_size, labeled // labeled_batch_size)


class Batches:
    """Labeled and unlabeled data on one device, and the batch of every step.

    Each pass has a new order, from a generator that is seeded by (seed, pass): a resumed run gets
    the same batches, and the global random state does not change.

    >>> import torch
    >>> known = torch.arange(90) < 20
    >>> batches = Batches(
    ...     torch.rand(90, 4), torch.eye(3)[torch.zeros(90, dtype=int)], known,
    ...     batch_size=10, labeled_batch_size=8, seed=0,
    ... )
    >>> batches(0).x.shape, batches(0).x_unlabeled.shape
    (torch.Size([8, 4]), torch.Size([10, 4]))

    Arguments:
        x: Data `(N, *event)`, as of `as_stored`: pixels of uint8 become numbers batch by batch.
        y: Labels `(N, K)`, one-hot or real, in the dtype of the weights.
        known: Mask of the rows with a label, `(N,)`.
        batch_size: Unlabeled data per step (labeled, if all are).
        labeled_batch_size: Labeled data per step.
        seed: Seed of the order.
        transform: Function of the data of each batch.
        encoded: The data have already been encoded by the objective's pretrained encoder.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        known: Tensor,
        batch_size: int,
        labeled_batch_size: int,
        seed: int,
        transform: Callable[[Tensor], Tensor] | None = None,
        encoded: bool = False,
    ) -> None:
        known = known.to(x.device)
        self.x = x[known]
        self.y = y.to(x.device)[known]
        self.x_unlabeled = x[~known]
        self.seed = seed
        self.transform = transform
        self.encoded = encoded
        self.unlabeled_size = min(batch_size, len(self.x_unlabeled))
        if self.unlabeled_size == 0:
            labeled_batch_size = batch_size
        self.labeled_size = min(labeled_batch_size, len(self.x))
        self.steps_per_epoch = steps_per_epoch(*self.sizes, batch_size, labeled_batch_size)
        self._orders: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, step: int) -> Batch:
        """Batch of a step, transformed."""
        labeled = self._rows(0, len(self.x), self.labeled_size, step)
        unlabeled = self._rows(1, len(self.x_unlabeled), self.unlabeled_size, step)
        return self._batch(labeled, unlabeled)

    def close(self) -> None:
        """Nothing: no process has been started."""

    def lost_workers_explained(self) -> AbstractContextManager[None]:
        """A context that does nothing; see `SourceBatches`."""
        return nullcontext()

    def extremes(self) -> Batch:
        """Batch of the labeled and unlabeled rows that hold the smallest and the largest number."""
        labeled = extreme_rows(self.x) if len(self.x) else None
        unlabeled = extreme_rows(self.x_unlabeled) if len(self.x_unlabeled) else None
        return self._batch(labeled, unlabeled)

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of labeled and of unlabeled data."""
        return len(self.x), len(self.x_unlabeled)

    @property
    def columns(self) -> int:
        """Numbers in a datum."""
        rows = self.x if len(self.x) else self.x_unlabeled
        return rows[0].numel()

    def _batch(self, labeled: Tensor | None, unlabeled: Tensor | None) -> Batch:
        batch = Batch(
            x=None if labeled is None else self._input(self.x[labeled]),
            y=None if labeled is None else self.y[labeled],
            x_unlabeled=None if unlabeled is None else self._input(self.x_unlabeled[unlabeled]),
        )
        return replace(transformed(batch, self.transform), encoded=self.encoded)

    def _input(self, rows: Tensor) -> Tensor:
        return from_pixels(rows, self.y.dtype) if is_pixels(rows) else rows

    def _rows(self, part: int, n: int, size: int, step: int) -> Tensor | None:
        """Rows of one part of the data (0 labeled, 1 unlabeled) in a step."""
        if size == 0:
            return None
        steps = n // size  # the rows that are left over come in other passes
        index, start = divmod(step, steps)
        return self._order(part, n, index)[start * size : (start + 1) * size]

    def _order(self, part: int, n: int, index: int) -> Tensor:
        """The order of a pass; the last one is kept."""
        if part in self._orders and self._orders[part][0] == index:
            return self._orders[part][1]
        order = listed_order(n, (self.seed, part, index)).to(self.x.device)
        self._orders[part] = (index, order)
        return order
