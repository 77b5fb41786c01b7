"""Data whose rows are read on demand: memory maps and torch's map-style Datasets.

A `Source` reads rows as they are stored. `InputRows` converts them to what a method takes.
"""

from __future__ import annotations

import mmap
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pyro_ssl.data.extent import FEWEST_ROWS, Extent
from pyro_ssl.data.worker_processes import WorkerStream, as_it_is, value_or_failure
from pyro_ssl.utils.arguments import (
    check_pixel_unit,
    embeds_integers,
    from_pixels,
    is_pixels,
)
from pyro_ssl.utils.arrays import brief, check_array_like, extreme_rows
from pyro_ssl.utils.context import fixed_reading_seed

SAMPLED_ROWS = 1000
"""Largest number of rows read before training, to find their range and the fingerprint."""
SAMPLED_BYTES = 2**25
"""Largest size of these rows in bytes; at least `FEWEST_ROWS` rows are read, however large."""


class Source(ABC):
    """Data whose rows are read on demand.

    Arguments:
        shape: Shape of all data, `(N, *event)`.
        dtype: The dtype of the rows as they are read.
        name: Name of the argument, for messages.

    Raises:
        ValueError: There are no rows, or they have no feature dimension.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, name: str) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.name = name
        if len(self.shape) < 2:
            raise ValueError(
                f"{name} should have shape (data, features, ...), got {self.shape}; "
                "one feature is (data, 1)"
            )
        if 0 in self.shape:
            raise ValueError(f"{name} is empty: shape {self.shape}")

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def read(self, rows: np.ndarray) -> Tensor:
        """Read rows, `(n, *event)`, in the dtype in which they are stored.

        Arguments:
            rows: Indices `(n,)`.
        """

    @abstractmethod
    def labels(self, workers: int = 0) -> Any:
        """Return the labels `(N,)` that are stored with the data, or None if there are none.

        Arguments:
            workers: Number of processes that read the labels; 0 reads in this process.
        """

    @abstractmethod
    def without_labels(self) -> Source:
        """Return a source of the same data without their labels."""

    @property
    def row_bytes(self) -> int:
        """Size of a row in bytes."""
        numbers = int(np.prod(self.shape[1:], dtype=np.int64))
        return numbers * self.dtype.itemsize

    def sampled(self, rows: int | None = None) -> np.ndarray:
        """Return evenly spaced indices below `rows`, by default the number of all rows."""
        rows = len(self) if rows is None else rows
        most = min(SAMPLED_ROWS, max(FEWEST_ROWS, SAMPLED_BYTES // self.row_bytes))
        return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))

    @cached_property
    def sample(self) -> Tensor:
        """The rows at the indices of `sampled`, as they are stored."""
        with fixed_reading_seed(0):
            return self.read(self.sampled())

    def check_pixels(self) -> None:
        """Check that up to 1000 rows, as pixels, are not binary; see `check_pixel_unit`."""
        check_pixel_unit(self.sample, self.name)

    @cached_property
    def fingerprint(self) -> int:
        """Checksum of shape, dtype and up to 1000 evenly spaced rows, to recognise the same data.

        A change in other rows is not noticed. The file's name and date are left out, so that data
        can be moved.
        """
        described = zlib.crc32(f"{self.shape} {self.dtype}".encode())
        values = self.sample.contiguous().view(torch.uint8)
        return zlib.crc32(values.numpy().data, described)


class MemmapSource(Source):
    """Rows in the file of a memory map; only the rows of a batch are in memory.

    Rows are read from the file and not through the map, whose pages would count as memory of the
    process.

    Arguments:
        array: The memory map, or a view of it, `(N, *event)`.
        name: Name of the argument, for messages.

    Raises:
        TypeError: It does not hold numbers.
        ValueError: It is copy-on-write, reversed or empty, or has no feature dimension.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     array = np.memmap(file.name, np.float32, "w+", shape=(5, 2))
    ...     MemmapSource(array).read(np.array([3, 1])).shape
    torch.Size([2, 2])
    """

    def __init__(self, array: np.memmap[Any, Any], name: str = "x") -> None:
        if array.dtype.kind not in "biuf":
            raise TypeError(
                f"{name} should hold real numbers, got a memory map of dtype {array.dtype}"
            )
        if array.mode == "c":
            raise ValueError(
                f"{name} is a memory map with mode 'c', whose changes are not in the file; "
                "open it with mode 'r', or give a copy in memory, np.array(x)"
            )
        if min(array.strides[1:], default=0) < 0:
            raise ValueError(
                f"{name} is a view of a memory map whose rows are reversed; write the reversed "
                "rows to a file, or give a copy in memory, np.array(x)"
            )
        native = array.dtype.newbyteorder("=")
        dtype = torch.as_tensor(np.empty(0, native)).dtype
        super().__init__(array.shape, dtype, name)
        self.filename = str(array.filename)
        self._stored = array.dtype
        self._native = native
        self._strides = array.strides
        self._start = _offset_in_file(array)
        steps = zip(array.shape[1:], array.strides[1:], strict=True)
        self._row_span = array.itemsize + sum((n - 1) * stride for n, stride in steps)
        is_packed = self._row_span == self.row_bytes
        self._rows_are_contiguous = is_packed and array[:1].flags.c_contiguous

    def read(self, rows: np.ndarray) -> Tensor:
        """Read rows; see `Source.read`.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file has become shorter.
        """
        are_adjacent = self._rows_are_contiguous and self._strides[0] == self._row_span
        is_one_piece = are_adjacent and len(rows) > 1 and bool((np.diff(rows) == 1).all())
        with open(self.filename, "rb", buffering=0) as file:
            if is_one_piece:
                values = np.empty((len(rows), *self.shape[1:]), self._stored)
                self._fill(file, values.reshape(-1).view(np.uint8), rows[0])
            else:
                values = self._read_each(file, rows)
        return torch.from_numpy(np.ascontiguousarray(values, self._native))

    def labels(self, workers: int = 0) -> None:
        """Return None, since a memory map has no labels."""

    def without_labels(self) -> MemmapSource:
        """Return the source itself, which has no labels."""
        return self

    def _read_each(self, file: Any, rows: np.ndarray) -> np.ndarray:
        """Read rows one by one, wherever they are in the file."""
        spans = np.empty((len(rows), self._row_span), np.uint8)
        for span, row in zip(spans, rows, strict=True):
            self._fill(file, span, row)
        shape = (len(rows), *self.shape[1:])
        strides = (self._row_span, *self._strides[1:])
        return np.ndarray(shape, self._stored, spans, strides=strides)

    def _fill(self, file: Any, values: np.ndarray, row: Any) -> None:
        """Fill an array with the bytes of the file from the start of a row on."""
        file.seek(self._start + int(row) * self._strides[0])
        view = values.data
        while view:
            count = file.readinto(view)
            if not count:
                raise ValueError(f"{self.name}: {self.filename} ends within row {row}")
            view = view[count:]


def _offset_in_file(array: np.memmap[Any, Any]) -> int:
    """Return the offset in the file, in bytes, at which a view of a memory map begins."""
    mapping = np.frombuffer(_mapping_of(array), np.uint8)
    mapped_from = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    first = array.__array_interface__["data"][0] - mapping.__array_interface__["data"][0]
    return int(mapped_from + first)


def _mapping_of(array: Any) -> Any:
    """Return the `mmap` behind an array."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array


