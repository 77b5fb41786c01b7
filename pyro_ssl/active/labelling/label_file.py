"""Labels as a CSV file that people and other programs read: `file,label`, or `row,label`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyro_ssl.data.classes import class_indices_of
from pyro_ssl.data.tables import read_table
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import is_missing
from pyro_ssl.utils.arrays import brief


def csv_of_labels(
    labels: Mapping[int, int], classes: Sequence[str], names: Sequence[str] = ()
) -> str:
    """Format labels as CSV, in the order of the rows.

    >>> print(csv_of_labels({3: 1, 0: 0}, ["cat", "dog"]))
    row,label
    0,cat
    3,dog
    <BLANKLINE>

    Arguments:
        labels: The class index of each labeled row.
        classes: Names of the classes.
        names: Names of all rows, such as files; without names, rows are numbered from 0.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_key(names), "label"])
    for row in sorted(labels):
        writer.writerow([names[row] if names else row, classes[labels[row]]])
    return text.getvalue()


def write_labels(
    path: Path, labels: Mapping[int, int], classes: Sequence[str], names: Sequence[str] = ()
) -> None:
    """Write the file of `csv_of_labels`; it is replaced at once."""
    files.write_text(path, csv_of_labels(labels, classes, names))


def names_of_labels(
    path: Path, size: int, names: Sequence[str] = (), *, is_part: bool = False
) -> dict[int, str]:
    """Read the label of each row from a CSV file; rows with an empty label are left out.

    Arguments:
        path: The file, with a column `file` or `row`, and a column `label`.
        size: Number of rows of the data.
        names: Names of all rows; empty if they are numbered.
        is_part: The data are a part of those that the file is about; its other rows are left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column is missing, or a row is not in the data or has two labels.
    """
    table = read_table(path)
    key = _key(names)
    for column in (key, "label"):
        if column not in table.columns:
            raise ValueError(
                f"{path} should have the columns {key} and label; it has {', '.join(table.columns)}"
            )
    numbers = {name: row for row, name in enumerate(names)}
    numbers = numbers or {str(row): row for row in range(size)}
    found: dict[int, str] = {}
    for name, label in zip(table.columns[key], table.columns["label"], strict=True):
        if is_missing(label):
            continue
        row = numbers.get(str(name).strip())
        if row is None and is_part:
            continue
        if row is None:
            raise ValueError(
                f"{path}: there is no {key} {brief(name)} in the data; {_way_out(key)}"
            )
        text = str(label).strip()
        if found.get(row, text) != text:
            raise ValueError(f"{path}: {key} {brief(name)} has two labels, {found[row]} and {text}")
        found[row] = text
    return found


def as_classes(labels: Mapping[int, str], classes: Sequence[str], path: Path) -> dict[int, int]:
    """Look up the classes of labels.

    >>> as_classes({4: "dog"}, ["cat", "dog"], Path("labels.csv"))
    {4: 1}

    Raises:
        ValueError: A label is not a class.
    """
    indices = class_indices_of(list(labels.values()), classes, f"{path} has other classes")
    return dict(zip(labels, indices.tolist(), strict=True))


def _key(names: Sequence[str]) -> str:
    return "file" if names else "row"


def _way_out(key: str) -> str:
    if key == "file":
        return "write paths from the data's folder, such as unlabeled/a.png"
    return "rows count from 0, without the header"
