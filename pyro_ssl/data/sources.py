"""Data that are read row by row when they are needed: memory maps and torch's map-style Datasets.

A `Source` holds nothing but where its rows are. `InputRows` are its rows as a method takes them.
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
"""Most rows that are looked at before training: for their range and for the fingerprint."""
SAMPLED_BYTES = 2**25
"""Most bytes of those rows, where they are large; `FEWEST_ROWS` are looked at in any case."""


class Source(ABC):
    """Data whose rows are read when they are needed.

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
        """These rows, `(n, *event)`, in the dtype in which they are kept.

        Arguments:
            rows: Indices `(n,)`.
        """

    @abstractmethod
    def labels(self, workers: int = 0) -> Any:
        """Labels `(N,)` that the data hold themselves, or None.

        Arguments:
            workers: Processes that read them; 0 reads in this one.
        """

    @abstractmethod
    def without_labels(self) -> Source:
        """The same data without the labels that they hold themselves."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        numbers = int(np.prod(self.shape[1:], dtype=np.int64))
        return numbers * self.dtype.itemsize

    def sampled(self, rows: int | None = None) -> np.ndarray:
        """Evenly spaced places among the given number of rows, by default all, for a first look."""
        rows = len(self) if rows is None else rows
        most = min(SAMPLED_ROWS, max(FEWEST_ROWS, SAMPLED_BYTES // self.row_bytes))
        return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))

    @cached_property
    def sample(self) -> Tensor:
        """The rows of `sampled`, as they are read."""
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
    """The file of a memory map, of which only the rows of a batch are in memory.

    They are read from the file: pages of a map would count as memory of the process.

    Arguments:
        array: The map, or a view of it, `(N, *event)`.
        name: Name of the argument, for messages.

    Raises:
        TypeError: It does not hold numbers.
        ValueError: It is copy-on-write, or reversed, or is empty, or has no feature dimension.

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
        self._start = _place_in_file(array)
        steps = zip(array.shape[1:], array.strides[1:], strict=True)
        self._row_span = array.itemsize + sum((n - 1) * stride for n, stride in steps)
        self._rows_are_whole = self._row_span == self.row_bytes and array[:1].flags.c_contiguous

    def read(self, rows: np.ndarray) -> Tensor:
        """These rows; see `Source.read`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It has become shorter.
        """
        follow = self._rows_are_whole and self._strides[0] == self._row_span
        is_one_piece = follow and len(rows) > 1 and bool((np.diff(rows) == 1).all())
        with open(self.filename, "rb", buffering=0) as file:
            if is_one_piece:
                values = np.empty((len(rows), *self.shape[1:]), self._stored)
                self._fill(file, values.reshape(-1).view(np.uint8), rows[0])
            else:
                values = self._read_each(file, rows)
        return torch.from_numpy(np.ascontiguousarray(values, self._native))

    def labels(self, workers: int = 0) -> None:
        """None: a memory map holds data only."""

    def without_labels(self) -> MemmapSource:
        """The same source."""
        return self

    def _read_each(self, file: Any, rows: np.ndarray) -> np.ndarray:
        """Rows that are anywhere in the file."""
        spans = np.empty((len(rows), self._row_span), np.uint8)
        for span, row in zip(spans, rows, strict=True):
            self._fill(file, span, row)
        shape = (len(rows), *self.shape[1:])
        strides = (self._row_span, *self._strides[1:])
        return np.ndarray(shape, self._stored, spans, strides=strides)

    def _fill(self, file: Any, values: np.ndarray, row: Any) -> None:
        """Read bytes from where a row begins."""
        file.seek(self._start + int(row) * self._strides[0])
        view = values.data
        while view:
            count = file.readinto(view)
            if not count:
                raise ValueError(f"{self.name}: {self.filename} ends within row {row}")
            view = view[count:]


def _place_in_file(array: np.memmap[Any, Any]) -> int:
    """The byte of the file at which a view of a memory map begins."""
    mapping = np.frombuffer(_mapping_of(array), np.uint8)
    mapped_from = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    first = array.__array_interface__["data"][0] - mapping.__array_interface__["data"][0]
    return int(mapped_from + first)


