"""The images or rows that `pyro-ssl label` asks about, and the labels that they have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.active.labelling.label_file import as_classes, names_of_labels
from pyro_ssl.active.labelling.session import Pool
from pyro_ssl.data.classes import names_of, rows_of_labels, values_of_classes
from pyro_ssl.data.readers import Content, Reading, cells_of, label_indices, read
from pyro_ssl.utils.arguments import as_data, is_missing


class LabelData(NamedTuple):
    """Images or rows to label.

    Arguments:
        pool: The images or rows, with the names of the classes.
        labels: Class indices that are known, `(N,)`, -1 for rows without a label.
        reading: How they were read.

    >>> pool = Pool(torch.zeros(1, 1, 8, 8), ["cat", "dog"])
    >>> LabelData(pool, np.array([-1]), Reading()).pool.classes
    ['cat', 'dog']
    """

    pool: Pool
    labels: np.ndarray
    reading: Reading


def read_label_data(
    name: str,
    classes: list[str] | None,
    reading: Reading | None = None,
    labels_file: str | None = None,
) -> LabelData:
    """Read the training part, its labels, and the names of the classes.

    Arguments:
        name: Path of a folder of images, of a table, or of an .npz file of images.
        classes: Names of the classes; None uses those of the data, or of the file of labels.
        reading: How to read the data.
        labels_file: CSV file of labels, which win over those in the data.

    Raises:
        ValueError: The data cannot be shown, there are not two different names of classes, or a
            label is of another class.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/images.npz", x=np.zeros((3, 8, 8)))
    ...     read_label_data(f"{folder}/images.npz", ["cat", "dog"]).pool.x.shape
    torch.Size([3, 1, 8, 8])
    """
    try:
        content = read(name, reading)
        x = _as_shown(content)
        given = _given_labels(labels_file, len(x), content.train.names)
        names = classes or list(content.classes) or _classes_of(content.train.labels, given)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                f"the classes should have two or more different names, got {names}; give "
                "--classes NAME NAME"
            )
        _check_names(names)
        labels = np.full(len(x), -1)
        if content.train.labels is not None:
            labels = label_indices(content.train.labels, len(x), names)
    except ValueError as error:
        raise ValueError(f"--data: {error}") from None
    if labels_file is not None:
        for row, label in as_classes(given, names, Path(labels_file)).items():
            labels[row] = label
    folder = Path(name)
    cells = cells_of(folder, content.reading)
    return LabelData(Pool(x, names, content.train.names, folder, cells), labels, content.reading)


def _check_names(names: list[str]) -> None:
    """Refuse names that a table of labels has for missing labels."""
    missing = [name for name in names if is_missing(name)]
    if missing:
        raise ValueError(
            f"a class cannot be called {missing[0]!r}, which means a missing label; give it "
            "another name"
        )


def with_labels(content: Content, path: Path, names: tuple[str, ...] | None = None) -> Content:
    """Add the labels of a CSV file to the training part; they win over those in the data.

    Arguments:
        content: The data, which may have no labels.
        path: File with the columns `file` or `row`, and `label`; see `names_of_labels`.
        names: Names of the rows in the file, if they are only a part of its rows; None uses the
            names in the data, and refuses other rows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not fit the data.
    """
    train = content.train
    size = len(train.x)
    labels: list[str | None] = [None] * size
    if train.labels is not None:
        values, missing = rows_of_labels(train.labels, size)
        known = iter(names_of(values_of_classes(values[~missing])) if not missing.all() else ())
        labels = [None if is_without else next(known) for is_without in missing.tolist()]
    is_part = names is not None
    for row, label in names_of_labels(path, size, names or train.names, is_part=is_part).items():
        labels[row] = label
    return replace(content, train=replace(train, labels=labels))


def _given_labels(path: str | None, size: int, names: tuple[str, ...]) -> dict[int, str]:
    if path is None:
        return {}
    return names_of_labels(Path(path), size, names)


def _as_shown(content: Content) -> Tensor:
    """Return the training part as images `(N, C, H, W)`, or as rows of a table, `(N, D)`."""
    x = as_data(content.train.x, "x", torch.float32)
    if content.reading.columns:
        return x
    if x.dim() == 3:
        x = x[:, None]
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            "x should be images (N, C, H, W), one channel or three, or (N, H, W); "
            f"got {tuple(x.shape)}; write a table as .csv or .parquet, with named columns"
        )
    return x


def _classes_of(labels: Any, given: dict[int, str]) -> list[str]:
    """Return the sorted names of the classes in labels; an empty list without labels."""
    names = set(given.values())
    if labels is not None:
        values, missing = rows_of_labels(labels, len(labels))
        if not missing.all():
            names |= set(names_of(np.unique(values_of_classes(values[~missing]))))
    return sorted(names)
