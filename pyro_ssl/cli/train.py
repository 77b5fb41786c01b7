"""`pyro-ssl train`: train a method on a data set with few labels, or continue a run."""

from __future__ import annotations

import inspect
import json
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import data, zoo
from pyro_ssl.cli.config_file import ConfigFile
from pyro_ssl.cli.data_options import (
    DATA_HELP,
    READING_OPTIONS,
    absolute_path,
    add_reading_options,
    reading_of,
)
from pyro_ssl.cli.method_options import (
    add_method_options,
    check_saved_options,
    chosen_options,
    summary,
)
from pyro_ssl.cli.run_directory import (
    CONFIG,
    FIT_OPTIONS,
    check_new,
    configured,
    owned,
    read_config,
)
from pyro_ssl.data.missing_labels import LabelWarning, describe_labels, warn_of_missing_classes
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training.fit import fit
from pyro_ssl.training.optimizers import SCHEDULES
from pyro_ssl.utils import files
from pyro_ssl.zoo.saved_model import SavedModel

DATA_OPTIONS = (
    *("data", "data_root", "labels", "how", "label_file", "seed", "binarise"),
    *READING_OPTIONS,
)
"""Options that are entries of `config.json` themselves."""
DEFAULT_LABELS = 100
RESUME_HELP = "directory of a run to continue, with the settings it was started with"


def parser() -> ArgumentParser:
    """Make the parser of the command, without its methods; see `add_methods`."""
    parser = ArgumentParser(
        description="Train a method on a data set with few labels, or continue a run: --resume DIR."
    )
    parser.add_argument("--resume", type=str | None, default=None, help=RESUME_HELP)
    return parser


def add_methods(parser: ArgumentParser) -> None:
    """Add a subcommand per method; the parser has to be part of the main one already."""
    methods = parser.add_subcommands(dest="method", required=False)
    for name in zoo.METHODS:
        methods.add_subcommand(name, _method_parser(name), help=summary(name))


def _method_parser(name: str) -> ArgumentParser:
    parser = ArgumentParser(description=summary(name))
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of these options")
    parser.add_argument("--resume", type=str | None, default=None, help=RESUME_HELP)
    parser.add_argument("--out", type=str | None, default=None, help="directory of the run")
    parser.add_argument("--data", type=str, default="digits", help=DATA_HELP)
    add_reading_options(parser)
    parser.add_argument(
        "--data-root", type=str | None, default=None, help="folder of the image data sets"
    )
    parser.add_argument(
        "--labels",
        type=int | Literal["all"] | None,
        default=None,
        help=f"number of labeled rows, or all; by default {DEFAULT_LABELS}, "
        "or all where some labels are missing",
    )
    parser.add_argument(
        "--how",
        type=str,
        default="balanced",
        help="how the labeled rows are drawn: balanced, stratified or random",
    )
    parser.add_argument(
        "--label-file",
        type=str | None,
        default=None,
        help="file of labeled rows, written by LabelDraw.save",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the labeled rows, the weights and training",
    )
    parser.add_argument(
        "--binarise", type=bool, default=False, help="draw new binary pixels for each batch"
    )
    parser.add_argument(
        "--schedule",
        type=str,
        default="one_cycle",
        help="schedule of the learning rate: " + ", ".join(SCHEDULES),
    )
    skip: set[str | int] = {
        name for name in inspect.signature(fit).parameters if name not in FIT_OPTIONS
    }
    parser.add_function_arguments(fit, skip=skip)
    add_method_options(parser, name)
    return parser


def run(arguments: Namespace) -> None:
    """Start a run, or continue one."""
    method = arguments.method
    given: Any = arguments[method] if method else {}
    resume = arguments.resume or given.get("resume")
    if resume:
        config = read_config(Path(resume))
        if method not in (None, config["method"]):
            raise ValueError(f"--resume: {resume} is a run of {config['method']}, not of {method}")
        check_saved_options(config["method"], config["options"], Path(resume) / CONFIG)
        train(Path(resume), config, resume=True)
        return
    if method is None:
        names = ", ".join(zoo.METHODS)
        raise ValueError(f"train needs a method, one of {names}, or --resume DIR")
    if not given.out:
        raise ValueError("--out DIR is needed: the directory of the run")
    if given.schedule not in SCHEDULES:
        names = ", ".join(SCHEDULES)
        raise ValueError(f"--schedule should be one of {names}, got {given.schedule!r}")
    train(Path(given.out), _config(method, given))


def resume_hint(arguments: Namespace) -> str:
    """How to continue the run of an interrupted command; empty if it has not started."""
    given: Any = arguments[arguments.method] if arguments.method else {}
    directory = arguments.resume or given.get("resume") or given.get("out")
    if directory is None or not (Path(directory) / CONFIG).exists():
        return ""
    return f"; pyro-ssl train --resume {directory} continues"


