"""Paper 003 in the plane: circles (Figures 3 and 4) and two moons (supplement, 8 to 11).

It shows reconstructions and classifiers of M2 on circles by the variance of the likelihood, and on
two moons also how reconstruction under each class moves points.

`python experiments/latent_plane.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import table, where
from panels import COLOURS, frame, grid_points, percentages, region
from results_table import Result, Results
from study import Config, Selection, Study, main, resolved

from pyro_ssl import (
    Dataset,
    Objective,
    class_bounds,
    data,
    draw_labels,
    fit,
    predict_proba,
    reconstruct,
    zoo,
)
from pyro_ssl.evaluation import metrics, plots

PLANE: dict[str, Any] = {
    "hidden": (50, 50, 50),
    "classifier_hidden": (50,),
    "z_dim": 1,
    "activation": "relu",
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
}
SIGMAS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0)
"""Standard deviations of the likelihood."""
EPOCHS = {"smoke": 1, "cpu": 60, "paper": 500}
DRAWS = {"smoke": [0], "cpu": [0], "paper": [0]}
WINDOW = {"circles": (-1.5, 1.5, -1.5, 1.5), "moons": (-1.6, 2.6, -1.1, 1.6)}
RESOLUTION = 50
"""Points of the plane per side, for pictures of classifiers."""
COARSE_RESOLUTION = 16
"""Points of the plane per side, for pictures of displacements."""
PARTS = ("circles", "moons")
ARRAYS = ("plane", "by_loss", "reconstructions", "fields")


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    made: dict[str, Config] = {}
    for draw in draws:
        made[f"circles_classifier_{draw}"] = configure(
            "circles", "classifier", draw, scale, hidden=(50,), classifier_hidden=None
        )
        for sigma in (0.1, 1.0) if scale == "smoke" else SIGMAS:
            config = configure("circles", "m2", draw, scale, sigma=sigma, alpha=0.1)
            made[f"circles_m2_{sigma:g}_{draw}"] = config
        for kind, warmup in (("annealed", EPOCHS[scale] / 0.7), ("full", EPOCHS[scale] * 0.7)):
            config = configure("moons", "m2", draw, scale, sigma=0.2, alpha=0.0, z_dim=1)
            config["training"]["warmup"] = warmup
            made[f"moons_m2_{kind}_{draw}"] = config | {"kind": kind}
    return made


def configure(name: str, method: str, draw: int, scale: str, **options: Any) -> Config:
    longer = 10 if method == "classifier" else 1
    return {
        "data": name,
        "method": method,
        "draw": draw,
        "points": 200 if scale == "smoke" else 10_000,
        "options": resolved(method, PLANE | options),
        "training": {
            "batch_size": 100,
            "labeled_batch_size": 50,
            "lr": 3e-3,
            "ema": 0.99,
            "epochs": EPOCHS[scale] * longer,
        },
    }


def points(config: Config) -> tuple[Dataset, torch.Tensor]:
    """Make circles with 25 labels of each, or moons with 3."""
    is_circles = config["data"] == "circles"
    make = data.circles if is_circles else data.two_moons
    dataset = make(config["points"], config["points"], seed=config["draw"])
    draw = draw_labels(dataset.y, per_class=25 if is_circles else 3, seed=config["draw"])
    return dataset, draw.masked_labels(dataset.y)


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Measure accuracy and reconstruction, and compute what the pictures show."""
    dataset, labels = points(config)
    objective = zoo.build(config["method"], (2,), 2, seed=config["draw"], **config["options"])
    history = fit(
        objective,
        dataset.x,
        labels,
        seed=config["draw"],
        directory=directory,
        resume=True,
        identity=config,
        **config["training"],
    )
    grid = grid_points(WINDOW[config["data"]], RESOLUTION)
    result: Result = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
    result["seconds"] = history["seconds"][-1]
    result["plane"] = percentages(predict_proba(objective, grid))
    if objective.model is None:
        return result
    by_loss = class_bounds(objective, grid, only=("x",), num_particles=8).softmax(-1)
    return result | moved(objective, dataset, config["data"]) | {"by_loss": percentages(by_loss)}


def moved(objective: Objective, dataset: Dataset, name: str) -> Result:
    """Reconstruct test points under their likeliest class, and a coarse grid under each class."""
    x = dataset.x_test[:1000]
    coarse = grid_points(WINDOW[name], COARSE_RESOLUTION)
    y = torch.eye(2)[predict_proba(objective, x).argmax(-1)]
    again = reconstruct(objective, x, y)
    fields = [reconstruct(objective, coarse, e) - coarse for e in torch.eye(2)]
    shown = torch.cat([again, y[:, 1:]], 1)
    return {
        "squared_error": float((again - x).square().sum(-1).mean()),
        "reconstructions": shown.round(decimals=3).tolist(),
        "fields": [f.round(decimals=3).tolist() for f in fields],
    }


# --- tables and pictures ----------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    rows = [_row(r) for r in where(results)]
    first = min((r["config"]["draw"] for r in results.values()), default=0)
    circles = where(results, data="circles", method="m2", draw=first)
    drawn = _with_plane(circles)
    if circles:
        plot_sigma(circles, pictures / "sigma.png")
    if drawn:
        supervised = _with_plane(where(results, data="circles", method="classifier"))
        plot_circles(drawn, supervised, pictures / "circles.png")
    moons = _with_plane(where(results, data="moons", draw=first))
    if moons:
        plot_fields(moons, pictures / "moons.png")
    return {
        "accuracy": table(
            ("data", "draw", "method", "", "accuracy %", "squared error", "s per run"), rows
        )
    }


