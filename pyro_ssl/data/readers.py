"""Read the user's files, for all commands: folders of images, tables, and arrays.

A training run saves its `Reading`, so that later files are read in the same way.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.data.classes import (
    class_indices_of,
    encode,
    names_of,
    rows_of_labels,
    values_of_classes,
)
from pyro_ssl.data.datasets import DATASETS, Dataset, arrays_of, load
from pyro_ssl.data.image_files import UNLABELED, class_folders, image_files, read_images
from pyro_ssl.data.suspicious_columns import warn_of_columns
from pyro_ssl.data.tables import Table, read_table
from pyro_ssl.utils.arguments import as_data, as_numbers, as_tensor
from pyro_ssl.utils.arrays import brief, few

TABLES = (".csv", ".parquet")
TABLE_PARTS = ("train", "test", UNLABELED)
KINDS = "a folder of images, or of train.csv and test.csv, or a .csv, .parquet or .npz file"
"""Kinds of paths that can be read, for messages."""


@dataclass(frozen=True)
class Reading:
    """How files are converted to rows: the user's options, and values from the training data.

    Arguments:
        label_column: Name of the column of labels.
        ignore_columns: Columns that are left out.
        image_size: Height and width to scale images to; None does not scale them.
        columns: Names of the columns of x, in order; empty if x is not a table.
        mean: Mean of each column in the training data, which is subtracted.
        std: Standard deviation of each column in the training data; columns are divided by it.
        image_shape: Shape (C, H, W) of the images in a folder; empty without images.
        unit: Number that integer image arrays are divided by; None without such arrays.
    """

    label_column: str = "label"
    ignore_columns: tuple[str, ...] = ()
    image_size: int | None = None
    columns: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image_shape: tuple[int, ...] = ()
    unit: float | None = None

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> Reading:
        """Take the reading from a saved model's extra data; earlier versions saved only the unit.

        Raises:
            ValueError: The saved reading is damaged.
        """
        plain = extra.get("reading", {"unit": extra.get("unit")})
        try:
            lists = {name: tuple(v) for name, v in plain.items() if isinstance(v, list)}
            reading = cls(**plain | lists)
        except (TypeError, AttributeError):
            raise ValueError(f"the model's reading is damaged: {plain!r:.100}") from None
        if not len(reading.columns) == len(reading.mean) == len(reading.std):
            raise ValueError(f"the model's reading is damaged: {plain!r:.100}")
        return reading

    def plain(self) -> dict[str, Any]:
        """Return the reading as plain data that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Part:
    """Rows of data, with their labels and names.

    Arguments:
        x: Data `(N, *event)`; images `(N, C, H, W)` of uint8 are pixels, to be divided by 255.
        labels: Labels of any kind, `(N,)`; None if the rows have none.
        names: Names of the rows, such as files; empty if they have none.
        columns: All columns of a table as in the file, also those that are left out of x; empty
            if the rows are not of a table.
        numbers: Numbers of the rows in the data, from 0; empty if they are all rows in order.
        origin: Name of the part of the data that the rows come from, for messages; empty if they
            are all of the data.
    """

    x: np.ndarray
    labels: Any = None
    names: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    origin: str = ""

    @property
    def without_label(self) -> Part:
        """The rows that have no label; their numbers say which these are."""
        missing = np.full(len(self.x), True)
        if self.labels is not None and len(self.x):
            _, missing = rows_of_labels(self.labels, len(self.x))
        rows = np.flatnonzero(missing).tolist()
        return Part(
            self.x[missing],
            names=tuple(self.names[row] for row in rows) if self.names else (),
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
            numbers=tuple(rows),
        )


@dataclass(frozen=True)
class Content:
    """The data in a file or folder.

    Arguments:
        train: The training part; all rows if there is no other part.
        test: The test part; None if there is none.
        reading: The reading, completed with values from the training part.
        classes: Names of the classes, if the file lists them; otherwise empty.
    """

    train: Part
    test: Part | None
    reading: Reading
    classes: tuple[str, ...] = ()

    @property
    def last(self) -> Part:
        """The rows to predict: the test part, or all rows if there is none."""
        return self.train if self.test is None else self.test


# --- data sets for the commands -------------------------------------------------------------------


