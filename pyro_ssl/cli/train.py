"""`pyro-ssl train`: train a method on a data set with few labels, or continue a run."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import zoo
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
    completed,
    load_data,
)
from pyro_ssl.cli.labels_of_run import DEFAULT_LABELS
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
    read_config,
)
from pyro_ssl.cli.termination import terminable
from pyro_ssl.cli.train_run import train
from pyro_ssl.training.distributed import is_first
from pyro_ssl.training.fit import fit
from pyro_ssl.training.loggers import LOGGERS
from pyro_ssl.training.optimizers import OPTIMIZERS, SCHEDULES

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
    with terminable():
        _run(arguments)


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
