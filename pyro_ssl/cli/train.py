"""`pyro-ssl train`: train a method on a data set with few labels, or continue a run."""

from __future__ import annotations

import inspect
import json
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

import torch
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import data, zoo
from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.config_file import ConfigFile
from pyro_ssl.cli.data_options import (
    DATA_HELP,
    READING_OPTIONS,
    absolute_path,
    add_reading_options,
)
from pyro_ssl.cli.data_settings import (
    AUTO,
    SETTINGS,
    Loaded,
    completed,
    load_data,
    seed_of_training,
    settings_lines,
)
from pyro_ssl.cli.labels_of_run import DEFAULT_LABELS, rows_of_run
from pyro_ssl.cli.method_options import (
    add_method_options,
    check_saved_options,
    chosen_options,
    summary,
)
from pyro_ssl.cli.run_config import (
    CONFIG,
    FIT_OPTIONS,
    NAMED_FIT_OPTIONS,
    check_new,
    configured,
    owned,
    read_config,
)
from pyro_ssl.data.missing_labels import LabelWarning, describe_labels, warn_of_missing_classes
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.evaluation.held_out_accuracy import Accuracy
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training.callbacks import Epoch
from pyro_ssl.training.distributed import Processes, is_first
from pyro_ssl.training.fit import fit
from pyro_ssl.training.loggers import LOGGERS
from pyro_ssl.training.optimizers import OPTIMIZERS, SCHEDULES
from pyro_ssl.training.run import History
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_numbers, is_pixels
from pyro_ssl.utils.durations import duration
from pyro_ssl.zoo.saved_model import SavedModel

DATA_OPTIONS = (
    "data",
    "data_root",
    "labels",
    "how",
    "label_file",
    "validation",
    "log",
    "seed",
    "binarise",
    *READING_OPTIONS,
)
"""Options that are entries of `config.json`."""
RESUME_HELP = "directory of a run to continue, with the settings it was started with"


def parser() -> ArgumentParser:
    """Make the parser of the command, without its methods; see `add_methods`.

    >>> parser().parse_args(["--resume", "run"]).resume
    'run'
    """
    parser = ArgumentParser(
        allow_abbrev=False,
        description=COMMANDS["train"],
    )
    parser.add_argument("--resume", type=str | None, default=None, help=RESUME_HELP)
    parser.add_argument(
        "--epochs",
        type=int | None,
        default=None,
        help="with --resume: a larger total number of epochs; from the checkpoint on, the learning "
        "rate is that of a run with this number of epochs",
    )
    return parser


def add_methods(parser: ArgumentParser, methods: Iterable[str]) -> None:
    """Add a subcommand per method; the parser must already be part of the main one."""
    subcommands = parser.add_subcommands(dest="method", required=False)
    for name in methods:
        subcommands.add_subcommand(name, method_parser(name), help=summary(name))


