"""`pyro-ssl predict`: class probabilities for the rows of a file or the images of a folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.data_of_run import data_of_run
from pyro_ssl.cli.row_files import rows_to_predict
from pyro_ssl.data.readers import Part, Reading
from pyro_ssl.prediction.chunks import known_rows
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import check_event_shape
from pyro_ssl.zoo.saved_model import SavedModel


def parser() -> ArgumentParser:
    """Make the parser of the command.

    >>> parser().parse_args(["run", "--input", "x.npy", "--output", "p.csv"]).output
    'p.csv'
    """
    parser = ArgumentParser(allow_abbrev=False, description=COMMANDS["predict"])
    parser.add_argument("directory", type=str, help="directory of a run")
    parser.add_argument(
        "--data",
        "--input",
        type=str | None,
        default=None,
        help="data, one row per datum: a .csv, .parquet, .npy or .npz file, or a folder of images; "
        "by default those of the run; if they have a test part, only its rows are predicted",
    )
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help="file to write: .csv with the columns of the data, the predicted class, its "
        "probability (confidence) and that of each class, or .npy with the probabilities, (N, K)",
    )
    parser.add_argument(
        "--unlabeled",
        action="store_true",
        help="predict only the rows without a label, in the data or in the labels.csv that the "
        "model was trained with; of the training part, if there is a test part",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Read the data, predict, and write the probabilities."""
    output = Path(arguments.output)
    suffix = output.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise ValueError(f"--output: the file should end in .npy or .csv; got {output}")
    directory = Path(arguments.directory)
    saved = SavedModel.load(directory / "model")
    part = _rows(directory, saved, arguments.data, arguments.unlabeled)
    check_event_shape(part.x, saved.x_shape, "--data: x")
    rows = known_rows(saved.objective, part.x, "--data")
    if not output.resolve().parent.is_dir():
        raise FileNotFoundError(f"--output: {output.parent} is not a directory")
    probs = predict_proba(saved.objective, rows).numpy()
    if suffix == ".csv":
        content = csv_of(probs, saved.classes, columns_before(part)).encode()
    else:
        buffer = io.BytesIO()
        np.save(buffer, probs)
        content = buffer.getvalue()
    files.write_file(arguments.output, content)
    print(f"{output}: predictions of {len(rows)} rows{part.origin}")


def _rows(directory: Path, saved: SavedModel, name: str | None, unlabeled: bool) -> Part:
    """The rows of a file or folder, or of the data that the model was trained on."""
    of_run = data_of_run(directory, saved)
    if name is None and of_run is None:
        raise ValueError(
            f"--data PATH is needed: {directory} does not say which data its model was trained on"
        )
    if name is None:
        assert of_run is not None
        name = of_run.name
    reading = Reading.of(saved.extra)
    return rows_to_predict("--data", name, reading, of_run=of_run, unlabeled=unlabeled)


def columns_before(part: Part) -> dict[str, Sequence[Any]]:
    """The columns that say which row a prediction is of.

    These are the file's own columns, and before them the number of the row, from 0, unless the
    file has a column of this name; for images, it is the name of the file.

    Arguments:
        part: The rows that are predicted.

    >>> columns_before(Part(np.zeros((2, 1)), columns={"id": ["a7", "a8"]}, numbers=(3, 5)))
    {'row': (3, 5), 'id': ['a7', 'a8']}
    """
    if part.names:
        return {"file": part.names}
    numbers = part.numbers or range(len(part.x))
    return {"row": numbers} | dict(part.columns)


def csv_of(
    probs: np.ndarray,
    classes: Sequence[str],
    before: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Format predictions as CSV: the likeliest class, its probability, and that of each class.

    Arguments:
        probs: Probabilities `(N, K)`.
        classes: Names of the classes.
        before: Columns that stand before them; one with the name of a new column is left out.

    >>> print(csv_of(np.array([[0.25, 0.75]]), ["cat", "dog"], {"id": ["a7"]}))
    id,predicted,confidence,p(cat),p(dog)
    a7,dog,0.75,0.25,0.75
    <BLANKLINE>
    """
    names = ["predicted", "confidence", *(f"p({name})" for name in classes)]
    kept = {name: values for name, values in (before or {}).items() if name not in names}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*kept, *names])
    for i, row in enumerate(probs):
        best = int(row.argmax())
        numbers = [f"{p:.9g}" for p in (row[best], *row)]
        writer.writerow([*(values[i] for values in kept.values()), classes[best], *numbers])
    return buffer.getvalue()
