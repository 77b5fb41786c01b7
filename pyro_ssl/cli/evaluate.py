"""`pyro-ssl evaluate`: measure a trained model, and write a report of its run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from pyro_ssl import data
from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.data_of_run import DataOfRun, data_of_run, read_data
from pyro_ssl.cli.data_options import DATA_HELP
from pyro_ssl.cli.labels_of_run import labeled_rows_of_run
from pyro_ssl.cli.row_files import rows_to_predict
from pyro_ssl.cli.run_config import read_config
from pyro_ssl.data.readers import holds_pixels, labeled_rows_as_test
from pyro_ssl.evaluation import html_report, reports, run_report
from pyro_ssl.evaluation.attacks import ATTACKS
from pyro_ssl.evaluation.corruptions import corrupted
from pyro_ssl.evaluation.html_report import Picture, Section, Table
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.training.settings import as_device
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_data, as_numbers, as_tensor, check_event_shape
from pyro_ssl.zoo.saved_model import SavedModel

EPSILONS = [0.02, 0.05, 0.1, 0.15, 0.2, 0.3]
OF_RUN = (
    "method",
    "preset",
    "data",
    "labels",
    "draw",
    "seed",
    "epochs",
    "seconds",
    "selection",
    "date",
)
"""Entries of `result.json` that say what was run."""
TRAINED_ON = (
    "these rows were trained on, so the measures say nothing about new rows; pyro-ssl compare "
    "measures on labels that it holds back"
)
WITHOUT_RESULT = "remove it, and the report leaves out what was run"
TITLES = {
    "classes": "Classes",
    "ood": "Out-of-distribution data",
    "corruptions": "Corrupted images",
}


def parser() -> ArgumentParser:
    """Make the parser of the command.

    >>> parser().parse_args(["run", "--attack", "pgd"]).restarts
    1
    """
    parser = ArgumentParser(
        allow_abbrev=False,
        description=COMMANDS["evaluate"],
    )
    parser.add_argument("directory", type=str, help="directory of a run")
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help=f"another data set with the same classes, {DATA_HELP}; by default that of the run; "
        "if it has no test part, all its labeled rows are the test set",
    )
    parser.add_argument(
        "--data-root", type=str | None, default=None, help="folder of the image data sets"
    )
    parser.add_argument(
        "--ood",
        type=str,
        nargs="+",
        default=[],
        help="out-of-distribution data to detect: names of data sets, files or folders",
    )
    parser.add_argument(
        "--corruptions", action="store_true", help="also measure on corrupted images"
    )
    parser.add_argument(
        "--attack",
        type=str | None,
        default=None,
        help="also measure under an adversarial attack: " + " or ".join(ATTACKS),
    )
    parser.add_argument(
        "--epsilons", type=float, nargs="+", default=EPSILONS, help="sizes of the attack"
    )
    parser.add_argument("--restarts", type=int, default=1, help="random starts of pgd")
    parser.add_argument(
        "--device", type=str | None, default=None, help="device to compute on, such as cuda"
    )
    return parser


def run(arguments: Namespace) -> None:
    """Check the options, then measure the model and write the tables."""
    directory = Path(arguments.directory)
    device = None if arguments.device is None else as_device(arguments.device)
    config = read_config(directory)
    saved = SavedModel.load(directory / "model")
    of_run = data_of_run(directory, saved)
    assert of_run is not None  # the run has a configuration
    of_run = of_run._replace(root=arguments.data_root or of_run.root)
    reading = data.Reading.of(saved.extra)
    name = arguments.data or of_run.name
    is_data_of_run = of_run.is_at(name)
    dataset = _test_data(of_run, name, saved, reading)
    was_trained_on = of_run.is_trained_on(name) and not len(dataset.x_test)
    if arguments.data is not None:
        dataset = labeled_rows_as_test(dataset)
    _check_test_part(dataset, arguments, of_run)
    _check_attack(arguments)
    _check_corruptions(dataset, arguments)
    others = _other_data(arguments.ood, of_run, saved, dataset, reading)
    objective = saved.objective
    if device is not None:
        objective.to(device)
    out = directory / "evaluation"
    title = f"{saved.method} on {dataset.name}"
    if was_trained_on:
        warnings.warn(TRAINED_ON, stacklevel=2)
        title += ", measured on rows that it was trained on"
    labels = _labels_of_run(directory, dataset, config) if is_data_of_run else None
    tables = _write_tables(objective, dataset, others, labels, arguments, out)
    sections = [
        *_run_sections(directory),
        *run_report.sections(objective, dataset, labels),
        *_asked_sections(tables, out),
        run_report.settings_section(config["options"] | config["training"], "All settings"),
    ]
    html_report.write(directory / "report.html", title, sections)
    print(f"\nreport: {directory / 'report.html'}")


def _write_tables(
    objective: Objective,
    dataset: data.Dataset,
    others: dict[str, Tensor],
    labels: Tensor | None,
    arguments: Namespace,
    out: Path,
) -> dict[str, str]:
    """Measure what was asked for, and write each table; return the tables by name."""
    tables: dict[str, str] = {}

    def write(name: str, table: str) -> None:
        tables[name] = table
        _write(out / f"{name}.md", table)

    _write_test_report(reports.test_report(objective, dataset, out), out)
    write("classes", reports.class_report(objective, dataset))
    if others:
        labeled = None if labels is None else _labeled_data(dataset, labels)
        write("ood", reports.ood_report(objective, dataset, others, labeled, out))
    if arguments.corruptions:
        write("corruptions", reports.corruption_report(objective, dataset, out))
    if arguments.attack:
        attack = arguments.attack
        epsilons = arguments.epsilons
        restarts = arguments.restarts
        table = reports.attack_report(objective, dataset, attack, epsilons, out, restarts=restarts)
        write(attack, table)
    return tables


# --- checks, before anything is measured ----------------------------------------------------------


def _test_data(
    of_run: DataOfRun, name: str, saved: SavedModel, reading: data.Reading
) -> data.Dataset:
    try:
        way_out = "put it back, or give --data PATH, other data with labels"
        return read_data(of_run, name, reading, saved.classes, way_out=way_out)[0]
    except ValueError as error:
        raise ValueError(f"--data: {error}") from None


def _check_test_part(dataset: data.Dataset, arguments: Namespace, of_run: DataOfRun) -> None:
    if not len(dataset.x_test):
        raise ValueError(
            f"the data of the run in {arguments.directory} have no test part; give --data PATH, "
            f"other data with labels, or --data {of_run.name}, to measure on its labeled rows, "
            "which the run may have been trained on"
        )


def _check_attack(arguments: Namespace) -> None:
    attack = arguments.attack
    restarts = arguments.restarts
    if attack not in (None, *ATTACKS):
        raise ValueError(f"--attack should be one of {', '.join(ATTACKS)}, got {attack!r}")
    if restarts < 1:
        raise ValueError(f"--restarts should be 1 or above, got {restarts}")
    if restarts > 1 and attack != "pgd":
        raise ValueError(f"--restarts should be 1 without --attack pgd, got {restarts}")
    if attack and not min(arguments.epsilons) >= 0:
        raise ValueError(f"--epsilons should be 0 or above, got {min(arguments.epsilons)}")


def _check_corruptions(dataset: data.Dataset, arguments: Namespace) -> None:
    if arguments.corruptions:
        corrupted(dataset.x_test[:1], "contrast", 1)  # raises for data that are not images


def _other_data(
    names: list[str],
    of_run: DataOfRun,
    saved: SavedModel,
    dataset: data.Dataset,
    reading: data.Reading,
) -> dict[str, Tensor]:
    """Load out-of-distribution data by name, and check their shape."""
    others = {Path(name).stem: _rows_of(name, of_run, reading) for name in names}
    if len(others) < len(names) or dataset.name in others:
        raise ValueError(
            f"--ood: names should differ from each other and from {dataset.name}, got {names}"
        )
    for name, x in others.items():
        check_event_shape(x, saved.x_shape, f"--ood: {name}: x")
    return others


def _rows_of(name: str, of_run: DataOfRun, reading: data.Reading) -> Tensor:
    """Return the test part of a data set, or the rows of a file or folder."""
    x = rows_to_predict("--ood", name, reading, of_run=of_run).x
    if holds_pixels(x):
        return as_tensor(x, "--ood")
    return as_data(x, "--ood", torch.get_default_dtype())


def _labeled_data(dataset: data.Dataset, labels: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the run's labeled rows and classes, or None if a class has fewer than two."""
    is_labeled = labels >= 0
    counts = labels[is_labeled].bincount(minlength=len(dataset.classes))
    if int(counts.min()) < 2:
        print("\nlog p(z), refitted, is left out: a class has fewer than two labels")
        return None
    return as_numbers(dataset.x[is_labeled]), labels[is_labeled]