def load_or_read(
    name: str,
    root: str | Path | None = None,
    reading: Reading | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Dataset, Reading]:
    """Load a data set by its name, or read it from a path; return it with its reading.

    Arguments:
        name: One of `DATASETS`, or a path; see `read`.
        root: Folder of the image data sets.
        reading: How to read the files.
        classes: Names of a model's classes, which the labels are matched with; None uses the
            classes in the file.

    Raises:
        ValueError: There is no such data set, or its labels do not fit; see `encode`.

    >>> load_or_read("moons")[0].x.shape
    torch.Size([2000, 2])
    """
    reading = reading or Reading()
    if name in DATASETS:
        warn_of_a_path(name)
        return load(name, root), reading
    content = read(name, reading)
    return dataset_of(content, Path(name).stem, classes), content.reading


def warn_of_a_path(name: str) -> None:
    """Warn if there is also a file or folder with the name of a data set, unless it is a run's.

    Arguments:
        name: Name of a data set.

    >>> warn_of_a_path("digits")
    """
    path = Path(name)
    is_of_a_run = (path / "lock").exists() or (path / "config.json").exists()
    if path.exists() and not is_of_a_run:
        warnings.warn(
            f"the data are pyro-ssl's data set {name!r}, not ./{name}; for that, write ./{name}",
            stacklevel=3,
        )


def dataset_of(content: Content, name: str, classes: Sequence[str] | None = None) -> Dataset:
    """Make a data set from files that were read; without a test part, its test data are empty.

    Arguments:
        content: The data in the files.
        name: Name of the data set.
        classes: Names of a model's classes; None uses the classes of the training labels.

    Raises:
        ValueError: There are no training labels, a test label is missing, or a test label is of a
            class that the training part lacks.
    """
    train = content.train
    if train.labels is None:
        raise ValueError(_no_labels(content.reading))
    message = "y_test has classes that y lacks"
    if classes is None:
        values, indices = encode(train.labels, len(train.x))
        classes = names_of(values)
    else:
        message = "the data have classes that the model lacks"
        indices = label_indices(train.labels, len(train.x), classes, message)
    x = _rows(train.x, "x")
    test = content.test or Part(train.x[:0], np.array([]))
    if test.labels is None:
        raise ValueError(f"the test part has no labels: {_no_labels(content.reading)}")
    y_test = label_indices(test.labels, len(test.x), classes, message)
    if (y_test < 0).any():
        row = int(np.flatnonzero(y_test < 0)[0])
        raise ValueError(
            f"y_test has no label in row {row}, {(y_test < 0).sum()} such rows in all; "
            "leave them out, since each test row needs a label"
        )
    x_test = _rows(test.x, "x_test") if len(test.x) else x[:0]
    if x_test.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"x_test should have rows of shape {tuple(x.shape[1:])} as x, "
            f"got {tuple(x_test.shape[1:])}"
        )
    y = torch.as_tensor(indices)
    return Dataset(name, x, y, x_test, torch.as_tensor(y_test), tuple(classes))


def _rows(array: np.ndarray, name: str) -> Tensor:
    """Rows as float32; pixels stay uint8, a quarter of the memory."""
    return as_tensor(array, name) if holds_pixels(array) else as_data(array, name, torch.float32)


def labeled_rows_as_test(dataset: Dataset) -> Dataset:
    """Use the labeled rows as the test part of a data set that has no test part.

    Raises:
        ValueError: No row has a label.
    """
    if len(dataset.x_test):
        return dataset
    known = dataset.y >= 0
    if not known.any():
        raise ValueError("no row has a label, so there is nothing to compare predictions with")
    return replace(dataset, x_test=as_numbers(dataset.x[known]), y_test=dataset.y[known])


def label_indices(
    labels: Any, n: int, classes: Sequence[str], message: str = "the labels have other classes"
) -> np.ndarray:
    """Convert labels to indices of known classes, matched by name; missing labels become -1.

    Arguments:
        labels: Labels `(n,)` of any kind.
        n: Number of rows.
        classes: Names of the classes.
        message: Start of the error message.

    Raises:
        ValueError: A label is not the name of a known class.

    >>> label_indices(["dog", None, "cat"], 3, ["cat", "dog"])
    array([ 1, -1,  0])
    """
    indices = np.full(n, -1)
    if n == 0:
        return indices
    values, missing = rows_of_labels(labels, n)
    if missing.all():
        return indices
    known, inverse = np.unique(values_of_classes(values[~missing]), return_inverse=True)
    indices[~missing] = class_indices_of(names_of(known), classes, message)[inverse]
    return indices


def _no_labels(reading: Reading) -> str:
    return (
        f"there is no label: a table needs a column {brief(reading.label_column)} (or "
        "--label-column NAME), images a folder for each class, an .npz file an array y"
    )


# --- files ----------------------------------------------------------------------------------------


