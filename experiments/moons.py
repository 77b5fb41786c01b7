"""Two moons with six labels: paper 002's Tables 5.1 and 5.2 and Figures 5.1 to 5.7.

It shows accuracy and likelihood of each method beside the Bayes optimum, decisions over the plane,
batch norm with random weights, and the paper's settings with one thing changed.

`python experiments/moons.py --help` explains every option.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import moons_ablations as ablations
import numpy as np
import torch
from pages import mean_sd, published, table, where
from panels import COLOURS, frame, grid_points, percentages, region
from results_table import Result, Results
from study import DEVELOPMENT, SETTINGS, Config, Selection, Study, main, of_preset, resolved
from torch import Tensor

from pyro_ssl import (
    Dataset,
    Objective,
    bounds,
    data,
    draw_labels,
    fit,
    fixed_seed,
    predict_proba,
    weight_kl,
    zoo,
)
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.nn import BatchNorm
from pyro_ssl.training import Epoch

METHODS = ("classifier", "m2", "sdgm", "sslpe", "sslapd")
NAMES = {
    "classifier": "classifier",
    "m2": "M2",
    "sdgm": "SDGM",
    "sslpe": "SSLPE",
    "sslapd": "SSLAPD",
}
NETWORK: dict[str, Any] = {
    "hidden": (128, 128),
    "activation": "relu",
    "noise": 0.0,
    "dropout": 0.0,
    "sigma": None,
    "balance": 0.0,
    "labeled_weight": 1e-3,  # about N_l / N_u, as in the paper's sum over the data set
}
CHAINS: dict[str, Any] = {"gibbs_steps": 50, "gibbs_chains": 4}
ONE_CHAIN: dict[str, Any] = {"gibbs_steps": 10, "gibbs_chains": 1}
"""Gibbs sampling of the thesis, for predictions after every epoch."""
SMOKE_CHAINS: dict[str, Any] = {"gibbs_steps": 3, "gibbs_chains": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "classifier": {},
    "m2": {"z_dim": 2},
    "sdgm": {"z_dim": 2, "a_dim": 2, "batch_norm": True, "l2": 5e-3, "noise": 0.05},
    "sslpe": {"z_dim": 10, "batch_norm": True, "l2": 5e-3, "dropout": 0.2, **CHAINS},
    "sslapd": {"z_dim": 10, "batch_norm": True, **CHAINS},
}
LONGER = {"classifier": 10.0, "sslapd": 1.5}
"""Factors of the epochs."""
TRAINING = {"batch_size": 100, "labeled_batch_size": 6, "lr": 3e-3, "ema": 0.99}
SHOWN = 5
"""Draw of Figures 5.5 to 5.7, which is not in the tables."""
DRAWS = {
    "smoke": [10, SHOWN],
    "cpu": [10, 11, 12, 13, 14, SHOWN],
    "paper": [10, 11, 12, 13, 14, SHOWN],
}
POINTS = {"smoke": 200, "cpu": 10_000, "paper": 10_000}
EPOCHS = {"smoke": 1, "cpu": 40, "paper": 200}
NOISES = (0.1, 0.2)
LABELS = ("placed", "random")
PLACES = torch.tensor(
    [[[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[0.0, 0.5], [1.0, -0.5], [2.0, 0.5]]]
)
"""Left, middle and right of each moon."""
WINDOW = (-1.8, 2.8, -1.3, 1.8)
RESOLUTION = 60
"""Points of the plane per side, for pictures."""
CURVES = ("sslpe", "sslapd")
PRESET = "paper-002-moons"


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    made = {}
    for labels in LABELS:
        prefix = "" if labels == "placed" else "random_"
        for draw in draws:
            for noise in NOISES:
                for method in METHODS if draw != SHOWN else ():
                    made[f"{prefix}{method}_{noise}_{draw}"] = configure(
                        method, noise, draw, labels, scale
                    )
    made |= _by_the_paper(scale, draws) | _ablations(scale, draws)
    return made | _curves(scale) | _batch_norm(scale)


def _by_the_paper(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    """Runs of Tables 5.1 and 5.2 with the paper's settings."""
    made = {}
    for draw in draws:
        for noise in NOISES:
            for method in METHODS if draw != SHOWN else ():
                made[f"paper_{method}_{noise}_{draw}"] = configure_by_paper(
                    method, noise, draw, scale
                )
    return made


def configure_by_paper(method: str, noise: float, draw: int, scale: str) -> Config:
    """The preset's settings; a smoke run has a small network."""
    config = configure(method, noise, draw, "placed", scale) | of_preset(method, PRESET)
    if scale == "smoke":
        config["training"]["epochs"] = 1
        config["options"] |= {"hidden": (8,)}
    return config