def _labels_of_run(directory: Path, dataset: data.Dataset, config: dict[str, Any]) -> Tensor:
    """Class indices of the training rows, -1 for those without a label."""
    path = directory / "labels.json"
    draw = data.LabelDraw.load(path) if path.exists() else labeled_rows_of_run(dataset, config)
    return draw.masked_labels(dataset.y)


# --- output ---------------------------------------------------------------------------------------


def _write_test_report(measures: dict[str, float], out: Path) -> None:
    rows = [(f"test_{name}", f"{value:.6f}") for name, value in measures.items()]
    for name, value in rows:
        print(f"{name:24} {value}")
    files.write_text(out / "test.md", reports.table(("measure", "value"), rows) + "\n")


def _write(path: Path, table: str) -> None:
    print("\n" + table, flush=True)
    files.write_text(path, table + "\n")


def _run_sections(directory: Path) -> list[Section]:
    """What was run, and its learning curves; nothing if these files were removed."""
    if not {"result.json", "curves.png"} <= {path.name for path in directory.iterdir()}:
        return []
    result = _read_result(directory / "result.json")
    of_run = {name: result[name] for name in OF_RUN if result.get(name) is not None}
    of_run["seconds"] = f"{result['seconds']:.1f}"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    curves = Picture.of_file(directory / "curves.png", "parts of the loss over epochs")
    return [
        run_report.settings_section(of_run | {"versions": versions}),
        Section("Learning curves", "Parts of the loss over epochs.", pictures=[curves]),
    ]


def _read_result(path: Path) -> dict[str, Any]:
    """Read the result of a run.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        result: Any = json.loads(path.read_text(encoding="utf-8"))
        is_whole = isinstance(result["seconds"], int | float) and isinstance(
            result["versions"], dict
        )
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error!r:.200}; {WITHOUT_RESULT}") from None
    if not is_whole:
        raise ValueError(
            f"{path} is damaged: seconds should be a number and versions an object; "
            f"{WITHOUT_RESULT}"
        )
    return dict(result)


def _asked_sections(tables: dict[str, str], out: Path) -> list[Section]:
    """The tables that were written, each with its picture if it has one."""
    sections = []
    for name, text in tables.items():
        is_attack = name in ATTACKS
        title = f"Under attack: {name}" if is_attack else TITLES[name]
        path = out / (f"attack_{name}.png" if is_attack else f"{name}.png")
        pictures = [Picture.of_file(path, title)] if path.exists() else []
        sections.append(Section(title, tables=[Table.of_markdown(text)], pictures=pictures))
    return sections
