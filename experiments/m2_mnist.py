"""M2 on MNIST with 100 labels, 10 per class: one hidden layer of 500 units, z = 50; draws 0 to 4.

    python experiments/m2_mnist.py --data-root DATA [--scale smoke|cpu] [--draws 0 1 2 3 4] [--workers 2]

The defaults of `pyro-ssl train m2` and of `pyro-ssl train classifier` on the same label draws. There are no validation labels:
the last epoch's averaged weights are evaluated on the test set once. Only what is missing is run, and the table has all that
is there. Writes to `experiments/results/m2_mnist`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import (
    Results,
    arguments,
    draws_of,
    measured,
    measures,
    parsed,
    resolved,
    sources,
    study,
    table,
    trained,
    training_of,
    where,
)

from pyro_ssl import zoo
from pyro_ssl.evaluation import plots

METHODS = ("m2", "classifier")
PUBLISHED = [
    ("M2, Pyro's tutorial (5 draws; 10,000 validation labels)", "93.19 (95 % bound 0.60)"),
    ("M2, Kingma et al. 2014", "88.03 (1.71)"),
    ("M2, paper 003, best alpha (10,000 validation labels)", "93.7 (2.5)"),
    ("classifier, Pyro's tutorial", "77.1"),
    ("classifier, paper 003", "74.74 (1.16)"),
]


def main() -> None:
    given = parsed(arguments(__doc__))
    draws, asked = draws_of(given, [0] if given.scale == "smoke" else [0, 1, 2, 3, 4])
    configs = {f"{method}_{draw}": configure(method, draw, given.scale) for method in METHODS for draw in draws}
    results = study(configs, run, given, lambda c: c["draw"] in asked)
    report(results, given.out)


def configure(method: str, draw: int, scale: str) -> dict[str, Any]:
    epochs = 1 if scale == "smoke" else zoo.method(method).training["epochs"]
    return {
        "data": "mnist", "method": method, "labels": 100, "draw": draw, "options": resolved(method, {}),
        "training": training_of(method, epochs), **({"rows": 300} if scale == "smoke" else {}),
    }  # fmt: skip


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """One method on one label draw; of M2's first the pictures too."""
    objective, dataset, _, history = trained(config, directory)
    if config["method"] == "m2" and config["draw"] == 0:
        plots.save(plots.analogies(objective, dataset.x_test[:10], len(dataset.classes)), out / "analogies.png")
        plots.save(plots.class_samples(objective, len(dataset.classes), 8), out / "samples.png")
    return measured(objective, dataset, history) | {"history": history}


def report(results: Results, out: Path) -> None:
    """The table and the learning curves, from the results that are there."""
    rows = []
    for method in METHODS:
        if mine := where(results, method=method):
            accuracy, worst, _, likelihood, ece, seconds = measures(mine)
            each = ", ".join(f"{100 * r['accuracy']:.2f}" for r in mine)
            rows.append((f"{method}, ours", accuracy, worst, each, likelihood, ece, seconds))
    rows += [(*published, "", "", "", "", "") for published in PUBLISHED]
    header = ("MNIST, 100 labels", "accuracy %, mean (sd)", "worst", "by draw", "log-likelihood", "ECE %", "s a run")
    text = table(header, rows) + (
        "\n\nOne thread a run. No validation labels of the draw: the defaults were chosen on other label draws; the test set is "
        f"used once, at the end. {sources(results)}\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)
    if mine := where(results, method="m2"):
        curves = {f"draw {r['config']['draw']}": r["history"] for r in mine}
        plots.save(plots.learning_curves(curves, ["labeled", "unlabeled", "LabelLogProb"]), out / "curves.png")


if __name__ == "__main__":
    main()
