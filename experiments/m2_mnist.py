"""M2 on MNIST with 100 labels, compared with its classifier trained on the labels alone.

It shows accuracy by draw, beside the numbers of Kingma et al. 2014, Pyro's tutorial and paper 003.

`python experiments/m2_mnist.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from image_runs import measured, trained, training_of
from pages import measures, published_rows, table, where
from results_table import Result, Results
from study import Config, Study, main, resolved

from pyro_ssl import zoo
from pyro_ssl.evaluation import plots

METHODS = ("m2", "classifier")
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4], "paper": [0, 1, 2, 3, 4]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    return {
        f"{method}_{draw}": configure(method, draw, scale) for method in METHODS for draw in draws
    }


def configure(method: str, draw: int, scale: str) -> Config:
    smoke = scale == "smoke"
    epochs = 1 if smoke else zoo.method(method).training["epochs"]
    config = {
        "data": "mnist",
        "method": method,
        "labels": 100,
        "draw": draw,
        "options": resolved(method, {}),
        "training": training_of(method, epochs),
    }
    return config | ({"rows": 300} if smoke else {})


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one method on one draw; save pictures of M2's first draw."""
    objective, dataset, _, history = trained(config, directory)
    if config["method"] == "m2" and config["draw"] == 0:
        classes = len(dataset.classes)
        plots.save(
            plots.analogies(objective, dataset.x_test[:10], classes), pictures / "analogies.png"
        )
        plots.save(plots.class_samples(objective, classes, 8), pictures / "samples.png")
    return measured(objective, dataset, history) | {"history": history}


def report(results: Results, pictures: Path) -> dict[str, str]:
    rows = [_row(method, mine) for method in METHODS if (mine := where(results, method=method))]
    theirs = [row for row in published_rows() if row["study"] == "m2_mnist"]
    rows += [(row["row"], row["value"], "", "", "", "", "") for row in theirs]
    header = (
        "MNIST, 100 labels",
        "accuracy %, mean (sd)",
        "worst",
        "by draw",
        "log-likelihood",
        "ECE %",
        "s per run",
    )
    curves = {
        f"draw {r['config']['draw']}": r["history"]
        for r in where(results, method="m2")
        if "history" in r
    }
    if curves:
        terms = ["labeled", "unlabeled", "LabelLogProb"]
        plots.save(plots.learning_curves(curves, terms), pictures / "curves.png")
    return {"accuracy": table(header, rows)}


def _row(method: str, mine: list[Result]) -> tuple[str, ...]:
    accuracy, worst, _, likelihood, ece, seconds = measures(mine)
    by_draw = ", ".join(f"{100 * r['accuracy']:.2f}" for r in mine)
    return (f"{method}, ours", accuracy, worst, by_draw, likelihood, ece, seconds)


STUDY = Study("m2_mnist", configs, run, report, draws=DRAWS, arrays=["history"])

if __name__ == "__main__":
    main(STUDY, __doc__)
