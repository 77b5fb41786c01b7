"""Cross-validation of methods and baselines on the labels at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyro_ssl import zoo
from pyro_ssl.comparison.baselines import (
    LABEL_SPREADING,
    LOGISTIC_REGRESSION,
    Fold,
    by_estimator,
    label_spreading,
    logistic_regression,
)
from pyro_ssl.comparison.intervals import check_level
from pyro_ssl.comparison.progress import Progress
from pyro_ssl.comparison.result import LABELS_ALONE, Comparison, Competitor
from pyro_ssl.data.classes import encode, names_of
from pyro_ssl.estimator import SemiSupervisedClassifier
from pyro_ssl.estimator.inputs import checked_rows
from pyro_ssl.model_selection import PartialLabelKFold
from pyro_ssl.utils.arguments import check_kind, check_positive
from pyro_ssl.utils.arrays import brief, few

Array = np.ndarray[Any, Any]
MOST_FOLDS = 5
CLASSIFIER = "classifier"
"""The method that is trained on the labels alone."""
OWN_PARAMETERS = ("method", "options", "random_state")
"""Parameters of the estimators that are arguments of `compare` itself, or follow from them."""


def compare(
    X: Any,
    y: Any,
    methods: str | Sequence[str] = "m2",
    *,
    folds: int | None = None,
    options: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    level: float = 0.95,
    random_state: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Find out whether methods that learn from unlabeled rows do better than the labels alone.

    Each method is compared with its classifier network trained on the labels alone, with logistic
    regression on the labels, and with label spreading. In each fold, part of the labels are hidden;
    their rows stay in training as unlabeled rows, and their predictions are scored. Each label is
    held out once, and no others are used.

    The intervals take the held-out rows as a sample; they do not include the chance of this draw of
    labels, so that another draw of as many labels can differ by more.

    Arguments:
        X: Data `(N, features)`, or images `(N, C, H, W)`.
        y: Labels `(N,)`, missing as in `SemiSupervisedClassifier.fit`.
        methods: Names in the zoo.
        folds: Number of folds; by default 5, or the labels of the largest class if these are fewer.
        options: Options of the methods, such as `{"hidden": (64,)}`; each gets those that it has,
            and so does the classifier on the labels alone.
        parameters: Other parameters of `SemiSupervisedClassifier`, such as `{"epochs": 50}`; a
            preset should be one that `classifier` has, too.
        level: Confidence level of the intervals.
        random_state: Seed of the folds and of training.
        progress: Called with lines of text: what will be run, how far a training is about every 10
            seconds, and after each fold the time so far and about the time left.

    Returns:
        The comparison, whose `recommendation` is one sentence and whose `table()` has the measures.
        If the labels cannot tell, `next_step` says about how many could. `recommended` is the name
        of what to use, and `comparison[name].python` the line that trains it.

    Raises:
        ValueError: All rows are labeled, so that there is nothing to gain; there is one class only,
            or a class with one label; entries of X are masked; a method, an option, a parameter or
            an argument is unknown or out of range.

    References:
        Bayle, Bayle, Janson, Mackey 2020, "Cross-validation confidence intervals for test error".

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = rng.normal(size=(60, 2)) + 3 * y[:, None]
    >>> y[12:] = -1
    >>> comparison = compare(X, y, folds=2, parameters={"epochs": 1, "min_steps": 5})
    >>> [competitor.name for competitor in comparison.competitors]
    ['m2', 'labels alone', 'logistic regression', 'label spreading']
    >>> comparison.recommendation
    'With 12 labels, m2 ...'
    """
    rows = _checked_X(X)
    classes, indices = encode(y, len(rows))
    known = np.flatnonzero(indices >= 0)
    names = _checked_names(methods)
    _check_labels(indices, names_of(classes))
    check_level(level)
    check_kind("random_state", random_state, int)
    folds = _checked_folds(folds, indices)
    own = as_names("options", options), as_names("parameters", parameters)
    entrants = _entrants(names, *own, random_state)
    trained = [name for name, entrant in entrants.items() if entrant.estimator is not None]
    splitter = PartialLabelKFold(folds, shuffle=True, random_state=random_state)
    splits = [test for _, test in splitter.split(rows, indices)]
    reports = Progress(progress, list(entrants), trained, folds, len(known))
    reports.begin()
    results = [
        _held_out(name, entrant, rows, indices, splits, reports)
        for name, entrant in entrants.items()
    ]
    unlabeled = len(rows) - len(known)
    return Comparison(tuple(results), names, names_of(classes), known, unlabeled, folds, level)


class _Entrant(NamedTuple):
    """What is compared.

    Arguments:
        python: The line of Python that trains it.
        fold: Its training and prediction; None for an estimator.
        estimator: The estimator; None for a baseline.
    """

    python: str
    fold: Fold | None = None
    estimator: SemiSupervisedClassifier | None = None

    def begun(self, reports: Progress) -> Fold:
        """The function that predicts held-out rows, and says how far its training is."""
        if self.fold is not None:
            return self.fold
        assert self.estimator is not None
        training = {"progress": reports.within, **(self.estimator.training or {})}
        return by_estimator(self.estimator.set_params(training=training))


