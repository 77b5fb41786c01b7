"""Paper 003 in the plane: circles (Figures 3 and 4) and two moons with vector fields (supplement 8 to 11).

    python experiments/latent_plane.py [--scale smoke|cpu|paper] [--draws 0] [--workers 2] [--parts circles moons]

- circles: 50 labels of 10,000; M2 with a code of one dimension and alpha 0.1, by the likelihood's sigma^2; beside it the same
  classifier on the labels alone.
- moons: M2 by its generative loss alone, alpha = 0, with six labels: while the KL is being annealed, at 70 % of its weight, and
  with all of it; reconstructions, q(y|x), the softmax of minus the reconstruction loss, and where each point is moved to.

Networks as in the paper: a classifier with one layer of 50, encoder and decoder with three. `cpu` is 60 epochs, `paper` 500.
Only what is missing is run. Writes to `experiments/results/latent_plane`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Results, arguments, draws_of, parsed, resolved, sources, study, table, where

from pyro_ssl import class_bounds, data, predict_proba, reconstruct, zoo
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.training import fit

PLANE: dict[str, Any] = {
    "hidden": (50, 50, 50),
    "classifier_hidden": (50,),
    "z_dim": 1,
    "activation": "relu",
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
}
SIGMAS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0)  # standard deviations
SCALES = {"smoke": 1, "cpu": 60, "paper": 500}  # epochs
WINDOW = {"circles": (-1.5, 1.5, -1.5, 1.5), "moons": (-1.6, 2.6, -1.1, 1.6)}
PARTS = ("circles", "moons")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    given = parsed(parser)
    (draws, asked), epochs = draws_of(given, [0]), SCALES[given.scale]
    configs: dict[str, dict[str, Any]] = {}
    for draw in draws:
        configs[f"circles_classifier_{draw}"] = configure("circles", "classifier", draw, given.scale, hidden=(50,))
        for sigma in (0.1, 1.0) if given.scale == "smoke" else SIGMAS:
            chosen = {"sigma": sigma, "alpha": 0.1}
            configs[f"circles_m2_{sigma:g}_{draw}"] = configure("circles", "m2", draw, given.scale, **chosen)
        for kind, warmup in (("annealed", epochs / 0.7), ("full", epochs * 0.7)):
            chosen = {"sigma": 0.2, "alpha": 0.0, "z_dim": 1}
            config = configure("moons", "m2", draw, given.scale, **chosen)
            config["training"]["warmup"] = warmup
            configs[f"moons_m2_{kind}_{draw}"] = config | {"kind": kind}
    results = study(configs, run, given, lambda c: c["data"] in given.parts and c["draw"] in asked)
    report(results, given.out)


def configure(name: str, method: str, draw: int, scale: str, **options: Any) -> dict[str, Any]:
    training: dict[str, Any] = {"batch_size": 100, "labeled_batch_size": 50, "lr": 3e-3, "ema": 0.99}
    return {
        "data": name, "method": method, "draw": draw, "points": 200 if scale == "smoke" else 10_000,
        "options": resolved(method, PLANE | options),
        "training": training | {"epochs": SCALES[scale] * (10 if method == "classifier" else 1)},
    }  # fmt: skip


def points(config: dict[str, Any]) -> tuple[data.Dataset, torch.Tensor]:
    """Circles with 25 labels of each, or moons with 3."""
    circles = config["data"] == "circles"
    dataset = (data.circles if circles else data.two_moons)(config["points"], config["points"], seed=config["draw"])
    return dataset, data.draw_labels(dataset.y, per_class=25 if circles else 3, seed=config["draw"]).codes(dataset.y)


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """Accuracy, reconstruction, and what the figures draw."""
    dataset, codes = points(config)
    objective = zoo.build(config["method"], (2,), 2, seed=config["draw"], **config["options"])
    history = fit(
        objective, dataset.x, codes, seed=config["draw"], directory=directory, resume=True, identity=config,
        **config["training"],
    )  # fmt: skip
    grid = plane(config["data"])
    result: dict[str, Any] = {
        **metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test),
        "seconds": history["seconds"][-1],
        "plane": [round(100 * p) for p in predict_proba(objective, grid)[:, 1].tolist()],
    }
    if objective.model is None:
        return result
    scores = class_bounds(objective, grid, only=("x",), num_particles=8).softmax(-1)
    return (
        result
        | moved(objective, dataset, config["data"])
        | {"by_loss": [round(100 * p) for p in scores[:, 1].tolist()]}
    )


def moved(objective: Any, dataset: data.Dataset, name: str) -> dict[str, Any]:
    """Test points as they are reconstructed under their likeliest class, and where a grid is moved under each class."""
    x, coarse = dataset.x_test[:1000], plane(name, 16)
    y = torch.eye(2)[predict_proba(objective, x).argmax(-1)]
    again = reconstruct(objective, x, y)
    fields = [reconstruct(objective, coarse, e) - coarse for e in torch.eye(2)]
    shown = torch.cat([again, y[:, 1:]], 1)
    return {
        "squared_error": float((again - x).square().sum(-1).mean()),
        "reconstructions": shown.round(decimals=3).tolist(),
        "fields": [f.round(decimals=3).tolist() for f in fields],
    }


def plane(name: str, resolution: int = 50) -> torch.Tensor:
    a, b, c, d = WINDOW[name]
    return torch.cartesian_prod(torch.linspace(a, b, resolution), torch.linspace(c, d, resolution))


# --- tables and figures -----------------------------------------------------------------------------------------------


def report(results: Results, out: Path) -> None:
    """A table, and the figures of what is there."""
    rows = []
    for r in where(results):
        c = r["config"]
        kind = c.get("kind") or (f"sigma {c['options']['sigma']:g}" if c["method"] == "m2" else "labels alone")
        error = f"{r['squared_error']:.4f}" if "squared_error" in r else ""
        rows.append(
            (c["data"], c["draw"], c["method"], kind, f"{100 * r['accuracy']:.2f}", error, f"{r['seconds']:.0f}")
        )
    header = ("data", "draw", "method", "", "accuracy %", "squared error", "s a run")
    text = table(header, rows) + f"\n\nOne thread a run; no validation labels. {sources(results)}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)
    first = min((r["config"]["draw"] for r in results.values()), default=0)
    if circles := where(results, data="circles", method="m2", draw=first):
        sweep(circles, out)
        compare(circles, where(results, data="circles", method="classifier", draw=first), out)
    if moons := where(results, data="moons", draw=first):
        fields(moons, out)


def sweep(circles: list[dict[str, Any]], out: Path) -> None:
    """Figure 4: reconstruction loss and accuracy by sigma^2."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
    found = sorted((r["config"]["options"]["sigma"] ** 2, r["squared_error"], 100 * r["accuracy"]) for r in circles)
    sigma, error, accuracy = zip(*found, strict=True)
    lines = [*ax.plot(sigma, error, "o-", color=plots.COLOURS[0], label="squared error")]
    ax.set(xscale="log", xlabel="sigma^2")
    ax.set_ylabel("squared error of reconstructions", color=plots.COLOURS[0])
    other = ax.twinx()
    lines += other.plot(sigma, accuracy, "s-", color=plots.COLOURS[1], label="accuracy")
    other.set_ylabel("accuracy %", color=plots.COLOURS[1])
    figure.legend(handles=lines, frameon=False, ncols=2, loc="outside upper center")
    plots.save(figure, out / "sigma.png")