def _mapping_of(array: Any) -> Any:
    """The `mmap` that an array is a view of."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array


class DatasetSource(Source):
    """A map-style torch Dataset whose items are x, or (x, y).

    Arguments:
        dataset: The dataset, with a length.
        name: Name of the argument, for messages.
        has_labels: Whether to look for labels in its items.

    Raises:
        TypeError: It has no length, or its items are something else.
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
                "give it a __len__, which says how many rows it has"
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
        """These rows; see `Source.read`."""
        return torch.stack([self._row(int(row)) for row in rows])

    def labels(self, workers: int = 0) -> list[Any] | None:
        """The labels of all items, read once in one pass over the data; None if they have none."""
        if not self._has_labels:
            return None
        return self._labels_read(workers)

    def without_labels(self) -> DatasetSource:
        """The same data without the labels in its items."""
        return DatasetSource(self.dataset, self.name, has_labels=False)

    def _labels_read(self, workers: int) -> list[Any]:
        if not hasattr(self, "_labels"):
            size = max(1, SAMPLED_BYTES // (8 * max(1, self.row_bytes)))
            chunks = _chunks(len(self), min(size, SAMPLED_ROWS))
            loader: DataLoader[list[Any]] = DataLoader(
                _LabelsOf(self.dataset, self.name),
                batch_size=None,
                collate_fn=as_it_is,
                sampler=chunks,
                num_workers=workers,
                generator=torch.Generator(),
            )
            stream = WorkerStream(loader, self.name)
            try:
                with stream.lost_workers_told():
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


class _LabelsOf(Dataset[Any]):
    """The labels of items, for one pass over a dataset by worker processes."""

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
    """A label as a Python number, or a list of some, or None.

    Raises:
        TypeError: It is something else, such as a name.
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
    """An item of a dataset as x and its label; x alone, also as (x,), has none."""
    if not isinstance(item, tuple):
        return item, _NO_LABEL
    if len(item) == 1:
        return item[0], _NO_LABEL
    if len(item) == 2:
        return item[0], item[1]
    raise TypeError(f"{name}: items should be x or (x, y), got a tuple of {len(item)}")


def _as_row(x: Any, name: str, row: int) -> Tensor:
    """The x of an item as a tensor.

    Raises:
        TypeError: It is no array of real numbers.
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
    """A source for a memory map or a torch Dataset; anything else is returned as it is.

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
            f"{name} should be data, got a {kind}; give its dataset, {name}.dataset: the order of "
            "the rows, and with it an exact resume, is pyro-ssl's"
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
    """Rows of a source in the dtype of a method's weights; they are read when asked for.

    They can be indexed by a slice or by indices, and split into chunks, as a tensor can. Pixels of
    uint8 are numbers in [0, 1]. Rows that are read are checked to be finite.

    Arguments:
        source: The source.
        objective: The method.
        dtype: Dtype of the rows; None takes that of the method's weights.

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
        """Rows, `(n, *event)`, or one row, `(*event)`, as the method takes them, on the CPU."""
        if isinstance(rows, int):
            return self[rows : rows + 1][0]
        if isinstance(rows, slice):
            places = range(len(self))[rows]
            rows = np.arange(places.start, places.stop, places.step)
        with fixed_reading_seed(0):
            values = self.on_host(np.asarray(rows))
        return self.placed(values, torch.device("cpu"))

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows, some at a time.

        Arguments:
            size: Rows of a chunk.
        """
        for rows in _chunks(len(self), size):
            yield self[rows.start : rows.stop]

    def on_host(self, rows: np.ndarray) -> Tensor:
        """Rows on the CPU, checked; pixels are still 0 .. 255 of uint8.

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
        low, high = values.aminmax()  # NaN if one is; it needs no further memory
        if low.isfinite() and high.isfinite():
            return
        row = int(rows[int((~values.flatten(1).isfinite().all(1)).nonzero()[0])])
        raise ValueError(
            f"{self.source.name} holds NaN or infinity, in row {row}, as {values.dtype}; "
            "drop or impute it"
        )

    def placed(self, values: Tensor, device: torch.device) -> Tensor:
        """Rows of `on_host` on a device, pixels as numbers in [0, 1]."""
        values = values.to(device, non_blocking=True)
        return from_pixels(values, self.dtype) if self.pixels else values

    def extent(self) -> Extent:
        """Shape and range of up to 1000 evenly spaced rows; the other rows may reach beyond it."""
        return Extent.of(self[self.source.sampled()])

    def extreme_rows(self, rows: np.ndarray) -> np.ndarray:
        """Those of the given rows with the smallest and with the largest number, `(2,)`."""
        with fixed_reading_seed(0):
            return rows[extreme_rows(self.on_host(rows)).numpy()]


def _chunks(n: int, size: int) -> list[range]:
    """The numbers 0 .. n - 1 in ranges of a size."""
    return [range(start, min(n, start + size)) for start in range(0, n, size)]
