"""The settings of a run that suit its data: on a table, those of `SemiSupervisedClassifier`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pyro_ssl import data, zoo
from pyro_ssl.cli.data_of_run import DataOfRun, read_data
from pyro_ssl.cli.data_options import absolute_path, reading_of
from pyro_ssl.cli.labels_of_run import is_label_table, rows_of_run
from pyro_ssl.data import Dataset, Reading
from pyro_ssl.estimator import SemiSupervisedClassifier
from pyro_ssl.estimator.defaults import class_frequencies, warn_unless_for_columns
from pyro_ssl.estimator.settings import Settings, Shape, settings_for, training_seed
from pyro_ssl.training.batches import steps_per_epoch
from pyro_ssl.training.fit import fit

AUTO = "auto"
ESTIMATOR = "estimator"
METHOD = "method"
SETTINGS = (AUTO, ESTIMATOR, METHOD)
"""Values of `--settings`: where the options come from that the user does not give."""
STEPS_BETWEEN_CHECKPOINTS = 100
"""On a table, whose epochs may have a single step: steps between checkpoints, at least."""


class Loaded(NamedTuple):
    """The data of a run.

    Arguments:
        dataset: The data set.
        reading: How it was read.
    """

    dataset: Dataset
    reading: Reading


def load_data(config: dict[str, Any]) -> Loaded:
    """Load or read the data of a configuration.

    Labels in a CSV file, as `pyro-ssl label` writes it, win over those in the data.

    Raises:
        ValueError: There is no such data set, or the labels do not fit.

    >>> options = {"label_column": "label", "ignore_columns": [], "image_size": None}
    >>> options |= {"label_file": None}
    >>> load_data({"data": "moons", "data_root": None, **options}).dataset.x_shape
    (2,)
    """
    reading = reading_of(config)
    name = config["data"]
    label_file = config["label_file"]
    labels = label_file if is_label_table(label_file) else None
    if labels is not None and name in data.DATASETS:
        raise ValueError(
            f"--label-file: {labels} has labels of a file or folder, got the data set {name}"
        )
    if labels is not None and not Path(labels).exists():
        raise FileNotFoundError(f"--label-file: {labels}: no such file")
    of_run = DataOfRun(absolute_path(name), config["data_root"], labels)
    return Loaded(*read_data(of_run, name, reading))


def completed(config: dict[str, Any], given: Collection[str], dataset: Dataset) -> dict[str, Any]:
    """Complete a configuration by the settings that suit the data.

    On a table these are the estimator's, unless there is a preset: the same function chooses them.

    Arguments:
        config: Configuration, see `train.config_of`.
        given: Names of the options that the user gave; they do not change.
        dataset: The data of the run.

    Raises:
        ValueError: The labels are too few for the options.

    >>> from pyro_ssl.cli.train import config_of, method_parser
    >>> config = config_of("m2", method_parser("m2").parse_args(["--labels", "20"]))
    >>> completed(config, (), data.load("moons"))["options"]["hidden"]
    (128, 128)
    """
    settings = config["settings"]
    if settings == AUTO:
        is_image = len(dataset.x_shape) == 3
        settings = METHOD if is_image or config["preset"] else ESTIMATOR
    config = config | {"settings": settings}
    if settings == METHOD:
        return config
    warn_unless_for_columns(config["method"], dataset.x_shape)
    options = {name: config["options"][name] for name in config["options"] if name in given}
    training = {name: config["training"][name] for name in config["training"] if name in given}
    estimator = SemiSupervisedClassifier(
        config["method"],
        preset=config["preset"],
        options=options,
        training=training,
        random_state=config["seed"],
    )
    labels = rows_of_run(dataset, config).labels
    chosen = settings_of(estimator, dataset, labels)
    return config | {
        "options": config["options"] | chosen.options,
        "training": _training(config, chosen, given, labels),
    }


def settings_of(estimator: SemiSupervisedClassifier, dataset: Dataset, labels: Tensor) -> Settings:
    """The settings with which an estimator trains on a data set.

    Arguments:
        estimator: The estimator; it does not change.
        dataset: The data set.
        labels: Class indices to train on, `(N,)`; -1 for rows without a label.

    >>> moons = data.load("moons")
    >>> settings_of(SemiSupervisedClassifier(), moons, moons.y).options["z_dim"]
    8
    """
    counts = labels[labels >= 0].bincount(minlength=len(dataset.classes))
    shape = Shape(dataset.x_shape, len(labels), int(counts.sum()), len(dataset.classes))
    implied = class_frequencies(estimator.method, counts.tolist())
    return settings_for(estimator.get_params(deep=False), shape, implied)


def _training(
    config: dict[str, Any], chosen: Settings, given: Collection[str], labels: Tensor
) -> dict[str, Any]:
    """Arguments of `fit`: what the estimator leaves open is as in `fit` itself.

    Where an epoch has few steps, a checkpoint is not written after each: it takes longer than they.
    """
    of_method = zoo.method(config["method"]).training
    defaults = inspect.signature(fit).parameters
    open_ones = {name: defaults[name].default for name in of_method if name not in given}
    training = config["training"] | open_ones | chosen.training
    labeled = int((labels >= 0).sum())
    unlabeled = len(labels) - labeled if chosen.objective.learns_unlabeled else 0
    sizes = {name: training[name] for name in ("batch_size", "labeled_batch_size")}
    if "checkpoint_every" not in given:
        steps = steps_per_epoch(labeled, unlabeled, **sizes)
        training["checkpoint_every"] = max(steps, STEPS_BETWEEN_CHECKPOINTS)
    return training | {"progress": config["training"]["progress"]}


def seed_of_training(config: dict[str, Any]) -> int:
    """Seed of the weights and of training: with the estimator's settings, the one it draws."""
    seed: int = config["seed"]
    return training_seed(seed) if config["settings"] == ESTIMATOR else seed


def settings_lines(config: dict[str, Any]) -> list[str]:
    """Say which settings a run has: one line, and one more if a preset's warm-up is shortened.

    Arguments:
        config: A completed configuration.
    """
    lines = [f"settings: {_settings_text(config)}"]
    warmup = _warmup_text(config)
    return [*lines, warmup] if warmup else lines


def _settings_text(config: dict[str, Any]) -> str:
    method = config["method"]
    training = config["training"]
    numbers = [f"{name} {training[name]:g}" for name in ("epochs", "batch_size", "lr")]
    if config["preset"]:
        return f"preset {config['preset']} of {method}; {', '.join(numbers)}"
    if config["settings"] == METHOD:
        return f"the own defaults of {method}; {', '.join(numbers)}"
    own = zoo.options_of(method)
    changed = {
        name: value
        for name, value in json.loads(json.dumps(config["options"])).items()
        if value != json.loads(json.dumps(own[name])) and name != "class_probs"
    }
    options = ", ".join(f"{name} {json.dumps(value)}" for name, value in changed.items())
    text = f"those of pyro-ssl compare and SemiSupervisedClassifier; {', '.join(numbers)}"
    return f"{text}, {options}" if options else text


def _warmup_text(config: dict[str, Any]) -> str:
    if not config["preset"]:
        return ""
    had = zoo.training_of(config["method"], config["preset"])
    epochs = config["training"]["epochs"]
    warmup = config["training"]["warmup"]
    shortened = zoo.training_of(config["method"], config["preset"], epochs)["warmup"]
    if warmup == had["warmup"] or warmup != shortened:
        return ""
    return (
        f"warm-up: {warmup:g} of {epochs} epochs, the same share as {had['warmup']:g} of "
        f"{had['epochs']} in preset {config['preset']}; --warmup sets another"
    )
