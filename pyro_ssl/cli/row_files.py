"""The rows of .npy and .csv files, with errors that name the option, the file and the row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_ssl.cli.data_of_run import DataOfRun
from pyro_ssl.data.datasets import DATASETS, load
from pyro_ssl.data.readers import (
    Content,
    Part,
    Reading,
    check_kind,
    in_unit,
    read,
    warn_of_a_path,
)
from pyro_ssl.data.tables import is_number


def rows_to_predict(
    option: str,
    name: str,
    reading: Reading,
    *,
    of_run: DataOfRun | None = None,
    unlabeled: bool = False,
) -> Part:
    """Read the rows of a file or folder like the training data; see `readers.read`.

    Of a data set of pyro-ssl, these are the rows of the test part. For a model without named
    columns, the file can also be an .npy file or a .csv file of numbers.

    Arguments:
        option: The command's option, for messages.
        name: The path, or the name of a data set.
        reading: The trained model's reading.
        of_run: Where the model's own data and labels are, if that is known.
        unlabeled: Take only the rows without a label; of the training part, if there is another.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The rows do not fit, or each has a label where only the others are taken; the
            message names the file.
    """
    if name in DATASETS:
        return _test_rows(option, name, of_run, unlabeled)
    path = Path(name)
    suffix = path.suffix.lower()
    try:
        check_kind(path, reading)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    is_array = suffix == ".npy" or (suffix == ".csv" and not reading.columns)
    if is_array:
        x = read_rows(option, name)
        return Part(in_unit(x, reading.unit))
    try:
        content = read(path, reading)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{option}: {error}") from None
    if unlabeled:
        return _without_label(option, name, content, of_run)
    origin = "" if content.test is None else ", the test part of the data"
    return replace(content.last, labels=None, origin=origin)


def _test_rows(option: str, name: str, of_run: DataOfRun | None, unlabeled: bool) -> Part:
    """The test part of a data set of pyro-ssl."""
    if unlabeled:
        raise ValueError(
            f"{option}: each row of the data set {name} has a label; leave out --unlabeled to "
            "predict its test part"
        )
    warn_of_a_path(name)
    dataset = load(name, None if of_run is None else of_run.root)
    return Part(dataset.x_test.numpy(), origin=", the test part of the data")


def _without_label(option: str, name: str, content: Content, of_run: DataOfRun | None) -> Part:
    """The rows that have a label neither in the data nor in the file that the model learned."""
    rows = content.train.without_label
    origin = " without a label"
    there = ""
    if of_run is not None:
        _check_is_whole(name, of_run)
        try:
            way_out = "put it back, or leave out --unlabeled"
            labeled = of_run.labeled(content, name, way_out)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"--unlabeled: {error}") from None
        before = len(rows.x)
        rows = labeled.train.without_label
        left_out = before - len(rows.x)
        if left_out:
            origin += f"; {left_out} more have one in {of_run.label_file}, and are left out"
            there = f", there or in {of_run.label_file}"
    if not len(rows.x):
        raise ValueError(
            f"{option}: each of the {len(content.train.x)} rows of {name} has a label{there}; "
            "leave out --unlabeled to predict them all"
        )
    return replace(rows, origin=origin)


def _check_is_whole(name: str, of_run: DataOfRun) -> None:
    """Raise ValueError for one of the tables that a file of labels is about as a whole."""
    if of_run.label_file is not None and of_run.is_table_inside(name):
        raise ValueError(
            f"--unlabeled: {name} is one of the tables of {of_run.name}, and the rows in "
            f"{of_run.label_file} are numbered through all of them; give --data {of_run.name}"
        )


def read_rows(option: str, name: str) -> np.ndarray:
    """Read the array of an .npy file, or the rows of numbers of a .csv file.

    Arguments:
        option: The command's option, for messages.
        name: Path of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold one array of numbers.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "x.csv"
    ...     _ = path.write_text("width,height\\n1,2\\n")
    ...     read_rows("--input", str(path)).tolist()
    [[1.0, 2.0]]
    """
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(f"{option}: {path}: no such file")
    if path.suffix.lower() == ".csv":
        return _read_csv(option, path)
    return _read_npy(option, path)


def _read_npy(option: str, path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            x: Any = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy raises several kinds for a damaged file
        reason = str(error)
        if "pickle" in reason:
            reason = (
                "it has another format, or holds Python objects; "
                "write numbers with numpy.save, or a .csv file"
            )
        raise ValueError(f"{option}: {path} is not a readable .npy file: {reason}") from None
    if not isinstance(x, np.ndarray):
        raise ValueError(f"{option}: {path} should be an .npy file with one array, got an .npz")
    return x


def _read_csv(option: str, path: Path) -> np.ndarray:
    """Read rows of numbers, separated by commas; a header of names is skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        has_header = bool(lines) and not any(map(is_number, lines[0].split(",")))
        if has_header:
            lines = lines[1:]
        if not lines:
            raise ValueError("it has no rows")
        _check_first_line(lines)
        return _numbers(lines)
    except ValueError as error:  # also raised for bytes that are not text
        raise ValueError(
            f"{option}: {path} should hold rows of numbers, separated by commas: {error}"
        ) from None


def _check_first_line(lines: list[str]) -> None:
    """Raise ValueError if the first line is 0,1,2 and the second does not hold integers."""
    first = [cell.strip() for cell in lines[0].split(",")]
    if len(lines) < 2 or first != [str(k) for k in range(len(first))]:
        return
    second = lines[1].replace(",", "").replace(" ", "")
    if not second.isdigit():
        raise ValueError(
            f"the first line, {lines[0]:.40}, seems to number the columns, as pandas does; "
            "leave it out with to_csv(index=False, header=False)"
        )


def _numbers(lines: list[str]) -> np.ndarray:
    """Convert lines to an array, or raise a ValueError that names the first bad line."""
    try:
        return np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)
    except ValueError:
        _check_lines(lines)
        raise


def _check_lines(lines: list[str]) -> None:
    width = lines[0].count(",") + 1
    for number, line in enumerate(lines, 1):
        cells = line.split(",")
        if len(cells) != width:
            raise ValueError(
                f"row {number} has {len(cells)} numbers, the first row {width}"
            ) from None
        for cell in cells:
            if not is_number(cell):
                raise ValueError(f"row {number} holds {cell.strip()!r:.80}") from None
