"""The command `pyro-ssl train ...` that trains what `compare` has compared."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_ssl.cli.data_options import reading_words
from pyro_ssl.cli.data_settings import ESTIMATOR, completed, settings_of
from pyro_ssl.cli.labels_of_run import rows_of_run
from pyro_ssl.cli.method_options import parsed_with_preset
from pyro_ssl.cli.train import config_of, method_parser
from pyro_ssl.comparison.compare import CLASSIFIER, options_for
from pyro_ssl.comparison.result import LABELS_ALONE
from pyro_ssl.data import Dataset
from pyro_ssl.estimator import SemiSupervisedClassifier
from pyro_ssl.zoo import METHODS


def train_command(
    competitor: str, compared: Namespace, parameters: dict[str, Any], dataset: Dataset
) -> str | None:
    """The command that trains a competitor on all labels, as `compare` trained it in each fold.

    It names only the settings that `train` would not choose itself.

    Arguments:
        competitor: Name of the competitor.
        compared: Arguments of `pyro-ssl compare`.
        parameters: Parameters of `SemiSupervisedClassifier` that were given.
        dataset: The data.

    Returns:
        The command, or None for a baseline of scikit-learn, which is not a method.
    """
    method = CLASSIFIER if competitor == LABELS_ALONE else competitor
    if method not in METHODS:
        return None
    options = options_for(method, compared.options)
    words = [*_data_words(compared), *_words_of({**options, "seed": compared.seed})]
    if compared.preset is not None:
        words += ["--preset", compared.preset]
    config = _config(method, words, dataset)
    if config["settings"] != ESTIMATOR:
        words += ["--settings", ESTIMATOR]
        config = _config(method, words, dataset)
    words += _words_of(_missing(method, options, parameters, config, dataset, compared.seed))
    out = _new_directory(f"runs/{Path(compared.data).stem}-{method}")
    return shlex.join(["pyro-ssl", "train", method, *words, "--out", out])


def _config(method: str, words: list[str], dataset: Dataset) -> dict[str, Any]:
    """The configuration that `train` makes of its options."""
    parser = method_parser(method)
    given = vars(parser.parse_args(words, defaults=False))
    parsed = parsed_with_preset(method, parser.parse_args(words), given)
    return completed(config_of(method, parsed), given, dataset)


def _data_words(compared: Namespace) -> list[str]:
    """Options that say which data and labels to read."""
    words = ["--data", compared.data, *reading_words(vars(compared))]
    if compared.data_root is not None:
        words += ["--data-root", compared.data_root]
    if compared.labels is not None:
        words += ["--labels", str(compared.labels)]
    if compared.how != "balanced":
        words += ["--how", compared.how]
    return words


def _missing(
    method: str,
    options: dict[str, Any],
    parameters: dict[str, Any],
    config: dict[str, Any],
    dataset: Dataset,
    seed: int,
) -> dict[str, Any]:
    """Settings of the comparison that the configuration lacks."""
    estimator = SemiSupervisedClassifier(method, options=options, random_state=seed, **parameters)
    wanted = settings_of(estimator, dataset, rows_of_run(dataset, config).labels)
    training = {name: v for name, v in wanted.training.items() if name != "progress"}
    had = _plain(config["options"] | config["training"])
    return {
        name: value
        for name, value in _plain(wanted.options | training).items()
        if had[name] != value
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _words_of(options: dict[str, Any]) -> list[str]:
    """Options as words of a command."""
    words = []
    for name, value in options.items():
        words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return words


def _new_directory(name: str) -> str:
    """A directory that does not exist: the name, or the name with a number."""
    path = Path(name)
    number = 2
    while path.exists():
        path = Path(f"{name}-{number}")
        number += 1
    return path.as_posix()
