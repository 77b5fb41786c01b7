"""Options that say where data are and how they are read; the same for all commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from pyro_ssl.data.datasets import DATASETS
from pyro_ssl.data.readers import KINDS, Reading

READING_OPTIONS = ("label_column", "ignore_columns", "image_size")
"""Options of `add_reading_options`, which are entries of `config.json`."""
DATA_HELP = f"name of a data set, or the path of {KINDS}"


def add_reading_options(parser: ArgumentParser) -> None:
    """Add the options for reading files; a trained model saves them."""
    parser.add_argument(
        "--label-column",
        type=str,
        default="label",
        help="column of a table with the classes; its cells are empty for unlabeled rows",
    )
    parser.add_argument(
        "--ignore-columns",
        type=str,
        nargs="+",
        default=[],
        help="columns of a table that are left out, such as an identifier",
    )
    parser.add_argument(
        "--image-size",
        type=int | None,
        default=None,
        help="height and width to scale the images of a folder to; by default they are not scaled",
    )


def reading_of(options: Mapping[str, Any]) -> Reading:
    """Make the reading that the options describe.

    Raises:
        ValueError: The size is not above 0.
    """
    size = options["image_size"]
    if size is not None and size < 1:
        raise ValueError(f"--image-size should be a whole number above 0, got {size}")
    return Reading(options["label_column"], tuple(options["ignore_columns"]), size)


def reading_words(options: Mapping[str, Any]) -> list[str]:
    """The words of a command that give the options for reading files, where they differ.

    >>> reading_words({"label_column": "label", "ignore_columns": ["id"], "image_size": None})
    ['--ignore-columns', 'id']
    """
    words = []
    if options["label_column"] != "label":
        words += ["--label-column", options["label_column"]]
    if options["ignore_columns"]:
        words += ["--ignore-columns", *options["ignore_columns"]]
    if options["image_size"] is not None:
        words += ["--image-size", str(options["image_size"])]
    return words


def absolute_path(name: str) -> str:
    """Make a path absolute, so that a run can be resumed from any folder; keep a name as it is."""
    return name if name in DATASETS else str(Path(name).resolve())