def _with_plane(results: list[Result]) -> list[Result]:
    """The results that hold predictions over the plane."""
    return [r for r in results if "plane" in r]


def _row(result: Result) -> tuple[Any, ...]:
    config = result["config"]
    setting = config.get("kind") or "labels alone"
    if config["data"] == "circles" and config["method"] == "m2":
        setting = f"sigma {config['options']['sigma']:g}"
    error = f"{result['squared_error']:.4f}" if "squared_error" in result else ""
    accuracy = f"{100 * result['accuracy']:.2f}"
    return (
        config["data"],
        config["draw"],
        config["method"],
        setting,
        accuracy,
        error,
        f"{result['seconds']:.0f}",
    )


def plot_sigma(circles: list[Result], path: Path) -> None:
    """Figure 4: reconstruction error and accuracy by sigma squared."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(4.8, 3.2), layout="constrained")
    ordered = sorted(circles, key=lambda r: r["config"]["options"]["sigma"])
    variance = [r["config"]["options"]["sigma"] ** 2 for r in ordered]
    error = [r["squared_error"] for r in ordered]
    lines = ax.plot(variance, error, "o-", color=COLOURS[0], label="squared error")
    ax.set(xscale="log", xlabel="variance $\\sigma^2$ of the likelihood")
    ax.set_ylabel("squared error of reconstructions", color=COLOURS[0])
    other = ax.twinx()
    accuracy = [100 * r["accuracy"] for r in ordered]
    lines += other.plot(variance, accuracy, "s-", color=COLOURS[1], label="accuracy")
    other.set_ylabel("accuracy %", color=COLOURS[1])
    figure.legend(handles=lines, frameon=False, ncols=2, loc="outside upper center")
    plots.save(figure, path)


def plot_circles(circles: list[Result], supervised: list[Result], path: Path) -> None:
    """Figure 3: data, reconstructions and classifiers, at sigma = 1 and at the sigma of best
    reconstruction.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.6), layout="constrained")
    dataset, labels = points(circles[0]["config"])
    known = labels >= 0
    axes[0][0].scatter(*dataset.x[~known].T, s=2, c="0.8", linewidths=0)
    axes[0][0].scatter(*dataset.x[known].T, s=12, c=COLOURS[labels[known].numpy()])
    axes[0][0].set(title="50 labels of 10,000 points")
    one = [r for r in circles if r["config"]["options"]["sigma"] == 1.0]
    best = min(circles, key=lambda r: r["squared_error"])
    for column, r in zip((1, 2), [*one, best], strict=False):
        sigma = r["config"]["options"]["sigma"]
        plot_points(axes[0][column], r, f"reconstructions, $\\sigma$ = {sigma:g}")
        region(
            axes[1][column],
            r["plane"],
            WINDOW["circles"],
            f"M2, $\\sigma$ = {sigma:g}: {100 * r['accuracy']:.1f} %",
        )
    for r in supervised:
        region(
            axes[1][0], r["plane"], WINDOW["circles"], f"labels alone: {100 * r['accuracy']:.1f} %"
        )
    _frame(axes, "circles")
    plots.save(figure, path)


def plot_fields(moons: list[Result], path: Path) -> None:
    """Supplement 8 and 10, beside 9 and 11: where points are moved to under each class."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(moons), 7, figsize=(18, 2.8 * len(moons)), squeeze=False, layout="constrained"
    )
    dataset, _ = points(moons[0]["config"])
    coarse = grid_points(WINDOW["moons"], COARSE_RESOLUTION)
    for row, r in zip(axes, moons, strict=True):
        row[0].scatter(*dataset.x[::5].T, s=2, c=COLOURS[dataset.y[::5].numpy()], linewidths=0)
        row[0].set(title="data", ylabel=f"{r['config']['kind']} KL")
        plot_points(row[1], r, "reconstructions")
        region(row[2], r["plane"], WINDOW["moons"], f"q(y|x): {100 * r['accuracy']:.1f} %")
        region(row[3], r["by_loss"], WINDOW["moons"], "by reconstruction loss")
        for ax, classes, title in zip(
            row[4:],
            ([0], [1], [0, 1]),
            ("moved as class 0", "moved as class 1", "both"),
            strict=True,
        ):
            ax.scatter(*dataset.x[::5].T, s=1, c="0.85", linewidths=0)
            for k in classes:  # a third of their length, so that arrows do not cover the panel
                arrows = np.array(r["fields"][k])
                ax.quiver(
                    *coarse.T,
                    *arrows.T,
                    color=COLOURS[k],
                    angles="xy",
                    scale_units="xy",
                    scale=3,
                    width=0.004,
                )
            ax.set(title=title)
    _frame(axes, "moons")
    plots.save(figure, path)


def plot_points(ax: Any, result: Result, title: str) -> None:
    shown = np.array(result["reconstructions"])
    colours = COLOURS[shown[:, 2].astype(int)]
    ax.scatter(*shown[:, :2].T, s=4, c=colours, linewidths=0)
    ax.set(title=title)


def _frame(axes: Any, name: str) -> None:
    for ax in axes.flat:
        frame(ax, WINDOW[name])


STUDY = Study(
    "latent_plane",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={"parts": Selection("data", PARTS, "data sets to run")},
    arrays=ARRAYS,
)

if __name__ == "__main__":
    main(STUDY, __doc__)
