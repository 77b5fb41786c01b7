"""The files that a command is asked to write, checked before any work."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pyro_ssl.data.readers import tables_of


def check_output(
    option: str,
    name: str,
    endings: Collection[str],
    data: str,
    label_file: str | None = None,
) -> None:
    """Check that a file can be written, and that this would replace neither the data nor labels.

    >>> check_output("--output", "p.txt", (".npy", ".csv"), "x.csv")
    Traceback (most recent call last):
    ValueError: --output: the file should end in .npy or .csv; got p.txt

    Arguments:
        option: The command's option, for messages.
        name: Path of the file.
        endings: The endings that the file can have.
        data: Path of the data that the command reads, or the name of a data set.
        label_file: Path of the file with the labels of the run, if there is one.

    Raises:
        ValueError: The file has another ending, or is a file of the data or of the labels.
        FileNotFoundError: Its folder does not exist.
    """
    path = Path(name)
    if path.suffix.lower() not in endings:
        raise ValueError(f"{option}: the file should end in {' or '.join(endings)}; got {path}")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"{option}: {path.parent} is not a directory")
    source = Path(data)
    files = tables_of(source) if source.is_dir() else [source]
    if any(_are_the_same(path, file) for file in files):
        raise ValueError(
            f"{option}: {path} is read as data, and would be replaced; give another name"
        )
    if label_file is not None and _are_the_same(path, Path(label_file)):
        raise ValueError(
            f"{option}: {path} has the labels of the run, and would be replaced; give another name"
        )


def _are_the_same(path: Path, other: Path) -> bool:
    """Return True if two paths are of one file that exists."""
    return path.exists() and other.exists() and path.samefile(other)
