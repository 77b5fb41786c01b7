"""Tables with named columns, from CSV and Parquet files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyro_ssl.utils.arguments import is_missing
from pyro_ssl.utils.arrays import brief, few

TRUTH = {"true": 1.0, "false": 0.0}
"""Texts that are read as truth values, and their numbers."""
PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
"""Labels in text that are read as numbers; "007" is read as a name."""


@dataclass(frozen=True)
class Table:
    """A table with named columns, as in the file.

    Arguments:
        path: The file, for messages.
        columns: Values of each column: text, numbers, or None for an empty cell.
        rows: Number of rows.
        first_line: Line of the file that holds the first row, for messages.
    """

    path: Path
    columns: dict[str, list[Any]]
    rows: int
    first_line: int = 0

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Convert columns to numbers, `(N, D)`.

        Arguments:
            names: Names of the columns, in the order of the result.

        Raises:
            ValueError: There is no such column, or a cell is empty or holds text.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise ValueError(
                f"{self.path} has no column {few(missing)}; its columns: {few(self.columns, 20)}"
            )
        columns = [self._column(name) for name in names]
        return np.column_stack(columns) if columns else np.empty((self.rows, 0))

    def labels(self, name: str) -> np.ndarray | None:
        """Return the labels in a column, or None if there is no such column.

        If all labels are numbers, empty cells are NaN; otherwise they are None or empty text.

        Arguments:
            name: Name of the column.
        """
        if name not in self.columns:
            return None
        values = [_without_spaces(value) for value in self.columns[name]]
        known = [value for value in values if not is_missing(value)]
        if all(isinstance(value, str) and PLAIN_NUMBER.fullmatch(value) for value in known):
            values = [np.nan if is_missing(value) else float(value) for value in values]
            return np.array(values, np.float64)
        labels = np.empty(len(values), dtype=object)
        labels[:] = values
        return labels

    def _column(self, name: str) -> np.ndarray:
        numbers = np.empty(self.rows)
        for row, value in enumerate(self.columns[name]):
            try:
                numbers[row] = _as_number(value)
            except (TypeError, ValueError):
                self._refuse(name, row, value)
        if not np.isfinite(numbers).all():
            row = int(np.flatnonzero(~np.isfinite(numbers))[0])
            self._refuse(name, row, self.columns[name][row])
        return numbers

    def _refuse(self, name: str, row: int, value: Any) -> None:
        where = f"{self.path}: column {brief(name)}, line {row + self.first_line}"
        if is_missing(value) or _is_infinite(value):
            problem = "is empty" if value in (None, "") else f"holds {value}"
            raise ValueError(
                f"{where}, {problem}: a method needs a number in each cell; fill the cell or leave "
                f"the row out, or leave the column out with --ignore-columns {name}"
            ) from None
        raise ValueError(
            f"{where}, holds {brief(value)}, which is not a number; replace text by numbers, such "
            "as one column of 0 and 1 for each value (pandas.get_dummies), or leave the column out "
            f"with --ignore-columns {name}"
        ) from None


def _as_number(value: Any) -> float:
    if isinstance(value, str):
        text = value.strip()
        return TRUTH[text.lower()] if text.lower() in TRUTH else float(text)
    return float(value)


def _is_infinite(value: Any) -> bool:
    try:
        return not np.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _without_spaces(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def read_table(path: str | Path) -> Table:
    """Read a `.csv` file with a header, or a `.parquet` file.

    CSV is read by Python's `csv` module, so that the result does not depend on other packages;
    Parquet needs pyarrow.

    Arguments:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, has no rows, or has two columns with the same name; or
            pyarrow is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "pets.csv"
    ...     _ = path.write_text("weight,label\\n4.5,cat\\n30,dog\\n5,\\n")
    ...     table = read_table(path)
    >>> table.numbers(["weight"]).ravel().tolist(), table.labels("label").tolist()
    ([4.5, 30.0, 5.0], ['cat', 'dog', ''])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not table.rows:
        raise ValueError(f"{path} has no rows")
    return table


def _read_csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, cells) for number, cells in _cells(csv.reader(file, strict=True))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable .csv file in UTF-8: {error}") from None
    if not lines:
        raise ValueError(f"{path} is empty; it should have a header and rows")
    _, header = lines[0]
    names = [name.strip() for name in header]
    _check_names(path, names)
    for number, cells in lines[1:]:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}: line {number} has {len(cells)} cells, but the header has {len(names)}"
            )
    rows = [cells for _, cells in lines[1:]]
    columns = {name: [cells[i] for cells in rows] for i, name in enumerate(names)}
    return Table(path, columns, len(rows), first_line=2)


def _cells(reader: Any) -> Iterable[tuple[int, list[str]]]:
    """Yield the lines that are not empty, with their line numbers."""
    for cells in reader:
        if cells:
            yield reader.line_num, cells


def _check_names(path: Path, names: list[str]) -> None:
    if len(names) == 1 and ";" in names[0]:
        raise ValueError(f"{path} is separated by semicolons; separate cells by commas")
    if all(map(is_number, names)):
        raise ValueError(
            f"{path}: the first line, {','.join(names):.40}, should name the columns; add a header"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: two columns are called {brief(twice[0])}; rename one")


def is_number(text: str) -> bool:
    """Whether a cell holds a number.

    >>> is_number("1e-3"), is_number("a")
    (True, False)
    """
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ValueError(
            f"{path}: Parquet files need pyarrow; pip install 'pyro-ssl[tables]', or write a .csv "
            f"file ({type(error).__name__}: {error})"
        ) from error
    try:
        content = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable .parquet file: {error}") from None
    names = content.column_names
    _check_names(path, names)
    columns = {name: content.column(name).to_pylist() for name in names}
    return Table(path, columns, content.num_rows)
