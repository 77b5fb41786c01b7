"""`pyro-ssl predict`: class probabilities for the rows of a file or the images of a folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl.cli.row_files import rows_to_predict
from pyro_ssl.data.readers import Reading
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
    parser = ArgumentParser(description="Write p(y|x) for each row of a file.")
    parser.add_argument("directory", type=str, help="directory of a run")
    parser.add_argument(
        "--data",
        "--input",
        type=str,
        required=True,
        help="data, one row per datum: a .csv, .parquet, .npy or .npz file, or a folder of images; "
        "if the data have a test part, only its rows are predicted",
    )
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help="file to write: .csv with the names of the classes, or .npy with the probabilities, "
        "(N, K)",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Read the data, predict, and write the probabilities."""
    output = Path(arguments.output)
    suffix = output.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise ValueError(f"--output: the file should end in .npy or .csv; got {output}")
    saved = SavedModel.load(Path(arguments.directory) / "model")
    part = rows_to_predict("--data", arguments.data, Reading.of(saved.extra))
    check_event_shape(part.x, saved.x_shape, "--data: x")
    rows = known_rows(saved.objective, part.x, "--data")
    if not output.resolve().parent.is_dir():
        raise FileNotFoundError(f"--output: {output.parent} is not a directory")
    probs = predict_proba(saved.objective, rows).numpy()
    if suffix == ".csv":
        content = csv_of(probs, saved.classes, part.names).encode()
    else:
        buffer = io.BytesIO()
        np.save(buffer, probs)
        content = buffer.getvalue()
    files.write_file(arguments.output, content)
    print(f"{output}: predictions of {len(rows)} rows{part.origin}")


def csv_of(probs: np.ndarray, classes: Sequence[str], names: Sequence[str] = ()) -> str:
    """Format predictions as CSV: the likeliest class, and a column p(NAME) for each class.

    Arguments:
        probs: Probabilities `(N, K)`.
        classes: Names of the classes.
        names: Names of the rows, for a first column `file`; empty for none.

    >>> print(csv_of(np.array([[0.25, 0.75]]), ["cat", "dog"], ["a.png"]))
    file,prediction,p(cat),p(dog)
    a.png,dog,0.25,0.75
    <BLANKLINE>
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    first = ["file"] if names else []
    writer.writerow([*first, "prediction", *(f"p({name})" for name in classes)])
    for i, row in enumerate(probs):
        best = classes[int(row.argmax())]
        writer.writerow([*names[i : i + 1], best, *(f"{p:.9g}" for p in row)])
    return buffer.getvalue()
