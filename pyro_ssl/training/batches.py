"""The batch of every step, as a function of the step alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.objectives.batch import Batch
from pyro_ssl.utils.arrays import extreme_rows


def steps_per_epoch(labeled: int, unlabeled: int, batch_size: int, labeled_batch_size: int) -> int:
    """Steps of a pass over so many unlabeled data, or over the labeled ones beside them, if that takes more."""
    if not unlabeled:
        return max(1, labeled // batch_size)
    return max(1, unlabeled // batch_size, labeled // labeled_batch_size)


class Batches:
    """Labeled and unlabeled data on one device, and the batch of every step as a function of the step alone.

    The order is drawn anew each pass by a generator of its own seeded by (seed, pass), so that a resumed run sees the same
    batches and nobody else's random state is touched.

    Arguments:
        x: Data `(N, *event)`.
        y: Labels `(N, K)`, one-hot or real.
        known: Which rows have one, `(N,)`.
        batch_size: Unlabeled data per step (labeled, if all are).
        labeled_batch_size: Labeled data per step beside them.
        seed: Of the order.
    """

    def __init__(
        self, x: Tensor, y: Tensor, known: Tensor, batch_size: int, labeled_batch_size: int, seed: int
    ) -> None:
        known = known.to(x.device)
        self.x, self.y = x[known], y.to(x.device)[known]
        self.x_unlabeled = x[~known]
        self.seed = seed
        self.unlabeled_size = min(batch_size, len(self.x_unlabeled))
        self.labeled_size = min(labeled_batch_size if self.unlabeled_size else batch_size, len(self.x))
        sizes = len(self.x), len(self.x_unlabeled)
        self.steps_per_epoch = steps_per_epoch(*sizes, batch_size, labeled_batch_size)
        self._orders: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, step: int) -> Batch:
        labeled = self._rows(0, len(self.x), self.labeled_size, step)
        return self._of(labeled, self._rows(1, len(self.x_unlabeled), self.unlabeled_size, step))

    @property
    def columns(self) -> int:
        """Numbers in a datum."""
        return self.x[0].numel() if len(self.x) else self.x_unlabeled[0].numel()

    def extremes(self) -> Batch:
        """Of either part the data that hold its smallest and its largest number."""
        return self._of(*(extreme_rows(x) if len(x) else None for x in (self.x, self.x_unlabeled)))

    def _of(self, labeled: Tensor | None, unlabeled: Tensor | None) -> Batch:
        return Batch(
            x=None if labeled is None else self.x[labeled],
            y=None if labeled is None else self.y[labeled],
            x_unlabeled=None if unlabeled is None else self.x_unlabeled[unlabeled],
        )

    def _rows(self, part: int, n: int, size: int, step: int) -> Tensor | None:
        if size == 0:
            return None
        steps = n // size  # of one pass; the last, short batch is left to another pass's order
        index, start = divmod(step, steps)
        return self._order(part, n, index)[start * size : (start + 1) * size]

    def _order(self, part: int, n: int, index: int) -> Tensor:
        if self._orders.get(part, (-1,))[0] != index:
            seed = np.random.SeedSequence([self.seed, part, index]).generate_state(1, np.uint64)[0] >> np.uint64(1)
            order = torch.randperm(n, generator=torch.Generator().manual_seed(int(seed)))
            self._orders[part] = (index, order.to(self.x.device))
        return self._orders[part][1]