class DatasetSource(Source):
    """A map-style torch Dataset whose items are x, or (x, y).

    Arguments:
        dataset: The dataset, with a length.
        name: Name of the argument, for messages.
        has_labels: Read the labels of its items, if they are (x, y).

    Raises:
        TypeError: It has no length, or its items are neither x nor (x, y).
        ValueError: It is empty, or x has no dimension.

    >>> pairs = torch.utils.data.TensorDataset(torch.zeros(5, 2), torch.tensor([0, 1, -1, 0, 1]))
    >>> source = DatasetSource(pairs)
    >>> source.shape, source.labels()
    ((5, 2), [0, 1, -1, 0, 1])
    """

    def __init__(self, dataset: Dataset[Any], name: str = "x", has_labels: bool = True) -> None:
        if not hasattr(dataset, "__len__"):
            raise TypeError(
                f"{name}: a {type(dataset).__name__} has no length; "
                "give it a __len__ that returns the number of its rows"
            )
        if len(dataset) == 0:
            raise ValueError(f"{name} is empty: a {type(dataset).__name__} of length 0")
        self.dataset = dataset
        with fixed_reading_seed(0):
            first, label = _split_item(_item(dataset, 0, name), name)
        x = _as_row(first, name, 0)
        super().__init__((len(dataset), *x.shape), x.dtype, name)
        self._pairs = label is not _NO_LABEL
        self._has_labels = has_labels and self._pairs

    def read(self, rows: np.ndarray) -> Tensor:
        """Read rows; see `Source.read`."""
        return torch.stack([self._row(int(row)) for row in rows])

    def labels(self, workers: int = 0) -> list[Any] | None:
        """Return the labels of all items, read in one pass, or None if the items have none."""
        if not self._has_labels:
            return None
        return self._labels_read(workers)

    def without_labels(self) -> DatasetSource:
        """Return a source of the same dataset that ignores the labels of its items."""
        return DatasetSource(self.dataset, self.name, has_labels=False)

    def _labels_read(self, workers: int) -> list[Any]:
        if not hasattr(self, "_labels"):
            size = max(1, SAMPLED_BYTES // (8 * max(1, self.row_bytes)))
            chunks = _chunks(len(self), min(size, SAMPLED_ROWS))
            loader: DataLoader[list[Any]] = DataLoader(
                _Labels(self.dataset, self.name),
                batch_size=None,
                collate_fn=as_it_is,
                sampler=chunks,
                num_workers=workers,
                generator=torch.Generator(),
            )
            stream = WorkerStream(loader, self.name)
            try:
                with stream.lost_workers_explained():
                    self._labels = [label for part in stream for label in part]
            finally:
                stream.close()
        return self._labels

    def _row(self, row: int) -> Tensor:
        item = _item(self.dataset, row, self.name)
        x = _as_row(_split_item(item, self.name)[0], self.name, row)
        if x.shape != self.shape[1:] or x.dtype != self.dtype:
            raise ValueError(
                f"{self.name}: items should have one shape and dtype; item 0 has "
                f"{self.shape[1:]}, {self.dtype}, and item {row} has {tuple(x.shape)}, {x.dtype}"
            )
        return x


_NO_LABEL = object()


class _Labels(Dataset[Any]):
    """The labels of a dataset by range of rows, for torch's DataLoader to read."""

    def __init__(self, dataset: Dataset[Any], name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __getitem__(self, rows: range) -> Any:
        return value_or_failure(lambda: self._labels(rows))

    def _labels(self, rows: range) -> list[Any]:
        with fixed_reading_seed(0):
            return [self._label(i) for i in rows]

    def _label(self, row: int) -> Any:
        label = _split_item(_item(self.dataset, row, self.name), self.name)[1]
        return _plain_label(label, f"{self.name}: item {row}")


def _item(dataset: Dataset[Any], row: int, name: str) -> Any:
    """An item of a user's dataset.

    Raises:
        ValueError: The dataset has raised an error, which is the cause.
    """
    try:
        return dataset[row]
    except Exception as error:
        raise ValueError(
            f"{name}: item {row} cannot be read: {type(error).__name__}: {error}"
        ) from error


def _plain_label(label: Any, item: str) -> Any:
    """Convert a label to a Python number, a list of numbers, or None.

    Raises:
        TypeError: The label is something else, such as a name.
        ValueError: The item has none, not even None.
    """
    if label is _NO_LABEL:
        raise ValueError(
            f"{item} has no label, but item 0 is (x, y): some items are (x, y) and others are x; "
            "give y = None or -1 there"
        )
    if label is None:
        return None
    plain = label.tolist() if hasattr(label, "tolist") else label
    numbers = plain if isinstance(plain, list | tuple) else [plain]
    if not all(isinstance(number, Real) for number in numbers):
        raise TypeError(
            f"{item} has the label {brief(label)}; a label should be a class index, 0 .. K - 1, "
            "or a real number, and -1 or None where there is none; pyro_ssl.data.encode turns "
            "names into class indices"
        )
    return plain


def _split_item(item: Any, name: str) -> tuple[Any, Any]:
    """Split an item of a dataset into x and its label; x and (x,) have no label."""
    if not isinstance(item, tuple):
        return item, _NO_LABEL
    if len(item) == 1:
        return item[0], _NO_LABEL
    if len(item) == 2:
        return item[0], item[1]
    raise TypeError(f"{name}: items should be x or (x, y), got a tuple of {len(item)}")


def _as_row(x: Any, name: str, row: int) -> Tensor:
    """Convert the x of an item to a tensor.

    Raises:
        TypeError: It is not an array of real numbers.
    """
    name = f"{name}: item {row}"
    check_array_like(x, name)
    try:
        tensor = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} should be an array of numbers, got {brief(x)}: {error}") from None
    if tensor.is_complex():
        raise TypeError(f"{name} should hold real numbers, got {tensor.dtype}")
    return tensor.detach().cpu()


class PixelSource(Source):
    """Images of uint8 in memory, whose pixels become numbers chunk by chunk.

    Arguments:
        pixels: Images `(N, C, H, W)` of uint8.
        name: Name of the argument, for messages.

    >>> PixelSource(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).read(np.array([3, 1])).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(self, pixels: Tensor, name: str = "x") -> None:
        super().__init__(pixels.shape, pixels.dtype, name)
        self._pixels = pixels

    def read(self, rows: np.ndarray) -> Tensor:
        """These rows; see `Source.read`."""
        return self._pixels[torch.as_tensor(rows, device=self._pixels.device)]

    def check_pixels(self) -> None:
        """Check all of them; see `Source.check_pixels`."""
        check_pixel_unit(self._pixels, self.name)

    def labels(self, workers: int = 0) -> None:
        """None: images hold no labels."""

    def without_labels(self) -> PixelSource:
        """The same source."""
        return self


class OrderedSource(Source):
    """The rows of another source in another order.

    Arguments:
        source: The other source.
        order: The row of the other source at each place, `(N,)`.

    >>> source = PixelSource(torch.arange(3, dtype=torch.uint8).reshape(3, 1, 1, 1))
    >>> OrderedSource(source, np.array([2, 0, 1])).read(np.array([0])).flatten()
    tensor([2], dtype=torch.uint8)
    """

    def __init__(self, source: Source, order: np.ndarray) -> None:
        super().__init__((len(order), *source.shape[1:]), source.dtype, source.name)
        self._source = source
        self._order = order

    def read(self, rows: np.ndarray) -> Tensor:
        """These rows; see `Source.read`."""
        return self._source.read(self._order[rows])

    def check_pixels(self) -> None:
        """See `Source.check_pixels`."""
        self._source.check_pixels()

    def labels(self, workers: int = 0) -> None:
        """None: they are not needed in another order."""

    def without_labels(self) -> OrderedSource:
        """The same source."""
        return self


def as_source(x: Any, name: str = "x") -> Any:
    """Return a source for a memory map or a torch Dataset, and anything else unchanged.

    Arguments:
        x: The data.
        name: Name of the argument, for messages.

    Raises:
        TypeError: It is an `IterableDataset` or a `DataLoader`.

    >>> as_source([[1.0]])
    [[1.0]]
    """
    kind = type(x).__name__
    if isinstance(x, DataLoader):
        raise TypeError(
            f"{name} should be data, got a {kind}; give its dataset, {name}.dataset; the rows are "
            "shuffled by pyro-ssl, so that a run can be resumed exactly"
        )
    if isinstance(x, IterableDataset):
        raise TypeError(
            f"{name} is an IterableDataset, {kind}, which cannot be read at row i, so a resumed "
            "run could not find its place; give a Dataset with __getitem__ and __len__, or write "
            "the rows to a file once and give np.load(path, mmap_mode='r')"
        )
    if isinstance(x, Dataset):
        return DatasetSource(x, name)
    if isinstance(x, np.memmap) and x.filename and isinstance(_mapping_of(x), mmap.mmap):
        return MemmapSource(x, name)
    return x


class InputRows:
    """Rows of a source, read on demand and converted to the dtype of a method's weights.

    Like a tensor, they can be indexed by a slice or by indices, and split into chunks. Pixels of
    uint8 become numbers in [0, 1]. Rows are checked to be finite when they are read.

    Arguments:
        source: The source.
        objective: The objective that takes the rows.
        dtype: Dtype of the rows; None takes that of the objective's weights.

    Raises:
        ValueError: Pixels are binary; see `check_pixel_unit`.

    >>> source = DatasetSource(torch.utils.data.TensorDataset(torch.zeros(5, 2)))
    >>> rows = InputRows(source, nn.Linear(2, 1).double())
    >>> rows[1:3].dtype, [len(chunk) for chunk in rows.split(2)]
    (torch.float64, [2, 2, 1])
    """

    def __init__(
        self, source: Source, objective: nn.Module, dtype: torch.dtype | None = None
    ) -> None:
        self.source = source
        self.shape = source.shape
        self.dtype = dtype or next(objective.parameters()).dtype
        self.integers = embeds_integers(objective)
        self.pixels = is_pixels(source.sample, integers=self.integers)
        if self.pixels:
            source.check_pixels()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: Any) -> Tensor:
        """Read rows, `(n, *event)`, or one row, `(*event)`, and convert them on the CPU."""
        if isinstance(rows, int):
            return self[rows : rows + 1][0]
        if isinstance(rows, slice):
            places = range(len(self))[rows]
            rows = np.arange(places.start, places.stop, places.step)
        with fixed_reading_seed(0):
            values = self.on_host(np.asarray(rows))
        return self.placed(values, torch.device("cpu"))

    def split(self, size: int) -> Iterator[Tensor]:
        """Iterate over all rows in chunks.

        Arguments:
            size: Number of rows in a chunk.
        """
        for rows in _chunks(len(self), size):
            yield self[rows.start : rows.stop]

    def on_host(self, rows: np.ndarray) -> Tensor:
        """Read rows on the CPU and check them; pixels stay 0 .. 255 in uint8.

        Arguments:
            rows: Indices `(n,)`.

        Raises:
            ValueError: They hold NaN or infinity.
        """
        values = self.source.read(rows)
        if self.pixels:
            return values
        is_whole = not values.is_floating_point() and values.dtype != torch.bool
        values = values.to(torch.int64 if self.integers and is_whole else self.dtype)
        self._check_finite(values, rows)
        return values

    def _check_finite(self, values: Tensor, rows: np.ndarray) -> None:
        low, high = values.aminmax()  # NaN if any value is NaN; needs no extra memory
        if low.isfinite() and high.isfinite():
            return
        row = int(rows[int((~values.flatten(1).isfinite().all(1)).nonzero()[0])])
        raise ValueError(
            f"{self.source.name} holds NaN or infinity, in row {row}, as {values.dtype}; "
            "drop or impute it"
        )

    def placed(self, values: Tensor, device: torch.device) -> Tensor:
        """Move rows from `on_host` to a device, and scale pixels to [0, 1]."""
        values = values.to(device, non_blocking=True)
        return from_pixels(values, self.dtype) if self.pixels else values

    def extent(self) -> Extent:
        """Return the shape and range of up to 1000 evenly spaced rows; others may exceed it."""
        return Extent.of(self[self.source.sampled()])

    def extreme_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the given rows that hold the smallest and the largest number, `(2,)`."""
        with fixed_reading_seed(0):
            return rows[extreme_rows(self.on_host(rows)).numpy()]


def _chunks(n: int, size: int) -> list[range]:
    """Split 0 .. n - 1 into ranges of the given size; the last one may be shorter."""
    return [range(start, min(n, start + size)) for start in range(0, n, size)]