def _held_out(
    name: str,
    entrant: _Entrant,
    X: Array,
    y: Array,
    splits: Sequence[Array],
    reports: Progress,
) -> Competitor:
    """Predict each labeled row by a training in which its label is hidden."""
    known = np.flatnonzero(y >= 0)
    probs = np.zeros((len(y), int(y.max()) + 1))
    start = time.perf_counter()
    fold = entrant.begun(reports)
    for number, held_out in enumerate(splits, 1):
        hidden = y.copy()
        hidden[held_out] = -1
        reports.begin_fold(name, number)
        probs[held_out] = fold(X, hidden, held_out)
        reports.end_fold()
    seconds = time.perf_counter() - start
    return Competitor(name, probs[known], y[known], seconds, entrant.python)


def _entrants(
    names: Sequence[str], options: dict[str, Any], parameters: dict[str, Any], seed: int
) -> dict[str, _Entrant]:
    """The methods, then the baselines."""
    known = {option for name in names for option in zoo.options_of(name)}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(f"options: {' and '.join(names)} have no option {', '.join(unknown)}")
    _check_parameters(parameters, names)
    entrants: dict[str, _Entrant] = {}
    for name in (*names, CLASSIFIER):
        own = options_for(name, options)
        estimator = SemiSupervisedClassifier(name, options=own, random_state=seed, **parameters)
        python = _line(name, own, parameters, seed)
        entrants[LABELS_ALONE if name == CLASSIFIER else name] = _Entrant(
            python, estimator=estimator
        )
    entrants["logistic regression"] = _Entrant(LOGISTIC_REGRESSION, logistic_regression)
    entrants["label spreading"] = _Entrant(LABEL_SPREADING, label_spreading)
    return entrants


def options_for(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a method has.

    >>> options_for("classifier", {"hidden": (8,), "z_dim": 2})
    {'hidden': (8,)}
    """
    return {key: value for key, value in options.items() if key in zoo.options_of(method)}


def _line(method: str, options: dict[str, Any], parameters: dict[str, Any], seed: int) -> str:
    """The line of Python that trains a method as it was compared."""
    arguments = [repr(method)]
    if options:
        arguments.append(f"options={options!r}")
    arguments += [f"{name}={value!r}" for name, value in parameters.items()]
    arguments.append(f"random_state={seed}")
    return f"SemiSupervisedClassifier({', '.join(arguments)}).fit(X, y)"


def _check_parameters(parameters: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise ValueError, before anything is trained, for a parameter that an estimator lacks."""
    known = SemiSupervisedClassifier().get_params(deep=False).keys() - set(OWN_PARAMETERS)
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise ValueError(
            f"parameters should be of {', '.join(sorted(known))}; got {', '.join(unknown)}"
        )
    preset = parameters.get("preset")
    if preset is None:
        return
    for name in (*names, CLASSIFIER):
        zoo.preset_of(name, preset)


def _checked_X(X: Any) -> Array:
    """X as an array of rows."""
    rows = np.asarray(checked_rows(X))
    if rows.ndim < 2:
        raise ValueError(
            "X should have shape (N, features), or (N, C, H, W) for images, got "
            f"{brief(X)} of shape {rows.shape}"
        )
    return rows


def as_names(argument: str, value: Any) -> dict[str, Any]:
    """Copy a dictionary with names as keys; None becomes an empty one.

    Arguments:
        argument: Name of the argument, for the message.
        value: The dictionary, or None.

    Raises:
        ValueError: The value is something else.

    >>> as_names("options", {"z_dim": 2})
    {'z_dim': 2}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(
            f"{argument} should be a dictionary with names as keys, or None, got {brief(value)}"
        )
    return dict(value)


def _checked_names(methods: Any) -> tuple[str, ...]:
    is_list = isinstance(methods, Sequence) and all(isinstance(name, str) for name in methods)
    if not is_list:
        raise ValueError(
            f"methods should be a name, or a list of names, of the zoo, got {brief(methods)}"
        )
    names = (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))
    if not names:
        raise ValueError("methods should name one method or more, got none")
    for name in names:
        zoo.method(name)
    if CLASSIFIER in names:
        raise ValueError(
            f"methods: {CLASSIFIER} is the labels alone, with which all others are compared; "
            "leave it out"
        )
    return names


def _check_labels(indices: Array, classes: Sequence[str]) -> None:
    """Raise ValueError if there is nothing to learn from, or too little to compare on."""
    if (indices >= 0).all():
        raise ValueError(
            f"y has a label in each of its {len(indices)} rows, so there are no unlabeled rows to "
            "gain from; mark rows without a label by -1, NaN or None"
        )
    counts = np.bincount(indices[indices >= 0], minlength=len(classes))
    single = [name for name, count in zip(classes, counts, strict=True) if count < 2]
    if single:
        raise ValueError(
            f"y should have two labels or more of each class, one to train on and one to test on; "
            f"got one of {few(single)}"
        )


def _checked_folds(folds: int | None, indices: Array) -> int:
    most = int(np.bincount(indices[indices >= 0]).max())
    if folds is None:
        return min(MOST_FOLDS, most)
    check_positive(folds=folds)
    if not 2 <= folds <= most:
        raise ValueError(
            f"folds should be in 2 .. {most}, the labels of the largest class; got {folds}"
        )
    return folds
