"""What an estimator trains: the objective with its options, and the arguments of `fit`.

The command line uses this function too, so that `pyro-ssl train` on a table trains what
`SemiSupervisedClassifier` trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sklearn.utils import check_random_state

from pyro_ssl import zoo
from pyro_ssl.estimator.defaults import data_options, fit_arguments, training_parameters
from pyro_ssl.estimator.parameters import as_mapping
from pyro_ssl.objectives.objective import Objective


class Shape(NamedTuple):
    """The size of the training data.

    Arguments:
        event: Event shape of X.
        rows: Number of rows.
        labeled: Number of rows with a label.
        classes: K, or the size of a real y.
    """

    event: tuple[int, ...]
    rows: int
    labeled: int
    classes: int


class Settings(NamedTuple):
    """What is trained, and how.

    Arguments:
        objective: The untrained objective.
        options: Options of the method that differ from its own defaults, or may do so.
        training: Arguments of `fit`.
        seed: Seed of the weights and of `fit`.
    """

    objective: Objective
    options: dict[str, Any]
    training: dict[str, Any]
    seed: int


def settings_for(
    parameters: Mapping[str, Any], shape: Shape, implied: Mapping[str, Any]
) -> Settings:
    """Complete the parameters of an estimator by the settings that suit the data.

    Options that are given win over those that the labels imply, and these over the defaults for
    tables. With a preset, its options take the place of the defaults.

    Arguments:
        parameters: Parameters of the estimator, see `get_params`.
        shape: Size of the training data.
        implied: Options that the labels imply, see `class_frequencies`.

    Raises:
        ValueError: An option, a parameter or the preset is unknown or out of range.

    >>> from pyro_ssl import SemiSupervisedClassifier
    >>> parameters = SemiSupervisedClassifier("m2", random_state=0).get_params(deep=False)
    >>> settings = settings_for(parameters, Shape((4,), rows=100, labeled=10, classes=2), {})
    >>> settings.options["hidden"], settings.training["epochs"]
    ((128, 128), 1000)
    """
    method = parameters["method"]
    preset = parameters["preset"]
    given = as_mapping("options", parameters["options"])
    filled = training_parameters(parameters)
    if preset is None:
        defaults = data_options(method, shape.rows, shape.event, filled["min_steps"])
        options = {**defaults, **implied, **given}
    else:
        options = {**implied, **zoo.preset_of(method, preset).option_values, **given}
    seed = training_seed(parameters["random_state"])
    objective = zoo.build(method, shape.event, shape.classes, seed=seed, **options)
    unlabeled = shape.rows - shape.labeled if objective.learns_unlabeled else 0
    training = as_mapping("training", parameters["training"])
    arguments = fit_arguments(filled, training, shape.labeled, unlabeled)
    return Settings(objective, options, arguments, seed)


def training_seed(random_state: Any) -> int:
    """The seed of the weights and of `fit` that an estimator draws from its random state.

    >>> training_seed(0) == training_seed(0)
    True
    """
    return int(check_random_state(random_state).randint(2**31 - 1))