def read(name: str | Path, reading: Reading | None = None) -> Content:
    """Read a folder of images, or a `.csv`, `.parquet` or `.npz` file.

    A folder may hold `train`, `test` and `unlabeled`, each a folder of images or a table. It may
    also hold the class folders themselves, with `unlabeled` beside them. Values that the reading
    lacks, such as the columns and their means, are taken from the training part.

    Arguments:
        name: The path.
        reading: How to read it; the reading of a trained model has all values.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no data, or data that do not fit; the message names the file.
    """
    path = Path(name)
    reading = reading or Reading()
    if not path.exists():
        names = ", ".join(DATASETS)
        raise FileNotFoundError(
            f"{name}: no such file; data should be one of {names}, or the path of {KINDS}"
        )
    check_kind(path, reading)
    if path.is_dir():
        tables = {part: _table_in(path, part) for part in TABLE_PARTS}
        if tables["train"] is not None:
            return _read_tables(tables["train"], tables["test"], tables[UNLABELED], reading)
        return _read_folders(path, reading)
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _read_tables(path, None, None, reading)
    if suffix == ".npz":
        return _read_npz(path, reading)
    raise ValueError(f"data should be {KINDS}; got {path}")


def check_kind(path: Path, reading: Reading) -> None:
    """Check that a path holds data of the kind that a model was trained on: images or a table.

    Arguments:
        path: The path, which exists.
        reading: The reading of the model; a new one takes every kind.

    Raises:
        ValueError: They are of another kind.

    >>> check_kind(Path("pets.csv"), Reading())
    """
    suffix = path.suffix.lower()
    is_table = suffix in TABLES or (path.is_dir() and _table_in(path, "train") is not None)
    if reading.image_shape and is_table:
        sizes = " x ".join(map(str, reading.image_shape[1:]))
        raise ValueError(
            f"{path} is a table, but the model was trained on images of {sizes} pixels; give a "
            "folder of images, or an .npz or .npy file with images (N, C, H, W)"
        )
    is_array = suffix in (".npy", ".npz")
    if reading.columns and is_array:
        raise ValueError(
            f"{path} has no column names; the model was trained on "
            f"{few(reading.columns, 20)}, so give a .csv or .parquet file"
        )
    if reading.columns and path.is_dir() and not is_table:
        raise ValueError(
            f"{path} is a folder without train.csv, but the model was trained on a table with the "
            f"columns {few(reading.columns, 20)}; give a .csv or .parquet file"
        )


def tables_of(folder: Path) -> list[Path]:
    """Return the tables in a folder that are read as its parts.

    >>> tables_of(Path("nowhere"))
    []
    """
    paths = [folder / (part + suffix) for part in TABLE_PARTS for suffix in TABLES]
    return [path for path in paths if path.is_file()]


def _table_in(folder: Path, part: str) -> Path | None:
    """Return the path of a part's table in a folder, or None if there is none."""
    paths = [path for path in tables_of(folder) if path.stem == part]
    if len(paths) > 1:
        raise ValueError(f"{folder} should hold one table {part}, got {few(paths)}")
    return paths[0] if paths else None


# --- tables ---------------------------------------------------------------------------------------


def _read_tables(
    train: Path, test: Path | None, unlabeled: Path | None, reading: Reading
) -> Content:
    table = read_table(train)
    if not reading.columns:
        reading = _with_columns(table, unlabeled, reading)
    part = _table_part(table, reading)
    if unlabeled is not None:
        others = _table_part(read_table(unlabeled), reading)
        part = _joined(part, replace(others, labels=None))
    test_part = None if test is None else _table_part(read_table(test), reading)
    return Content(part, test_part, reading)


def cells_of(path: Path, reading: Reading) -> dict[str, list[Any]] | None:
    """Read the cells of a table's training part as they are in the file; None for other data.

    Arguments:
        path: The file or folder.
        reading: The reading of the data; its label column is left out.

    >>> cells_of(Path("images.npz"), Reading()) is None
    True
    """
    if not reading.columns:
        return None
    tables = [read_table(part) for part in _training_tables(path)]
    names = [name for name in tables[0].columns if name != reading.label_column]
    return {name: _cells_of_column(tables, name) for name in names}


def _training_tables(path: Path) -> list[Path]:
    """The tables with rows for training: the file itself, or those of a folder."""
    if not path.is_dir():
        return [path]
    parts = [_table_in(path, part) for part in ("train", UNLABELED)]
    return [part for part in parts if part is not None]


def _cells_of_column(tables: Sequence[Table], name: str) -> list[Any]:
    """The cells of a column, table after table; empty ones for a table that lacks it."""
    cells: list[Any] = []
    for table in tables:
        cells += table.columns.get(name, [""] * table.rows)
    return cells


