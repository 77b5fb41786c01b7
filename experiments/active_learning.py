"""Active learning: paper 002's Figures 5.8 to 5.12 on two moons, and labels against accuracy on MNIST and Fashion-MNIST.

    python experiments/active_learning.py --data-root DATA [--scale smoke|cpu|paper] [--draws 0 1 2]
        [--parts moons plane images] [--data mnist fashion_mnist] [--rows sslpe_entropy m2_entropy ...] [--workers 2]

- moons: from four labels at random to thirty, one after the other; SSLPE and SSLAPD by entropy, BALD and at random, ten starts.
  The pool, 2000 points, is unlabeled data all along. The ceiling is the Bayes-optimal classifier on the same test points.
- plane: what each acquisition function says of the plane, and what it picks, of SSLAPD trained with six labels.
- images: from 20 labels to 100 by tens, five starts. `m2` learns from all 60,000 images; its first labels are the middles of
  clusters of a variational autoencoder's code, and the others are asked for by entropy, or at random. Of `m2_start_ten`, as many
  middles, and `m2_start_random`, twenty at random, there is the first round alone. `ensemble` is five supervised networks, which
  start at random and ask by BALD. Beside them what others have published, without unlabeled data: their curves' quartiles, or,
  where it is said, the first crossing, as ours are.

No validation labels; the test set is measured after each round, and chooses nothing but this: of MNIST's draws 0 to 4, whose
rounds all went on from the weights of the round before, `m2` by entropy reached 96 to 97 % with 20 labels in four, and in one
mixed fours and nines up to 100 labels, with 88 to 92 %. Since then a round is from scratch when labels have doubled, and the
images' starts are five others, 5 to 9. Draws 100 and above are for development
(give them an `--out` of their own): images kept aside stand for the test set, and of moons other points. Only what is missing is
run, and a killed run goes on from its last round. Writes to `experiments/results/active_learning`.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    DEVELOPMENT,
    Results,
    arguments,
    developing,
    draws_of,
    images,
    mean_sd,
    parsed,
    resolved,
    sources,
    study,
    table,
    where,
    write,
)
from mnist_labels import CONV
from moons import NETWORK, ONE_CHAIN, OPTIONS, optimum
from moons import moons as with_six_labels

from pyro_ssl import ActiveLearner, data, zoo
from pyro_ssl.active import acquisition, vae_embedding
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.training import fit

ON_MOONS: dict[str, dict[str, Any]] = {
    "sslpe": NETWORK | OPTIONS["sslpe"] | ONE_CHAIN | {"labeled_weight": 1e-2, "balance": 5.0},
    "sslapd": NETWORK | OPTIONS["sslapd"] | ONE_CHAIN | {"labeled_weight": 0.1, "balance": 5.0, "noise": 0.05},
}
SUPERVISED: dict[str, Any] = {"network": "conv", "channels": (16, 32, 64), "warp": 0.25}
ROWS: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # part, method, acquisition, options
    "sslpe_entropy": ("moons", "sslpe", "entropy", ON_MOONS["sslpe"]),
    "sslpe_random": ("moons", "sslpe", "random", ON_MOONS["sslpe"]),
    "sslapd_entropy": ("moons", "sslapd", "entropy", ON_MOONS["sslapd"]),
    "sslapd_bald": ("moons", "sslapd", "bald", ON_MOONS["sslapd"]),
    "sslapd_random": ("moons", "sslapd", "random", ON_MOONS["sslapd"]),
    "plane": ("plane", "sslapd", "entropy", NETWORK | OPTIONS["sslapd"] | ONE_CHAIN),
    "m2_entropy": ("images", "m2", "entropy", CONV),
    "m2_entropy_drawn": ("images", "m2", "entropy", CONV),
    "m2_random": ("images", "m2", "random", CONV),
    "m2_start_ten": ("images", "m2", "random", CONV),
    "m2_start_random": ("images", "m2", "random", CONV),
    "ensemble_bald": ("images", "classifier", "bald", SUPERVISED),
}
OF_ROW: dict[str, dict[str, Any]] = {
    "m2_entropy_drawn": {"power": 1.0},
    "m2_start_ten": {"first": 10, "most": 10},
    "m2_start_random": {"start": "random", "most": 20},
}
PARTS = ("moons", "plane", "images")
MEMBERS = 5
PUBLISHED = {  # labels to 90 and 95 %, quartiles
    "BatchBALD, ten at once": ("70 / 90 / 110", "190 / 200 / 230"),
    "BatchBALD, ten at once, first crossing": ("105", "225"),
    "BatchBALD, five at once": ("85 / 85 / 100", "170 / 185 / 215"),
    "BALD, one at once": ("85 / 96 / 101", "197 / 206 / 226"),
    "BALD, ten at once": ("120 / 120 / 170", "250 / 250 / over 300"),
    "BALD, forty at once": ("140 / 180 / 180", "260 / 300 / 300"),
    "BALD, Gal et al. 2017": ("145", "335"),
    "variation ratios, Gal et al. 2017": ("120", "295"),
    "entropy, Gal et al. 2017": ("165", "355"),
    "mean standard deviation, Gal et al. 2017": ("230", "695"),
    "random, Gal et al. 2017": ("255", "835"),
}
GOALS = {"MNIST": (0.9, 0.95, 0.98), "Fashion-MNIST": (0.7, 0.75, 0.8)}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"pool": 60, "first": 1, "later": {"sslpe": 1, "sslapd": 1}, "most": 6, "draws": [5], "epochs": (1, 1), "labels": (20, 40), "supervised": 2, "steps": 2, "rows": 120, "grid": 12, "samples": 4},
    "cpu": {"pool": 2000, "first": 100, "later": {"sslpe": 10, "sslapd": 20}, "most": 30, "draws": list(range(10)), "epochs": (6, 2), "labels": (20, 100), "supervised": 400, "steps": 2000},
    "paper": {"pool": 10_000, "first": 100, "later": {"sslpe": 20, "sslapd": 40}, "most": 30, "draws": list(range(10)), "epochs": (20, 5), "labels": (20, 200), "supervised": 1000, "steps": 10_000},
}  # fmt: skip
STARTS = range(5, 10)  # of images


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion_mnist"], choices=["mnist", "fashion_mnist"])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    given = parsed(parser)
    draws, asked = draws_of(given, SCALES[given.scale]["draws"])
    configs = {}
    for draw in draws:
        for row, (part, *_) in ROWS.items():
            if part == "images" and (draw in STARTS or draw >= DEVELOPMENT):
                configs |= {
                    f"{row}_{name}_{draw}": configure(row, name, draw, given.scale)
                    for name in ("mnist", "fashion_mnist")
                }
            if part == "moons" or (part == "plane" and draw == draws[0]):
                configs[f"{row}_{draw}"] = configure(row, "moons", draw, given.scale)

    def chosen(config: dict[str, Any]) -> bool:
        of = config["part"] in given.parts and config["row"] in given.rows and config["draw"] in asked
        return of and config["data"] in ("moons", *given.data)

    report(study(configs, run, given, chosen), given.out)


def configure(row: str, name: str, draw: int, scale: str) -> dict[str, Any]:
    """Plain data from which a run follows."""
    part, method, wanted, options = ROWS[row]
    s = SCALES[scale]
    config: dict[str, Any] = {
        "part": part, "row": row, "data": name, "draw": draw, "method": method, "acquisition": wanted,
        "options": resolved(method, options), "warm": None, "members": 1, "start": "random",
    }  # fmt: skip
    if part == "images":
        config |= {"labels": 0, "first": s["labels"][0], "each": 10, "most": s["labels"][1]}
        if "rows" in s:
            config["rows"] = s["rows"]
        if method == "m2":
            first, later = s["epochs"]
            training = {"epochs": first, "batch_size": 200, "labeled_batch_size": 100, "lr": 3e-3, "ema": 0.999}
            config |= {"training": training, "warm": {"epochs": later}, "fresh": 2.0}
            config |= {"start": "diverse", "steps": s["steps"]} | OF_ROW.get(row, {})
        else:
            training = {"epochs": s["supervised"], "labeled_batch_size": 100, "lr": 3e-3, "ema": 0.99}
            config |= {"training": training, "members": MEMBERS}
        return config
    training = {
        "epochs": s["first"],
        "batch_size": min(100, s["pool"]),
        "labeled_batch_size": 30,
        "lr": 1e-2,
        "ema": 0.99,
    }
    if part == "plane" and "grid" in s:
        config |= {"grid": s["grid"], "samples": s["samples"]}
    return config | {
        "pool": s["pool"], "first": 4, "each": 1, "most": s["most"], "noise": 0.1,
        "training": training, "warm": {"epochs": s["later"][method]},
    }  # fmt: skip


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """One loop from its first labels to its last; of `plane` the acquisition functions of one model."""
    if config["part"] == "images":
        dataset, known = images(config)
        if config["draw"] >= DEVELOPMENT:
            dataset, _ = developing(dataset, known)
    else:
        dataset = data.two_moons(config["pool"], config["pool"], config["noise"], seed=config["draw"])
    if config["part"] == "plane":
        return plane(config, dataset, directory)
    build = partial(built, config["method"], dataset.x_shape, len(dataset.classes), config["options"])
    learner = ActiveLearner(
        build, acquisition=config["acquisition"], start=config["start"], members=config["members"],
        embedding=partial(vae_embedding, steps=config.get("steps", 0), seed=config["draw"]), training=config["training"],
        update_training=config["warm"], restart_factor=config.get("fresh", math.inf), power=config.get("power"), directory=directory / "learner", identity=config, seed=config["draw"],
    )  # fmt: skip
    of_round, curve = directory / "curve.json", []
    if of_round.exists():
        curve = json.loads(of_round.read_text())["curve"]
    while True:
        started = time.perf_counter()
        if len(curve) == rounds(config, len(learner.indices)) and len(learner.indices) < config["most"]:
            rows = learner.query(dataset.x, config["each"] if learner.indices else config["first"])
            learner.teach(rows, dataset.y[rows])
        learner.learn(dataset.x)  # what a killed run was told
        trained = [h["seconds"][-1] for h in learner.history[-1]]  # more, if a killed run has gone on
        seconds = max(time.perf_counter() - started, sum(trained))
        if len(curve) == rounds(config, len(learner.indices)):
            break
        found = metrics.evaluate(learner.predict_proba(dataset.x_test), dataset.y_test)
        curve.append({"labels": len(learner.indices), "round": seconds, **found})
        write(of_round, {"curve": curve})
    result: dict[str, Any] = {"curve": curve, "indices": learner.indices, "classes": learner.labels}
    if config["part"] == "moons":
        best = optimum(dataset.x_test, config["noise"])
        result |= {"ceiling": metrics.accuracy(best, dataset.y_test), "points": dataset.x[learner.indices].tolist()}
    return result | {"seconds": sum(point["round"] for point in curve)}


def rounds(config: dict[str, Any], labels: int) -> int:
    """How many rounds there were when there are as many labels."""
    return 1 + (labels - config["first"]) // config["each"] if labels else 0


def built(method: str, x_shape: tuple[int, ...], classes: int, options: dict[str, Any], seed: int) -> Any:
    return zoo.build(method, x_shape, classes, seed=seed, **options)


FUNCTIONS = ("entropy", "variation_ratios", "bald")
WINDOW = (-1.5, 2.5, -1.1, 1.6)


def plane(config: dict[str, Any], dataset: data.Dataset, directory: Path) -> dict[str, Any]:
    """Acquisition functions of a model that knows six labels, over the plane and on the pool; picks by several seeds."""
    _, labels = with_six_labels(config | {"points": config["pool"], "labels": "placed"})
    objective = built(config["method"], (2,), 2, config["options"], config["draw"])
    settings = config["training"] | {"labeled_batch_size": 6}
    fit(objective, dataset.x, labels, seed=config["draw"], directory=directory / "model", resume=True, **settings)
    side = config.get("grid", 60)
    grid = torch.cartesian_prod(torch.linspace(*WINDOW[:2], side), torch.linspace(*WINDOW[2:], side))
    free = dataset.x[labels < 0]
    draws = config.get("samples", 100)
    found = {name: acquisition.scores(objective, grid, name, draws=draws) for name in FUNCTIONS}
    fewer = min(draws, 20)
    picks = {
        name: [free[acquisition.acquire(objective, free, 5, name, draws=fewer, seed=s)].tolist() for s in range(3)]
        for name in FUNCTIONS
    }
    known = labels >= 0
    return {
        "grid": {k: [round(float(v), 4) for v in values] for k, values in found.items()}, "picks": picks,
        "pool": [[round(v, 3) for v in row] for row in dataset.x[:1000].tolist()],
        "labeled": dataset.x[known].tolist(), "classes": labels[known].tolist(),
    }  # fmt: skip


# --- tables and figures -----------------------------------------------------------------------------------------------


def report(results: Results, out: Path) -> None:
    """Tables and figures of what is there."""
    texts = []
    if moons := by_row(where(results, part="moons")):
        texts.append(moons_table(moons))
        curves_figure(moons, out / "moons.png", "two moons", ceiling=True)
        sequence(moons, out)
    for name, title in (("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST")):
        if runs := by_row(where(results, part="images", data=name)):
            texts.append(images_table(title, runs))
            curves_figure(runs, out / f"{name}.png", title)
    for result in where(results, part="plane"):
        functions(result, out)
    text = "\n\n".join(texts) + f"\n\nOne thread a run; no validation labels. {sources(results)}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)


def by_row(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {row: mine for row in ROWS if (mine := [r for r in results if r["config"]["row"] == row])}


def first_at(result: dict[str, Any], accuracy: float) -> float:
    """The number of labels with which a loop first reached an accuracy; infinity if it has not."""
    return next((point["labels"] for point in result["curve"] if point["accuracy"] >= accuracy), float("inf"))


def _labels(value: float, most: int) -> str:
    return f"{value:g}" if value < float("inf") else f"over {most}"


def moons_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Labels to the ceiling, in the mean of the first three starts and of all."""
    header = (
        "two moons, from 4 labels", "labels to .5 points below the ceiling: mean of 3", "mean of all", "worst", "starts",
        "accuracy % with 10", "with 15", "with 30", "the ceiling", "s a loop", "paper 002",
    )  # fmt: skip
    paper = {"sslpe_entropy": "about 10", "sslapd_entropy": "about 10", "sslapd_bald": "about 15"}
    rows = []
    for row, mine in runs.items():
        most = mine[0]["config"]["most"]
        needed = [min(first_at(r, r["ceiling"] - 0.005), most + 1) for r in mine]
        never = sum(n > most for n in needed)
        say = lambda values, most=most: ("over " if max(values) > most else "") + f"{statistics.fmean(values):.1f}"  # noqa: E731
        at = [
            mean_sd(100 * point["accuracy"] for r in mine for point in r["curve"] if point["labels"] == n)
            if any(point["labels"] == n for point in mine[0]["curve"]) else ""
            for n in (10, 15, 30)
        ]  # fmt: skip
        rows.append((
            shown(row), say(needed[:3]), say(needed) + (f" ({never} not by {most})" if never else ""),
            _labels(max(needed) if not never else float("inf"), most), len(mine), *at,
            f"{statistics.fmean(100 * r['ceiling'] for r in mine):.2f}", f"{statistics.fmean(r['seconds'] for r in mine):.0f}",
            paper.get(row, "often over 30"),
        ))  # fmt: skip
    return table(header, rows)