def compare(circles: list[dict[str, Any]], supervised: list[dict[str, Any]], out: Path) -> None:
    """Figure 3: data, reconstructions and classifiers, with sigma = 1 and the sigma of best reconstruction."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.6), layout="constrained")
    config = circles[0]["config"]
    dataset, codes = points(config)
    known, colours = codes >= 0, np.array(plots.COLOURS)
    axes[0][0].scatter(*dataset.x[~known].T, s=2, c="0.8", linewidths=0)
    axes[0][0].scatter(*dataset.x[known].T, s=12, c=colours[codes[known].numpy()])
    axes[0][0].set(title="50 labels of 10,000 points")
    one = [r for r in circles if r["config"]["options"]["sigma"] == 1.0]
    best = min(circles, key=lambda r: r["squared_error"])
    for column, r in zip((1, 2), [*one, best], strict=False):
        sigma = r["config"]["options"]["sigma"]
        dots(axes[0][column], r, f"reconstructions, sigma {sigma:g}")
        region(axes[1][column], r["plane"], "circles", f"sigma {sigma:g}: {100 * r['accuracy']:.1f} %")
    for r in supervised:
        region(axes[1][0], r["plane"], "circles", f"labels alone: {100 * r['accuracy']:.1f} %")
    frame(axes, "circles")
    plots.save(figure, out / "circles.png")


def fields(moons: list[dict[str, Any]], out: Path) -> None:
    """Supplement 8 and 10, with 9 and 11 beside them."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(moons), 7, figsize=(18, 2.8 * len(moons)), squeeze=False, layout="constrained")
    dataset, _ = points(moons[0]["config"])
    coarse, colours = plane("moons", 16), np.array(plots.COLOURS)
    for row, r in zip(axes, moons, strict=True):
        row[0].scatter(*dataset.x[::5].T, s=2, c=colours[dataset.y[::5].numpy()], linewidths=0)
        row[0].set(title="data", ylabel=f"{r['config']['kind']} KL")
        dots(row[1], r, "reconstructions")
        region(row[2], r["plane"], "moons", f"q(y|x): {100 * r['accuracy']:.1f} %")
        region(row[3], r["by_loss"], "moons", "by reconstruction loss")
        for ax, classes, title in zip(row[4:], ([0], [1], [0, 1]), ("as class 0", "as class 1", "both"), strict=True):
            ax.scatter(*dataset.x[::5].T, s=1, c="0.85", linewidths=0)
            for k in classes:  # a third of their length, so that they do not cover the panel
                arrows = np.array(r["fields"][k])
                ax.quiver(*coarse.T, *arrows.T, color=colours[k], angles="xy", scale_units="xy", scale=3, width=0.004)
            ax.set(title=title)
    frame(axes, "moons")
    plots.save(figure, out / "moons.png")


def dots(ax: Any, r: dict[str, Any], title: str) -> None:
    found = np.array(r["reconstructions"])
    ax.scatter(*found[:, :2].T, s=4, c=np.array(plots.COLOURS)[found[:, 2].astype(int)], linewidths=0)
    ax.set(title=title)


def region(ax: Any, values: list[int], name: str, title: str) -> None:
    n = round(len(values) ** 0.5)
    picture = np.array(values).reshape(n, n).T / 100
    ax.imshow(picture, origin="lower", extent=WINDOW[name], aspect="auto", cmap="coolwarm", vmin=0, vmax=1, alpha=0.8)
    ax.set(title=title)


def frame(axes: Any, name: str) -> None:
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], xlim=WINDOW[name][:2], ylim=WINDOW[name][2:])


if __name__ == "__main__":
    main()