def _with_columns(table: Table, unlabeled: Path | None, reading: Reading) -> Reading:
    """Add the columns of a training table, their means and standard deviations to a reading."""
    columns = _columns_of_data(table, reading)
    x = table.numbers(columns)
    warn_of_columns(table.path, columns, x, table.labels(reading.label_column))
    if unlabeled is not None:
        x = np.concatenate([x, read_table(unlabeled).numbers(columns)])
    std = x.std(0)
    constant = [
        name for name, low, high in zip(columns, x.min(0), x.max(0), strict=True) if low == high
    ]
    if constant:
        raise ValueError(
            f"{table.path}: {few(constant)} has the same value in all rows, so it carries no "
            f"information; leave it out with --ignore-columns {' '.join(constant)}"
        )
    return replace(
        reading, columns=columns, mean=tuple(x.mean(0).tolist()), std=tuple(std.tolist())
    )


def _columns_of_data(table: Table, reading: Reading) -> tuple[str, ...]:
    """The columns of a training table beside the labels and those that are ignored."""
    unknown = [name for name in reading.ignore_columns if name not in table.columns]
    if unknown:
        raise ValueError(
            f"--ignore-columns: {table.path} has no column {few(unknown)}; "
            f"its columns: {few(table.columns, 20)}"
        )
    if reading.label_column not in table.columns:
        raise ValueError(
            f"{table.path} has no column {brief(reading.label_column)} of labels; give "
            f"--label-column NAME, one of {few(table.columns, 20)}, or add a column for the "
            "labels; its cells may be empty"
        )
    left_out = (reading.label_column, *reading.ignore_columns)
    columns = tuple(name for name in table.columns if name not in left_out)
    if not columns:
        raise ValueError(f"{table.path} has no columns besides {few(left_out)}")
    return columns


def _table_part(table: Table, reading: Reading) -> Part:
    """Select the columns of the reading by name, and standardise them."""
    known = {*reading.columns, *reading.ignore_columns, reading.label_column}
    others = [name for name in table.columns if name not in known]
    if others:
        raise ValueError(
            f"{table.path} has columns that the training data lack: {few(others)}; "
            f"the model was trained on {few(reading.columns, 20)}"
        )
    x = (table.numbers(reading.columns) - np.array(reading.mean)) / np.array(reading.std)
    labels = table.labels(reading.label_column)
    return Part(x.astype(np.float32), labels, columns=table.columns)


def _joined(labeled: Part, unlabeled: Part) -> Part:
    """Concatenate the labeled and the unlabeled training data."""
    n = len(labeled.x)
    labels = np.empty(n + len(unlabeled.x), dtype=object)
    if labeled.labels is not None:
        labels[:n] = labeled.labels
    names = (*labeled.names, *unlabeled.names)
    columns = {
        name: [*_column_of(labeled, name), *_column_of(unlabeled, name)]
        for name in {**labeled.columns, **unlabeled.columns}
    }
    return Part(np.concatenate([labeled.x, unlabeled.x]), labels, names, columns)


def _column_of(part: Part, name: str) -> Sequence[Any]:
    """A column of a part; empty cells if it lacks the column."""
    return part.columns.get(name, [""] * len(part.x))


# --- folders of images ----------------------------------------------------------------------------


def _read_folders(root: Path, reading: Reading) -> Content:
    """Read the images in class folders, and in folders named `unlabeled`."""
    has_train = (root / "train").is_dir()
    train = root / "train" if has_train else root
    test = root / "test"
    has_test = test.is_dir() and (has_train or bool(class_folders(test)))
    skipped = {test} if has_test and not has_train else set()
    files, labels = _labeled_files(train, skipped)
    unlabeled = _unlabeled_files(root, train)
    files += unlabeled
    labels += [None] * len(unlabeled)
    if not files:
        raise ValueError(f"{train} holds no images; give {KINDS}")
    part, reading = _image_part(root, files, labels, reading)
    test_part = None
    if has_test:
        test_files, test_labels = _labeled_files(test, set())
        if not test_files:
            raise ValueError(f"{test} holds no images; put a folder for each class there")
        test_part, _ = _image_part(root, test_files, test_labels, reading)
    return Content(part, test_part, reading)


def _unlabeled_files(root: Path, train: Path) -> list[Path]:
    """Images in the folders `unlabeled`; training's comes first if there are two."""
    files: list[Path] = []
    for folder in dict.fromkeys([train / UNLABELED, root / UNLABELED]):
        if folder.is_dir():
            files += image_files(folder)
    return files