def method_parser(name: str) -> ArgumentParser:
    """Make the parser of one method."""
    parser = ArgumentParser(allow_abbrev=False, description=summary(name))
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of these options")
    parser.add_argument("--resume", type=str | None, default=None, help=RESUME_HELP)
    parser.add_argument("--out", type=str | None, default=None, help="directory of the run")
    parser.add_argument(
        "--preset",
        type=str | None,
        default=None,
        help="settings of a paper instead of the defaults: "
        + (", ".join(zoo.preset_names(name)) or "there are none of this method"),
    )
    parser.add_argument(
        "--settings",
        type=str,
        default="auto",
        help="where options that are not given come from: estimator (as in compare and "
        "SemiSupervisedClassifier, which for tables differ from the method's) or method (the "
        "defaults that this page shows); auto is estimator, but method for images or with --preset",
    )
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
        "or all if some labels are missing",
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
        help="labels as CSV, with the columns file or row, and label, as pyro-ssl label writes "
        "them; or the labeled rows of the data, a file written by LabelDraw.save",
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.0,
        help="share of the labels to set aside, to measure the accuracy after every epoch",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the labeled rows, the weights and training",
    )
    parser.add_argument(
        "--log",
        type=str | None,
        default=None,
        help="also write a log to OUT/LOG: " + ", ".join(LOGGERS),
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
    parser.add_argument(
        "--optimizer", type=str, default="adam", help="optimiser: " + ", ".join(OPTIMIZERS)
    )
    skip: set[str | int] = {
        name for name in inspect.signature(fit).parameters if name not in FIT_OPTIONS
    }
    skip.add("progress")
    parser.add_function_arguments(fit, skip=skip)
    parser.add_argument(
        "--progress",
        type=bool | None,
        default=None,
        help="show a progress bar; by default on a terminal, and elsewhere a line of text about "
        "every 10 seconds; false shows neither",
    )
    add_method_options(parser, name)
    return parser


def method_in(argv: Sequence[str]) -> str | None:
    """The method that arguments of the command name, if there is one.

    It is the first argument that is neither an option nor the value of one, so that a directory may
    be called like a method.

    >>> method_in(["--resume", "vae", "m2", "--alpha", "1"])
    'm2'
    >>> method_in(["--resume", "vae"]) is None
    True
    """
    rest = iter(argv)
    for text in rest:
        if text in ("-h", "--help"):
            return None
        if not text.startswith("-"):
            return text if text in zoo.METHODS else None
        if "=" not in text:
            next(rest, None)  # the value of --resume or --epochs
    return None


def check_resumed_options(argv: Sequence[str]) -> None:
    """Raise ValueError for an option of a method beside `--resume`, without the method.

    >>> check_resumed_options(["--resume", "run", "--epochs", "80"])
    """
    options = [text[2:].partition("=")[0] for text in argv if text.startswith("--")]
    if "resume" not in options or method_in(argv) is not None:
        return
    directory = argv[argv.index("--resume") + 1 :] if "--resume" in argv else []
    for name in options:
        if name not in ("resume", "epochs", "help"):
            raise ValueError(f"--{name}: {_only_epochs(Path(*directory[:1]))}")


def _only_epochs(directory: Path) -> str:
    return (
        f"a run continues with the settings it was started with, in {directory / CONFIG}; only "
        "--epochs can be changed, to a larger number; other settings need a new run, with --out"
    )


def run(arguments: Namespace) -> None:
    """Start a run, or continue one; SIGTERM ends it with exit code 143 at any time."""
    with _terminable():
        _run(arguments)


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise SystemExit at SIGTERM, where it would end the process, in the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _run(arguments: Namespace) -> None:
    method = arguments.method
    given: Any = arguments[method] if method else {}
    resume = arguments.resume or given.get("resume")
    if resume:
        config = read_config(Path(resume))
        if method not in (None, config["method"]):
            raise ValueError(f"--resume: {resume} is a run of {config['method']}, not of {method}")
        if given.get("preset") not in (None, config["preset"]):
            raise ValueError(
                f"--preset: {resume} is a run with preset {config['preset']}, not with "
                f"{given['preset']}; leave it out, or start a new run with --out"
            )
        check_saved_options(config["method"], config["options"], Path(resume) / CONFIG)
        if method is not None:
            _check_as_started(config, given, arguments.given, Path(resume))
        _extend(config, arguments.epochs)
        train(Path(resume), config, resume=True)
        return
    if method is None:
        names = ", ".join(zoo.METHODS)
        raise ValueError(f"train needs a method, one of {names}, or --resume DIR")
    if not given.out:
        raise ValueError("--out DIR is needed: the directory of the run")
    out = Path(given.out)
    config = config_of(method, given)
    loaded = load_data(config)
    config = completed(config, vars(arguments.given), loaded.dataset)
    train(out, config, resume=_is_restarted(out, config), loaded=loaded)


def _check_as_started(
    config: dict[str, Any], arguments: Namespace, given: Namespace, directory: Path
) -> None:
    """Raise ValueError for an option whose value is not that of the run to resume.

    Arguments:
        config: Configuration of the run.
        arguments: Arguments of the method, with defaults.
        given: Those that the user gave.
        directory: Directory of the run.
    """
    had = _flat(config)
    wanted = _flat(config_of(config["method"], arguments))
    if wanted["settings"] == AUTO:
        wanted["settings"] = had["settings"]
    for name, value in wanted.items():
        if name not in given or value == had.get(name, value):
            continue
        way_out = _only_epochs(directory)
        if name == "epochs":
            way_out = (
                "to extend it, leave out the method: "
                f"pyro-ssl train --resume {directory} --epochs {value}"
            )
        raise ValueError(f"--{name}: the run had {had[name]}, got {value}; {way_out}")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten a configuration to one dictionary, with the values that a file gives back."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    rest = {name: plain[name] for name in ("settings", *DATA_OPTIONS)}
    return rest | plain["options"] | plain["training"]


def _extend(config: dict[str, Any], epochs: int | None) -> None:
    """Set a larger number of epochs for a run to resume.

    Raises:
        ValueError: The run already has more epochs.
    """
    training = config["training"]
    had = training["epochs"]
    if epochs is None or epochs == had:
        return
    if epochs < had:
        raise ValueError(f"--epochs: the run had {had}, got {epochs}; give more, or leave it out")
    training["epochs"] = epochs
    if is_first():
        print(
            f"{epochs} epochs instead of {had}: from here on the learning rate "
            f"({training['schedule']}) is that of a run of {epochs} epochs"
        )


def _is_restarted(out: Path, config: dict[str, Any]) -> bool:
    """Return True if torchrun has restarted the command, and the directory holds its run."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or not (out / CONFIG).exists():
        return False
    return read_config(out) == json.loads(json.dumps(config))


def resume_hint(arguments: Namespace) -> str:
    """Hint on how to continue an interrupted run; empty if the run has not started.

    >>> resume_hint(Namespace(method=None, resume=None))
    ''
    """
    given: Any = arguments[arguments.method] if arguments.method else {}
    directory = arguments.resume or given.get("resume") or given.get("out")
    if directory is None or not (Path(directory) / CONFIG).exists():
        return ""
    return f"; to continue: pyro-ssl train --resume {directory}"


def config_of(method: str, given: Namespace) -> dict[str, Any]:
    """Make the configuration of a run from its options, before it has seen the data.

    `data_settings.completed` completes it, as in `config.json`.
    """
    if given.settings not in SETTINGS:
        names = ", ".join(SETTINGS)
        raise ValueError(f"--settings should be one of {names}, got {given.settings!r}")
    if given.schedule not in SCHEDULES:
        names = ", ".join(SCHEDULES)
        raise ValueError(f"--schedule should be one of {names}, got {given.schedule!r}")
    if given.optimizer not in OPTIMIZERS:
        names = ", ".join(OPTIMIZERS)
        raise ValueError(f"--optimizer should be one of {names}, got {given.optimizer!r}")
    if not 0 <= given.validation < 1:
        raise ValueError(f"--validation should be in [0, 1), got {given.validation}")
    if given.log not in (None, *LOGGERS):
        raise ValueError(f"--log should be one of {', '.join(LOGGERS)}, got {given.log!r}")
    config: dict[str, Any] = {
        "method": method,
        "preset": given.preset,
        "settings": given.settings,
        "options": chosen_options(method, given),
        "training": {name: given[name] for name in (*FIT_OPTIONS, *NAMED_FIT_OPTIONS)},
    }
    config |= {name: given[name] for name in DATA_OPTIONS}
    # absolute, so that the run can be continued from another folder
    config["data"] = absolute_path(given.data)
    for name in ("data_root", "label_file"):
        if config[name]:
            config[name] = str(Path(config[name]).resolve())
    return config


def train(
    out: Path, config: dict[str, Any], *, resume: bool = False, loaded: Loaded | None = None
) -> None:
    """Train and write the run: checkpoints, model, `result.json` and learning curves.

    Arguments:
        out: Directory of the run.
        config: Configuration, as in `config.json`.
        resume: Continue a run that was started with this configuration.
        loaded: The data of the run; by default they are read here.

    Raises:
        FileExistsError: The directory is a file, or holds another run.
    """
    if out.is_file():
        raise FileExistsError(f"--out: {out} is a file; give a directory")
    Processes.joined(config["training"]["device"])
    if not is_first():
        prepared = _prepared(config, loaded)
        with label_warnings_silenced():
            _fit(out, config, prepared, resume, prepared.accuracy)
        return
    if not resume:
        check_new(out)
    with owned(out):
        _train_in(out, config, resume, loaded)


class _Prepared(NamedTuple):
    """Everything that is needed to train a run.

    Arguments:
        dataset: The data set.
        draw: Its labeled rows, including those for validation.
        labels: Class indices to train on, -1 for unlabeled rows.
        objective: The untrained objective.
        reading: How the data were read.
        accuracy: Accuracy on the labels set aside; empty without them.
    """

    dataset: data.Dataset
    draw: data.LabelDraw
    labels: torch.Tensor
    objective: Objective
    reading: data.Reading
    accuracy: list[Accuracy]


class Trained(NamedTuple):
    """A trained run.

    Arguments:
        dataset: Its data set.
        draw: Its labeled rows, including those for validation.
        objective: The trained objective.
        history: The history of `fit`.
        validation: Accuracy on the labels set aside, as `val_accuracy`; empty without them.
    """

    dataset: data.Dataset
    draw: data.LabelDraw
    objective: Objective
    history: History
    validation: dict[str, float]


def _print_now(text: str) -> None:
    print(text, flush=True)


def _train_in(out: Path, config: dict[str, Any], resume: bool, loaded: Loaded | None) -> None:
    trained = train_model(out, config, resume=resume, loaded=loaded)
    history = trained.history
    plots.save(plots.learning_curves({config["method"]: history}), out / "curves.png")
    measures = {}
    if len(trained.dataset.x_test):
        measures = test_measures(trained.objective, trained.dataset)
    result = _result(config, trained, measures) | {"classes": list(trained.dataset.classes)}
    files.write_text(out / "result.json", json.dumps(result, indent=1))
    print(_result_line(result))


def test_measures(objective: Objective, dataset: data.Dataset) -> dict[str, float]:
    """Measure accuracy, log-likelihood and calibration error on the test set."""
    return metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)


def train_model(
    out: Path,
    config: dict[str, Any],
    *,
    resume: bool = False,
    callbacks: Sequence[Callable[[Epoch], Any]] = (),
    announce: Callable[[str], None] = _print_now,
    loaded: Loaded | None = None,
) -> Trained:
    """Train, and write checkpoints, the model and its labels; the test set is not used.

    Arguments:
        out: Directory of the run.
        config: Configuration, as in `config.json`.
        resume: Continue from the checkpoint, if there is one.
        callbacks: Callbacks of `fit`; they see the accuracy on the labels set aside.
        announce: Function that is called with messages about the labels and the settings.
        loaded: The data of the run; by default they are read here.
    """
    prepared = _prepared(config, loaded)
    dataset, draw, labels, objective, reading, accuracy = prepared
    if accuracy:
        announce(f"labels for validation: {len(accuracy[0].y)}, not used for training")
    announce(describe_labels(labels, dataset.classes))
    for line in settings_lines(config):
        announce(line)
    warn_of_missing_classes(labels, dataset.classes)
    logs = []
    if config["log"]:
        contents = config["options"] | config["training"]
        logs.append(LOGGERS[config["log"]](out / config["log"], contents))
    with configured(out, config), label_warnings_silenced():
        history = _fit(out, config, prepared, resume, [*accuracy, *callbacks, *logs])
    saved = SavedModel(
        config["method"],
        dataset.x_shape,
        list(dataset.classes),
        config["options"],
        objective,
        {"reading": reading.plain()},
    )
    saved.preset = config.get("preset")  # its options are among those of the configuration
    saved.save(out / "model")
    draw.save(out / "labels.json")
    validation = {one.name: one.score(objective) for one in accuracy}
    return Trained(dataset, draw, objective, history, validation)


def _prepared(config: dict[str, Any], loaded: Loaded | None) -> _Prepared:
    """Read the data, choose the labeled rows and build the objective of a run."""
    dataset, reading = load_data(config) if loaded is None else loaded
    if config["binarise"]:
        _check_pixels(dataset.x)
    objective = zoo.build(
        config["method"],
        dataset.x_shape,
        len(dataset.classes),
        seed=seed_of_training(config),
        **config["options"],
    )
    rows = rows_of_run(dataset, config)
    accuracy = []
    if len(rows.set_aside):
        x = as_numbers(dataset.x[rows.set_aside])
        accuracy.append(Accuracy(x, dataset.y[rows.set_aside]))
    return _Prepared(dataset, rows.draw, rows.labels, objective, reading, accuracy)


def _fit(
    out: Path,
    config: dict[str, Any],
    prepared: _Prepared,
    resume: bool,
    callbacks: Sequence[Callable[[Epoch], Any]],
) -> History:
    identity = {"method": config["method"]} | {n: config[n] for n in ("options", "binarise")}
    return fit(
        prepared.objective,
        prepared.dataset.x,
        prepared.labels,
        seed=seed_of_training(config),
        directory=out,
        resume=resume,
        identity=identity,
        transform=torch.bernoulli if config["binarise"] else None,
        callbacks=callbacks,
        **config["training"] | {"progress": _progress(config["training"]["progress"])},
    )


def _progress(wanted: bool | None) -> bool | Callable[[str], None]:
    """The progress bar of a run where there is a terminal, and else lines of text."""
    if wanted is None:
        return sys.stderr.isatty() or _print_now
    return wanted


def _check_pixels(x: torch.Tensor) -> None:
    if is_pixels(x):
        return
    low = float(x.min())
    high = float(x.max())
    if not 0 <= low <= high <= 1:
        raise ValueError(f"--binarise: x should be in [0, 1], got {low:.4g} .. {high:.4g}")


@contextmanager
def label_warnings_silenced() -> Iterator[None]:
    """Silence the warnings of `fit` that name classes by number; the command names them itself.

    >>> with label_warnings_silenced():
    ...     warnings.warn("class 3 has no label", LabelWarning, stacklevel=1)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        yield


def _result(config: dict[str, Any], trained: Trained, measures: dict[str, float]) -> dict[str, Any]:
    """Content of `result.json`."""
    average = ", averaged" if config["training"]["ema"] else ""
    aside = "no validation labels"
    if config["validation"]:
        aside = f"{config['validation']} of the labels were not trained on"
    return {
        "method": config["method"],
        "preset": config.get("preset"),
        "data": config["data"],
        "labels": len(trained.draw.indices),
        "draw": trained.draw.name,
        "seed": config["seed"],
        "epochs": config["training"]["epochs"],
        "seconds": trained.history["seconds"][-1],
        **trained.validation,
        **{f"test_{name}": value for name, value in measures.items()},
        "selection": f"none: the last epoch's weights{average}; {aside}",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }


def _result_line(result: dict[str, Any]) -> str:
    trained = f"{result['method']} on {result['data']}, {result['labels']} labels"
    seconds = duration(result["seconds"])
    if "test_accuracy" not in result:
        return f"{trained}: no test data, {seconds}"
    return (
        f"{trained}: accuracy {100 * result['test_accuracy']:.2f} %, "
        f"log-likelihood {result['test_log_likelihood']:.3f}, "
        f"ECE {100 * result['test_ece']:.2f} %, {seconds}"
    )


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on.

    >>> sorted(versions())
    ['numpy', 'pyro-ppl', 'pyro-ssl', 'python', 'scikit-learn', 'torch']
    """
    packages = ("pyro-ssl", "pyro-ppl", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
