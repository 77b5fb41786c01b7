"""`pyro-ssl predict`: class probabilities for the rows of a file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl.cli.row_files import read_rows
from pyro_ssl.prediction.chunks import as_known
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
        "--input", type=str, required=True, help="data, one row per datum: an .npy or .csv file"
    )
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help="file for the probabilities, (N, K): .npy or .csv",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Read the data, predict, and write the probabilities."""
    output = Path(arguments.output)
    suffix = output.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise ValueError(f"--output: the file should end in .npy or .csv; got {output}")
    saved = SavedModel.load(Path(arguments.directory) / "model")
    x = read_rows("--input", arguments.input)
    check_event_shape(x, saved.x_shape, "--input: x")
    if x.dtype.kind in "iu":  # images are divided as they were for labeling
        x = x / saved.extra.get("unit", 1.0)
    rows = as_known(saved.objective, x, "--input")
    if not output.resolve().parent.is_dir():
        raise FileNotFoundError(f"--output: {output.parent} is not a directory")
    probs = predict_proba(saved.objective, rows).numpy()
    buffer = io.BytesIO()
    if suffix == ".csv":
        np.savetxt(buffer, probs, delimiter=",", fmt="%.9g")
    else:
        np.save(buffer, probs)
    files.write_file(arguments.output, buffer.getvalue())
