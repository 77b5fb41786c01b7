"""What a latent code is worth to a classifier: paper 001's Tables 1 and 2 and Figures 1 to 3 on Fashion-MNIST.

    python experiments/vae_downstream.py --data-root DATA [--scale smoke|cpu|paper] [--draws 0 1 2 3 4]
        [--rows z2 z4 z9 z16 z25 ours ours_mlp pixels cnn m2 mier latent_classifier] [--sizes 100 1000] [--workers 2]

- z2 to z25: the paper's VAE, three convolutions and two fully connected layers, its mirror, Bernoulli pixels, by the size of its
  code; it sees all training images and no label. `ours` has 100 dimensions and a Gaussian likelihood with sigma 0.1, `ours_mlp`
  is of fully connected layers and has 30, and sigma 0.3.
- Probes on frozen codes, by scikit-learn: logistic regression, a small network (the paper's "simple CNN" has no picture to
  convolve in a code), nearest neighbours, an SVM, on 100 to 50,000 labels; the code is the mean of q(z|x), a sample of it, or
  eight samples, whose predictions are averaged. `spreading` sees the codes without labels too: labels spread over the graph of
  all training images' nearest neighbours, by the angle between their codes. `pixels` is what the same probes do without a code.
- cnn: the multi-layer CNN on as many labels, supervised; m2, mier and latent_classifier: what learns from labels and from the
  other images together.

Beside the code the networks differ: cnn has no warps, m2, mier and latent_classifier have them, mirror images and consistency.
Probes' settings are scikit-learn's but for what `made` and `spread` say; settings were sought on draw 100, scored on training images.
The test set is used once, but for z2 to z25: they were first trained for 10 epochs at a rate of 1e-3, with which z4's network had
78.4 % on 50,000 labels, 3 points below the paper's; 20 epochs at 3e-3 were then chosen on draw 100. cnn's draw 0 was run without
dropout too; with it 100 labels give a point more on draws 100 to 102.

Only what is missing is run, and what was killed goes on. Writes to `experiments/results/vae_downstream`.
"""

from __future__ import annotations

import statistics
import warnings
from itertools import pairwise, product
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
    side_by_side,
    sources,
    study,
    table,
    trained,
    where,
)
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from pyro_ssl import data, reconstruct
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.chunks import chunked
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training.batches import steps_per_epoch

SIZES = (100, 1000, 2000, 5000, 10_000, 20_000, 50_000)
PAPER_Z = {  # accuracy % with 100 labels, Table 1
    4: {"logistic": 57.4, "network": 63.9},
    9: {"logistic": 54.3, "network": 53.4},
    16: {"logistic": 50.1, "network": 52.6},
    25: {"logistic": 38.5, "network": 20.0},
}
PAPER_N = {  # of z = 4, Table 2
    "logistic": (53.4, 69.7, 71.7, 72.2, 73.3, 73.1, 73.7),
    "network": (66.2, 77.3, 78.0, 79.3, 81.0, 80.8, 81.4),
    "cnn": (70.4, 83.3, 85.4, 87.4, 88.9, 90.3, 91.9),
}
ON_CODES = ("logistic", "network", "neighbours", "svm")
PROBES = (*ON_CODES, "spreading")
LARGEST = {"svm": 10_000, "spreading": 5000}  # labels; an SVM's time grows with their square
SAMPLES = 8
SAMPLED = 100  # labels, up to which codes are sampled too
CONV: dict[str, Any] = {"network": "conv", "channels": (32, 64, 64), "hidden": (256,), "activation": "relu"}
SEMI: dict[str, Any] = {"classifier_network": "conv", "channels": (16, 32, 64), "warp": 0.1, "flip": True, "consistency": 1.0, "labeled_weight": None}  # fmt: skip
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"z{z}": ("vae", CONV | {"z_dim": z, "likelihood": "bernoulli"}) for z in (2, 4, 9, 16, 25)},
    "ours": ("vae", CONV | {"z_dim": 100, "likelihood": "gaussian", "sigma": 0.1}),
    "ours_mlp": ("vae", {"hidden": (500,), "activation": "relu", "z_dim": 30, "likelihood": "gaussian", "sigma": 0.3}),
    "pixels": ("", {}),
    "cnn": ("classifier", {"backbone": "cnn-16", "noise": 0.0, "dropout": 0.3}),
    "m2": ("m2", SEMI),
    "mier": ("m2", SEMI | {"balance": 0.0, "entropy": 5.0, "mutual_information": 1.0}),
    "latent_classifier": ("latent_classifier", SEMI | {"alpha": 20.0, "balance": 5.0, "noise": 0.3, "dropout": 0.3}),
}
OF_IMAGES = ("cnn", "m2", "mier", "latent_classifier")
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"epochs": 1, "ours": 1, "steps": 2, "semi": 1, "rows": 300, "sizes": (100,)},
    "cpu": {"epochs": 20, "ours": 15, "steps": 3000, "semi": 8, "sizes": SIZES},
    "paper": {"epochs": 100, "ours": 100, "steps": 20_000, "semi": 60, "sizes": SIZES},
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="labels of what learns from the images")
    given = parsed(parser)
    draws, asked = draws_of(given, [0] if given.scale == "smoke" else [0, 1, 2, 3, 4])
    configs = {}
    for draw in draws:
        for row in ROWS:
            if row == "z2" and draw != draws[0]:  # it is there for its pictures
                continue
            if row in OF_IMAGES:
                sizes = SCALES[given.scale]["sizes"]
                configs |= {f"{row}_{n}_{draw}": configure(row, draw, given.scale, n) for n in sizes}
            else:
                configs[f"{row}_{draw}"] = configure(row, draw, given.scale)

    def chosen(config: dict[str, Any]) -> bool:
        of = config["row"] in given.rows and config["draw"] in asked
        return of and (config["row"] not in OF_IMAGES or config["labels"] in given.sizes)

    report(study(configs, run, given, chosen), given.out)


