"""Watch M2 learn from a handful of labels: two moons with 6, scikit-learn's digits with 10 per class.

    python experiments/demo.py [--data moons digits] [--draws 5] [--out runs/demo]

Trains the supervised classifier and M2 on the same label draws, prints a table and draws pictures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from common import parallel, provenance, summary, table, write

from pyro_ssl import data, zoo
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import fit

# The classifier and M2's q(y|x) are the same network with the same regularisers.
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
        "options": {"classifier": DIGITS, "m2": DIGITS | {"z_dim": 8, "sigma": 0.3, "balance": 1.0}},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the epochs, for a quick look")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    arguments = parser.parse_args()
    started = time.perf_counter()
    calls = [
        (name, method, draw, arguments.scale, arguments.out if draw == 0 else None)
        for method in ("m2", "classifier")
        for name in arguments.data
        for draw in range(arguments.draws)
    ]
    results = []
    for result in parallel(run, calls, arguments.workers):
        results.append(result)
        print(
            f"  {len(results):2}/{len(calls)} {result['data']:6} {result['method']:10} draw {result['draw']}: {100 * result['accuracy']:.1f} %",
            flush=True,
        )
    rows = [_row(name, method, results) for name in arguments.data for method in ("classifier", "m2")]
    text = table(("data", "method", "labels", "accuracy %, mean (sd)", "log-likelihood", "ECE %", "s a run"), rows)
    print(f"\n{text}\n\n{_gains(results)}\n{time.perf_counter() - started:.0f} s in all; pictures in {arguments.out}/")
    write(arguments.out / "results.json", provenance() | {"results": results})


def run(name: str, method: str, draw: int, scale: float, out: Path | None) -> dict[str, Any]:
    """One method on one label draw; draws the pictures if there is a folder for them."""
    setting = SETTINGS[name]
    dataset = data.load(name)
    codes = data.draw_labels(dataset.y, per_class=setting["per_class"], seed=draw).codes(dataset.y)
    objective = zoo.build(method, dataset.x_shape, len(dataset.classes), seed=draw, **setting["options"][method])
    epochs = max(1, round(scale * setting["epochs"][method]))
    started = time.perf_counter()
    history = fit(objective, dataset.x, codes, epochs=epochs, seed=draw, progress=False, **setting["training"])
    seconds = time.perf_counter() - started
    measured = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
    if out is not None:
        _pictures(out, f"{name}_{method}", objective, dataset, codes, history)
    return {
        "data": name,
        "method": method,
        "draw": draw,
        "labels": int((codes >= 0).sum()),
        "seconds": seconds,
        **measured,
    }


def _pictures(out: Path, name: str, objective: Any, dataset: data.Dataset, codes: torch.Tensor, history: Any) -> None:
    plots.save(plots.learning_curves({name: history}), out / f"{name}_curves.png")
    if dataset.x_shape == (2,):
        plots.save(
            plots.decision_regions(objective, dataset.x, codes, title=name.replace("_", ", ")),
            out / f"{name}_regions.png",
        )
    elif objective.model is not None:
        k = len(dataset.classes)
        plots.save(plots.analogies(objective, dataset.x_test[:8], k), out / f"{name}_analogies.png")
        plots.save(plots.class_samples(objective, k, 6), out / f"{name}_samples.png")


def _row(name: str, method: str, results: list[dict[str, Any]]) -> tuple[Any, ...]:
    mine = [r for r in results if (r["data"], r["method"]) == (name, method)]
    mean = {k: fmean(r[k] for r in mine) for k in ("log_likelihood", "ece", "seconds")}
    accuracies = summary(100 * r["accuracy"] for r in mine)
    return (
        name,
        method,
        mine[0]["labels"],
        accuracies,
        f"{mean['log_likelihood']:.3f}",
        f"{100 * mean['ece']:.1f}",
        f"{mean['seconds']:.1f}",
    )


def _gains(results: list[dict[str, Any]]) -> str:
    accuracy = {(r["data"], r["method"], r["draw"]): 100 * r["accuracy"] for r in results}
    lines = []
    for name in dict.fromkeys(r["data"] for r in results):
        gains = [
            a - accuracy[name, "classifier", d] for (n, m, d), a in sorted(accuracy.items()) if (n, m) == (name, "m2")
        ]
        lines.append(
            f"{name}: M2 is ahead of the classifier by {fmean(gains):.1f} points on average, in {sum(g > 0 for g in gains)} of {len(gains)} draws"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
