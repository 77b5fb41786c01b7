"""Checks of the parameters of an estimator, before it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from sklearn.utils import check_random_state

from pyro_ssl import zoo
from pyro_ssl.estimator.defaults import training_parameters
from pyro_ssl.training.fit import fit
from pyro_ssl.utils.arguments import check_kind, check_positive

EXAMPLES = {"options": "{'z_dim': 2}", "training": "{'ema': 0.999}"}
"""Parameters that are dictionaries, whose entries are parameters too, such as `options__z_dim`."""

FIT_BY_ESTIMATOR = {"objective", "x", "y", "seed"}
"""Arguments of `pyro_ssl.fit` that `training` may not hold: the estimator gives them itself."""


def as_mapping(name: str, value: Any) -> dict[str, Any]:
    """Copy a dictionary with names as keys; None becomes an empty one.

    Arguments:
        name: Name of the parameter, for the message.
        value: The dictionary, or None.

    Raises:
        ValueError: The value is something else.

    >>> as_mapping("options", None)
    {}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(
            f"{name} should be a dictionary with names as keys, such as {EXAMPLES[name]}, "
            f"got {value!r}"
        )
    return dict(value)


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the constructor's parameters.

    Arguments:
        parameters: Values by name, see `get_params`.

    Raises:
        ValueError: A parameter is of the wrong kind or out of range; the message names it.

    >>> from pyro_ssl import SemiSupervisedClassifier
    >>> check_parameters(SemiSupervisedClassifier(min_steps=-1).get_params(deep=False))
    Traceback (most recent call last):
    ...
    ValueError: min_steps should be 0 or above, got -1
    """
    method = parameters["method"]
    if not isinstance(method, str):
        raise ValueError(f"method should be a name in the zoo, such as 'm2', got {method!r}")
    zoo.method(method)
    check_kind("preset", parameters["preset"], str | None)
    parameters = {**parameters, **training_parameters(parameters)}
    check_positive(epochs=parameters["epochs"], batch_size=parameters["batch_size"])
    check_kind("min_steps", parameters["min_steps"], int)
    if parameters["min_steps"] < 0:
        raise ValueError(f"min_steps should be 0 or above, got {parameters['min_steps']}")
    check_kind("lr", parameters["lr"], float)
    check_kind("scale", parameters["scale"], bool | None)
    check_kind("verbose", parameters["verbose"], bool | int)
    as_mapping("options", parameters["options"])
    _check_training(as_mapping("training", parameters["training"]))
    _check_random_state(parameters["random_state"])


def _check_training(training: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments that `fit` does not have, or that the estimator gives."""
    known = signature(fit).parameters.keys() - FIT_BY_ESTIMATOR
    unknown = sorted(training.keys() - known)
    if not unknown:
        return
    name = unknown[0]
    if name in FIT_BY_ESTIMATOR:
        raise ValueError(
            f"training should not hold {name!r}, which the estimator gives to pyro_ssl.fit itself"
        )
    raise ValueError(
        f"training: pyro_ssl.fit has no argument {name!r}; it has {', '.join(sorted(known))}"
    )


def _check_random_state(random_state: Any) -> None:
    try:
        check_random_state(random_state)
    except (ValueError, TypeError):
        raise ValueError(
            "random_state should be None, a whole number in 0 .. 2**32 - 1 or a numpy "
            f"RandomState, got {random_state!r}"
        ) from None
