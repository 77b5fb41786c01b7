"""Time to an accuracy on MNIST with 100 labels, measured on training images outside the label draw.

python experiments/time_to_accuracy.py --data-root DATA [--method m2] [--accuracy 0.97] [--draw 0]
[--epochs N]

The labels of these images are used after each epoch for this measurement alone; the test set is not
touched.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from results_table import read_results, write_results
from study import RESULTS, provenance

from pyro_ssl import data, draw_labels, fit, predict_proba, zoo
from pyro_ssl.evaluation import metrics
from pyro_ssl.training import Epoch

METHODS = [name for name, row in zoo.METHODS.items() if row.unlabeled]


def main() -> None:
    given = _arguments()
    path = run(given)
    reached = [seconds for seconds, accuracy in path if accuracy >= given.accuracy]
    result = provenance() | {
        "config": {
            "method": given.method,
            "labels": given.labels,
            "draw": given.draw,
            "epochs": len(path),
        },
        "threads": torch.get_num_threads(),
        "accuracy": given.accuracy,
        "seconds": reached[0] if reached else None,
        "path": path,
    }
    table = given.out / "time_to_accuracy.csv"
    write_results(table, read_results(table) | {f"{given.method}_{given.draw}": result})
    if reached:
        when = f"after {reached[0]:.0f} s"
    else:
        best = max(accuracy for _, accuracy in path)
        when = f"not reached in {path[-1][0]:.0f} s; best {100 * best:.2f} %"
    title = f"{given.method}, {given.labels} labels of MNIST, draw {given.draw}"
    print(f"{title}: {given.accuracy:.0%} {when}")


def run(given: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds and accuracy after each epoch."""
    dataset = data.load("mnist", given.data_root)
    labels = draw_labels(dataset.y, given.labels, seed=given.draw).masked_labels(dataset.y)
    rest = (labels < 0).nonzero().squeeze(1)[-10_000:]
    objective = zoo.build(given.method, dataset.x_shape, len(dataset.classes), seed=given.draw)
    training = zoo.method(given.method).training | (
        {"epochs": given.epochs} if given.epochs else {}
    )
    path: list[tuple[float, float]] = []

    def watch(epoch: Epoch) -> None:
        accuracy = metrics.accuracy(
            predict_proba(epoch.objective, dataset.x[rest]), dataset.y[rest]
        )
        path.append((epoch.metrics["seconds"], accuracy))

    fit(objective, dataset.x, labels, seed=given.draw, callbacks=(watch,), **training)
    return path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    root = "folder of data sets; None: that of the environment variable PYRO_SSL_DATA"
    parser.add_argument("--data-root", default=None, help=root)
    parser.add_argument(
        "--method", default="m2", choices=METHODS, metavar="METHOD", help=", ".join(METHODS)
    )
    parser.add_argument("--accuracy", type=float, default=0.97, help="accuracy to reach, in [0, 1]")
    parser.add_argument("--labels", type=int, default=100, help="labels, as many of each class")
    parser.add_argument("--draw", type=int, default=0, help="seed of labels, weights and noise")
    parser.add_argument(
        "--epochs", type=int, default=None, help="epochs; None: those of the method"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