def shown(row: str) -> str:
    return row.replace("_", ", ", 1).replace("_", " ")


def images_table(title: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    """Quartiles of the labels to each goal; accuracies on the way."""
    points = (10, 20, 30, 40, 60, 100)
    header = (
        f"{title}, labels", *(f"to {100 * g:g} %, quartiles" for g in GOALS[title]), "starts",
        *(f"accuracy % with {n}" for n in points), "s: the first round, a later one",
    )  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for row, mine in runs.items():
        most = mine[0]["config"]["most"]
        cells = []
        for goal in GOALS[title]:
            needed = [first_at(r, goal) for r in mine]
            quartiles = np.quantile(needed, [0.25, 0.5, 0.75], method="inverted_cdf")
            cells.append(" / ".join(_labels(float(v), most) for v in quartiles))
        at = [[100 * p["accuracy"] for r in mine for p in r["curve"] if p["labels"] == n] for n in points]
        first, later = ([p["round"] for r in mine for p in r["curve"][part]] for part in (slice(1), slice(1, None)))
        seconds = ", ".join(f"{statistics.fmean(s):.0f}" for s in (first, later) if s)
        rows.append((shown(row), *cells, len(mine), *(mean_sd(v) if v else "" for v in at), seconds))
    if title == "MNIST":
        rows += [(name, *counts, "", "", *[""] * len(points), "") for name, counts in PUBLISHED.items()]
    return table(header, rows)


def curves_figure(runs: dict[str, list[dict[str, Any]]], path: Path, title: str, ceiling: bool = False) -> None:
    """Figure 5.11: accuracy against labels, the mean of the starts and their span."""
    import matplotlib.pyplot as plt

    high = max(p["accuracy"] for mine in runs.values() for r in mine for p in r["curve"]) > 0.92
    figure, axes = plt.subplots(1, 1 + high, figsize=(4.5 * (1 + high), 3.4), layout="constrained", squeeze=False)
    for ax, low in zip(axes[0], (None, 0.9), strict=False):
        for i, (row, mine) in enumerate(runs.items()):
            at = [p["labels"] for p in mine[0]["curve"]]
            values = np.array([[100 * p["accuracy"] for p in r["curve"]] for r in mine])
            ax.plot(at, values.mean(0), marker="o", markersize=3, color=plots.COLOURS[i], label=shown(row))
            ax.fill_between(at, values.min(0), values.max(0), color=plots.COLOURS[i], alpha=0.15, linewidth=0)
            if len(at) == 1:
                ax.vlines(at, values.min(0), values.max(0), color=plots.COLOURS[i], linewidth=0.8)
        ax.set(xlabel="labels", ylabel="accuracy %")
        if ceiling:
            ax.axhline(100 * next(iter(runs.values()))[0]["ceiling"], color="k", linewidth=0.8, linestyle="--")
        if low is not None:
            ax.set(ylim=(100 * low, 100.2))
    axes[0][0].legend(frameon=False, fontsize=7)
    figure.suptitle(title)
    plots.save(figure, path)


def _moon(ax: Any, points: Any, title: str = "") -> None:
    ax.scatter(*np.array(points).T, s=2, color="0.75", linewidths=0)
    ax.set(xticks=[], yticks=[], title=title, xlim=WINDOW[:2], ylim=WINDOW[2:])


def sequence(runs: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Figures 5.10 and 5.12: the four first labels, and what SSLAPD asked by entropy, of the first start."""
    import matplotlib.pyplot as plt

    if not (mine := runs.get("sslapd_entropy")):
        return
    result = mine[0]
    pool = data.two_moons(
        result["config"]["pool"], 1, result["config"]["noise"], seed=result["config"]["draw"]
    ).x.numpy()
    points, classes = np.array(result["points"]), np.array(result["classes"])
    at_labels = [4, 5, 6, 7, 8, 9, 10, 12]
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.4), layout="constrained")
    accuracy = {p["labels"]: 100 * p["accuracy"] for p in result["curve"]}
    for ax, n in zip(axes.flat, at_labels, strict=True):
        if n not in accuracy:
            ax.axis("off")
            continue
        _moon(ax, pool, f"{n} labels: {accuracy[n]:.1f} %")
        ax.scatter(*points[:n].T, s=40, c=np.array(plots.COLOURS)[classes[:n]], edgecolors="k", linewidths=0.8)
        if n < len(points):
            ax.scatter(*points[n], s=110, facecolors="none", edgecolors="r", linewidths=1.6)
    figure.suptitle(f"SSLAPD by entropy, draw {result['config']['draw']}; the next question is ringed")
    plots.save(figure, out / "sequence.png")


def functions(result: dict[str, Any], out: Path) -> None:
    """Figures 5.8 and 5.9: acquisition functions over the plane, and what they pick from the pool by three seeds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, len(FUNCTIONS), figsize=(4 * len(FUNCTIONS), 11), layout="constrained")
    colours = np.array(plots.COLOURS)[result["classes"]]
    for column, name in enumerate(FUNCTIONS):
        values = np.array(result["grid"][name])
        values = values.reshape(2 * [math.isqrt(len(values))]).T
        picture = axes[0, column].imshow(values, origin="lower", extent=WINDOW, aspect="auto", cmap="viridis")
        figure.colorbar(picture, ax=axes[0, column])
        axes[0, column].scatter(*np.array(result["labeled"]).T, s=40, c=colours, edgecolors="w")
        axes[0, column].set(xticks=[], yticks=[], title=name.replace("_", " "))
        for row, picks in enumerate(result["picks"][name], 1):
            ax = axes[row, column]
            _moon(ax, result["pool"], f"seed {row - 1}")
            ax.scatter(*np.array(result["labeled"]).T, s=25, c=colours, edgecolors="k", linewidths=0.6)
            ax.scatter(*np.array(picks).T, s=60, facecolors="none", edgecolors="r", linewidths=1.4)
    plots.save(figure, out / "functions.png")


if __name__ == "__main__":
    main()
