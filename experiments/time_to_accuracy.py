"""Training time to an accuracy on MNIST with 100 labels.

Accuracy is measured after each epoch on 10,000 training images outside the label draw. Their labels
are used for this measurement alone, and the test set not at all. No paper has these numbers.

`python experiments/time_to_accuracy.py --help` explains every option.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from image_runs import images, smoke_rows, trained, training_of
from pages import table, where
from results_table import Result, Results
from study import Config, Selection, Study, main, resolved

from pyro_ssl import predict_proba, zoo
from pyro_ssl.evaluation import metrics
from pyro_ssl.training import Epoch

METHODS = tuple(
    name for name, row in zoo.METHODS.items() if row.unlabeled and name != "vae"
)  # a VAE predicts no class
LABELS = 100
MEASURED_ROWS = 10_000
EPOCHS = {"smoke": 1, "cpu": 12}
"""Epochs by scale; at scale `paper`, those of the method."""
ACCURACIES = (0.9, 0.93, 0.95, 0.97)
DRAWS = {"smoke": [0], "cpu": [0], "paper": [0, 1, 2, 3, 4]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    return {
        f"{method}_{draw}": configure(method, draw, scale) for method in METHODS for draw in draws
    }


def configure(method: str, draw: int, scale: str) -> Config:
    epochs = EPOCHS[scale] if scale in EPOCHS else zoo.method(method).training["epochs"]
    config = {
        "data": "mnist",
        "method": method,
        "labels": LABELS,
        "draw": draw,
        "options": resolved(method, {}),
        "training": training_of(method, epochs),
    }
    return config | (smoke_rows(LABELS // 10) if scale == "smoke" else {})


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one method, and note seconds and accuracy after each epoch.

    The run keeps no checkpoint: a resumed one would lack its first epochs.
    """
    dataset, labels = images(config)
    rows = (labels < 0).nonzero().squeeze(1)[-MEASURED_ROWS:]
    x, y = dataset.x[rows], dataset.y[rows]
    path: list[tuple[float, float]] = []
    measuring = [0.0]

    def note(epoch: Epoch) -> None:
        """Note the seconds of training, without those of measuring."""
        started = time.perf_counter()
        accuracy = metrics.accuracy(predict_proba(epoch.objective, x), y)
        path.append((epoch.metrics["seconds"] - sum(measuring), accuracy))
        measuring.append(time.perf_counter() - started)

    trained(config, None, (dataset, labels), callbacks=(note,))
    return {"path": path}


def report(results: Results, pictures: Path) -> dict[str, str]:
    goals = [f"s to {goal:.0%}" for goal in ACCURACIES]
    header = ("method", "draw", *goals, "best %", "epochs", "s in total", "threads")
    return {"time": table(header, [_row(result) for result in where(results)])}


def _row(result: Result) -> tuple[str, ...]:
    config, path = result["config"], result["path"]
    best = max(accuracy for _, accuracy in path)
    return (
        config["method"],
        str(config["draw"]),
        *(_seconds_to(goal, path) for goal in ACCURACIES),
        f"{100 * best:.2f}",
        str(len(path)),
        f"{path[-1][0]:.0f}",
        str(result["threads"]),
    )


def _seconds_to(goal: float, path: Sequence[tuple[float, float]]) -> str:
    """Seconds after the first epoch with this accuracy."""
    for seconds, accuracy in path:
        if accuracy >= goal:
            return f"{seconds:.0f}"
    return "not reached"


STUDY = Study(
    "time_to_accuracy",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={"method": Selection("method", METHODS, "methods to train", default=("m2",))},
    workers=1,
    threads=2,
)

if __name__ == "__main__":
    main(STUDY, __doc__)