def _ablations(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    """Runs with the paper's settings, each with one thing changed."""
    made = {}
    for draw in draws:
        for name, change in ablations.CHANGES.items():
            chosen = draw in ablations.DRAWS or draw >= DEVELOPMENT
            for method in change.methods if chosen else ():
                config = configure_by_paper(method, ablations.NOISE, draw, scale)
                made[f"ablation_{name}_{method}_{draw}"] = change.applied(config)
    return made


def _curves(scale: str) -> dict[str, Config]:
    """Runs of Figures 5.6 and 5.7: measured after every epoch, with and without batch norm."""
    made = {}
    for noise in NOISES:
        for method in CURVES:
            for norm in (True, False):
                config = configure(
                    method, noise, SHOWN, "placed", scale, batch_norm=norm, **ONE_CHAIN
                )
                made[f"curves_{method}_{'bn' if norm else 'plain'}_{noise}"] = config | {
                    "every_epoch": True
                }
    return made


def _batch_norm(scale: str) -> dict[str, Config]:
    """Runs of Figure 5.5: statistics of drawn weights, or of their means."""
    made = {}
    for name, of_means in (("norm_mean_weights", True), ("norm_drawn_weights", False)):
        options = {"local_reparameterisation": False, "norm_from_mean_weights": of_means}
        made[f"{name}_0.1"] = configure("sslapd", 0.1, SHOWN, "placed", scale, **options)
    return made


def configure(
    method: str, noise: float, draw: int, labels: str, scale: str, **options: Any
) -> Config:
    epochs = max(1, int(EPOCHS[scale] * LONGER.get(method, 1.0)))
    chosen = NETWORK | OPTIONS[method] | options
    if scale == "smoke":
        chosen |= SMOKE_CHAINS
    config: Config = {
        "method": method,
        "noise": noise,
        "draw": draw,
        "labels": labels,
        "points": POINTS[scale],
        "options": resolved(method, chosen),
        "training": TRAINING | {"epochs": epochs},
    }
    if scale == "smoke":
        config["grid"] = 12
    return config


def moons(config: Config) -> tuple[Dataset, Tensor]:
    """Make points, and labels of which six are known; each draw has training and test points of its
    own.
    """
    dataset = data.two_moons(
        config["points"], config["points"], config["noise"], seed=config["draw"]
    )
    if config["labels"] == "random":
        return dataset, draw_labels(dataset.y, per_class=3, seed=config["draw"]).masked_labels(
            dataset.y
        )
    labels = torch.full((len(dataset.y),), -1)
    for k in (0, 1):
        own = (dataset.y == k).nonzero().squeeze(1)
        labels[own[torch.cdist(PLACES[k], dataset.x[own]).argmin(1)]] = k
    return dataset, labels


def optimum(x: Tensor, noise: float) -> Tensor:
    """Compute p(y|x) by Bayes' rule, `(N, 2)`: each moon's density is the mean of Gaussians along
    it.
    """
    t = torch.linspace(0, math.pi, 1000, dtype=torch.float64)
    upper = torch.stack([t.cos(), t.sin()], -1)
    lower = torch.stack([1 - t.cos(), 0.5 - t.sin()], -1)
    curves = torch.stack([upper, lower])
    parts = []
    for part in x.split(1000):
        exponents = -torch.cdist(part.double(), curves).square() / (2 * noise**2)
        parts.append(exponents.logsumexp(-1))
    return torch.cat(parts, 1).T.softmax(-1).float()


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one method on one draw; p(y|x) over the plane is for the pictures."""
    dataset, labels = moons(config)
    objective = zoo.build(
        config["method"], dataset.x_shape, 2, seed=config["draw"], **config["options"]
    )
    every_epoch = config.get("every_epoch", False)
    curve: dict[str, list[float]] = {"accuracy": [], "bound": []}

    def watch(epoch: Epoch) -> None:
        probs = predict_proba(epoch.objective, dataset.x_test)
        curve["accuracy"].append(metrics.accuracy(probs, dataset.y_test))
        kl = weight_kl(epoch.objective) / config["points"]
        curve["bound"].append(float(bounds(epoch.objective, dataset.x_test).mean()) - kl)

    history = fit(
        objective,
        dataset.x,
        labels,
        seed=config["draw"],
        directory=None if every_epoch else directory,  # the curve is kept in memory
        resume=True,
        identity=config,
        callbacks=(watch,) if every_epoch else (),
        **config["training"],
    )
    best = metrics.evaluate(optimum(dataset.x_test, config["noise"]), dataset.y_test)
    result: Result = {
        **metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test),
        "bayes_accuracy": best["accuracy"],
        "bayes_log_likelihood": best["log_likelihood"],
        "seconds": history["seconds"][-1],
    }
    if every_epoch:
        return result | {"curve": curve}
    points = grid_points(WINDOW, config.get("grid", RESOLUTION))
    result["plane"] = percentages(predict_proba(objective, points))
    if name.startswith("norm"):
        result |= _by_batch_statistics(objective, dataset, points)
    return result


def _by_batch_statistics(objective: Objective, dataset: Dataset, points: Tensor) -> Result:
    """Predict by batch norm with the statistics of the batch: the test data are one batch, the
    points of the plane are another.
    """
    for part in objective.modules():
        part.training = isinstance(part, BatchNorm)
    with torch.no_grad(), fixed_seed(0):
        of_plane = objective.classify(points).mean
        of_test = objective.classify(dataset.x_test).mean
    return {
        "plane_by_batch": percentages(of_plane),
        "accuracy_by_batch": metrics.accuracy(of_test, dataset.y_test),
    }


# --- tables and pictures ----------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    others = ("curves", "norm", "paper", "ablation")
    tested = {name: r for name, r in results.items() if not name.startswith(others)}
    placed = where(tested, labels="placed")
    if any("plane" in r for r in placed):
        plot_data(placed, pictures / "data.png")
        plot_decisions(placed, pictures / "decisions.png")
    norms = {
        name: results.get(f"{name}_0.1", {}) for name in ("norm_mean_weights", "norm_drawn_weights")
    }
    if all("plane" in r for r in norms.values()):
        plot_batch_norm(norms, pictures / "batch_norm.png")
    if any(name.startswith("curves") for name in results):
        plot_curves(results, pictures / "curves.png")
    tables = _tables(tested) | _tables_of_paper(results)
    return tables | {"ablations": ablations.block(results)}


def _tables(tested: Results) -> dict[str, str]:
    """One table for each noise, with placed and with random labels."""
    tables = {}
    for labels in LABELS:
        for noise in NOISES:
            mine = where(tested, labels=labels, noise=noise)
            if mine:
                title = f"noise {noise}" + ("" if labels == "placed" else ", random labels")
                tables[title] = _table(title, mine, noise)
    return tables


def _tables_of_paper(results: Results) -> dict[str, str]:
    """One table for each noise, with the paper's settings."""
    tables = {}
    for noise in NOISES:
        mine = where(results, settings="paper", noise=noise)
        if mine:
            title = f"noise {noise}, the paper's settings"
            tables[title] = _table(title, mine, noise)
    return tables


def _table(title: str, results: list[Result], noise: float) -> str:
    rows = []
    for method in METHODS:
        mine = [r for r in results if r["config"]["method"] == method]
        if mine:
            rows.append(_row(method, noise, mine))
    baseline = [r for r in results if r["config"]["method"] == "classifier"]
    if baseline:
        accuracy = mean_sd(100 * r["bayes_accuracy"] for r in baseline)
        likelihood = mean_sd((r["bayes_log_likelihood"] for r in baseline), 4)
        rows.append(("Bayes optimum", accuracy, "", "", likelihood, "", "", ""))
    header = (
        "accuracy %, mean (sd)",
        "worst",
        "draws",
        "log-likelihood",
        "ECE %",
        "s per run",
        "paper 002",
    )
    return table((f"{title}, 6 labels", *header), rows)


def _row(method: str, noise: float, mine: list[Result]) -> tuple[Any, ...]:
    accuracy = [100 * r["accuracy"] for r in mine]
    likelihood = mean_sd((r["log_likelihood"] for r in mine), 4)
    ece = f"{100 * np.mean([r['ece'] for r in mine]):.2f}"
    seconds = f"{np.mean([r['seconds'] for r in mine]):.0f}"
    theirs = [
        published("moons", f"noise {noise}", measure).get(method, "")
        for measure in ("accuracy %", "log-likelihood")
    ]
    paper = ", ".join(filter(None, theirs))
    return (
        method,
        mean_sd(accuracy),
        f"{min(accuracy):.2f}",
        len(mine),
        likelihood,
        ece,
        seconds,
        paper,
    )


def _of_noise(results: list[Result], noise: float) -> list[Result]:
    return [r for r in results if r["config"]["noise"] == noise]


def plot_data(results: list[Result], path: Path) -> None:
    """Figures 5.1 and 5.2."""
    import matplotlib.pyplot as plt

    noises = [noise for noise in NOISES if _of_noise(results, noise)]
    figure, axes = plt.subplots(
        1, 2 * len(noises), figsize=(6.4 * len(noises), 2.6), squeeze=False, layout="constrained"
    )
    for i, noise in enumerate(noises):
        dataset, labels = moons(_of_noise(results, noise)[0]["config"])
        whole, few = axes[0][2 * i : 2 * i + 2]
        whole.scatter(*dataset.x.T, s=1, c=COLOURS[dataset.y.numpy()], linewidths=0)
        few.scatter(*dataset.x.T, s=1, c="0.7", linewidths=0)
        known = labels >= 0
        few.scatter(*dataset.x[known].T, s=60, c=COLOURS[labels[known].numpy()], edgecolors="k")
        for ax, title in ((whole, f"noise {noise}: classes"), (few, f"noise {noise}: six labels")):
            frame(ax, WINDOW)
            ax.set(title=title)
    plots.save(figure, path)


def plot_decisions(results: list[Result], path: Path) -> None:
    """Figures 5.3 and 5.4: p(y|x) over the plane, of the first draw."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(NOISES),
        len(METHODS),
        figsize=(2.6 * len(METHODS), 2.3 * len(NOISES)),
        squeeze=False,
        layout="constrained",
    )
    for i, noise in enumerate(NOISES):
        for j, method in enumerate(METHODS):
            shown = [
                r
                for r in _of_noise(results, noise)
                if r["config"]["method"] == method and "plane" in r
            ]
            if shown:
                plot_region(axes[i][j], shown[0]["plane"], *moons(shown[0]["config"]))
            frame(axes[i][j], WINDOW)
            axes[i][j].set(title=f"{NAMES[method]}, noise {noise}")
    plots.save(figure, path)


def plot_batch_norm(results: dict[str, Result], path: Path) -> None:
    """Figure 5.5: batch norm behind random weights, by three kinds of statistics."""
    import matplotlib.pyplot as plt

    means, drawn = results["norm_mean_weights"], results["norm_drawn_weights"]
    panels = (
        ("(a) batch statistics", means, "plane_by_batch", "accuracy_by_batch"),
        ("(b) population statistics, drawn weights", drawn, "plane", "accuracy"),
        ("(c) population statistics, mean weights", means, "plane", "accuracy"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3))
    for ax, (title, result, key, accuracy) in zip(axes, panels, strict=True):
        plot_region(ax, result[key], *moons(result["config"]))
        frame(ax, WINDOW)
        ax.set(title=f"{title}: {100 * result[accuracy]:.1f} %")
    plots.save(figure, path)


def plot_curves(results: Results, path: Path) -> None:
    """Figures 5.6 and 5.7: test accuracy and bound by epoch, with and without batch norm."""
    import matplotlib.pyplot as plt

    noises = [noise for noise in NOISES if _has_curves(results, noise)]
    figure, axes = plt.subplots(
        1, 2 * len(noises), figsize=(7 * len(noises), 3), squeeze=False, layout="constrained"
    )
    measures = (("accuracy", "test accuracy %"), ("bound", "bound of test data, nats"))
    for i, noise in enumerate(noises):
        for j, (key, label) in enumerate(measures):
            ax = axes[0][2 * i + j]
            for colour, method in zip(COLOURS, CURVES, strict=False):
                for line, norm, how in (("-", "bn", "batch norm"), ("--", "plain", "without")):
                    curve = _curve(results, f"curves_{method}_{norm}_{noise}", key)
                    epochs = range(1, len(curve) + 1)
                    ax.plot(epochs, curve, line, color=colour, label=f"{NAMES[method]}, {how}")
            ax.set(title=f"noise {noise}", xlabel="epoch", ylabel=label)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=4, loc="outside lower center")
    plots.save(figure, path)


def _has_curves(results: Results, noise: float) -> bool:
    return any(name.startswith("curves") and name.endswith(f"_{noise}") for name in results)


def _curve(results: Results, name: str, measure: str) -> list[float]:
    """A measure of a run after each epoch, accuracy in percent; empty without the run."""
    curve: list[float] = results.get(name, {}).get("curve", {}).get(measure, [])
    if measure == "accuracy":
        return [100 * accuracy for accuracy in curve]
    return curve


def plot_region(ax: Any, values: list[int], dataset: Dataset, labels: Tensor) -> None:
    region(ax, values, WINDOW)
    ax.scatter(*dataset.x[::10].T, s=1, c="k", alpha=0.25, linewidths=0)
    known = labels >= 0
    ax.scatter(
        *dataset.x[known].T, s=40, c=["w" if k else "k" for k in labels[known]], edgecolors="0.3"
    )


STUDY = Study(
    "moons",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "settings": Selection(
            SETTINGS.key,
            (*SETTINGS.values, ablations.SETTINGS),
            "settings of the methods: ours, the paper's preset, or the preset with one change",
            absent=SETTINGS.absent,
        ),
        "noise": Selection("noise", NOISES, "standard deviations of the noise to run"),
        "labels": Selection(
            "labels", LABELS, "six labels: placed by hand, or drawn at random", default=["placed"]
        ),
    },
    arrays=["plane", "plane_by_batch"],
)

if __name__ == "__main__":
    main(STUDY, __doc__)
