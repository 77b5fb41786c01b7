"""M2 on MNIST with 100 labels, 10 per class: one hidden layer of 500 units, z = 50; draws 0 to 4.

    python experiments/m2_mnist.py --data-root DATA [--draws 0 1 2 3 4] [--workers 2]

Runs the defaults of `pyro-ssl train m2` and of `pyro-ssl train classifier` on the same label draws. There are no
validation labels: the last epoch's averaged weights are evaluated on the test set once. Draws that are finished are not run
again, and one that was killed goes on from its checkpoint. Writes a table and figures to `experiments/results/m2_mnist`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common import RESULTS, parallel, provenance, table, write

from pyro_ssl import data, metrics, plots, zoo
from pyro_ssl.prediction import bounds, predict_proba
from pyro_ssl.training import fit

PUBLISHED = [
    ("M2, Pyro's tutorial (5 draws; 10,000 validation labels)", "93.19 (95 % bound 0.60)"),
    ("M2, Kingma et al. 2014", "88.03 (1.71)"),
    ("M2, paper 003, best alpha (10,000 validation labels)", "93.7 (2.5)"),
    ("classifier, Pyro's tutorial", "77.1"),
    ("classifier, paper 003", "74.74 (1.16)"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--data", default="mnist", help="any image data set; the table's published numbers are MNIST's")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=None, help="of M2; by default those of the method's row")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/m2_mnist"), help="checkpoints of the runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "m2_mnist")
    arguments = parser.parse_args()
    calls = [
        (method, draw, vars(arguments) | {"command": provenance()["command"]})
        for method in ("m2", "classifier")
        for draw in arguments.draws
        if not _done(arguments.out / f"{method}_{draw}.json", method, arguments)
    ]
    for result in parallel(run, calls, arguments.workers):
        print(
            f"{result['method']} draw {result['draw']}: {100 * result['accuracy']:.2f} % after {result['seconds']:.0f} s",
            flush=True,
        )
    report(arguments)


def _training(method: str, epochs: int | None) -> dict[str, Any]:
    row = zoo.method(method)
    return row.training | ({"epochs": epochs} if epochs and row.unlabeled else {})


def _done(path: Path, method: str, arguments: argparse.Namespace) -> bool:
    """Whether the result is there, from the same labels, options and training; options that came later are at their defaults."""
    result = json.loads(path.read_text()) if path.exists() else {}
    wanted = (arguments.labels, zoo.options_of(method), _training(method, arguments.epochs))
    labels, options, training = json.loads(json.dumps(wanted))
    known = result.get("options", {})
    return [result.get("labels"), known, result.get("training")] == [
        labels,
        {k: options.get(k) for k in known},
        training,
    ]


def run(method: str, draw: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """One method on one label draw, with the training of its row; resumes what was killed."""
    dataset = data.load(arguments["data"], arguments["data_root"])
    codes = data.draw_labels(dataset.y, arguments["labels"], seed=draw).codes(dataset.y)
    training = _training(method, arguments["epochs"])
    identity = {"method": method, "options": zoo.options_of(method)}
    objective = zoo.build(method, dataset.x_shape, len(dataset.classes), seed=draw)
    history = fit(
        objective,
        dataset.x,
        codes,
        seed=draw,
        directory=arguments["runs"] / f"{method}_{draw}",
        identity=identity,
        resume=True,
        **training,
    )
    probs = predict_proba(objective, dataset.x_test)
    result = provenance() | {
        "command": arguments["command"],
        "method": method,
        "draw": draw,
        "labels": arguments["labels"],
        "seconds": history["seconds"][-1],
        **metrics.evaluate(probs, dataset.y_test),
        "entropy": float((-(probs * probs.clamp_min(1e-30).log()).sum(-1)).mean()),
        "bound": None if objective.model is None else float(bounds(objective, dataset.x_test).mean()),
        "options": zoo.options_of(method),
        "training": training,
        "history": history,
    }
    out: Path = arguments["out"]
    if objective.model is not None and draw == arguments["draws"][0]:
        plots.save(plots.analogies(objective, dataset.x_test[:10], len(dataset.classes)), out / "analogies.png")
        plots.save(plots.class_samples(objective, len(dataset.classes), 8), out / "samples.png")
    write(out / f"{method}_{draw}.json", result)
    return result


def report(arguments: argparse.Namespace) -> None:
    """The table and the learning curves, from the results of this configuration that are there."""
    out = arguments.out
    paths = [(p, m) for m in ("m2", "classifier") for p in sorted(out.glob(f"{m}_[0-9]*.json"))]
    results = [json.loads(path.read_text()) for path, method in paths if _done(path, method, arguments)]
    rows = []
    for method in ("m2", "classifier"):
        mine = [r for r in results if r["method"] == method]
        if mine:
            accuracy = [100 * r["accuracy"] for r in mine]
            sd = stdev(accuracy) if len(mine) > 1 else 0.0
            mean = {k: fmean(r[k] for r in mine) for k in ("log_likelihood", "ece", "seconds")}
            rows.append(
                (f"{method}, ours", f"{fmean(accuracy):.2f} ({sd:.2f})", f"{min(accuracy):.2f}", ", ".join(f"{a:.2f}" for a in accuracy),
                 f"{mean['log_likelihood']:.3f}", f"{100 * mean['ece']:.1f}", f"{mean['seconds']:.0f}")
            )  # fmt: skip
    rows += [(*published, "", "", "", "", "") for published in PUBLISHED]
    header = ("MNIST, 100 labels", "accuracy %, mean (sd)", "worst", "by draw", "log-likelihood", "ECE %", "s a run")
    sources = sorted(
        {f"`{r['command']}`, {r['date']}, {', '.join(f'{k} {v}' for k, v in r['versions'].items())}" for r in results}
    )
    text = (
        table(header, rows)
        + "\n\nOne thread a run. No validation labels; the test set is used once, at the end. "
        + "; ".join(sources)
        + "\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    curves = {f"draw {r['draw']}": r["history"] for r in results if r["method"] == "m2"}
    if curves:
        plots.save(plots.learning_curves(curves, ["labeled", "unlabeled", "LabelLogProb"]), out / "curves.png")
    print(text)


if __name__ == "__main__":
    main()
