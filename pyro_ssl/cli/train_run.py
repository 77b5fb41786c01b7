"""Train one run from its configuration, and write what it leaves: model, result and curves."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyro_ssl import data, zoo
from pyro_ssl.cli.data_settings import (
    Loaded,
    load_data,
    seed_of_training,
    settings_lines,
)
from pyro_ssl.cli.labels_of_run import rows_of_run
from pyro_ssl.cli.run_config import check_new, configured, owned
from pyro_ssl.data.missing_labels import (
    describe_labels,
    label_warnings_silenced,
    warn_of_missing_classes,
)
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.evaluation.held_out_accuracy import Accuracy
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training.callbacks import Epoch
from pyro_ssl.training.distributed import Processes, is_first
from pyro_ssl.training.fit import fit
from pyro_ssl.training.loggers import LOGGERS
from pyro_ssl.training.run import History
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_numbers, is_pixels
from pyro_ssl.utils.durations import duration
from pyro_ssl.zoo.saved_model import SavedModel


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
