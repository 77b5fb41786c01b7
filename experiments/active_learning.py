"""Active learning on two moons (paper 002, Figures 5.8 to 5.12) and on images.

It shows accuracy against the number of labels on two moons, MNIST and Fashion-MNIST, by acquisition
function and by choice of the first labels, and which points the acquisition functions choose. Part
`paper` is SSLPE and SSLAPD on MNIST with the paper's settings; the paper leaves it to the future.

`python experiments/active_learning.py --help` explains every option.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from image_runs import hold_out, images
from mnist_labels import CONV
from moons import NETWORK, ONE_CHAIN, OPTIONS, optimum
from moons import moons as with_six_labels
from pages import mean_sd, published, published_rows, table, where
from panels import COLOURS, frame, grid_points
from results_table import Result, Results
from study import (
    DEVELOPMENT,
    Config,
    Selection,
    Study,
    main,
    of_preset,
    resolved,
    write_json,
)

from pyro_ssl import ActiveLearner, Dataset, Objective, data, fit, zoo
from pyro_ssl.active import acquisition, vae_embedding
from pyro_ssl.evaluation import metrics, plots, style

MOONS_OPTIONS: dict[str, dict[str, Any]] = {
    "sslpe": NETWORK | OPTIONS["sslpe"] | ONE_CHAIN | {"labeled_weight": 1e-2, "balance": 5.0},
    "sslapd": NETWORK
    | OPTIONS["sslapd"]
    | ONE_CHAIN
    | {"labeled_weight": 0.1, "balance": 5.0, "noise": 0.05},
}
SUPERVISED: dict[str, Any] = {"network": "conv", "channels": (16, 32, 64), "warp": 0.25}
ROWS: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # part, method, acquisition, options
    "sslpe_entropy": ("moons", "sslpe", "entropy", MOONS_OPTIONS["sslpe"]),
    "sslpe_random": ("moons", "sslpe", "random", MOONS_OPTIONS["sslpe"]),
    "sslapd_entropy": ("moons", "sslapd", "entropy", MOONS_OPTIONS["sslapd"]),
    "sslapd_bald": ("moons", "sslapd", "bald", MOONS_OPTIONS["sslapd"]),
    "sslapd_random": ("moons", "sslapd", "random", MOONS_OPTIONS["sslapd"]),
    "plane": ("plane", "sslapd", "entropy", NETWORK | OPTIONS["sslapd"] | ONE_CHAIN),
    "m2_entropy": ("images", "m2", "entropy", CONV),
    "m2_entropy_drawn": ("images", "m2", "entropy", CONV),
    "m2_random": ("images", "m2", "random", CONV),
    "m2_start_ten": ("images", "m2", "random", CONV),
    "m2_start_random": ("images", "m2", "random", CONV),
    "ensemble_bald": ("images", "classifier", "bald", SUPERVISED),
    "sslpe_paper_entropy": ("paper", "sslpe", "entropy", {}),
    "sslpe_paper_random": ("paper", "sslpe", "random", {}),
    "sslapd_paper_entropy": ("paper", "sslapd", "entropy", {}),
    "sslapd_paper_random": ("paper", "sslapd", "random", {}),
}
ROW_TITLES = {
    "sslpe_paper_entropy": "sslpe, entropy",
    "sslpe_paper_random": "sslpe, random",
    "sslapd_paper_entropy": "sslapd, entropy",
    "sslapd_paper_random": "sslapd, random",
    "m2_entropy_drawn": "m2, in proportion to entropy",
    "m2_start_ten": "m2, ten cluster centres",
    "m2_start_random": "m2, twenty random images",
}
"""Titles of rows that their names do not explain."""
ROW_CONFIG: dict[str, dict[str, Any]] = {
    "m2_entropy_drawn": {"power": 1.0},
    "m2_start_ten": {"first": 10, "most": 10},
    "m2_start_random": {"start": "random", "most": 20},
}
PARTS = ("moons", "plane", "images", "paper")
IMAGE_SETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
MEMBERS = 5
GOALS = {"mnist": (0.9, 0.95, 0.98), "fashion_mnist": (0.7, 0.75, 0.8)}
SHOWN_COUNTS = (10, 20, 30, 40, 60, 100)
DRAWS = {"smoke": [5], "cpu": list(range(10)), "paper": list(range(10))}
IMAGE_DRAWS = range(5, 10)
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "pool": 60,
        "first": 1,
        "later": {"sslpe": 1, "sslapd": 1},
        "most": 6,
        "epochs": (1, 1),
        "labels": (20, 40),
        "supervised": 2,
        "steps": 2,
        "rows": 120,
        "grid": 12,
        "samples": 4,
    },
    "cpu": {
        "pool": 2000,
        "first": 100,
        "later": {"sslpe": 10, "sslapd": 20},
        "most": 30,
        "epochs": (6, 2),
        "labels": (20, 100),
        "supervised": 400,
        "steps": 2000,
    },
    "paper": {
        "pool": 10_000,
        "first": 100,
        "later": {"sslpe": 20, "sslapd": 40},
        "most": 30,
        "epochs": (20, 5),
        "labels": (20, 200),
        "supervised": 1000,
        "steps": 10_000,
    },
}
"""By scale: points of the moons, epochs of the first and of later rounds, and labels."""
PRESET = "paper-002"
PAPER_DRAWS = range(5, 8)
"""Three starts, as the paper has on two moons."""
PAPER_SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"pool": 120, "test": 120, "labels": (20, 10, 40), "epochs": (1, 1)},
    "cpu": {"pool": 10_000, "test": 10_000, "labels": (100, 50, 300), "epochs": (20, 8)},
    "paper": {"pool": 60_000, "test": 10_000, "labels": (100, 50, 300), "epochs": (200, 80)},
}
"""By scale: images of the pool and of the test set, first labels, labels per round, most labels,
and epochs of the first and of later rounds. All but the last scale sum over the likeliest class and
a drawn one.
"""
FUNCTIONS = ("entropy", "variation_ratios", "bald")
TITLES = {"entropy": "entropy", "variation_ratios": "variation ratios", "bald": "BALD"}
WINDOW = (-1.5, 2.5, -1.1, 1.6)
RESOLUTION = 60
"""Points of the plane per side, for the acquisition functions."""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    made = {}
    for draw in draws:
        for row, (part, *_) in ROWS.items():
            for suffix, name in _data_of(part, draw, first=draw == draws[0]):
                made[f"{row}{suffix}_{draw}"] = configure(row, name, draw, scale)
    return made


def _data_of(part: str, draw: int, first: bool) -> list[tuple[str, str]]:
    """The data sets of a part on one draw, each with what it adds to the names of runs."""
    developing = draw >= DEVELOPMENT
    if part == "moons":
        return [("", "moons")]
    if part == "plane":
        return [("", "moons")] if first else []
    if part == "paper":
        return [("_mnist", "mnist")] if developing or draw in PAPER_DRAWS else []
    if developing or draw in IMAGE_DRAWS:
        return [(f"_{name}", name) for name in IMAGE_SETS]
    return []


def configure(row: str, name: str, draw: int, scale: str) -> Config:
    part, method, wanted, options = ROWS[row]
    config: Config = {
        "part": part,
        "row": row,
        "data": name,
        "draw": draw,
        "method": method,
        "acquisition": wanted,
        "options": resolved(method, options),
        "update_training": None,
        "members": 1,
        "start": "random",
    }
    if part == "images":
        return config | _image_config(row, method, SCALES[scale])
    if part == "paper":
        return config | _paper_config(method, scale)
    return config | _moons_config(part, method, SCALES[scale])


def _image_config(row: str, method: str, sizes: dict[str, Any]) -> Config:
    first, most = sizes["labels"]
    config: Config = {"labels": 0, "first": first, "each": 10, "most": most}
    if "rows" in sizes:
        config["rows"] = sizes["rows"]
    if method != "m2":
        training = {
            "epochs": sizes["supervised"],
            "labeled_batch_size": 100,
            "lr": 3e-3,
            "ema": 0.99,
        }
        return config | {"training": training, "members": MEMBERS}
    epochs, later = sizes["epochs"]
    training = {
        "epochs": epochs,
        "batch_size": 200,
        "labeled_batch_size": 100,
        "lr": 3e-3,
        "ema": 0.999,
    }
    config |= {"training": training, "update_training": {"epochs": later}, "restart_factor": 2.0}
    return config | {"start": "diverse", "steps": sizes["steps"]} | ROW_CONFIG.get(row, {})


def _paper_config(method: str, scale: str) -> Config:
    """The preset's settings with fewer epochs; KL warm-up has the same share of them."""
    sizes = PAPER_SCALES[scale]
    first, each, most = sizes["labels"]
    epochs, later = sizes["epochs"]
    settings = of_preset(method, PRESET, epochs=epochs)
    if scale != "paper":
        settings["options"] |= {"top_k": 1}
    if scale == "smoke":
        settings["options"] |= {"hidden": (8,), "gibbs_steps": 2}
    return settings | {
        "labels": 0,
        "rows": sizes["pool"],
        "test_rows": sizes["test"],
        "first": first,
        "each": each,
        "most": most,
        "update_training": {"epochs": later, "warmup": 0.0},  # q(z|x,y) has been learned
    }


