"""The labels of a pool, written to disk before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.active.pool import Fingerprint, fingerprint
from pyro_ssl.utils import files
from pyro_ssl.utils.arrays import as_array, check_unmasked

FORMAT = "pyro-ssl active learner"

Label = int | list[float]
"""A class index, or the values of a real label."""


class Rows(NamedTuple):
    """The rows that have been asked. They are replaced as a whole, so any thread may read them.

    >>> Rows([3, 1], [0, 1], [4]).by_row
    {3: 0, 1: 1}

    Arguments:
        indices: Labeled rows, in the order in which they were taught.
        values: Their labels: class indices, or real values `(n, D)`.
        skipped: Rows that could not be labeled and are not asked for again.
    """

    indices: list[int]
    values: list[Any]
    skipped: list[int]

    @property
    def by_row(self) -> dict[int, Any]:
        """The label of each labeled row."""
        return dict(zip(self.indices, self.values, strict=True))

    @property
    def asked(self) -> list[int]:
        """Rows that are not asked for again: those with a label, and those that were skipped."""
        return self.indices + self.skipped


class Labels:
    """The labels of a pool, with the rows that cannot be labeled.

    >>> labels = Labels()
    >>> labels.register(torch.zeros(5, 2))
    >>> labels.add([3, 1], [0, 1], skipped=[4])
    >>> labels.num_unasked, labels.free().tolist()
    (2, [0, 2])
    >>> labels.targets().tolist()
    [-1, 1, -1, 0, -1]

    Arguments:
        path: JSON file that is read, if it exists, and written; None keeps the labels in memory.

    Attributes:
        rows: The rows that have been asked. While another thread adds labels, read it once.

    Raises:
        CheckpointError: The file is damaged, or was not written by an active learner.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.rows = Rows([], [], [])
        self._path = path
        self._pool: Fingerprint | None = None
        self._text: str | None = None  # content of the file as this object knows it
        if path is not None:
            self._text = read_text(path)
        if self._text is not None:
            self._read(self._text)

    @property
    def indices(self) -> list[int]:
        """Labeled rows, in the order in which they were taught."""
        return self.rows.indices

    @property
    def values(self) -> list[Any]:
        """Labels of `indices`: class indices, or real values `(n, D)`."""
        return self.rows.values

    @property
    def skipped(self) -> list[int]:
        """Rows that could not be labeled and are not asked for again."""
        return self.rows.skipped

    # --- the pool ---------------------------------------------------------------------------------

    def register(self, pool: Tensor) -> None:
        """Register the pool; raise ValueError if there are labels of another one."""
        new = fingerprint(pool)
        if self.rows.asked and self._pool != new:
            before = tuple(self._pool.shape) if self._pool else ()
            raise ValueError(
                "pool: it should be the pool that the labels belong to; "
                f"shape {before} became {tuple(pool.shape)}, or the values changed"
            )
        self._pool = new

    def check_unchanged(self, pool: Tensor) -> None:
        """Raise ValueError if the registered pool has changed in memory."""
        if self._pool != fingerprint(pool):
            raise ValueError("pool: its values were changed after the query; restore them")

    @property
    def size(self) -> int:
        """Number of rows of the pool; raises ValueError before a pool is known."""
        if self._pool is None:
            raise ValueError("pool: not known before the first query or teach")
        return self._pool.shape[0]

    @property
    def num_unasked(self) -> int:
        """Number of rows of the pool that can still be asked for."""
        return self.size - len(self.rows.asked)

    def free(self) -> Tensor:
        """Rows of the pool that can still be asked for."""
        is_free = torch.ones(self.size, dtype=torch.bool)
        is_free[self.rows.asked] = False
        return is_free.nonzero().flatten()

    def targets(self) -> Tensor:
        """Labels of the whole pool for `fit`, with -1 or NaN for rows without one."""
        indices, values, _ = self.rows
        if isinstance(values[0], int):
            y = torch.full((self.size,), -1)
        else:
            y = torch.full((self.size, len(values[0])), torch.nan, dtype=torch.float64)
        y[indices] = torch.tensor(values, dtype=y.dtype)
        return y

    def first(self, n: int) -> list[Any]:
        """The pool and the first n labels, as plain data that identify what was learned."""
        indices, values, _ = self.rows
        return [self._pool, indices[:n], values[:n]]

    # --- labels -----------------------------------------------------------------------------------

    def check_rows(self, name: str, rows: Any) -> list[int]:
        """Convert rows to a list of unlabeled rows of the pool.

        Raises:
            TypeError: They are not integers.
            ValueError: One is outside the pool, repeated, or already labeled.
        """
        check_unmasked(rows, name)
        array, _ = as_array(rows, name)
        if not array.size:
            return []
        if array.ndim != 1 or array.dtype.kind not in "iu":
            got = f"{array.dtype} of shape {array.shape}"
            raise TypeError(f"{name} should be integers (n,), got {got}")
        result: list[int] = array.tolist()
        labeled = self.rows.by_row
        before: set[int] = set()
        for row in result:
            if not 0 <= row < self.size:
                raise ValueError(
                    f"{name} should be rows of the pool, 0 .. {self.size - 1}; got {row}"
                )
            if row in before:
                raise ValueError(f"{name}: row {row} is repeated")
            if row in labeled:
                raise ValueError(f"{name}: row {row} already has a label, {labeled[row]}")
            before.add(row)
        return result

    def add(self, indices: list[int], values: list[Label], skipped: list[int]) -> None:
        """Write new labels to the file and keep them; a labeled row is no longer skipped.

        Raises:
            CheckpointError: Another learner has written to the file.
        """
        labeled = set(indices)
        before = self.rows
        still_skipped = [row for row in before.skipped if row not in labeled]
        new_skipped = [row for row in skipped if row not in set(before.skipped)]
        rows = Rows(before.indices + indices, before.values + values, still_skipped + new_skipped)
        self._write(rows)
        self.rows = rows

    def copy(self) -> Labels:
        """The labels of now, in memory; another thread may add labels meanwhile."""
        same = Labels()
        same.rows = self.rows  # `add` replaces them, and changes none
        same._pool = self._pool
        return same

    # --- the file ---------------------------------------------------------------------------------

    def _write(self, rows: Rows) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if read_text(self._path) != self._text:
            raise files.CheckpointError(
                f"{self._path} was written by another learner in the meantime; "
                "make a new learner, which reads it"
            )
        content = {"indices": rows.indices, "labels": rows.values, "skipped": rows.skipped}
        text = files.sealed({"format": FORMAT, "pool": self._pool, **content})
        files.write_text(self._path, text)
        self._text = text

    def _read(self, text: str) -> None:
        assert self._path is not None
        data = files.unsealed(text, self._path)
        try:
            indices = list(data["indices"])
            values = list(data["labels"])
            skipped = list(data["skipped"])
            pool = Fingerprint(*data["pool"])
            _check_content(data["format"], indices, values, skipped, pool)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise files.CheckpointError(
                f"{self._path} is damaged, or was not written by an active learner: {error}"
            ) from None
        self.rows = Rows(indices, values, skipped)
        self._pool = pool


