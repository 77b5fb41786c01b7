"""Estimators on disk: their parameters as plain data, and checks of what a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from pyro_ssl.training.packed_state import pack
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.earlier_names import current_options
from pyro_ssl.zoo.saved_model import listed


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of an estimator as plain data.

    Entries of `training` that a file cannot hold, such as an optimiser, are left out, and so is a
    random state that is not a seed.

    Arguments:
        parameters: Values by name, see `get_params`.

    >>> parameters = {"training": {"lr_decay": object()}, "options": None, "random_state": 7}
    >>> plain_parameters(parameters)
    {'training': {}, 'options': None, 'random_state': 7}
    """
    plain = dict(parameters)
    if plain["training"]:
        training = {name: v for name, v in plain["training"].items() if _is_plain(v)}
        plain["training"] = training
    if plain["options"]:
        plain["options"] = listed(plain["options"])
    seed = plain["random_state"]
    plain["random_state"] = int(seed) if isinstance(seed, Integral) else None
    return plain


def current_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a file has them, with its options under today's names.

    Arguments:
        parameters: Values by name, as `plain_parameters` gives them.

    >>> current_parameters({"options": {"top": 2}})
    {'options': {'top_k': 2}}
    """
    current = dict(parameters)
    if current["options"]:
        current["options"] = current_options(current["options"])
    return current


def check_holds(directory: str | Path, extra: Mapping[str, Any], wanted: type) -> None:
    """Check that a file holds an estimator of a class.

    Arguments:
        directory: The file's directory, for the message.
        extra: `SavedModel.extra` of the file.
        wanted: The class.

    Raises:
        CheckpointError: The file holds another kind of model.

    >>> from pyro_ssl import SemiSupervisedClassifier
    >>> check_holds("model", {"parameters": {}}, SemiSupervisedClassifier)
    """
    if "parameters" not in extra:
        raise CheckpointError(
            f"{directory} is a model of the command line; read it with pyro_ssl.SavedModel.load"
        )
    is_regressor = "y_mean" in extra
    holds = "SemiSupervisedRegressor" if is_regressor else "SemiSupervisedClassifier"
    if not any(base.__name__ == holds for base in wanted.__mro__):
        raise CheckpointError(
            f"{directory} holds a {holds}, not a {wanted.__name__}; read it with {holds}.load"
        )


def saved_moments(
    extra: Mapping[str, Any], shape: tuple[int, ...], mean_name: str = "mean", std_name: str = "std"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, as a file has them.

    Arguments:
        extra: `SavedModel.extra` of the file.
        shape: Shape that both should have.
        mean_name: Name of the mean.
        std_name: Name of the standard deviation.

    Raises:
        ValueError: They are of another shape, not finite, or a deviation is not above 0.

    >>> mean, std = saved_moments({"mean": [0.0], "std": [2.0]}, (1,))
    >>> std.tolist()
    [2.0]
    """
    mean = np.asarray(extra[mean_name], np.float64)
    std = np.asarray(extra[std_name], np.float64)
    finite = np.isfinite(mean).all() and np.isfinite(std).all()
    if mean.shape != shape or std.shape != shape or not finite or not (std > 0).all():
        raise ValueError(
            f"{mean_name} and {std_name} should be finite, of shape {shape}, and {std_name} above 0"
        )
    return mean, std


def saved_features(features: Any, x_shape: tuple[int, ...]) -> int:
    """Number of features, as a file has it.

    Arguments:
        features: The number.
        x_shape: Event shape of the model.

    Raises:
        ValueError: It is another number than the model's, or none.

    >>> saved_features(4, (4,))
    4
    """
    if type(features) is not int or features != x_shape[0]:
        raise ValueError(
            f"n_features_in should be {x_shape[0]}, as the model has it, got {features!r:.80}"
        )
    return features


def _is_plain(value: Any) -> bool:
    """Return True if a checkpoint can hold the value."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        pack("", value, {})
    except TypeError:
        return False
    return True