def _moons_config(part: str, method: str, sizes: dict[str, Any]) -> Config:
    training = {
        "epochs": sizes["first"],
        "batch_size": min(100, sizes["pool"]),
        "labeled_batch_size": 30,
        "lr": 1e-2,
        "ema": 0.99,
    }
    config: Config = {
        "pool": sizes["pool"],
        "first": 4,
        "each": 1,
        "most": sizes["most"],
        "noise": 0.1,
        "training": training,
        "update_training": {"epochs": sizes["later"][method]},
    }
    if part == "plane" and "grid" in sizes:
        config |= {"grid": sizes["grid"], "samples": sizes["samples"]}
    return config


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Run one loop from its first labels to its last; for `plane`, the acquisition functions of one
    model.
    """
    dataset = _dataset(config)
    if config["part"] == "plane":
        return plane(config, dataset, directory)
    learner = _learner(config, dataset, directory)
    of_rounds = directory / "curve.json"
    curve = json.loads(of_rounds.read_text())["curve"] if of_rounds.exists() else []
    while True:
        started = time.perf_counter()
        measured = len(curve) == rounds(config, len(learner.indices))
        if measured and len(learner.indices) < config["most"]:
            rows = learner.query(dataset.x, config["each"] if learner.indices else config["first"])
            learner.teach(rows, dataset.y[rows])
        learner.learn(dataset.x)  # a killed run may have labels that it has not learned from
        if len(curve) == rounds(config, len(learner.indices)):
            break
        trained = sum(
            h["seconds"][-1] for h in learner.history[-1]
        )  # more, if a killed run was resumed
        seconds = max(time.perf_counter() - started, trained)
        result = metrics.evaluate(learner.predict_proba(dataset.x_test), dataset.y_test)
        curve.append({"labels": len(learner.indices), "round": seconds, **result})
        write_json(of_rounds, {"curve": curve})
    return _result(config, dataset, learner, curve)


def _result(
    config: Config, dataset: Dataset, learner: ActiveLearner, curve: list[Result]
) -> Result:
    """What a finished loop asked for and reached; on two moons also the points and the optimum."""
    total = sum(point["round"] for point in curve)
    result = {
        "curve": curve,
        "indices": learner.indices,
        "classes": learner.labels,
        "seconds": total,
    }
    if config["part"] == "moons":
        best = optimum(dataset.x_test, config["noise"])
        result["ceiling"] = metrics.accuracy(best, dataset.y_test)
        result["points"] = dataset.x[learner.indices].tolist()
    return result


def _dataset(config: Config) -> Dataset:
    if config["part"] in ("moons", "plane"):
        return data.two_moons(config["pool"], config["pool"], config["noise"], seed=config["draw"])
    dataset, labels = images(config)
    if config["draw"] >= DEVELOPMENT:
        dataset, _ = hold_out(dataset, labels)
    return dataset


def _learner(config: Config, dataset: Dataset, directory: Path) -> ActiveLearner:
    build = partial(
        build_method, config["method"], dataset.x_shape, len(dataset.classes), config["options"]
    )
    return ActiveLearner(
        build,
        acquisition=config["acquisition"],
        start=config["start"],
        members=config["members"],
        embedding=partial(vae_embedding, steps=config.get("steps", 0), seed=config["draw"]),
        training=config["training"],
        update_training=config["update_training"],
        restart_factor=config.get("restart_factor", math.inf),
        power=config.get("power"),
        directory=directory / "learner",
        identity=config,
        seed=config["draw"],
    )


def build_method(
    method: str, x_shape: tuple[int, ...], classes: int, options: dict[str, Any], seed: int
) -> Objective:
    return zoo.build(method, x_shape, classes, seed=seed, **options)


def rounds(config: Config, labels: int) -> int:
    """Number of rounds after which there are this many labels."""
    return 1 + (labels - config["first"]) // config["each"] if labels else 0


def plane(config: Config, dataset: Dataset, directory: Path) -> Result:
    """Evaluate acquisition functions of a model with six labels: over the plane, and what three
    seeds pick.
    """
    _, labels = with_six_labels(config | {"points": config["pool"], "labels": "placed"})
    objective = build_method(config["method"], (2,), 2, config["options"], config["draw"])
    settings = config["training"] | {"labeled_batch_size": 6}
    fit(
        objective,
        dataset.x,
        labels,
        seed=config["draw"],
        directory=directory / "model",
        resume=True,
        **settings,
    )
    grid = grid_points(WINDOW, config.get("grid", RESOLUTION))
    draws = config.get("samples", 100)
    scores = {name: acquisition.scores(objective, grid, name, draws=draws) for name in FUNCTIONS}
    unlabeled = dataset.x[labels < 0]
    picks: dict[str, list[Any]] = {}
    for name in FUNCTIONS:
        of_seeds = [
            acquisition.acquire(objective, unlabeled, 5, name, draws=min(draws, 20), seed=seed)
            for seed in range(3)
        ]
        picks[name] = [unlabeled[rows].tolist() for rows in of_seeds]
    known = labels >= 0
    return {
        "grid": {k: [round(float(v), 4) for v in values] for k, values in scores.items()},
        "picks": picks,
        "pool": [[round(v, 3) for v in row] for row in dataset.x[:1000].tolist()],
        "labeled": dataset.x[known].tolist(),
        "classes": labels[known].tolist(),
    }


# --- tables and pictures ----------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    blocks = {}
    moons = by_row(where(results, part="moons"))
    if moons:
        blocks["moons"] = moons_table(moons)
        plot_curves(moons, pictures / "moons.png", "two moons", ceiling=True)
        plot_sequence(moons, pictures / "sequence.png")
    for name, title in IMAGE_SETS.items():
        runs = by_row(where(results, part="images", data=name))
        if runs:
            blocks[name] = images_table(name, runs)
            plot_curves(runs, pictures / f"{name}.png", title)
    for result in where(results, part="plane"):
        if "grid" in result:
            plot_functions(result, pictures / "functions.png")
    by_the_paper = by_row(where(results, part="paper"))
    blocks["MNIST, the paper's settings"] = paper_table(by_the_paper)
    if by_the_paper:
        plot_curves(by_the_paper, pictures / "mnist_paper.png", "MNIST, the paper's settings")
    return blocks


def by_row(results: list[Result]) -> dict[str, list[Result]]:
    rows = {row: [r for r in results if r["config"]["row"] == row] for row in ROWS}
    return {row: mine for row, mine in rows.items() if mine}


def row_title(row: str) -> str:
    """Name of a row in tables: method and acquisition function, or what its labels are."""
    return ROW_TITLES.get(row, row.replace("_", ", ", 1).replace("_", " "))


def _legend_title(row: str) -> str:
    title = row_title(row)
    for name in ("sslpe", "sslapd", "m2", "bald"):
        title = title.replace(name, name.upper())
    return title


def first_at(result: Result, accuracy: float) -> float:
    """Number of labels with which a loop first reached an accuracy; infinity if it never did."""
    reached = [point["labels"] for point in result["curve"] if point["accuracy"] >= accuracy]
    return reached[0] if reached else math.inf


def _count(value: float, most: int) -> str:
    return f"{value:g}" if value < math.inf else f"over {most}"


def _accuracies(mine: list[Result], labels: int) -> str:
    values = [
        100 * point["accuracy"] for r in mine for point in r["curve"] if point["labels"] == labels
    ]
    return mean_sd(values) if values else ""


def moons_table(runs: dict[str, list[Result]]) -> str:
    """Labels to half a point below the Bayes-optimal accuracy, and accuracies on the way."""
    header = (
        "two moons, from 4 labels",
        "labels to 0.5 points below the Bayes optimum: mean of 3",
        "mean of all",
        "worst",
        "starts",
        "accuracy % with 10",
        "with 15",
        "with 30",
        "Bayes optimum",
        "s per loop",
        "paper 002",
    )
    paper = published("active_learning", "moons", "labels to the ceiling")
    rows = []
    for row, mine in runs.items():
        most = mine[0]["config"]["most"]
        needed = [min(first_at(r, r["ceiling"] - 0.005), most + 1) for r in mine]
        missed = sum(n > most for n in needed)
        all_starts = _mean_count(needed, most) + (f" ({missed} not by {most})" if missed else "")
        worst = _count(math.inf if missed else max(needed), most)
        at = [_accuracies(mine, n) for n in (10, 15, 30)]
        ceiling = f"{statistics.fmean(100 * r['ceiling'] for r in mine):.2f}"
        seconds = f"{statistics.fmean(r['seconds'] for r in mine):.0f}"
        counts = (_mean_count(needed[:3], most), all_starts, worst, len(mine))
        rows.append((row_title(row), *counts, *at, ceiling, seconds, paper.get(row, "")))
    return table(header, rows)


def _mean_count(needed: list[float], most: int) -> str:
    return ("over " if max(needed) > most else "") + f"{statistics.fmean(needed):.1f}"


def images_table(name: str, runs: dict[str, list[Result]]) -> str:
    """Quartiles of the labels to each goal, and accuracies on the way."""
    header = (
        f"{IMAGE_SETS[name]}, labels",
        *(f"to {100 * goal:g} %, quartiles" for goal in GOALS[name]),
        "starts",
        *(f"accuracy % with {n}" for n in SHOWN_COUNTS),
        "s for the first round, for a later one",
    )
    rows: list[tuple[Any, ...]] = []
    for row, mine in runs.items():
        quartiles = [_quartiles(mine, goal) for goal in GOALS[name]]
        at = [_accuracies(mine, n) for n in SHOWN_COUNTS]
        rows.append((row_title(row), *quartiles, len(mine), *at, _seconds_of_rounds(mine)))
    return table(header, [*rows, *_published_counts(name)])


def paper_table(runs: dict[str, list[Result]]) -> str:
    """Accuracies of SSLPE and SSLAPD on MNIST by number of labels, and the last log-likelihood."""
    if not runs:
        return "No runs yet."
    counts = [point["labels"] for point in next(iter(runs.values()))[0]["curve"]]
    header = (
        "MNIST, the paper's settings",
        "starts",
        *(f"accuracy % with {n} labels" for n in counts),
        f"log-likelihood with {counts[-1]}",
        "s per loop",
    )
    rows = []
    for row, mine in runs.items():
        at = [_accuracies(mine, n) for n in counts]
        likelihood = mean_sd((r["curve"][-1]["log_likelihood"] for r in mine), 3)
        seconds = f"{statistics.fmean(r['seconds'] for r in mine):.0f}"
        rows.append((row_title(row), len(mine), *at, likelihood, seconds))
    return table(header, rows)


def _seconds_of_rounds(mine: list[Result]) -> str:
    """Mean seconds of the first round, and of a later one if there are any."""
    first = [r["curve"][0]["round"] for r in mine]
    later = [point["round"] for r in mine for point in r["curve"][1:]]
    return ", ".join(f"{statistics.fmean(s):.0f}" for s in (first, later) if s)


def _published_counts(name: str) -> Iterator[tuple[str, ...]]:
    """Rows of the published labels to each goal, for `images_table`."""
    by_goal = [
        published("active_learning", name, f"labels to {100 * goal:g} %") for goal in GOALS[name]
    ]
    titles = [
        r["row"]
        for r in published_rows()
        if (r["study"], r["setting"]) == ("active_learning", name)
    ]
    for title in dict.fromkeys(titles):
        counts = [counts_of_goal.get(title, "") for counts_of_goal in by_goal]
        yield (title, *counts, "", *[""] * len(SHOWN_COUNTS), "")


def _quartiles(mine: list[Result], goal: float) -> str:
    most = mine[0]["config"]["most"]
    needed = [first_at(r, goal) for r in mine]
    quartiles = np.quantile(needed, [0.25, 0.5, 0.75], method="inverted_cdf")
    return " / ".join(_count(float(v), most) for v in quartiles)


def plot_curves(
    runs: dict[str, list[Result]], path: Path, title: str, ceiling: bool = False
) -> None:
    """Figure 5.11: accuracy against labels, the mean of the starts and their range."""
    import matplotlib.pyplot as plt

    high = max(p["accuracy"] for mine in runs.values() for r in mine for p in r["curve"]) > 0.92
    figure, axes = plt.subplots(
        1, 1 + high, figsize=(4.5 * (1 + high) + 1.5, 3.4), layout="constrained", squeeze=False
    )
    for ax in axes[0]:
        _draw_means_and_ranges(ax, runs)
        if ceiling:
            best = 100 * next(iter(runs.values()))[0]["ceiling"]
            ax.axhline(best, label="Bayes optimum", **style.GUIDE_LINE)
        ax.set(xlabel="labels", ylabel="accuracy %")
    if high:
        axes[0][1].set(ylim=(90, 100.2), title="above 90 %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside center right")
    figure.suptitle(title)
    plots.save(figure, path)


def _draw_means_and_ranges(ax: Any, runs: dict[str, list[Result]]) -> None:
    """Draw the accuracies of each row: a line through the means, bars from worst to best start."""
    for i, (row, mine) in enumerate(runs.items()):
        at = np.array([p["labels"] for p in mine[0]["curve"]])
        values = np.array([[100 * p["accuracy"] for p in r["curve"]] for r in mine])
        mean = values.mean(0)
        around = np.array([mean - values.min(0), values.max(0) - mean])
        gap = at[1] - at[0] if len(at) > 1 else 10
        aside = at + 0.06 * gap * (i - len(runs) / 2)  # so that bars do not overlap
        bars = {"elinewidth": 0.7, "errorevery": (i, 6) if len(at) > 20 else 1}
        label = _legend_title(row)
        ax.errorbar(aside, mean, around, fmt="o-", color=COLOURS[i], label=label, **bars)


def plot_sequence(runs: dict[str, list[Result]], path: Path) -> None:
    """Figures 5.10 and 5.12: the four first labels, and what SSLAPD asks for by entropy, of the
    first start.
    """
    import matplotlib.pyplot as plt

    if "sslapd_entropy" not in runs:
        return
    result = runs["sslapd_entropy"][0]
    config = result["config"]
    pool = data.two_moons(config["pool"], 1, config["noise"], seed=config["draw"]).x.numpy()
    points, classes = np.array(result["points"]), np.array(result["classes"])
    accuracy = {p["labels"]: 100 * p["accuracy"] for p in result["curve"]}
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.4), layout="constrained")
    for ax, n in zip(axes.flat, (4, 5, 6, 7, 8, 9, 10, 12), strict=True):
        if n not in accuracy:
            ax.axis("off")
            continue
        plot_pool(ax, pool, f"{n} labels: {accuracy[n]:.1f} %")
        ax.scatter(*points[:n].T, s=40, c=COLOURS[classes[:n]], edgecolors="k", linewidths=0.8)
        if n < len(points):
            ax.scatter(
                *points[n], s=110, facecolors="none", edgecolors=style.HIGHLIGHT, linewidths=1.6
            )
    figure.suptitle("SSLAPD asks for the label of the point with the highest entropy (ring)")
    plots.save(figure, path)


def plot_pool(ax: Any, points: Any, title: str) -> None:
    ax.scatter(*np.array(points).T, s=2, color="0.75", linewidths=0)
    frame(ax, WINDOW)
    ax.set(title=title)


def plot_functions(result: Result, path: Path) -> None:
    """Figures 5.8 and 5.9: acquisition functions over the plane, and what they pick from the pool
    by three seeds.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        4, len(FUNCTIONS), figsize=(3.4 * len(FUNCTIONS), 9), layout="constrained"
    )
    colours = COLOURS[result["classes"]]
    for column, name in enumerate(FUNCTIONS):
        values = np.array(result["grid"][name])
        values = values.reshape(2 * [math.isqrt(len(values))]).T
        ax = axes[0, column]
        picture = ax.imshow(values, origin="lower", extent=WINDOW, aspect="auto", cmap="viridis")
        figure.colorbar(
            picture, ax=ax, label="nats" if name != "variation_ratios" else "probability"
        )
        ax.scatter(*np.array(result["labeled"]).T, s=40, c=colours, edgecolors="w")
        ax.set(xticks=[], yticks=[], title=TITLES[name])
        for row, picks in enumerate(result["picks"][name], 1):
            ax = axes[row, column]
            plot_pool(ax, result["pool"], f"five chosen points, seed {row - 1}")
            ax.scatter(
                *np.array(result["labeled"]).T, s=25, c=colours, edgecolors="k", linewidths=0.6
            )
            ax.scatter(
                *np.array(picks).T,
                s=60,
                facecolors="none",
                edgecolors=style.HIGHLIGHT,
                linewidths=1.4,
            )
    plots.save(figure, path)


STUDY = Study(
    "active_learning",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "parts": Selection("part", PARTS, "parts of the study to run"),
        "data": Selection("data", tuple(IMAGE_SETS), "image sets to run"),
        "rows": Selection("row", tuple(ROWS), "rows of the tables to run"),
    },
    arrays=["grid", "pool"],
)

if __name__ == "__main__":
    main(STUDY, __doc__)
