"""Classifiers on the latents of a VAE on Fashion-MNIST: paper 001's Tables 1 and 2.

It shows accuracy by latent dimension and by number of labels, reconstructions, and latents in the
plane (Figures 1 to 3).

`python experiments/vae_downstream.py --help` explains every option.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_runs import hold_out, images, trained
from pages import mean_sd, published, table, where
from panels import COLOURS, image_rows
from results_table import Result, Results
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC
from study import DEVELOPMENT, Config, Selection, Study, main, of_preset, resolved
from torch import Tensor

from pyro_ssl import (
    Dataset,
    Objective,
    data,
    draw_labels,
    eval_mode,
    predict_proba,
    reconstruct,
)
from pyro_ssl.evaluation import metrics, plots, style

Latents = tuple[Tensor, Tensor]
"""Latents of the training and test images, `(N, Z)`, or `(N, S, Z)` for S samples of each."""

SIZES = (100, 1000, 2000, 5000, 10_000, 20_000, 50_000)
LATENT_PROBES = ("logistic", "network", "neighbours", "svm")
PROBES = (*LATENT_PROBES, "spreading")
PUBLISHED_PROBES = ("logistic", "network")
"""The probes in the paper."""
LINE_COLOURS = dict(
    zip(
        ("z = 4, logistic", "z = 4, network", "z = 100, logistic", "z = 100, network", "CNN"),
        style.COLOURS,
        strict=False,
    )
)
LARGEST = {"svm": 10_000, "spreading": 5000}
"""Largest number of labels for a probe; the time of an SVM grows with its square."""
SAMPLES = 8
SHOWN = 10
"""Number of images that are shown with their reconstructions."""
SAMPLED = 100
"""Largest number of labels for which probes are also fitted to sampled latents."""
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
    **{f"z{z}_paper": ("vae", {"z_dim": z}) for z in (4, 9, 16, 25)},
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
PRESET = "paper-001"
"""Settings of the rows with `_paper`, but for z_dim and, below scale paper, the epochs."""
IMAGE_ROWS = ("cnn", "m2", "mier", "latent_classifier")
"""Rows that classify images, not latents."""
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
            if row == "z2" and draw != draws[0]:  # it is only for the pictures
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
    if row.endswith("_paper"):
        return config | {"method": method} | _settings_of_paper(method, options, scale)
    return config | {
        "method": method,
        "options": resolved(method, options),
        "training": training(row, scale, labels),
    }


def _settings_of_paper(method: str, options: dict[str, Any], scale: str) -> Config:
    """The preset with these options; a smoke run has a small network."""
    changes = {} if scale == "paper" else {"epochs": SCALES[scale]["epochs"]}
    settings = of_preset(method, PRESET, **changes)
    small = {"channels": (2, 4), "hidden": (8,), "decoder_hidden": (8, 8)}
    settings["options"] |= options | (small if scale == "smoke" else {})
    return settings


def training(row: str, scale: str, labels: int) -> dict[str, Any]:
    """Return training settings with about the same number of steps for any number of labels."""
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
    """Measure an image classifier, or all probes on the latents of a VAE."""
    dataset, labels = images(config)
    if config["draw"] >= DEVELOPMENT:
        dataset, labels = hold_out(dataset, labels)
    if config["row"] in IMAGE_ROWS:
        objective, _, _, _ = trained(config, directory, (dataset, labels))
        result = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
        known = labels >= 0
        of_training = predict_proba(objective, dataset.x[known])
        return result | {"training_accuracy": metrics.accuracy(of_training, dataset.y[known])}
    shown: Result = {}
    if config["row"] == "pixels":
        latents = {"mean": (dataset.x.flatten(1), dataset.x_test.flatten(1))}
    else:
        unlabeled = torch.full_like(dataset.y, -1)
        objective, _, _, _ = trained(config, directory, (dataset, unlabeled))
        latents = encoded(objective, dataset, config["draw"])
        if config["draw"] == 0:
            shown = _figure_arrays(objective, dataset, latents["mean"][0])
    return {"probes": list(_probe_results(dataset, latents, config)), **shown}


def _probe_results(dataset: Dataset, latents: dict[str, Latents], config: Config) -> Any:
    graph = neighbours(latents["mean"])
    for n in config["probes"]:
        draw = draw_labels(dataset.y, n, seed=config["draw"])
        if n <= LARGEST["spreading"]:
            accuracies = spread(dataset, graph, draw.masked_labels(dataset.y))
            yield {"labels": n, "probe": "spreading", "latents": "mean", **accuracies}
        for probe, kind in product(LATENT_PROBES, latents if n <= SAMPLED else ("mean",)):
            if n <= LARGEST.get(probe, n):
                accuracies = measured(
                    probe, dataset, latents[kind], list(draw.indices), config["draw"]
                )
                yield {"labels": n, "probe": probe, "latents": kind, **accuracies}


def encoded(objective: Any, dataset: Dataset, seed: int) -> dict[str, Latents]:
    """Encode the images: means of q(z|x), one sample and several samples of each."""
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
    probe: str, dataset: Dataset, latents: Latents, rows: list[int], seed: int
) -> dict[str, float]:
    """Fit a probe to some rows; return its accuracy on the test images and on these rows."""
    own, test, y = latents[0][rows], latents[1], dataset.y[rows]
    samples = own.shape[1] if own.dim() == 3 else 1
    # one scale for all dimensions, so that unused dimensions are not magnified
    unit = latents[0].std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = new_probe(probe, len(rows), samples, seed)
        model.fit((own / unit).flatten(0, -2).numpy(), y.repeat_interleave(samples).numpy())

    def accuracy(z: Tensor, y: Tensor) -> float:
        p = model.predict_proba((z / unit).flatten(0, -2).numpy())
        return float((p.reshape(len(y), samples, -1).mean(1).argmax(-1) == y.numpy()).mean())

    return {"accuracy": accuracy(test, dataset.y_test), "training_accuracy": accuracy(own, y)}


def new_probe(probe: str, n: int, samples: int, seed: int) -> Any:
    """Make a probe for n labels.

    All samples of an image together weigh as much as one latent, in penalties and in the steps of
    the network.
    """
    if probe == "logistic":
        return LogisticRegression(C=1 / samples, max_iter=200)
    if probe == "network":
        epochs = max(10, min(200, 300_000 // n))
        return MLPClassifier(
            (128, 128), alpha=1e-3, max_iter=max(1, epochs // samples), random_state=seed
        )
    if probe == "neighbours":
        return KNeighborsClassifier(5 if n > 100 else 3)
    return _Votes(SVC(C=3.0 / samples))


class _Votes:
    """An SVM with one-hot votes as probabilities, since its own would need further SVMs."""

    def __init__(self, model: SVC) -> None:
        self.model = model

    def fit(self, z: np.ndarray, y: np.ndarray) -> _Votes:
        self.model.fit(z, y)
        return self

    def predict_proba(self, z: np.ndarray) -> np.ndarray:
        return np.eye(len(self.model.classes_))[
            np.searchsorted(self.model.classes_, self.model.predict(z))
        ]


def neighbours(latents: Latents) -> tuple[Any, np.ndarray]:
    """Find the ten nearest latents by angle.

    Returns:
        A graph of the training images, and indices of training images for the test images.
    """
    own, test = (torch.nn.functional.normalize(z, dim=1).numpy() for z in latents)
    near = NearestNeighbors(n_neighbors=10).fit(own)
    return near.kneighbors_graph(own), near.kneighbors(test, return_distance=False)


def spread(dataset: Dataset, graph: tuple[Any, np.ndarray], labels: Tensor) -> dict[str, float]:
    """Spread labels over the graph of training images, and measure the accuracy.

    A test image gets the class of its nearest training images.
    """
    of_training, of_test = graph
    model = LabelSpreading(kernel=lambda *_: of_training, alpha=0.99, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # the kernel returns the graph, whatever the data are
        model.fit(np.zeros((len(labels), 1)), labels.numpy())
    predicted = model.classes_[model.label_distributions_[of_test].sum(1).argmax(-1)]
    rows = (labels >= 0).numpy()
    return {
        "accuracy": float((predicted == dataset.y_test.numpy()).mean()),
        "training_accuracy": float((model.transduction_[rows] == labels.numpy()[rows]).mean()),
    }


def _figure_arrays(objective: Objective, dataset: Dataset, z: Tensor) -> Result:
    """Return arrays for Figures 1 and 2: images, reconstructions, and latents in the plane."""
    x = dataset.x[:SHOWN]
    images, reconstructions = (part.flatten(1).tolist() for part in (x, reconstruct(objective, x)))
    arrays: Result = {"images": images, "reconstructions": reconstructions}
    if z.shape[1] == 2:
        arrays |= {"plane": z[:5000].tolist(), "classes": dataset.y[:5000].tolist()}
    return arrays


# --- tables and pictures ----------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    latents = {row: where(results, row=row) for row in ROWS if row not in IMAGE_ROWS}
    latents = {row: mine for row, mine in latents.items() if mine}
    plot_labels(results, latents, pictures / "labels.png")
    plot_reconstructions(results, pictures / "reconstructions.png")
    plot_plane(results, pictures / "plane.png")
    return {
        "latent dimension": by_latent_dimension(latents),
        "number of labels": by_labels(results, latents),
        "means and samples": by_kind(latents),
        "claims": claims(results, latents),
    }


def probed(
    mine: list[Result], n: int, probe: str, kind: str = "mean", measure: str = "accuracy"
) -> list[float]:
    """Return the accuracies of a probe in percent, one per draw."""
    key = (n, probe, kind)
    return [
        100 * p[measure]
        for r in mine
        for p in r["probes"]
        if (p["labels"], p["probe"], p["latents"]) == key
    ]


def classified(results: Results, row: str, n: int) -> list[float]:
    """Return the accuracies of an image classifier in percent, one per draw."""
    return [100 * r["accuracy"] for r in where(results, row=row) if r["config"]["labels"] == n]


def _cell(values: list[float]) -> str:
    return mean_sd(values) if values else ""


def by_latent_dimension(latents: dict[str, list[Result]]) -> str:
    """Return Table 1: accuracy with 100 labels by latent dimension."""
    theirs = published("vae_downstream", "100 labels")
    rows = []
    for row, mine in latents.items():
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
        ("Fashion-MNIST, 100 labels, accuracy % on means of q(z|x)", "draws", *PROBES, "paper 001"),
        rows,
    )


def by_labels(results: Results, latents: dict[str, list[Result]]) -> str:
    """Return Table 2: accuracy by number of labels."""
    sizes = sorted({n for r in results.values() for n in r["config"]["probes"]})
    rows = [*_probe_rows(latents, sizes), *_image_rows(results, sizes)]
    if not rows:
        return ""
    return table(("Fashion-MNIST, accuracy % by labels", *sizes), rows)


def _probe_rows(
    latents: dict[str, list[Result]], sizes: Sequence[int]
) -> Iterator[tuple[str, ...]]:
    """Yield rows of probes on latents and pixels, each followed by the paper's numbers, if any."""
    for row in ("z4", "z4_paper", "ours", "ours_mlp", "pixels"):
        if row not in latents:
            continue
        for probe in PROBES:
            cells = [_cell(probed(latents[row], n, probe)) for n in sizes]
            yield (f"{row}, {probe}", *cells)
            if row == "z4" and probe in PUBLISHED_PROBES:
                yield _published_row(f"paper 001, VAE + {probe}", probe, sizes)


