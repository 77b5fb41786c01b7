"""What a latent code is worth to a classifier: paper 001's Tables 1 and 2, Figures 1 to 3, on
Fashion-MNIST.

python experiments/vae_downstream.py --data-root DATA [--scale smoke|cpu|paper] [--draws 0 1 2 3 4]
[--rows z2 z4 z9 z16 z25 ours ours_mlp pixels cnn m2 mier latent_classifier] [--sizes 100 1000]
[--workers 2]
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_runs import hold_out, images, trained
from pages import mean_sd, published, table, where
from panels import COLOURS, side_by_side
from results_table import Result, Results
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC
from study import DEVELOPMENT, Config, Selection, Study, main, resolved
from torch import Tensor

from pyro_ssl import (
    Dataset,
    Objective,
    draw_labels,
    eval_mode,
    predict_proba,
    reconstruct,
)
from pyro_ssl.evaluation import metrics, plots

Codes = tuple[Tensor, Tensor]
"""Codes of the training and of the test images, `(N, Z)`, or `(N, S, Z)` for S samples each."""

SIZES = (100, 1000, 2000, 5000, 10_000, 20_000, 50_000)
CODE_PROBES = ("logistic", "network", "neighbours", "svm")
PROBES = (*CODE_PROBES, "spreading")
LARGEST = {"svm": 10_000, "spreading": 5000}
"""Most labels of a probe; an SVM's time grows with their square."""
SAMPLES = 8
SAMPLED = 100
"""Most labels with which codes are sampled too."""
CONV: dict[str, Any] = {
    "network": "conv",
    "channels": (32, 64, 64),
    "hidden": (256,),
    "activation": "relu",
}
SEMI: dict[str, Any] = {
    "classifier_network": "conv",
    "channels": (16, 32, 64),
    "warp": 0.1,
    "flip": True,
    "consistency": 1.0,
    "labeled_weight": None,
}
MLP_VAE: dict[str, Any] = {"hidden": (500,), "activation": "relu", "z_dim": 30, "sigma": 0.3}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"z{z}": ("vae", CONV | {"z_dim": z, "likelihood": "bernoulli"}) for z in (2, 4, 9, 16, 25)},
    "ours": ("vae", CONV | {"z_dim": 100, "likelihood": "gaussian", "sigma": 0.1}),
    "ours_mlp": ("vae", MLP_VAE | {"likelihood": "gaussian"}),
    "pixels": ("", {}),
    "cnn": ("classifier", {"backbone": "cnn-16", "noise": 0.0, "dropout": 0.3}),
    "m2": ("m2", SEMI),
    "mier": ("m2", SEMI | {"balance": 0.0, "entropy": 5.0, "mutual_information": 1.0}),
    "latent_classifier": (
        "latent_classifier",
        SEMI | {"alpha": 20.0, "balance": 5.0, "noise": 0.3, "dropout": 0.3},
    ),
}
IMAGE_ROWS = ("cnn", "m2", "mier", "latent_classifier")
"""Rows that classify images, not codes."""
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"epochs": 1, "ours": 1, "steps": 2, "semi": 1, "rows": 300, "sizes": (100,)},
    "cpu": {"epochs": 20, "ours": 15, "steps": 3000, "semi": 8, "sizes": SIZES},
    "paper": {"epochs": 100, "ours": 100, "steps": 20_000, "semi": 60, "sizes": SIZES},
}
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4], "paper": [0, 1, 2, 3, 4]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    made = {}
    for draw in draws:
        for row in ROWS:
            if row == "z2" and draw != draws[0]:  # it is there for its pictures
                continue
            if row in IMAGE_ROWS:
                for n in SCALES[scale]["sizes"]:
                    made[f"{row}_{n}_{draw}"] = configure(row, draw, scale, n)
            else:
                made[f"{row}_{draw}"] = configure(row, draw, scale)
    return made


def configure(row: str, draw: int, scale: str, labels: int = 0) -> Config:
    method, options = ROWS[row]
    sizes = SCALES[scale]
    config: Config = {
        "row": row,
        "data": "fashion_mnist",
        "draw": draw,
        "labels": labels,
        "probes": list(sizes["sizes"]),
    }
    if "rows" in sizes:
        config["rows"] = sizes["rows"]
    if not method:
        return config
    return config | {
        "method": method,
        "options": resolved(method, options),
        "training": training(row, scale, labels),
    }