def _config(method: str, given: Namespace) -> dict[str, Any]:
    """The configuration of a run, as in `config.json`."""
    config: dict[str, Any] = {
        "method": method,
        "options": chosen_options(method, given),
        "training": {name: given[name] for name in (*FIT_OPTIONS, "schedule")},
    }
    config |= {name: given[name] for name in DATA_OPTIONS}
    # absolute, so that the run can be continued from another folder
    config["data"] = absolute_path(given.data)
    for name in ("data_root", "label_file"):
        if config[name]:
            config[name] = str(Path(config[name]).resolve())
    return config


def train(out: Path, config: dict[str, Any], *, resume: bool = False) -> None:
    """Train and write the run: checkpoints, model, `result.json` and learning curves.

    Arguments:
        out: Directory of the run.
        config: Configuration, as in `config.json`.
        resume: Continue a run that was started with this configuration.

    Raises:
        FileExistsError: The directory is a file, or holds another run.
    """
    if out.is_file():
        raise FileExistsError(f"--out: {out} is a file; give a directory")
    if not resume:
        check_new(out)
    with owned(out):
        _train_in(out, config, resume)


def _train_in(out: Path, config: dict[str, Any], resume: bool) -> None:
    name = config["method"]
    options = config["options"]
    seed = config["seed"]
    dataset, reading = data.load_or_read(config["data"], config["data_root"], reading_of(config))
    draw = draw_labels(dataset, config)
    if config["binarise"]:
        _check_pixels(dataset.x)
    objective = zoo.build(name, dataset.x_shape, len(dataset.classes), seed=seed, **options)
    labels = draw.masked_labels(dataset.y)
    print(describe_labels(labels, dataset.classes), flush=True)
    warn_of_missing_classes(labels, dataset.classes)
    with configured(out, config), class_numbers_unwarned():
        history = fit(
            objective,
            dataset.x,
            labels,
            seed=seed,
            directory=out,
            resume=resume,
            identity={"method": name, "options": options, "binarise": config["binarise"]},
            transform=torch.bernoulli if config["binarise"] else None,
            **config["training"],
        )
    classes = list(dataset.classes)
    extra = {"reading": reading.plain()}
    saved = SavedModel(name, dataset.x_shape, classes, options, objective, extra)
    saved.save(out / "model")
    draw.save(out / "labels.json")
    plots.save(plots.learning_curves({name: history}), out / "curves.png")
    measures = {}
    if len(dataset.x_test):
        measures = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
    result = _result(config, draw, history["seconds"][-1], measures) | {"classes": classes}
    files.write_text(out / "result.json", json.dumps(result, indent=1))
    print(_result_line(result))


def _check_pixels(x: torch.Tensor) -> None:
    low = float(x.min())
    high = float(x.max())
    if not 0 <= low <= high <= 1:
        raise ValueError(f"--binarise: x should be in [0, 1], got {low:.4g} .. {high:.4g}")


def draw_labels(dataset: data.Dataset, config: dict[str, Any]) -> data.LabelDraw:
    """Choose the labeled rows of a run."""
    if config["label_file"]:
        return data.LabelDraw.load(config["label_file"])
    labels = config["labels"]
    is_labeled = dataset.y >= 0
    if labels is None:
        labels = min(DEFAULT_LABELS, len(is_labeled)) if is_labeled.all() else "all"
    if labels == "all":
        rows = is_labeled.nonzero().flatten().tolist()
        return data.LabelDraw(tuple(rows), len(is_labeled), "all")
    return data.draw_labels(dataset.y, labels, how=config["how"], seed=config["seed"])


@contextmanager
def class_numbers_unwarned() -> Iterator[None]:
    """Silence the warnings of `fit` about classes by number; the command warns by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        yield


def _result(
    config: dict[str, Any], draw: data.LabelDraw, seconds: float, measures: dict[str, float]
) -> dict[str, Any]:
    """Content of `result.json`."""
    average = ", averaged" if config["training"]["ema"] else ""
    return {
        "method": config["method"],
        "data": config["data"],
        "labels": len(draw.indices),
        "draw": draw.name,
        "seed": config["seed"],
        "epochs": config["training"]["epochs"],
        "seconds": seconds,
        **{f"test_{name}": value for name, value in measures.items()},
        "selection": f"none: the last epoch's weights{average}; no validation labels",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }


def _result_line(result: dict[str, Any]) -> str:
    trained = f"{result['method']} on {result['data']}, {result['labels']} labels"
    if "test_accuracy" not in result:
        return f"{trained}: no test data, {result['seconds']:.0f} s"
    return (
        f"{trained}: accuracy {100 * result['test_accuracy']:.2f} %, "
        f"log-likelihood {result['test_log_likelihood']:.3f}, "
        f"ECE {100 * result['test_ece']:.2f} %, {result['seconds']:.0f} s"
    )


def versions() -> dict[str, str]:
    """Versions of everything that a number depends on.

    >>> sorted(versions())
    ['numpy', 'pyro-ppl', 'pyro-ssl', 'python', 'scikit-learn', 'torch']
    """
    packages = ("pyro-ssl", "pyro-ppl", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