def as_label_values(labels: Any, n: int, size: int, *, are_classes: bool) -> list[Label]:
    """Convert labels to class indices, or to real values of `size` dimensions each.

    >>> as_label_values(np.array([1, 0]), n=2, size=2, are_classes=True)
    [1, 0]
    >>> as_label_values([0.5], n=1, size=1, are_classes=False)
    [[0.5]]

    Raises:
        TypeError: They are not numbers of the right kind.
        ValueError: There are not n of them, or one is not a class, or not finite.
    """
    check_unmasked(labels, "labels")
    array, _ = as_array(labels, "labels")
    if not n and not array.size:
        return []
    if array.shape[:1] != (n,):
        raise ValueError(f"labels should have shape ({n},), one per index; got {array.shape}")
    got = f"{array.dtype} of shape {array.shape}"
    if not are_classes:
        if array.dtype.kind not in "iuf":
            raise TypeError(f"labels should be real numbers, got {got}")
        return _real_values(array, n, size)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TypeError(f"labels should be class indices, integers (n,), got {got}")
    classes: list[Label] = array.tolist()
    for value in array.tolist():
        if not 0 <= value < size:
            raise ValueError(f"labels should be class indices in 0 .. {size - 1}, got {value}")
    return classes


def _real_values(array: np.ndarray, n: int, size: int) -> list[Label]:
    values = array.astype(np.float64)
    has_shape = values.reshape(n, -1).shape == (n, size)
    if not has_shape or not np.isfinite(values).all():
        raise ValueError(f"labels should be finite, ({n}, {size}); got shape {array.shape}")
    rows: list[Label] = list(values.reshape(n, size).tolist())
    return rows


def _check_content(
    kind: Any, indices: list[Any], values: list[Any], skipped: list[Any], pool: Fingerprint
) -> None:
    """Raise ValueError or TypeError unless the content of a file is consistent."""
    rows = [*indices, *skipped]
    size = pool.shape[0]
    are_rows = all(type(row) is int and 0 <= row < size for row in rows)
    are_distinct = len(set(rows)) == len(rows)
    if kind != FORMAT or len(indices) != len(values) or not are_distinct or not are_rows:
        raise ValueError("its rows and labels do not match")
    _check_values(values)


def _check_values(values: list[Any]) -> None:
    """Raise ValueError unless all values are class indices, or all are finite numbers."""
    if all(type(value) is int and value >= 0 for value in values):
        return
    real = np.asarray(values, np.float64)
    if real.ndim != 2 or not np.isfinite(real).all():
        raise ValueError("its labels are neither class indices nor finite numbers")


def read_text(path: Path) -> str | None:
    """Read a text file; bytes that are not text become escapes. None if there is no file.

    >>> read_text(Path("no such file")) is None
    True
    """
    if not path.exists():
        return None
    return path.read_text(encoding="utf-8", errors="backslashreplace")