def training(row: str, scale: str, labels: int) -> dict[str, Any]:
    """Training settings of a row, with about as many steps whatever the number of labels."""
    sizes = SCALES[scale]
    if row == "cnn":
        batch = min(100, labels)
        epochs = max(15, min(sizes["steps"] * batch // labels, 1000))
        epochs = 1 if scale == "smoke" else epochs
        return {"epochs": epochs, "labeled_batch_size": batch, "lr": 3e-3, "ema": 0.99}
    if row in IMAGE_ROWS:
        pool = sizes.get("rows", 60_000)
        steps = max(1, (pool - labels) // 200, labels // 100)  # of an epoch
        epochs = round(sizes["semi"] * (pool // 200) / steps)
        return {
            "epochs": epochs,
            "batch_size": 200,
            "labeled_batch_size": 100,
            "lr": 3e-3,
            "ema": 0.999,
        }
    ours = row.startswith("ours")
    return {
        "epochs": sizes["ours" if ours else "epochs"],
        "batch_size": 200,
        "lr": 1e-3 if ours else 3e-3,
    }


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Measure a classifier of images, or all probes on the code of a VAE."""
    dataset, labels = images(config)
    if config["draw"] >= DEVELOPMENT:
        dataset, labels = hold_out(dataset, labels)
    if config["row"] in IMAGE_ROWS:
        objective, _, _, _ = trained(config, directory, (dataset, labels))
        result = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
        known = labels >= 0
        of_training = predict_proba(objective, dataset.x[known])
        return result | {"training_accuracy": metrics.accuracy(of_training, dataset.y[known])}
    if config["row"] == "pixels":
        codes = {"mean": (dataset.x.flatten(1), dataset.x_test.flatten(1))}
    else:
        unlabeled = torch.full_like(dataset.y, -1)
        objective, _, _, _ = trained(config, directory, (dataset, unlabeled))
        codes = encoded(objective, dataset, config["draw"])
        save_pictures(objective, dataset, codes["mean"][0], config, pictures)
    return {"probes": list(_probe_results(dataset, codes, config))}


def _probe_results(dataset: Dataset, codes: dict[str, Codes], config: Config) -> Any:
    graph = neighbours(codes["mean"])
    for n in config["probes"]:
        draw = draw_labels(dataset.y, n, seed=config["draw"])
        if n <= LARGEST["spreading"]:
            accuracies = spread(dataset, graph, draw.masked_labels(dataset.y))
            yield {"labels": n, "probe": "spreading", "code": "mean", **accuracies}
        for probe, kind in product(CODE_PROBES, codes if n <= SAMPLED else ("mean",)):
            if n <= LARGEST.get(probe, n):
                accuracies = measured(
                    probe, dataset, codes[kind], list(draw.indices), config["draw"]
                )
                yield {"labels": n, "probe": probe, "code": kind, **accuracies}


def encoded(objective: Any, dataset: Dataset, seed: int) -> dict[str, Codes]:
    """Means of q(z|x), a sample of it, and several samples."""
    generator = torch.Generator().manual_seed(seed)
    means, samples = [], []
    for x in (dataset.x, dataset.x_test):
        with eval_mode(objective):
            q = [objective.guide.q_z(part) for part in x.split(1024)]
        mean = torch.cat([part.mean for part in q])
        scale = torch.cat([part.variance for part in q]).sqrt()
        noise = torch.randn(len(mean), SAMPLES, mean.shape[-1], generator=generator)
        means.append(mean)
        samples.append(mean[:, None] + scale[:, None] * noise)
    return {
        "mean": (means[0], means[1]),
        "sample": (samples[0][:, 0], samples[1][:, 0]),
        "samples": (samples[0], samples[1]),
    }


def measured(
    probe: str, dataset: Dataset, codes: Codes, rows: list[int], seed: int
) -> dict[str, float]:
    """Fit a probe to some rows; give its accuracy on the test images and on these rows."""
    own, test, y = codes[0][rows], codes[1], dataset.y[rows]
    several = own.shape[1] if own.dim() == 3 else 1
    unit = codes[0].std()  # one scale for all dimensions, so that an unused one is not made larger
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = new_probe(probe, len(rows), several, seed)
        model.fit((own / unit).flatten(0, -2).numpy(), y.repeat_interleave(several).numpy())

    def accuracy(z: Tensor, y: Tensor) -> float:
        p = model.predict_proba((z / unit).flatten(0, -2).numpy())
        return float((p.reshape(len(y), several, -1).mean(1).argmax(-1) == y.numpy()).mean())

    return {"accuracy": accuracy(test, dataset.y_test), "training_accuracy": accuracy(own, y)}


def new_probe(probe: str, n: int, several: int, seed: int) -> Any:
    """A probe for n labels; several samples of a code weigh as one, in penalties and in the
    network's steps.
    """
    if probe == "logistic":
        return LogisticRegression(C=1 / several, max_iter=200)
    if probe == "network":
        epochs = max(10, min(200, 300_000 // n))
        return MLPClassifier(
            (128, 128), alpha=1e-3, max_iter=max(1, epochs // several), random_state=seed
        )
    if probe == "neighbours":
        return KNeighborsClassifier(5 if n > 100 else 3)
    return _Votes(SVC(C=3.0 / several))


class _Votes:
    """An SVM with one-hot votes for probabilities: its own ones would take further SVMs to fit."""

    def __init__(self, model: SVC) -> None:
        self.model = model

    def fit(self, z: np.ndarray, y: np.ndarray) -> _Votes:
        self.model.fit(z, y)
        return self

    def predict_proba(self, z: np.ndarray) -> np.ndarray:
        return np.eye(len(self.model.classes_))[
            np.searchsorted(self.model.classes_, self.model.predict(z))
        ]


def neighbours(codes: Codes) -> tuple[Any, np.ndarray]:
    """Find the ten nearest codes by angle: a graph of the training images, and indices for the test
    images.
    """
    own, test = (torch.nn.functional.normalize(z, dim=1).numpy() for z in codes)
    near = NearestNeighbors(n_neighbors=10).fit(own)
    return near.kneighbors_graph(own), near.kneighbors(test, return_distance=False)


def spread(dataset: Dataset, graph: tuple[Any, np.ndarray], labels: Tensor) -> dict[str, float]:
    """Spread labels over the graph of training images; a test image has the class of its
    neighbours.
    """
    of_training, of_test = graph
    model = LabelSpreading(kernel=lambda *_: of_training, alpha=0.99, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.zeros((len(labels), 1)), labels.numpy())  # the graph stands for the codes
    predicted = model.classes_[model.label_distributions_[of_test].sum(1).argmax(-1)]
    rows = (labels >= 0).numpy()
    return {
        "accuracy": float((predicted == dataset.y_test.numpy()).mean()),
        "training_accuracy": float((model.transduction_[rows] == labels.numpy()[rows]).mean()),
    }


def save_pictures(
    objective: Objective, dataset: Dataset, z: Tensor, config: Config, pictures: Path
) -> None:
    """Figures 1 and 2, of draw 0: codes in the plane, and the first ten images beside their
    reconstructions.
    """
    if config["draw"]:
        return
    import matplotlib.pyplot as plt

    x = dataset.x[:10]
    again = reconstruct(objective, x)
    picture = plots.image_grid(torch.stack([x, again]).transpose(0, 1))
    plots.save(picture, pictures / f"reconstructions_{config['row']}.png")
    if z.shape[1] != 2:
        return
    figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    for k, name in enumerate(dataset.classes):
        own = z[:5000][dataset.y[:5000] == k]
        ax.scatter(*own.T.numpy(), s=4, color=COLOURS[k], label=name, linewidths=0)
    ax.set(xlabel="$z_1$", ylabel="$z_2$")
    ax.legend(frameon=False, fontsize=8, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    plots.save(figure, pictures / "plane.png")


# --- tables and pictures ----------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    codes = {row: where(results, row=row) for row in ROWS if row not in IMAGE_ROWS}
    codes = {row: mine for row, mine in codes.items() if mine}
    plot_labels(results, codes, pictures / "labels.png")
    grids = {f"z = {z}": pictures / f"reconstructions_z{z}.png" for z in (2, 4, 25)}
    side_by_side(grids, pictures / "reconstructions.png", "images and their reconstructions")
    return {
        "size of the code": by_size_of_code(codes),
        "number of labels": by_labels(results, codes),
        "kind of code": by_kind(codes),
        "claims": claims(results, codes),
    }


def probed(
    mine: list[Result], n: int, probe: str, code: str = "mean", measure: str = "accuracy"
) -> list[float]:
    """Percentages of a probe, by draw."""
    key = (n, probe, code)
    return [
        100 * p[measure]
        for r in mine
        for p in r["probes"]
        if (p["labels"], p["probe"], p["code"]) == key
    ]


def classified(results: Results, row: str, n: int) -> list[float]:
    """Percentages of a classifier of images, by draw."""
    return [100 * r["accuracy"] for r in where(results, row=row) if r["config"]["labels"] == n]


def _cell(values: list[float]) -> str:
    return mean_sd(values) if values else ""


def by_size_of_code(codes: dict[str, list[Result]]) -> str:
    """Table 1: 100 labels."""
    theirs = published("vae_downstream", "100 labels")
    rows = []
    for row, mine in codes.items():
        if row == "pixels":
            continue
        z = mine[0]["config"]["options"]["z_dim"]
        cells = [_cell(probed(mine, 100, probe)) for probe in PROBES]
        paper = [
            f"{probe} {theirs[key]}" for probe in PROBES if (key := f"z = {z}, {probe}") in theirs
        ]
        rows.append((f"{row}, z = {z}", len(mine), *cells, ", ".join(paper)))
    if not rows:
        return ""
    return table(
        ("Fashion-MNIST, 100 labels, accuracy % on means of codes", "draws", *PROBES, "paper 001"),
        rows,
    )


def by_labels(results: Results, codes: dict[str, list[Result]]) -> str:
    """Table 2."""
    rows: list[tuple[Any, ...]] = []
    sizes = sorted({n for r in results.values() for n in r["config"]["probes"]})

    def published_row(title: str, probe: str) -> tuple[str, ...]:
        theirs = published("vae_downstream", probe)
        return (title, *(theirs.get(str(n), "") for n in sizes))

    for row in ("z4", "ours", "ours_mlp", "pixels"):
        for probe in PROBES if row in codes else ():
            rows.append((f"{row}, {probe}", *(_cell(probed(codes[row], n, probe)) for n in sizes)))
            if row == "z4" and probe in ("logistic", "network"):
                rows.append(published_row(f"paper 001, VAE + {probe}", probe))
    for row in IMAGE_ROWS:
        by_size = [classified(results, row, n) for n in sizes]
        if any(by_size):
            rows.append((row, *map(_cell, by_size)))
            if row == "cnn":
                rows.append(published_row("paper 001, CNN", "cnn"))
    return table(("Fashion-MNIST, accuracy % by labels", *sizes), rows) if rows else ""


def by_kind(codes: dict[str, list[Result]]) -> str:
    """Means of codes, one sample, several samples."""
    rows = []
    for row in ("z4", "z25", "ours"):
        for probe in CODE_PROBES if row in codes else ():
            kinds = [probed(codes[row], 100, probe, kind) for kind in ("mean", "sample", "samples")]
            if all(kinds):
                rows.append((f"{row}, {probe}", *map(mean_sd, kinds)))
    if not rows:
        return ""
    return table(
        ("100 labels, accuracy %", "mean of q(z|x)", "one sample", f"{SAMPLES} samples"), rows
    )


def claims(results: Results, codes: dict[str, list[Result]]) -> str:
    """The paper's claims, held against the numbers here."""
    rows = [*_falls_with_size(codes), *_cnn_wins(results, codes), *_gaps(codes)]
    return table(("the paper's claim", "here", "points"), rows) if rows else ""


def _falls_with_size(codes: dict[str, list[Result]]) -> list[tuple[str, str, str]]:
    rows = []
    for probe in ("logistic", "network"):
        by_size = {z: probed(codes.get(f"z{z}", []), 100, probe) for z in (4, 9, 16, 25)}
        if not all(by_size.values()):
            continue
        means = [statistics.fmean(values) for values in by_size.values()]
        falls = all(a > b for a, b in pairwise(means))
        shown = ", ".join(f"z = {z}: {mean_sd(values, 1)}" for z, values in by_size.items())
        rows.append(
            (f"accuracy falls with z ({probe}, 100 labels)", "yes" if falls else "no", shown)
        )
    return rows


def _cnn_wins(results: Results, codes: dict[str, list[Result]]) -> list[tuple[str, str, str]]:
    rows = []
    cnn = {n: classified(results, "cnn", n) for n in SIZES}
    for row in ("z4", "ours", "ours_mlp"):
        by_size = {n: [v for p in PROBES if (v := probed(codes.get(row, []), n, p))] for n in SIZES}
        if not all(cnn.values()) or not all(by_size.values()):
            continue
        best = {n: max(statistics.fmean(values) for values in by_size[n]) for n in SIZES}
        ahead = {n: statistics.fmean(cnn[n]) - best[n] for n in SIZES}
        wins = "yes" if min(ahead.values()) > 0 else "no"
        shown = ", ".join(f"{n}: {v:+.1f}" for n, v in ahead.items())
        points = f"points over the probe that is best on the test set, by labels: {shown}"
        rows.append((f"the CNN is always better than probes ({row})", wins, points))
    return rows


def _gaps(codes: dict[str, list[Result]]) -> list[tuple[str, str, str]]:
    if "z4" not in codes:
        return []
    rows = []
    sizes = codes["z4"][0]["config"]["probes"]
    for probe in ("logistic", "network"):
        gaps = []
        for n in sizes:
            of_training = probed(codes["z4"], n, probe, measure="training_accuracy")
            of_test = probed(codes["z4"], n, probe)
            gaps.append(f"{statistics.fmean(of_training) - statistics.fmean(of_test):.1f}")
        shown = f"{', '.join(gaps)} points, by labels"
        rows.append((f"VAE + {probe}: training less test accuracy, z = 4", "", shown))
    return rows


def plot_labels(results: Results, codes: dict[str, list[Result]], path: Path) -> None:
    """Figure 3: accuracy against labels, the mean of the draws and their range."""
    import matplotlib.pyplot as plt

    lines: dict[str, tuple[list[int], list[list[float]]]] = {}
    for row, title in (("z4", "z = 4"), ("ours", "z = 100")):
        for probe in ("logistic", "network") if row in codes else ():
            sizes = codes[row][0]["config"]["probes"]
            lines[f"{title}, {probe}"] = sizes, [probed(codes[row], n, probe) for n in sizes]
    sizes = sorted({r["config"]["labels"] for r in where(results, row="cnn")})
    if sizes:
        lines["CNN"] = sizes, [classified(results, "cnn", n) for n in sizes]
    if not lines:
        return
    figure, ax = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
    for i, (name, (sizes, values)) in enumerate(lines.items()):
        means = [statistics.fmean(v) for v in values]
        below = [mean - min(v) for mean, v in zip(means, values, strict=True)]
        above = [max(v) - mean for mean, v in zip(means, values, strict=True)]
        ax.errorbar(
            sizes, means, [below, above], fmt="o-", markersize=3, color=COLOURS[i], label=name
        )
    for i, probe in ((0, "logistic"), (1, "network"), (4, "cnn")):
        theirs = published("vae_downstream", probe)
        values = [float(v) for v in theirs.values()]
        name = "CNN" if probe == "cnn" else f"z = 4, {probe}"
        ax.plot(
            [int(n) for n in theirs],
            values,
            "--",
            color=COLOURS[i],
            linewidth=0.8,
            label=f"paper 001: {name}",
        )
    ax.set(xscale="log", xlabel="labels", ylabel="accuracy %")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    plots.save(figure, path)


STUDY = Study(
    "vae_downstream",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "rows": Selection("row", tuple(ROWS), "rows of the tables"),
        "sizes": Selection("labels", SIZES, "numbers of labels of classifiers of images"),
    },
)

if __name__ == "__main__":
    main(STUDY, __doc__)
