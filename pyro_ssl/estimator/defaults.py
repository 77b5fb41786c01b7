"""Options of the method and arguments of `fit` that an estimator adds to the caller's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyro_ssl import zoo
from pyro_ssl.training.batches import steps_per_epoch
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.zoo import presets


def column_defaults(method: str, columns: int) -> dict[str, Any]:
    """Options of a method for a table, where the caller gives none.

    Arguments:
        method: Name in the zoo.
        columns: Number of columns.

    >>> column_defaults("classifier", 2)
    {'hidden': (128, 128), 'activation': 'relu', 'noise': 0.0, 'dropout': 0.0}
    """
    defaults = dict(presets.TABULAR_DEFAULTS)
    if columns <= 3:
        defaults |= presets.LOW_DIMENSIONAL_DEFAULTS
    defaults |= presets.TABULAR_DEFAULTS_BY_METHOD.get(method, {})
    known = zoo.options_of(method)
    return {name: value for name, value in defaults.items() if name in known}


def data_options(method: str, rows: int, shape: tuple[int, ...], min_steps: int) -> dict[str, Any]:
    """Options of a method that suit the data: none for images, `column_defaults` for a table.

    M1 of `m1_m2` trains for at least `min_steps` steps, like the method itself.

    Arguments:
        method: Name in the zoo.
        rows: Number of rows.
        shape: Event shape of X.
        min_steps: Smallest number of steps.

    >>> data_options("m2", 100, (1, 8, 8), 1000)
    {}
    """
    is_image = len(shape) == 3
    if is_image:
        return {}
    defaults = column_defaults(method, math.prod(shape))
    m1_epochs = zoo.options_of(method).get("m1_epochs")
    if m1_epochs is None:
        return defaults
    size = presets.M1_TRAINING["batch_size"]
    steps = steps_per_epoch(0, rows, batch_size=size, labeled_batch_size=size)
    return defaults | {"m1_epochs": max(m1_epochs, math.ceil(min_steps / steps))}


def class_frequencies(method: str, counts: Any) -> dict[str, Any]:
    """Class probabilities of a method from the labels: their frequencies, with pseudo-counts.

    Each class has three pseudo-counts, since few labels say little about p(y).

    Arguments:
        method: Name in the zoo.
        counts: Number of labels of each class, `(K,)`.

    >>> class_frequencies("m2", [7, 1])
    {'class_probs': [0.714..., 0.285...]}
    """
    if "class_probs" not in zoo.options_of(method):
        return {}
    smoothed = np.asarray(counts) + 3
    return {"class_probs": (smoothed / smoothed.sum()).tolist()}


def warn_unless_for_columns(method: str, shape: tuple[int, ...]) -> None:
    """Warn of a method that does not suit tables.

    Arguments:
        method: Name in the zoo.
        shape: Event shape of X.

    >>> warn_unless_for_columns("m2", (4,))
    """
    is_image = len(shape) == 3
    if is_image or zoo.method(method).columns:
        return
    warnings.warn(
        f"method {method} is not for columns: on tables it often classifies worse than a "
        "classifier trained on the labels alone; use m2, sslpe or latent_classifier, or compare "
        "it with classifier",
        UserWarning,
        stacklevel=4,  # the caller of the estimator's `fit`
    )


OWN_TRAINING: dict[str, Any] = {"epochs": 100, "min_steps": 1000, "batch_size": 200, "lr": 3e-3}
"""The estimators' parameters of training, where neither the caller nor a preset gives them."""


def training_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the parameters that the caller leaves to the preset, or to the estimator.

    Arguments:
        parameters: The estimator's parameters; None for one that is not given.

    Returns:
        The parameters, and further arguments of `fit` from the preset.

    Raises:
        ValueError: See `zoo.preset_of`.

    >>> given = {"method": "m2", "preset": "paper-004", "epochs": 5, "lr": None}
    >>> filled = training_parameters(given)
    >>> filled["epochs"], filled["lr"], filled["min_steps"]
    (5, 0.0003, 0)
    """
    defaults = dict(OWN_TRAINING)
    preset = parameters["preset"]
    if preset is not None:
        of_paper = zoo.training_of(parameters["method"], preset)
        defaults |= {"min_steps": 0, "of_paper": of_paper}
        defaults |= {name: of_paper[name] for name in ("epochs", "batch_size", "lr")}
    given = {name: value for name, value in parameters.items() if value is not None}
    return defaults | given


def fit_arguments(
    parameters: Mapping[str, Any], training: Mapping[str, Any], labeled: int, unlabeled: int
) -> dict[str, Any]:
    """Arguments of `pyro_ssl.fit`: entries of `training` override the estimator's parameters.

    Arguments:
        parameters: The estimator's parameters, see `training_parameters`.
        training: Arguments of `fit` from the caller.
        labeled: Number of rows with a label.
        unlabeled: Number of rows without one; 0 for a method that does not learn from them.

    Returns:
        The arguments. With another number of epochs than a preset's, its warm-up keeps its share.

    Raises:
        ValueError: A batch size is not above 0.

    >>> sizes = {"epochs": 1, "min_steps": 10, "batch_size": 5, "lr": 0.1, "verbose": False}
    >>> fit_arguments(sizes, {}, labeled=10, unlabeled=10)["epochs"]
    5
    """
    of_paper = parameters.get("of_paper", {})
    own: dict[str, Any] = {
        "labeled_batch_size": 100,
        **of_paper,
        "batch_size": parameters["batch_size"],
        "lr": parameters["lr"],
        "progress": bool(parameters["verbose"]),
    }
    sizes = {name: {**own, **training}[name] for name in ("batch_size", "labeled_batch_size")}
    check_positive(**sizes)
    steps = steps_per_epoch(labeled, unlabeled, **sizes)
    epochs = max(parameters["epochs"], math.ceil(parameters["min_steps"] / steps))
    epochs = training.get("epochs", epochs)
    if of_paper:
        check_positive(epochs=epochs)
        own = presets.with_epochs(own, epochs)
    return {**own, "epochs": epochs, **training}