def _labeled_files(folder: Path, skipped: set[Path]) -> tuple[list[Path], list[str | None]]:
    """List images and their classes; without class folders, list the images without a class."""
    files: list[Path] = []
    labels: list[str | None] = []
    for class_folder in class_folders(folder):
        if class_folder not in skipped:
            images = image_files(class_folder)
            files += images
            labels += [class_folder.name] * len(images)
    if files:
        return files, labels
    loose = [path for path in image_files(folder) if path.parent == folder]
    return loose, [None] * len(loose)


def _image_part(
    root: Path, files: list[Path], labels: list[str | None], reading: Reading
) -> tuple[Part, Reading]:
    shape = reading.image_shape
    pixels = read_images(
        files,
        size=reading.image_size,
        channels=shape[0] if shape else None,
        shape=shape[1:] if shape else None,
    )
    reading = replace(reading, image_shape=pixels.shape[1:], unit=255.0)
    values = None
    if any(label is not None for label in labels):
        values = np.empty(len(labels), dtype=object)
        values[:] = labels
    names = tuple(path.relative_to(root).as_posix() for path in files)
    return Part(in_unit(pixels, 255.0), values, names), reading


# --- arrays ---------------------------------------------------------------------------------------


def _read_npz(path: Path, reading: Reading) -> Content:
    """Read the arrays `x`, `y`, `x_test`, `y_test` and `classes`; only `x` is required."""
    arrays = arrays_of(path)
    if "x" not in arrays:
        others = ", ".join(arrays) or "none"
        raise ValueError(f"{path} should hold an array x; its arrays: {others}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        missing = "y_test" if "x_test" in arrays else "x_test"
        raise ValueError(f"{path} should hold both x_test and y_test; {missing} is missing")
    unit = reading.unit
    if unit is None:
        unit = unit_of(arrays["x"])
    train = Part(in_unit(arrays["x"], unit), _checked_labels(arrays, "y", "x"))
    test = None
    if "x_test" in arrays:
        x_test = in_unit(arrays["x_test"], unit)
        test = Part(x_test, _checked_labels(arrays, "y_test", "x_test"))
    classes = tuple(str(name) for name in arrays.get("classes", np.array([])).tolist())
    return Content(train, test, replace(reading, unit=unit), classes)


def _checked_labels(arrays: Mapping[str, np.ndarray], y: str, x: str) -> np.ndarray | None:
    """Return labels, or None if there are none, after a check that each row has one."""
    if y not in arrays:
        return None
    rows = arrays[x].shape[:1]
    if arrays[y].shape != rows:
        raise ValueError(f"{y} should have shape {rows}, got {arrays[y].shape}")
    return arrays[y]


def unit_of(array: np.ndarray) -> float | None:
    """Return the number to divide an integer image array by; None for other arrays.

    It is 255 if any pixel is above 1, and otherwise 1.

    Arguments:
        array: Images `(N, C, H, W)`, or `(N, H, W)`.

    Raises:
        ValueError: A pixel is outside 0 .. 255.

    >>> unit_of(np.array([[[[0, 128]]]])), unit_of(np.array([[0, 128]]))
    (255.0, None)
    """
    if array.dtype.kind not in "iu" or array.ndim not in (3, 4) or not array.size:
        return None
    low = int(array.min())
    high = int(array.max())
    if not 0 <= low <= high <= 255:
        raise ValueError(f"x, images of integers, should be in 0 .. 255, got {low} .. {high}")
    return 255.0 if high > 1 else 1.0


def holds_pixels(array: np.ndarray) -> bool:
    """Return True if an array holds images `(N, C, H, W)` of pixels 0 .. 255, as uint8.

    >>> holds_pixels(np.full((1, 1, 8, 8), 255, np.uint8)), holds_pixels(np.zeros((1, 1, 8, 8)))
    (True, False)
    """
    return array.dtype == np.uint8 and array.ndim == 4


def in_unit(array: np.ndarray, unit: float | None) -> np.ndarray:
    """Scale images of integers to [0, 1]; pixels of uint8 stay, and are divided later.

    Arguments:
        array: The array.
        unit: Number by which integers are divided; None leaves them as they are.

    >>> in_unit(np.array([[0, 51]]), 255.0)
    array([[0. , 0.2]], dtype=float32)
    """
    if unit is None or array.dtype.kind not in "iu":
        return array
    is_binary = array.size > 0 and array.max() == 1  # which as pixels would be refused
    if unit == 255 and holds_pixels(array) and not is_binary:
        return array
    return array.astype(np.float32) / np.float32(unit)