def _image_rows(results: Results, sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yield rows of image classifiers, with the paper's CNN below ours."""
    for row in IMAGE_ROWS:
        by_size = [classified(results, row, n) for n in sizes]
        if not any(by_size):
            continue
        yield (row, *map(_cell, by_size))
        if row == "cnn":
            yield _published_row("paper 001, CNN", "cnn", sizes)


def _published_row(title: str, row: str, sizes: Sequence[int]) -> tuple[str, ...]:
    theirs = published("vae_downstream", row)
    return (title, *(theirs.get(str(n), "") for n in sizes))


def by_kind(latents: dict[str, list[Result]]) -> str:
    """Compare probes on the means of q(z|x), on one sample, and on several samples."""
    rows = []
    for row in ("z4", "z25", "z4_paper", "z25_paper", "ours"):
        for probe in LATENT_PROBES if row in latents else ():
            kinds = [
                probed(latents[row], 100, probe, kind) for kind in ("mean", "sample", "samples")
            ]
            if all(kinds):
                rows.append((f"{row}, {probe}", *map(mean_sd, kinds)))
    if not rows:
        return ""
    return table(
        ("100 labels, accuracy %", "mean of q(z|x)", "one sample", f"{SAMPLES} samples"), rows
    )


def claims(results: Results, latents: dict[str, list[Result]]) -> str:
    """Compare the paper's claims with our numbers."""
    rows = [*_falls_with_size(latents), *_cnn_wins(results, latents), *_gaps(latents)]
    return table(("the paper's claim", "here", "points"), rows) if rows else ""


def _falls_with_size(latents: dict[str, list[Result]]) -> list[tuple[str, str, str]]:
    rows = []
    for probe, kind in product(("logistic", "network"), ("", "_paper")):
        by_size = {z: probed(latents.get(f"z{z}{kind}", []), 100, probe) for z in (4, 9, 16, 25)}
        if not all(by_size.values()):
            continue
        means = [statistics.fmean(values) for values in by_size.values()]
        falls = all(a > b for a, b in pairwise(means))
        shown = ", ".join(f"z = {z}: {mean_sd(values, 1)}" for z, values in by_size.items())
        settings = ", the preset's settings" if kind else ""
        claim = f"accuracy falls with z ({probe}, 100 labels{settings})"
        rows.append((claim, "yes" if falls else "no", shown))
    return rows


def _cnn_wins(results: Results, latents: dict[str, list[Result]]) -> list[tuple[str, str, str]]:
    cnn = {n: classified(results, "cnn", n) for n in SIZES}
    if not all(cnn.values()):
        return []
    rows = []
    for row in ("z4", "ours", "ours_mlp"):
        best = {n: _best_probe(latents.get(row, []), n) for n in SIZES}
        if None in best.values():
            continue
        ahead = {n: statistics.fmean(cnn[n]) - best[n] for n in SIZES}
        wins = "yes" if min(ahead.values()) > 0 else "no"
        shown = ", ".join(f"{n}: {v:+.1f}" for n, v in ahead.items())
        points = f"points over the probe that is best on the test set, by labels: {shown}"
        rows.append((f"the CNN is always better than probes ({row})", wins, points))
    return rows


def _best_probe(mine: list[Result], n: int) -> float | None:
    """Mean accuracy of the probe that is best on the test set; None if there are none."""
    by_probe = [probed(mine, n, probe) for probe in PROBES]
    return max((statistics.fmean(values) for values in by_probe if values), default=None)


def _gaps(latents: dict[str, list[Result]]) -> list[tuple[str, str, str]]:
    if "z4" not in latents:
        return []
    rows = []
    sizes = latents["z4"][0]["config"]["probes"]
    for probe in ("logistic", "network"):
        gaps = []
        for n in sizes:
            of_training = probed(latents["z4"], n, probe, measure="training_accuracy")
            of_test = probed(latents["z4"], n, probe)
            gaps.append(f"{statistics.fmean(of_training) - statistics.fmean(of_test):.1f}")
        shown = f"{', '.join(gaps)} points, by labels"
        rows.append((f"VAE + {probe}: training minus test accuracy, z = 4", "", shown))
    return rows


@dataclass(frozen=True)
class Line:
    """Accuracies of one classifier in percent: for each number of labels, one value per draw."""

    name: str
    colour: str
    labels: Sequence[int]
    values: Sequence[Sequence[float]]


def plot_labels(results: Results, latents: dict[str, list[Result]], path: Path) -> None:
    """Plot Figure 3: accuracy by number of labels, mean and range over the draws."""
    import matplotlib.pyplot as plt

    lines = [*_probe_lines(latents), *_cnn_line(results)]
    if not lines:
        return
    figure, ax = plt.subplots(figsize=(6.6, 3.8))
    for line in lines:
        _plot_line(ax, line)
    for line in _published_lines():
        ax.plot(line.labels, line.values, "--", color=line.colour, linewidth=0.8, label=line.name)
    ax.set(xscale="log", xlabel="labels", ylabel="accuracy %")
    style.legend_beside(ax)
    plots.save(figure, path)


def _probe_lines(latents: dict[str, list[Result]]) -> Iterator[Line]:
    """Yield our probes on latents with 4 and with 100 dimensions."""
    for row, title in (("z4", "z = 4"), ("ours", "z = 100")):
        if row not in latents:
            continue
        labels = latents[row][0]["config"]["probes"]
        for probe in PUBLISHED_PROBES:
            name = f"{title}, {probe}"
            values = [probed(latents[row], n, probe) for n in labels]
            yield Line(name, LINE_COLOURS[name], labels, values)


def _cnn_line(results: Results) -> Iterator[Line]:
    labels = sorted({r["config"]["labels"] for r in where(results, row="cnn")})
    if labels:
        values = [classified(results, "cnn", n) for n in labels]
        yield Line("CNN", LINE_COLOURS["CNN"], labels, values)


def _published_lines() -> Iterator[Line]:
    """Yield the paper's numbers, in the colours of ours."""
    names = {"logistic": "z = 4, logistic", "network": "z = 4, network", "cnn": "CNN"}
    for row, name in names.items():
        theirs = published("vae_downstream", row)
        labels = [int(n) for n in theirs]
        values = [float(value) for value in theirs.values()]
        yield Line(f"paper 001: {name}", LINE_COLOURS[name], labels, values)


def _plot_line(ax: Any, line: Line) -> None:
    """Plot the means over draws, with bars from the lowest to the highest value."""
    means = [statistics.fmean(values) for values in line.values]
    below = [mean - min(values) for mean, values in zip(means, line.values, strict=True)]
    above = [max(values) - mean for mean, values in zip(means, line.values, strict=True)]
    ax.errorbar(line.labels, means, [below, above], fmt="o-", color=line.colour, label=line.name)


def plot_reconstructions(results: Results, path: Path) -> None:
    """Plot Figure 2: images and their reconstructions from latents of three sizes; first draw."""
    shown = {z: results.get(f"z{z}_0", {}) for z in (2, 4, 25)}
    if not all("reconstructions" in r for r in shown.values()):
        return
    rows = {"image": shown[2]["images"]}
    rows |= {f"z = {z}": r["reconstructions"] for z, r in shown.items()}
    plots.save(image_rows(rows), path)


def plot_plane(results: Results, path: Path) -> None:
    """Plot Figure 1: two-dimensional latents; first draw."""
    import matplotlib.pyplot as plt

    result = results.get("z2_0", {})
    if "plane" not in result:
        return
    figure, ax = plt.subplots(figsize=(6, 5))
    z, classes = np.array(result["plane"]), np.array(result["classes"])
    for k, name in enumerate(data.load("fashion_mnist").classes):
        ax.scatter(*z[classes == k].T, s=4, color=COLOURS[k], label=name, linewidths=0)
    ax.set(xlabel="$z_1$", ylabel="$z_2$")
    style.legend_beside(ax, markerscale=3)
    plots.save(figure, path)


STUDY = Study(
    "vae_downstream",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "rows": Selection("row", tuple(ROWS), "rows of the tables to run"),
        "sizes": Selection("labels", SIZES, "numbers of labels for the image classifiers"),
    },
    arrays=["images", "reconstructions", "plane", "classes"],
)

if __name__ == "__main__":
    main(STUDY, __doc__)
