"""`pyro-ssl predict`: class probabilities for the rows of a file or the images of a folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.data_of_run import DataOfRun, data_of_run
from pyro_ssl.cli.output_files import check_output
from pyro_ssl.cli.row_files import rows_to_predict
from pyro_ssl.data.readers import Part, Reading
from pyro_ssl.prediction.chunks import known_rows
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import check_event_shape
from pyro_ssl.utils.arrays import few
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
        "--prefix",
        type=str,
        default="",
        help="text that the names of the new columns begin with: m2_ gives m2_predicted; needed if "
        "the table has columns of these names",
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
    is_table = output.suffix.lower() == ".csv"
    if arguments.prefix and not is_table:
        raise ValueError(f"--prefix is for columns, and --output {output} has none; give a .csv")
    directory = Path(arguments.directory)
    saved = SavedModel.load(directory / "model")
    of_run = data_of_run(directory, saved)
    data = _name_of_data(arguments.data, of_run, directory)
    label_file = None if of_run is None else of_run.label_file
    check_output("--output", arguments.output, (".npy", ".csv"), data, label_file)
    reading = Reading.of(saved.extra)
    part = rows_to_predict("--data", data, reading, of_run=of_run, unlabeled=arguments.unlabeled)
    check_event_shape(part.x, saved.x_shape, "--data: x")
    before = columns_before(part)
    names = new_columns(saved.classes, arguments.prefix)
    if is_table:
        check_new_columns(names, before, data)
    rows = known_rows(saved.objective, part.x, "--data")
    probs = predict_proba(saved.objective, rows).numpy()
    if is_table:
        content = csv_of(probs, saved.classes, names, before).encode()
    else:
        buffer = io.BytesIO()
        np.save(buffer, probs)
        content = buffer.getvalue()
    files.write_file(arguments.output, content)
    print(f"{output}: predictions of {len(rows)} rows{part.origin}")


def _name_of_data(given: str | None, of_run: DataOfRun | None, directory: Path) -> str:
    """The path or name that the user gave, or that of the data the model was trained on."""
    if given is not None:
        return given
    if of_run is None:
        raise ValueError(
            f"--data PATH is needed: {directory} does not say which data its model was trained on"
        )
    return of_run.name


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


def new_columns(classes: Sequence[str], prefix: str = "") -> list[str]:
    """The names of the columns of predictions.

    >>> new_columns(["cat", "dog"], "m2_")
    ['m2_predicted', 'm2_confidence', 'm2_p(cat)', 'm2_p(dog)']
    """
    names = ["predicted", "confidence", *(f"p({name})" for name in classes)]
    return [f"{prefix}{name}" for name in names]


def check_new_columns(names: Sequence[str], before: Collection[str], path: str) -> None:
    """Raise ValueError if new columns have the name of one that the data have.

    >>> check_new_columns(["predicted", "confidence"], ["id", "predicted"], "x.csv")
    Traceback (most recent call last):
    ValueError: x.csv already has columns named 'predicted', ...; give --prefix ...
    """
    taken = [name for name in names if name in before]
    if taken:
        raise ValueError(
            f"{path} already has columns named {few(taken)}, which the predictions would replace; "
            "give --prefix TEXT: the names of the new columns then begin with it"
        )


def csv_of(
    probs: np.ndarray,
    classes: Sequence[str],
    names: Sequence[str],
    before: Mapping[str, Sequence[Any]],
) -> str:
    """Format predictions as CSV: the likeliest class, its probability, and that of each class.

    Arguments:
        probs: Probabilities `(N, K)`.
        classes: Names of the classes.
        names: Names of the new columns, see `new_columns`.
        before: The columns to the left of the new ones.

    >>> names = new_columns(["cat", "dog"])
    >>> print(csv_of(np.array([[0.25, 0.75]]), ["cat", "dog"], names, {"id": ["a7"]}))
    id,predicted,confidence,p(cat),p(dog)
    a7,dog,0.75,0.25,0.75
    <BLANKLINE>
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*before, *names])
    for i, row in enumerate(probs):
        best = int(row.argmax())
        numbers = [f"{p:.9g}" for p in (row[best], *row)]
        writer.writerow([*(values[i] for values in before.values()), classes[best], *numbers])
    return buffer.getvalue()