def configure(row: str, draw: int, scale: str, labels: int = 0) -> dict[str, Any]:
    """Plain data from which a run follows."""
    method, options = ROWS[row]
    s = SCALES[scale]
    config: dict[str, Any] = {
        "row": row,
        "data": "fashion_mnist",
        "draw": draw,
        "labels": labels,
        "probes": list(s["sizes"]),
    }
    config |= {"rows": s["rows"]} if "rows" in s else {}
    if not method:
        return config
    if row == "cnn":
        batch = min(100, labels)
        epochs = max(1, min(s["steps"] * batch // labels, 1000))
        training: dict[str, Any] = {
            "epochs": max(epochs, 15) if scale != "smoke" else 1,
            "labeled_batch_size": batch,
            "lr": 3e-3,
            "ema": 0.99,
        }
    elif row in OF_IMAGES:
        pool = s.get("rows", 60_000)  # as many steps with fewer unlabeled ones
        steps = steps_per_epoch(labels, pool - labels, 200, 100)
        epochs = round(s["semi"] * (pool // 200) / steps)
        training = {"epochs": epochs, "batch_size": 200, "labeled_batch_size": 100, "lr": 3e-3, "ema": 0.999}
    else:
        ours = row.startswith("ours")
        training = {"epochs": s["ours" if ours else "epochs"], "batch_size": 200, "lr": 1e-3 if ours else 3e-3}
    return config | {"method": method, "options": resolved(method, options), "training": training}


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """A classifier's accuracy; or of a VAE those of all probes on its code."""
    dataset, known = images(config)
    if config["draw"] >= DEVELOPMENT:
        dataset, known = developing(dataset, known)
    if config["row"] in OF_IMAGES:
        objective, _, _, _ = trained(config, directory, (dataset, known))
        found = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
        seen = known >= 0
        own = metrics.accuracy(predict_proba(objective, dataset.x[seen]), dataset.y[seen])
        return found | {"training_accuracy": own}
    if config["row"] == "pixels":
        codes = {"mean": (dataset.x.flatten(1), dataset.x_test.flatten(1))}
    else:
        objective, _, _, _ = trained(config, directory, (dataset, torch.full_like(dataset.y, -1)))
        codes = encoded(objective, dataset, config["draw"])
        pictures(objective, dataset, codes["mean"][0], config, out)
    graph = neighbours(codes["mean"])
    found = []
    for n in config["probes"]:
        draw = data.draw_labels(dataset.y, n, seed=config["draw"])
        if n <= LARGEST["spreading"]:
            of = spread(dataset, graph, draw.codes(dataset.y))
            found.append({"labels": n, "probe": "spreading", "code": "mean", **of})
        for probe, kind in product(ON_CODES, codes if n <= SAMPLED else ("mean",)):
            if n <= LARGEST.get(probe, n):
                of = measured(probe, dataset, codes[kind], list(draw.indices), config["draw"])
                found.append({"labels": n, "probe": probe, "code": kind, **of})
    return {"probes": found}


def encoded(objective: Objective, dataset: data.Dataset, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Codes of the training and the test images, `(N, Z)` or `(N, S, Z)`: means, a sample, several."""

    def moments(x: Tensor) -> Tensor:
        q = objective.guide.q_z(x)
        return torch.stack([q.mean, q.variance.sqrt()], 1)

    found = [chunked(objective, moments, 1024, 0, x) for x in (dataset.x, dataset.x_test)]
    generator = torch.Generator().manual_seed(seed)

    def sample(m: Tensor) -> Tensor:
        return m[:, :1] + m[:, 1:] * torch.randn(len(m), SAMPLES, m.shape[-1], generator=generator)

    samples = [sample(m) for m in found]
    return {
        "mean": (found[0][:, 0], found[1][:, 0]),
        "sample": (samples[0][:, 0], samples[1][:, 0]),
        "samples": (samples[0], samples[1]),
    }


def measured(
    probe: str, dataset: data.Dataset, codes: tuple[Tensor, Tensor], rows: list[int], seed: int
) -> dict[str, float]:
    """A probe's accuracy on the test images, and on the rows that it was trained on."""
    own, test, y = codes[0][rows], codes[1], dataset.y[rows]
    several = own.shape[1] if own.dim() == 3 else 1
    unit = codes[0].std()  # one scale for all dimensions: one that is not used is not made larger
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = made(probe, len(rows), several, seed).fit(
            (own / unit).flatten(0, -2).numpy(), y.repeat_interleave(several).numpy()
        )

    def accuracy(z: Tensor, y: Tensor) -> float:
        p = model.predict_proba((z / unit).flatten(0, -2).numpy())
        return float((p.reshape(len(y), several, -1).mean(1).argmax(-1) == y.numpy()).mean())

    return {"accuracy": accuracy(test, dataset.y_test), "training_accuracy": accuracy(own, y)}


def neighbours(codes: tuple[Tensor, Tensor]) -> tuple[Any, np.ndarray]:
    """The graph of the training images' ten nearest codes by the angle between them, and of each test image those nearest."""
    from sklearn.neighbors import NearestNeighbors

    own, test = (torch.nn.functional.normalize(z, dim=1).numpy() for z in codes)
    near = NearestNeighbors(n_neighbors=10).fit(own)
    return near.kneighbors_graph(own), near.kneighbors(test, return_distance=False)


def spread(dataset: data.Dataset, graph: tuple[Any, np.ndarray], known: Tensor) -> dict[str, float]:
    """The accuracy of labels that spread over the graph of all training images' codes; a test image has its neighbours'."""
    from sklearn.semi_supervised import LabelSpreading

    among, test_report = graph
    model = LabelSpreading(kernel=lambda *_: among, alpha=0.99, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.zeros((len(known), 1)), known.numpy())  # the graph says all of the codes
    found, rows = model.label_distributions_[test_report].sum(1).argmax(-1), (known >= 0).numpy()
    return {
        "accuracy": float((model.classes_[found] == dataset.y_test.numpy()).mean()),
        "training_accuracy": float((model.transduction_[rows] == known.numpy()[rows]).mean()),
    }


class _Votes:
    """An SVM with one-hot votes for probabilities: its own are fitted by further SVMs, and not needed."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, z: np.ndarray, y: np.ndarray) -> _Votes:
        self.model.fit(z, y)
        return self

    def predict_proba(self, z: np.ndarray) -> np.ndarray:
        return np.eye(len(self.model.classes_))[np.searchsorted(self.model.classes_, self.model.predict(z))]


def made(probe: str, n: int, several: int, seed: int) -> Any:
    """A probe for n labels, each with several codes, which weigh as one: in the penalties, and in the network's steps."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    epochs = max(10, min(200, 300_000 // n))
    return {
        "logistic": lambda: LogisticRegression(C=1 / several, max_iter=200),
        "network": lambda: MLPClassifier((128, 128), alpha=1e-3, max_iter=max(1, epochs // several), random_state=seed),
        "neighbours": lambda: KNeighborsClassifier(5 if n > 100 else 3),
        "svm": lambda: _Votes(SVC(C=3.0 / several)),
    }[probe]()


def pictures(objective: Objective, dataset: data.Dataset, codes: Tensor, config: dict[str, Any], out: Path) -> None:
    """Figures 1 and 2 of draw 0: codes in the plane, and the first ten images with what is made of their codes."""
    if config["draw"]:
        return
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    x = dataset.x[:10]
    again = reconstruct(objective, x)
    plots.save(plots.image_grid(torch.stack([x, again]).transpose(0, 1)), out / f"reconstructions_{config['row']}.png")
    if codes.shape[1] == 2:
        figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
        for k, name in enumerate(NAMES):
            own = codes[:5000][dataset.y[:5000] == k]
            ax.scatter(*own.T.numpy(), s=4, color=plots.COLOURS[k], label=name, linewidths=0)
        ax.set(xlabel="$z_1$", ylabel="$z_2$")
        ax.legend(frameon=False, fontsize=8, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
        plots.save(figure, out / "plane.png")


NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


# --- tables and figures -----------------------------------------------------------------------------------------------


def report(results: Results, out: Path) -> None:
    """Tables and figures of what is there."""
    codes = {row: mine for row in ROWS if row not in OF_IMAGES and (mine := where(results, row=row))}
    texts = [by_size_of_code(codes), by_labels(results, codes), by_kind(codes), claims(results, codes)]
    text = (
        "\n\n".join(t for t in texts if t)
        + f"\n\nOne thread a run; no validation labels of the draw. {sources(results)}\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    curves(results, codes, out)
    side_by_side({f"z = {z}": out / f"reconstructions_z{z}.png" for z in (2, 4, 25)}, out / "reconstructions.png", "images and their reconstructions")  # fmt: skip
    print(text)


def probed(mine: list[dict[str, Any]], n: int, probe: str, code: str = "mean", what: str = "accuracy") -> list[float]:
    """Of each draw the percentage."""
    return [
        100 * p[what] for r in mine for p in r["probes"] if (p["labels"], p["probe"], p["code"]) == (n, probe, code)
    ]


def by_size_of_code(codes: dict[str, list[dict[str, Any]]]) -> str:
    """Table 1: 100 labels."""
    rows = []
    for row, mine in codes.items():
        if row == "pixels":
            continue
        z = mine[0]["config"]["options"]["z_dim"]
        cells = [mean_sd(values) if (values := probed(mine, 100, probe)) else "" for probe in PROBES]
        paper = ", ".join(f"{k} {v}" for k, v in PAPER_Z.get(z, {}).items())
        rows.append((f"{row}, z = {z}", len(mine), *cells, paper))
    return (
        table(("Fashion-MNIST, 100 labels, accuracy % on codes' means", "draws", *PROBES, "paper 001"), rows)
        if rows
        else ""
    )


def by_labels(results: Results, codes: dict[str, list[dict[str, Any]]]) -> str:
    """Table 2."""
    rows: list[tuple[Any, ...]] = []
    sizes = sorted({n for r in results.values() if "config" in r for n in r["config"]["probes"]})
    for row in ("z4", "ours", "ours_mlp", "pixels"):
        for probe in PROBES if row in codes else ():
            found = [probed(codes[row], n, probe) for n in sizes]
            rows.append((f"{row}, {probe}", *(mean_sd(v) if v else "" for v in found)))
            if row == "z4" and probe in PAPER_N:
                rows.append(
                    (f"paper 001, VAE + {probe}", *(dict(zip(SIZES, PAPER_N[probe], strict=True))[n] for n in sizes))
                )
    for row in OF_IMAGES:
        mine = where(results, row=row)
        found = [[100 * r["accuracy"] for r in mine if r["config"]["labels"] == n] for n in sizes]
        if any(found):
            rows.append((row, *(mean_sd(v) if v else "" for v in found)))
        if row == "cnn" and mine:
            rows.append(("paper 001, CNN", *(dict(zip(SIZES, PAPER_N["cnn"], strict=True))[n] for n in sizes)))
    return table(("Fashion-MNIST, accuracy % by labels", *sizes), rows) if rows else ""


def by_kind(codes: dict[str, list[dict[str, Any]]]) -> str:
    """Means, samples, several samples."""
    rows = []
    for row in ("z4", "z25", "ours"):
        for probe in ON_CODES if row in codes else ():
            kinds = [probed(codes[row], 100, probe, kind) for kind in ("mean", "sample", "samples")]
            if all(kinds):
                rows.append((f"{row}, {probe}", *map(mean_sd, kinds)))
    return table(("100 labels, accuracy %", "mean of q(z|x)", "a sample", f"{SAMPLES} samples"), rows) if rows else ""


def claims(results: Results, codes: dict[str, list[dict[str, Any]]]) -> str:
    """What the paper says of its tables, and what ours say, where they are whole."""
    rows: list[tuple[str, str, str]] = []
    for probe in ("logistic", "network"):
        means = {z: probed(codes.get(f"z{z}", []), 100, probe) for z in (4, 9, 16, 25)}
        if all(means.values()):
            at = [statistics.fmean(v) for v in means.values()]
            said = "yes" if all(a > b for a, b in pairwise(at)) else "no"
            rows.append((f"accuracy falls with z ({probe}, 100 labels)", said, ", ".join(f"z = {z}: {mean_sd(v, 1)}" for z, v in means.items())))  # fmt: skip
    cnn = {n: [100 * r["accuracy"] for r in where(results, row="cnn") if r["config"]["labels"] == n] for n in SIZES}
    for row in ("z4", "ours", "ours_mlp"):
        found = {n: {p: v for p in PROBES if (v := probed(codes.get(row, []), n, p))} for n in SIZES}
        if all(cnn.values()) and all(found.values()):
            best = {n: max(statistics.fmean(v) for v in found[n].values()) for n in SIZES}
            less = {n: statistics.fmean(cnn[n]) - best[n] for n in SIZES}
            said = ", ".join(f"{n}: {v:+.1f}" for n, v in less.items())
            rows.append((f"the CNN is always better than probes ({row})", "yes" if min(less.values()) > 0 else "no", f"points over the one that is best on the test set, by labels: {said}"))  # fmt: skip
    for probe in ("logistic", "network") if "z4" in codes else ():
        sizes = codes["z4"][0]["config"]["probes"]
        means = [
            [statistics.fmean(probed(codes["z4"], n, probe, what=w)) for n in sizes]
            for w in ("training_accuracy", "accuracy")
        ]
        gap = ", ".join(f"{a - b:.1f}" for a, b in zip(*means, strict=True))
        rows.append((f"VAE + {probe}: training less test accuracy, z = 4", "", f"{gap} points, by labels"))
    return table(("the paper's claim", "here", "points"), rows) if rows else ""


def curves(results: Results, codes: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Figure 3: accuracy against labels."""
    found: dict[str, tuple[list[int], list[list[float]]]] = {}
    for row, probe in (("z4", "logistic"), ("z4", "network"), ("ours", "logistic"), ("ours", "network")):
        if row in codes:
            sizes = codes[row][0]["config"]["probes"]
            found[f"{row}, {probe}"] = sizes, [probed(codes[row], n, probe) for n in sizes]
    mine = where(results, row="cnn")
    if sizes := sorted({r["config"]["labels"] for r in mine}):
        found["CNN"] = sizes, [[100 * r["accuracy"] for r in mine if r["config"]["labels"] == n] for n in sizes]
    if not found:
        return
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for i, (name, (sizes, values)) in enumerate(found.items()):
        means = [statistics.fmean(v) for v in values]
        ax.plot(sizes, means, marker="o", markersize=3, color=plots.COLOURS[i], label=name)
        ax.fill_between(
            sizes, [min(v) for v in values], [max(v) for v in values], color=plots.COLOURS[i], alpha=0.2, linewidth=0
        )
    for i, (name, values) in enumerate(PAPER_N.items()):
        ax.plot(SIZES, values, "--", color=plots.COLOURS[(0, 1, 4)[i]], linewidth=0.8, label=f"paper 001, {name}")
    ax.set(xscale="log", xlabel="labels", ylabel="accuracy %")
    ax.legend(frameon=False, fontsize=7)
    plots.save(figure, out / "labels.png")


if __name__ == "__main__":
    main()
