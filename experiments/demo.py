"""M2 with a handful of labels: two moons with 6, scikit-learn's digits with 10 per class.

It trains the supervised classifier and M2 on the same label draws, prints a table and saves
pictures. No paper has these numbers.

`python experiments/demo.py --help` explains every option.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pages import mean_sd, table
from results_table import Result
from study import parallel, provenance, write_json

from pyro_ssl import Dataset, Objective, data, draw_labels, fit, predict_proba, zoo
from pyro_ssl.evaluation import metrics, plots, style
from pyro_ssl.utils.durations import duration

# The classifier and M2's q(y|x) are one network with the same regularisers.
MOONS = {"hidden": (128, 128), "activation": "relu", "noise": 0.0, "dropout": 0.0}
DIGITS = MOONS | {"noise": 0.2}
SETTINGS: dict[str, dict[str, Any]] = {
    "moons": {
        "per_class": 3,
        "epochs": {"classifier": 1000, "m2": 100},
        "training": {"batch_size": 200, "lr": 3e-3},
        "options": {"classifier": MOONS, "m2": MOONS | {"z_dim": 1, "sigma": 0.15, "balance": 1.0}},
    },
    "digits": {
        "per_class": 10,
        "epochs": {"classifier": 1000, "m2": 80},
        "training": {"batch_size": 100, "lr": 3e-3, "ema": 0.99},
        "options": {
            "classifier": DIGITS,
            "m2": DIGITS | {"z_dim": 8, "sigma": 0.3, "balance": 1.0},
        },
    },
}


def main() -> None:
    given = _arguments()
    started = time.perf_counter()
    calls = [
        (name, method, draw, given.scale, given.out if draw == 0 else None)
        for method in ("m2", "classifier")
        for name in given.data
        for draw in range(given.draws)
    ]
    results = []
    for result in parallel(run, calls, given.workers):
        results.append(result)
        run_title = f"{result['data']:6} {result['method']:10} draw {result['draw']}"
        accuracy = f"{100 * result['accuracy']:.1f} %"
        print(f"  {len(results):2} of {len(calls)}  {run_title}: {accuracy}", flush=True)
    rows = [_row(name, method, results) for name in given.data for method in ("classifier", "m2")]
    header = (
        "data",
        "method",
        "labels",
        "accuracy %, mean (sd), worst",
        "log-likelihood",
        "ECE %",
        "s per run",
    )
    print(f"\n{table(header, rows)}\n\n{_gains(results)}")
    print(f"{duration(time.perf_counter() - started)} in total; pictures in {given.out}/")
    write_json(given.out / "results.json", provenance() | {"results": results})


def run(name: str, method: str, draw: int, scale: float, out: Path | None) -> Result:
    """Train one method on one label draw; save pictures if there is a folder for them."""
    setting = SETTINGS[name]
    dataset = data.load(name)
    labels = draw_labels(dataset.y, per_class=setting["per_class"], seed=draw).masked_labels(
        dataset.y
    )
    options = setting["options"][method]
    objective = zoo.build(method, dataset.x_shape, len(dataset.classes), seed=draw, **options)
    epochs = max(1, round(scale * setting["epochs"][method]))
    started = time.perf_counter()
    history = fit(
        objective,
        dataset.x,
        labels,
        epochs=epochs,
        seed=draw,
        progress=False,
        **setting["training"],
    )
    seconds = time.perf_counter() - started
    measured = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
    if out is not None:
        with style.context():
            _save_pictures(out, f"{name}_{method}", objective, dataset, labels, history)
    return {
        "data": name,
        "method": method,
        "draw": draw,
        "labels": int((labels >= 0).sum()),
        "seconds": seconds,
        **measured,
    }


def _save_pictures(
    out: Path, name: str, objective: Objective, dataset: Dataset, labels: torch.Tensor, history: Any
) -> None:
    plots.save(plots.learning_curves({name: history}), out / f"{name}_curves.png")
    classes = len(dataset.classes)
    if dataset.x_shape == (2,):
        title = name.replace("_", ", ")
        regions = plots.decision_regions(objective, dataset.x, labels, title=title)
        plots.save(regions, out / f"{name}_regions.png")
    elif objective.model is not None:
        plots.save(
            plots.analogies(objective, dataset.x_test[:8], classes), out / f"{name}_analogies.png"
        )
        plots.save(plots.class_samples(objective, classes, 6), out / f"{name}_samples.png")


def _row(name: str, method: str, results: list[Result]) -> tuple[Any, ...]:
    mine = [r for r in results if (r["data"], r["method"]) == (name, method)]
    accuracy = [100 * r["accuracy"] for r in mine]
    likelihood, ece, seconds = (
        fmean(r[k] for r in mine) for k in ("log_likelihood", "ece", "seconds")
    )
    return (
        name,
        method,
        mine[0]["labels"],
        f"{mean_sd(accuracy)}, {min(accuracy):.2f}",
        f"{likelihood:.3f}",
        f"{100 * ece:.1f}",
        f"{seconds:.1f}",
    )


def _gains(results: list[Result]) -> str:
    accuracy = {(r["data"], r["method"], r["draw"]): 100 * r["accuracy"] for r in results}
    lines = []
    for name in dict.fromkeys(r["data"] for r in results):
        draws = sorted(
            draw for (data_name, method, draw) in accuracy if (data_name, method) == (name, "m2")
        )
        gains = [accuracy[name, "m2", draw] - accuracy[name, "classifier", draw] for draw in draws]
        wins = sum(gain > 0 for gain in gains)
        points = f"{fmean(gains):.1f} points on average"
        lines.append(
            f"{name}: M2 is ahead of the classifier by {points}, in {wins} of {len(gains)} draws"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = list(SETTINGS)
    parser.add_argument("--data", nargs="+", default=names, choices=names, help="data sets to run")
    parser.add_argument(
        "--draws", type=int, default=5, help="number of draws of labels, weights and noise"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="factor of the number of epochs; below 1 for a quick look",
    )
    parser.add_argument("--workers", type=int, default=2, help="parallel processes")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of the pictures"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
