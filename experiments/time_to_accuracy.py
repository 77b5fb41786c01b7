"""How long a method takes to an accuracy on MNIST with 100 labels, on training images outside the label draw.

    python experiments/time_to_accuracy.py --data-root DATA [--method m2] [--accuracy 0.97] [--draw 0] [--epochs N]

Their labels are looked at after each epoch, for this measurement alone; the test set is not touched. Prints the seconds of
optimiser steps until the averaged weights reach the accuracy, and writes the whole path to `experiments/results/time_to_accuracy`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, provenance, write

from pyro_ssl import data, zoo
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--method", default="m2", choices=[name for name, row in zoo.METHODS.items() if row.unlabeled])
    parser.add_argument("--accuracy", type=float, default=0.97)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=None, help="by default those of the method's row")
    parser.add_argument("--out", type=Path, default=RESULTS / "time_to_accuracy")
    arguments = parser.parse_args()
    path = run(arguments)
    reached = next((s for s, a in path if a >= arguments.accuracy), None)
    write(
        arguments.out / f"{arguments.method}_{arguments.draw}.json",
        provenance()
        | {"threads": torch.get_num_threads(), "accuracy": arguments.accuracy, "seconds": reached, "path": path},
    )
    best, last = max(a for _, a in path), path[-1][0]
    when = f"after {reached:.0f} s" if reached else f"not reached in {last:.0f} s; best {100 * best:.2f} %"
    print(
        f"{arguments.method}, {arguments.labels} labels of MNIST, draw {arguments.draw}: {arguments.accuracy:.0%} {when}"
    )


def run(arguments: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds and accuracy after each epoch."""
    dataset = data.load("mnist", arguments.data_root)
    codes = data.draw_labels(dataset.y, arguments.labels, seed=arguments.draw).codes(dataset.y)
    rest = (codes < 0).nonzero().squeeze(1)[-10_000:]
    objective = zoo.build(arguments.method, dataset.x_shape, len(dataset.classes), seed=arguments.draw)
    training = zoo.method(arguments.method).training | ({"epochs": arguments.epochs} if arguments.epochs else {})
    path: list[tuple[float, float]] = []

    def watch(epoch: Any) -> None:
        right = predict_proba(epoch.objective, dataset.x[rest]).argmax(-1) == torch.as_tensor(dataset.y)[rest]
        path.append((epoch.metrics["seconds"], right.float().mean().item()))

    fit(objective, dataset.x, codes, seed=arguments.draw, callbacks=(watch,), **training)
    return path


if __name__ == "__main__":
    main()
