"""`pyro-ssl compare`: do methods that learn from unlabeled rows beat the labels alone?"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import data, zoo
from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.data_options import DATA_HELP, add_reading_options, reading_of, reading_words
from pyro_ssl.cli.output_files import check_output
from pyro_ssl.cli.train_command import train_command
from pyro_ssl.comparison import Comparison, compare, draw_comparison
from pyro_ssl.data.label_draws import draw_labels
from pyro_ssl.data.missing_labels import describe_labels
from pyro_ssl.evaluation import plots
from pyro_ssl.utils import files

TABLES = (".csv", ".json")
PARAMETERS = ("preset", "epochs", "min_steps", "lr")
"""Options that are parameters of `SemiSupervisedClassifier`."""


def parser() -> ArgumentParser:
    """Make the parser of the command.

    >>> parser().parse_args(["--data", "pets.csv"]).methods
    ['m2']
    """
    parser = ArgumentParser(
        allow_abbrev=False,
        description=COMMANDS["compare"],
    )
    parser.add_argument("--data", type=str, required=True, help=DATA_HELP)
    add_reading_options(parser)
    parser.add_argument(
        "--data-root", type=str | None, default=None, help="folder of the image data sets"
    )
    parser.add_argument(
        "--labels",
        type=int | None,
        default=None,
        help="use only this number of the labels, drawn at random; by default all",
    )
    parser.add_argument(
        "--how",
        type=str,
        default="balanced",
        help="how --labels draws: balanced, stratified or random",
    )
    parser.add_argument(
        "--methods",
        type=str,
        nargs="+",
        default=["m2"],
        help="methods to compare, of " + ", ".join(name for name in zoo.METHODS),
    )
    parser.add_argument(
        "--options",
        type=dict[str, Any],
        default={},
        help="options of the methods, such as --options.z_dim 5; see pyro-ssl train METHOD --help",
    )
    parser.add_argument(
        "--folds",
        type=int | None,
        default=None,
        help="parts of the labels, each held out once; by default 5, or fewer with few labels",
    )
    parser.add_argument("--level", type=float, default=0.95, help="confidence level of intervals")
    parser.add_argument(
        "--preset", type=str | None, default=None, help="settings of a paper, see pyro-ssl list"
    )
    parser.add_argument(
        "--epochs", type=int | None, default=None, help="passes over the data, by default 100"
    )
    parser.add_argument(
        "--min-steps",
        type=int | None,
        default=None,
        help="smallest number of training steps, by default 1000",
    )
    parser.add_argument(
        "--lr", type=float | None, default=None, help="largest learning rate, by default 0.003"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of training")
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="file for the results: .csv with one row per method, or .json with each held-out "
        "prediction as well",
    )
    parser.add_argument(
        "--picture", type=str | None, default=None, help="PNG file for a picture of the intervals"
    )
    return parser


def run(arguments: Namespace) -> None:
    """Compare, and print the table and the recommendation.

    Raises:
        ValueError: See `pyro_ssl.compare`; the output has another ending than .csv or .json.
    """
    _check_outputs(arguments)
    reading = reading_of(vars(arguments))
    dataset, _ = data.load_or_read(arguments.data, arguments.data_root, reading)
    labels = dataset.y
    if arguments.labels is not None:
        draw = draw_labels(labels, arguments.labels, how=arguments.how, seed=arguments.seed)
        labels = draw.masked_labels(labels)
    print(describe_labels(labels, dataset.classes), flush=True)
    if bool((labels >= 0).all()):
        raise ValueError(
            f"--data: each of the {len(labels)} rows of {arguments.data} has a label, so there are "
            "no unlabeled rows to gain from; add rows whose label is empty, or hide some labels "
            "with --labels"
        )
    names = {float(k): name for k, name in enumerate(dataset.classes)}
    parameters = {name: arguments[name] for name in PARAMETERS if arguments[name] is not None}
    if len(dataset.x_shape) != 3:
        parameters["scale"] = False  # `train` takes the rows as they are read: tables standardised
    comparison = compare(
        dataset.x.numpy(),
        [names.get(float(k)) for k in labels.tolist()],
        arguments.methods,
        folds=arguments.folds,
        options=arguments.options,
        parameters=parameters,
        level=arguments.level,
        random_state=arguments.seed,
        progress=lambda line: print(line, flush=True),
    )
    _print_findings(comparison, arguments)
    _print_training(comparison, arguments, parameters, dataset)
    _write(comparison, arguments)


def _print_findings(comparison: Comparison, arguments: Namespace) -> None:
    """Print the table, the recommendation, and what to do if the labels cannot tell."""
    print(f"\n{comparison.table()}\n\n{comparison.recommendation}")
    if comparison.tie:
        print(f"{comparison.tie}.")
    if comparison.next_step:
        how = f" {_how_to_label(arguments)}" if comparison.can_be_labeled else ""
        print(f"next step: {comparison.next_step}.{how}")


def _how_to_label(arguments: Namespace) -> str:
    """The command that asks for labels; of a data set of ours, all labels are known."""
    if arguments.data in data.DATASETS:
        return "pyro-ssl label asks for them"
    words = ["--data", arguments.data, *reading_words(vars(arguments))]
    return f"To be asked for them: pyro-ssl label runs/asked {shlex.join(words)}"


def _print_training(
    comparison: Comparison,
    arguments: Namespace,
    parameters: dict[str, Any],
    dataset: data.Dataset,
) -> None:
    """Print how to train what is recommended, on the command line and in Python."""
    name = comparison.recommended
    command = train_command(name, arguments, parameters, dataset)
    if command is None:
        method = comparison.best_method
        command = train_command(method, arguments, parameters, dataset)
        print(f"\nto train {name}, with scikit-learn: {comparison[name].python}")
        print(f"to train {method} nevertheless: {command}")
        return
    print(f"\nto train {name}: {command}")


def _check_outputs(arguments: Namespace) -> None:
    """Raise an error before training if a file could not be written after it."""
    endings = {"output": TABLES, "picture": (".png",)}
    for option, allowed in endings.items():
        if arguments[option] is not None:
            check_output(f"--{option}", arguments[option], allowed, arguments.data)


def _write(comparison: Comparison, arguments: Namespace) -> None:
    if arguments.output is not None:
        path = Path(arguments.output)
        is_table = path.suffix.lower() == ".csv"
        text = comparison.csv() if is_table else json.dumps(comparison.plain(), indent=1)
        files.write_text(path, text)
        print(f"results: {path}")
    if arguments.picture is not None:
        print(f"picture: {plots.save(draw_comparison(comparison), arguments.picture)}")
