"""The batch of every step, from data that worker processes read on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_ssl.data.row_order import RowOrder
from pyro_ssl.data.sources import InputRows
from pyro_ssl.data.worker_processes import WorkerStream, as_it_is, value_or_failure
from pyro_ssl.objectives.batch import Batch, transformed
from pyro_ssl.training.batches import steps_per_epoch
from pyro_ssl.utils.arguments import check_kind, one_hot
from pyro_ssl.utils.context import fixed_reading_seed

DEFAULT_WORKERS = 2
"""Largest number of worker processes, unless the caller gives a number."""
PREFETCHED = 4
"""Number of steps that each worker reads ahead."""


def check_workers(workers: int | None) -> None:
    """Check a number of worker processes.

    Raises:
        ValueError: It is neither None nor a whole number of at least 0.
    """
    check_kind("workers", workers, int | None)
    if workers is not None and workers < 0:
        raise ValueError(f"workers should be 0 or above, got {workers}")


def workers_of(workers: int | None) -> int:
    """Return the caller's number of worker processes, or else two; one with fewer than three cores.

    >>> workers_of(3)
    3
    """
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(DEFAULT_WORKERS, (cores or 1) - 1))


@dataclass(frozen=True)
class SourceLabels:
    """The labeled rows of a source, and their labels.

    Only labeled rows take memory, about 16 bytes each.

    Arguments:
        n: Number of rows of the source, labeled or not.
        rows: The labeled rows, sorted, `(L,)`.
        values: Their class indices, `(L,)`, or real labels, `(L, D)`.
        classes: Number of classes; None for real labels.
        only_labeled: Leave out the unlabeled rows.

    >>> labels = SourceLabels(5, np.array([1, 2]), torch.tensor([0, 1]), classes=2)
    >>> labels.unlabeled_rows(np.array([0, 1, 2]))
    array([0, 3, 4])
    """

    n: int
    rows: np.ndarray
    values: Tensor
    classes: int | None
    only_labeled: bool = False

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of labeled and of unlabeled rows."""
        labeled = len(self.rows)
        return labeled, 0 if self.only_labeled else self.n - labeled

    def unlabeled_rows(self, places: np.ndarray) -> np.ndarray:
        """Convert places among the unlabeled rows to rows of the source."""
        before = self.rows - np.arange(len(self.rows))  # unlabeled rows before each labeled one
        return places + np.searchsorted(before, places, side="right")

    def targets(self, places: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Return labels, one-hot or real, `(n, K)`, by their places among the labeled rows."""
        values = self.values[torch.as_tensor(places)]
        if self.classes is None:
            return values.to(dtype)
        return one_hot(values, self.classes, dtype)


@dataclass(frozen=True)
class _Plan:
    """The labeled and unlabeled rows to read for a step, and the seed for reading them."""

    labeled: np.ndarray
    unlabeled: np.ndarray
    seed: int


class _Reader(Dataset[Any]):
    """The data of a plan, for torch's DataLoader."""

    def __init__(self, rows: InputRows) -> None:
        self.rows = rows

    def __getitem__(self, plan: _Plan) -> Any:
        return value_or_failure(lambda: self._parts(plan))

    def _parts(self, plan: _Plan) -> Any:
        with fixed_reading_seed(plan.seed):
            return plan.labeled, self._part(plan.labeled), self._part(plan.unlabeled)

    def _part(self, rows: np.ndarray) -> Tensor | None:
        return self.rows.on_host(rows) if len(rows) else None


class SourceBatches:
    """The batch of every step, read from a source; it depends only on the seed and the step.

    This process reads a single step itself. As soon as two consecutive steps are requested, worker
    processes read ahead. A batch whose numbers exceed the range of all earlier batches is checked
    like the first one.

    Up to `row_order.MOST_LISTED` rows, the rows have the same order as in `Batches`.

    >>> from pyro_ssl.data.sources import as_source
    >>> source = as_source(torch.utils.data.TensorDataset(torch.rand(90, 4)))
    >>> rows = InputRows(source, torch.nn.Linear(4, 1))
    >>> labels = SourceLabels(90, np.arange(20), torch.arange(20) % 3, classes=3)
    >>> batches = SourceBatches(rows, labels, batch_size=10, labeled_batch_size=8, seed=0)
    >>> batches(0).x.shape, batches(0).x_unlabeled.shape
    (torch.Size([8, 4]), torch.Size([10, 4]))

    Arguments:
        rows: The data.
        labels: Their labels.
        batch_size: Unlabeled data per step; labeled data if all are labeled.
        labeled_batch_size: Labeled data per step.
        seed: Seed of the order of rows, and of the random numbers that a Dataset draws.
        transform: Function of the data of each batch.
        device: Device of the batches.
        workers: Number of worker processes; 0 reads in this process.
    """

    encoded = False
    """The data are not encoded; a pretrained encoder of the objective encodes them in each step."""

    def __init__(
        self,
        rows: InputRows,
        labels: SourceLabels,
        batch_size: int,
        labeled_batch_size: int,
        seed: int,
        transform: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        self.rows = rows
        self.labels = labels
        self.seed = seed
        self.transform = transform
        self.device = torch.device(device)
        self.workers = workers
        self.check: Callable[[Batch, Batch], None] | None = None
        labeled, unlabeled = labels.sizes
        self.unlabeled_size = min(batch_size, unlabeled)
        if self.unlabeled_size == 0:
            labeled_batch_size = batch_size
        self.labeled_size = min(labeled_batch_size, labeled)
        self.steps_per_epoch = steps_per_epoch(*self.sizes, batch_size, labeled_batch_size)
        self._orders: dict[int, tuple[int, RowOrder]] = {}
        self._range: tuple[float, float] | None = None
        self._last: int | None = None
        self._stream: WorkerStream | None = None

    def __call__(self, step: int) -> Batch:
        """Return the transformed data of a step.

        Raises:
            ValueError: The data cannot be read, are not finite, or are outside the model's support.
            LostWorkerError: A worker process has ended.
        """
        follows = self._last is not None and step == self._last + 1
        if not follows:
            self.close()
        elif self._stream is None:
            self._stream = self._read_ahead(step)
        self._last = step
        if self._stream is None:
            data = _Reader(self.rows)[self._plan(step)]
        else:
            data = next(self._stream)
        batch = self._batch(data)
        self._check_range(batch, data)
        return batch

    def close(self) -> None:
        """End the worker processes."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._last = None

    def extremes(self) -> Batch:
        """Return the rows with the smallest and largest numbers, of up to 1000 in each part."""
        labeled, unlabeled = self.labels.sizes
        source = self.rows.source
        rows = others = np.empty(0, np.int64)
        if labeled:
            rows = self.rows.extreme_rows(self.labels.rows[source.sampled(labeled)])
        if unlabeled:
            others = self.rows.extreme_rows(self.labels.unlabeled_rows(source.sampled(unlabeled)))
        data = _Reader(self.rows)[_Plan(rows, others, 0)]
        batch = self._batch(data)
        self._range = _range_of(data)
        return batch

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of labeled and of unlabeled data."""
        return self.labels.sizes

    @property
    def columns(self) -> int:
        """Number of values in a row."""
        return int(np.prod(self.rows.shape[1:]))

    @contextmanager
    def lost_workers_explained(self) -> Iterator[None]:
        """Raise LostWorkerError inside the block where torch says that a worker has ended."""
        try:
            yield
        except RuntimeError as error:
            if self._stream is not None:
                self._stream.explain_if_lost(error)
            raise

    def _read_ahead(self, start: int) -> WorkerStream:
        """Iterate over the data of all steps from `start` on, read by the workers."""
        loader: DataLoader[Any] = DataLoader(
            _Reader(self.rows),
            batch_size=None,
            collate_fn=as_it_is,
            sampler=_Plans(self, start),
            num_workers=self.workers,
            prefetch_factor=PREFETCHED if self.workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # does not change the global one
        )
        return WorkerStream(loader, self.rows.source.name)

    def _plan(self, step: int) -> _Plan:
        labeled, unlabeled = self.labels.sizes
        of_labeled = self._part(0, labeled, self.labeled_size, step)
        of_unlabeled = self._part(1, unlabeled, self.unlabeled_size, step)
        words = np.random.SeedSequence([self.seed, 2, step]).generate_state(1, np.uint64)
        return _Plan(
            self.labels.rows[of_labeled], self.labels.unlabeled_rows(of_unlabeled), int(words[0])
        )

    def _part(self, part: int, n: int, size: int, step: int) -> np.ndarray:
        """Return the places of a step in one part of the data (0 labeled, 1 unlabeled)."""
        if size == 0:
            return np.empty(0, np.int64)
        steps = n // size  # the rows that are left over come in other passes
        index, start = divmod(step, steps)
        return self._order(part, n, index)[start * size : (start + 1) * size]

    def _order(self, part: int, n: int, index: int) -> RowOrder:
        """Return the order of the rows in a pass; the last order of each part is cached."""
        if part in self._orders and self._orders[part][0] == index:
            return self._orders[part][1]
        order = RowOrder(n, (self.seed, part, index))
        self._orders[part] = (index, order)
        return order

    def _batch(self, data: Any) -> Batch:
        """Make a batch on the device from the data of a `_Reader`, and transform it."""
        labeled, x, x_unlabeled = data
        y = None
        if x is not None:
            places = np.searchsorted(self.labels.rows, labeled)
            x = self.rows.placed(x, self.device)
            y = self.labels.targets(places, self.rows.dtype).to(self.device)
        if x_unlabeled is not None:
            x_unlabeled = self.rows.placed(x_unlabeled, self.device)
        return transformed(Batch(x, y, x_unlabeled), self.transform)

    def _check_range(self, batch: Batch, data: Any) -> None:
        """Check a batch whose numbers exceed the range of all batches checked before."""
        if self._range is None or self.check is None:
            return
        low, high = _range_of(data)
        if self._range[0] <= low and high <= self._range[1]:
            return
        self.check(batch, batch)
        self._range = (min(low, self._range[0]), max(high, self._range[1]))


class _Plans(Iterable[_Plan]):
    """The plans of all steps from `start` on, as a sampler for torch's DataLoader."""

    def __init__(self, batches: SourceBatches, start: int) -> None:
        self.batches = batches
        self.start = start

    def __iter__(self) -> Iterator[_Plan]:
        step = self.start
        while True:
            yield self.batches._plan(step)
            step += 1


def _range_of(data: Any) -> tuple[float, float]:
    """Return the smallest and the largest number in the data of a `_Reader`."""
    parts = [part for part in data[1:] if part is not None]
    low = min(float(part.min()) for part in parts)
    high = max(float(part.max()) for part in parts)
    return low, high
