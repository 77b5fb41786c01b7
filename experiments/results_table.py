"""A study's results: one CSV table, one row per run, with its configuration and source."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Results = dict[str, Result]
"""Results by name of the run; a result holds its `config`, `SOURCE` and what was measured."""

TEXT = ("command", "commit", "date", "diverged")
SOURCE = (*TEXT[:3], "versions", "threads")


def read_results(path: Path) -> Results:
    """Read a table; it is empty if the file does not exist.

    An empty cell means that the run has no such number. Cells other than those of `TEXT` are JSON.
    """
    if not path.exists():
        return {}
    csv.field_size_limit(2**27)
    with path.open(newline="") as file:
        return {row.pop("name"): _decoded(row) for row in csv.DictReader(file)}


def write_results(path: Path, results: Results) -> None:
    """Write a table, sorted by name: numbers and texts first, then lists and dictionaries."""
    names = sorted(results)
    columns = ["name", *_columns(results[name] for name in names)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for name in names:
        writer.writerow({"name": name} | _encoded(results[name]))
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)


def add_result(path: Path, name: str, result: Result, lock: Path) -> None:
    """Add a row, or replace that of the same name; several processes may do so at once."""
    with _locked(lock):
        write_results(path, read_results(path) | {name: result})


def _decoded(row: dict[str, str]) -> Result:
    filled = {column: cell for column, cell in row.items() if cell}
    return {column: cell if column in TEXT else json.loads(cell) for column, cell in filled.items()}


def _encoded(result: Result) -> dict[str, str]:
    given = {column: value for column, value in result.items() if value is not None}
    return {
        column: value if column in TEXT else json.dumps(value) for column, value in given.items()
    }


def _columns(results: Iterable[Result]) -> list[str]:
    """`SOURCE` and `config`, then scalars, then lists and dictionaries, each in order of
    appearance.
    """
    found: dict[str, bool] = {}
    for result in results:
        for column, value in result.items():
            found[column] = found.get(column, False) or isinstance(value, (list, dict))
    first = ("config", *SOURCE)
    others = [column for column in found if column not in first]
    scalars = [column for column in others if not found[column]]
    return [*first, *scalars, *(column for column in others if found[column])]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for other processes that write the same table; the lock ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield
