"""Paper 003 on MNIST with 100 labels: Table 1 with its grids of alpha and lambda, and the analyses that it makes.

    python experiments/latent_classifier.py --data-root DATA [--scale smoke|cpu|paper] [--draws 0 1 2] [--workers 2]
        [--parts table batches pretraining longer]

- table (Table 1, Figure 2): M2 by alpha; the latent classifier, its exact bound and its simplified form by lambda. Of M2 at
  alpha 0.1, 1 and 100 also a classifier on its z (section 3.3; the mean under one label drawn at random, where the paper takes
  all), which would be at chance were the class not in z, and the epoch of best validation accuracy, that of lowest loss, and the
  last (supplement 12).
- batches (Figure 8): M2 with 1 labeled and 499 unlabeled data a step, beside the table's 100 and 100.
- pretraining (Figure 5): M2 and the latent classifiers from the weights of a VAE that has seen all images.
- longer: the latent classifier, its exact bound and M2 for five times the epochs, to see what they lack.

`latent_plane.py` has the paper's circles and moons. The networks are the paper's, one hidden layer of 500 softplus units, z =
50, without noise, dropout or balance, and so are Adam at 1e-3 and 100 + 100 data a step; M2's bounds weigh as the paper's sums
over such batches. Alpha multiplies the mean of log q(y|x) over the labeled data of a step, beside means of bounds; read to the
letter the paper's multiplies it beside sums over 100 data, so that its alpha of 100 would be 1 here. Sigma, which the paper
leaves open, is 1. The paper trains 500 epochs and picks one on 10,000 validation labels; here there are none, but for the
selection named, whose 10,000 are of the images that are trained on without labels, and the averaged weights (decay 0.999 a
step) of the last epoch are tested. `cpu` is 10 epochs, 3 draws, and a sum over the likeliest class and one drawn. Only what is
missing is run, and the tables have all that is there. Writes to `experiments/results/latent_classifier`.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    MEASURES,
    Results,
    arguments,
    draws_of,
    images,
    mean_sd,
    measured,
    measures,
    parsed,
    resolved,
    sources,
    study,
    table,
    trained,
    where,
)

from pyro_ssl import class_bounds, data, predict_proba, reconstruct, zoo
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.training import Epoch, fit
from pyro_ssl.utils.context import eval_mode, fixed_seed

WEIGHTS = (0.0, 0.001, 0.1, 0.5, 1.0, 10.0, 100.0, 10000.0)
LATENT = ("latent_classifier", "latent_classifier_exact", "latent_classifier_simplified")
PAPER = {
    "m2": "88.6 (5.0), 90.3 (3.5), 91.4 (2.2), 91.7 (2.5), 92.0 (2.6), 92.6 (2.5), 93.3 (2.0), 93.7 (2.5)",
    "latent_classifier": ", 72.2 (3.7), 91.7 (3.6), 92.3 (2.8), 88.2 (3.6), 78.1 (1.3), 80.2 (0.9), 70.9 (0.4)",
    "latent_classifier_simplified": ", 82.1 (1.9), 80.4 (0.7), 79.5 (1.1), 78.7 (0.7), 76.7 (0.3), 75.9 (0.8), 72.4 (0.9)",
}
NETWORK: dict[str, Any] = {
    "hidden": (500,),
    "activation": "softplus",
    "sigma": 1.0,
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
}
LOOKED_AT = (0.1, 1.0, 100.0)  # alphas whose z is probed and whose epochs are compared
PRETRAINED = {"m2": 0.1, "latent_classifier": 0.5, "latent_classifier_simplified": 0.001}  # alpha, lambda
SCALES = {"smoke": (1, [0]), "cpu": (10, [0, 1, 2]), "paper": (500, [0, 1, 2, 3, 4])}  # epochs, draws
LONGER = {"latent_classifier": 0.5, "latent_classifier_exact": 0.5, "m2": 0.1}
PARTS = ("table", "batches", "pretraining", "longer")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    given = parsed(parser)
    draws, asked = draws_of(given, SCALES[given.scale][1])
    configs: dict[str, dict[str, Any]] = {}
    for draw in draws:  # a draw after the other, so that what is there is a table of fewer draws
        configs |= dict(of_draw(draw, given.scale))
    results = study(configs, run, given, lambda c: c["part"] in given.parts and c["draw"] in asked)
    report(results, given.out)


def of_draw(draw: int, scale: str) -> Any:
    """Names and configs of the runs of a draw."""
    yield f"table_classifier_{draw}", configure("table", "classifier", draw, scale)
    for weight in (0.0, 1.0) if scale == "smoke" else WEIGHTS:
        looked_at = weight in LOOKED_AT
        yield f"table_m2_{weight:g}_{draw}", configure("table", "m2", draw, scale, weight, looked_at=looked_at)
        for method in LATENT if weight else ():
            yield f"table_{method}_{weight:g}_{draw}", configure("table", method, draw, scale, weight)
    yield f"batches_m2_{draw}", configure("batches", "m2", draw, scale, 1.0, batches=(1, 499), looked_at=True)
    for method, weight in PRETRAINED.items():
        yield f"pretraining_{method}_{draw}", configure("pretraining", method, draw, scale, weight)
    for method, weight in LONGER.items():
        longer = configure("longer", method, draw, scale, weight)
        longer["training"]["epochs"] *= 5
        yield f"longer_{method}_{draw}", longer


def configure(
    part: str,
    method: str,
    draw: int,
    scale: str,
    weight: float = 1.0,
    batches: tuple[int, int] = (100, 100),
    looked_at: bool = False,
) -> dict[str, Any]:
    epochs, (labeled, unlabeled) = SCALES[scale][0], batches
    weights = {"alpha": weight, "labeled_weight": labeled / unlabeled} if method == "m2" else {"labeled_weight": weight}
    fast = {"top_k": 1} if scale == "cpu" else {"hidden": (8,)} if scale == "smoke" else {}
    training: dict[str, Any] = {
        "batch_size": unlabeled,
        "labeled_batch_size": labeled,
        "lr": 1e-3,
        "schedule": "constant",
    }
    return {
        "part": part, "data": "mnist", "method": method, "per_class": 10, "draw": draw, "weight": weight,
        "looked_at": looked_at, "options": resolved(method, NETWORK | weights | fast),
        "training": training | {"ema": 0.999, "epochs": 1000 if method == "classifier" and scale != "smoke" else epochs},
        **({"rows": 300} if scale == "smoke" else {}),
    }  # fmt: skip


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """One run, with what is looked at beside the test set's measures; of the first draw the pictures too."""
    loaded = dataset, codes = images(config)
    path: dict[str, list[float]] = {"validation": [], "test": [], "loss": []}
    held = (codes < 0).nonzero().squeeze(1)[-10_000:]  # their labels are looked at for the selection alone

    def watch(epoch: Epoch) -> None:
        path["validation"].append(metrics.accuracy(predict_proba(epoch.objective, dataset.x[held]), dataset.y[held]))
        path["test"].append(metrics.accuracy(predict_proba(epoch.objective, dataset.x_test), dataset.y_test))
        path["loss"].append(epoch.metrics["loss"])

    if config["looked_at"]:  # from the start, if it is killed: the path is kept in memory
        objective, _, _, history = trained(config, None, loaded, callbacks=(watch,))
    else:
        start = pretrained(config, dataset, directory / "vae", out) if config["part"] == "pretraining" else None
        objective, _, _, history = trained(config, directory, loaded, objective=start)
    probs = predict_proba(objective, dataset.x_test)
    result: dict[str, Any] = measured(objective, dataset, history)
    result["commonest"] = float(probs.argmax(-1).bincount().max() / len(probs))
    if path["loss"]:
        result |= {"path": path}
    if config["looked_at"] and config["part"] == "table":
        result["probe"] = probe(objective, dataset)
    if config["part"] == "table" and config["method"] in ("m2", "latent_classifier"):
        scores = class_bounds(objective, dataset.x_test, only=("x",))
        result["by_reconstruction"] = metrics.accuracy(scores.softmax(-1), dataset.y_test)
    if config["draw"] == 0 and config["method"] == "m2" and (config["part"] == "pretraining" or config["weight"] == 1):
        shown = 2 if "rows" in config else 10  # fewer of a smoke run
        plots.save(plots.analogies(objective, dataset.x_test[:shown], 10), out / f"analogies_{config['part']}.png")
    return result


def probe(objective: Any, dataset: data.Dataset) -> float:
    """Test accuracy of an MLP that is trained to tell the class from the mean of q(z|x,y), under a label drawn at random."""

    def code(x: torch.Tensor) -> torch.Tensor:
        with eval_mode(objective), fixed_seed(0):
            parts = [objective.guide.encode(p, torch.eye(10)[torch.randint(10, (len(p),))]).mean for p in x.split(4096)]
        return torch.cat(parts)

    z, z_test = code(dataset.x), code(dataset.x_test)
    reader = zoo.build("classifier", z.shape[1:], 10, seed=0, hidden=(500,), noise=0.0, dropout=0.0)
    fit(reader, z, dataset.y, epochs=3 if len(z) > 1000 else 1, batch_size=200, lr=1e-3, seed=0)
    return metrics.accuracy(predict_proba(reader, z_test), dataset.y_test)


def pretrained(config: dict[str, Any], dataset: data.Dataset, directory: Path, out: Path) -> Any:
    """A pair whose encoder and decoder start as those of a VAE that has seen all images, with no use for y."""
    options, seed = config["options"], config["draw"]
    alike = {k: options[k] for k in ("hidden", "activation", "likelihood", "sigma", "z_dim")}
    first = zoo.build("vae", dataset.x_shape, 10, seed=seed, **alike)
    training = {"epochs": config["training"]["epochs"], "batch_size": 200, "lr": 1e-3}
    fit(first, dataset.x, seed=seed, directory=directory, resume=True, identity=alike, **training)
    if seed == 0:  # Figure 5a
        x = dataset.x_test[:10]
        plots.save(plots.image_grid(torch.stack([x, reconstruct(first, x)])), out / "reconstructions_vae.png")
    objective = zoo.build(config["method"], dataset.x_shape, 10, seed=seed, **options)
    with torch.no_grad():
        for ours, theirs, place in (
            (objective.model.p_x, first.model.p_x, -1),
            (objective.guide.q_z, first.guide.q_z, 0),
        ):
            mine, other = ours.network, theirs.network
            for w in mine.first.weights:
                w.zero_()
            mine.first.weights[place].copy_(other.first.weights[0])
            mine.first.bias.copy_(other.first.bias)
            mine.rest.load_state_dict(other.rest.state_dict())
    return objective


# --- tables and figures -----------------------------------------------------------------------------------------------


def report(results: Results, out: Path) -> None:
    """Tables and figures of what is there."""
    texts = [grid(results)] if where(results, part="table") else []
    if looked_at := [r for r in where(results, part="table", looked_at=True)]:
        texts += [probes(looked_at), selection(looked_at)]
        paths(looked_at, out)
    if where(results, part="pretraining"):
        texts.append(starts(results))
    if where(results, part="longer"):
        texts.append(lengths(results))
    if batches := where(results, part="batches"):
        curves(where(results, part="table", method="m2", weight=1.0), batches, out)
    text = "\n\n".join(texts) + f"\n\nOne thread a run. {sources(results)}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)


def grid(results: Results) -> str:
    """Table 1."""
    rows = []
    for method in ("m2", *LATENT):
        cells = [where(results, part="table", method=method, weight=w) for w in WEIGHTS]
        rows.append((method, *(mean_sd([100 * r["accuracy"] for r in c], 1) if c else "" for c in cells)))
        rows.append(("- worst", *(f"{100 * min(r['accuracy'] for r in c):.1f}" if c else "" for c in cells)))
        if method in ("m2", "latent_classifier"):
            by = [[100 * r["by_reconstruction"] for r in c] for c in cells]
            rows.append(("- by reconstruction loss", *(mean_sd(c, 1) if c else "" for c in by)))
        if method in PAPER:
            rows.append(("- paper 003", *PAPER[method].split(", ")))
    baseline = [100 * r["accuracy"] for r in where(results, part="table", method="classifier")]
    draws = sorted({len(where(results, part="table", method="m2", weight=w)) for w in WEIGHTS} - {0})
    rows.append((f"classifier: {mean_sd(baseline, 1) if baseline else ''}; paper 74.74 (1.16)", *[""] * len(WEIGHTS)))
    rows.append(
        ("best peers: M2 of Pyro's tutorial 93.19 (0.60); SHOT-VAE 96.88; ADGM 99.04 (0.02)", *[""] * len(WEIGHTS))
    )
    title = f"MNIST, 100 labels, number of draws: {' or '.join(map(str, draws))}; alpha of M2, lambda of the others"
    return table((title, *(f"{w:g}" for w in WEIGHTS)), rows)


def probes(looked_at: list[dict[str, Any]]) -> str:
    """Section 3.3."""
    rows = []
    for weight in LOOKED_AT:
        if mine := [r for r in looked_at if r["config"]["weight"] == weight]:
            rows.append((f"{weight:g}", *(mean_sd(100 * r[k] for r in mine) for k in ("accuracy", "probe"))))
    return table(("alpha", "M2, accuracy %", "of a classifier on its z (paper: > 85)"), rows)


def selection(looked_at: list[dict[str, Any]]) -> str:
    """Supplement 12."""
    rows = []
    for weight in LOOKED_AT:
        paths = [r["path"] for r in looked_at if r["config"]["weight"] == weight]
        picks = [
            [int(np.argmax(p["validation"])) for p in paths],
            [int(np.argmin(p["loss"])) for p in paths],
            [-1] * len(paths),
        ]
        if paths:
            rows.append(
                (
                    f"{weight:g}",
                    *(mean_sd(100 * p["test"][i] for p, i in zip(paths, pick, strict=True)) for pick in picks),
                )
            )
    return table(("alpha", "best of 10,000 validation labels", "lowest loss", "last epoch"), rows)


def paths(looked_at: list[dict[str, Any]], out: Path) -> None:
    """Supplement 12: what could select an epoch, and what it would have been for."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(LOOKED_AT), figsize=(3.6 * len(LOOKED_AT), 2.8), layout="constrained")
    for ax, weight in zip(axes, LOOKED_AT, strict=True):
        losses = ax.twinx()
        for r in [r for r in looked_at if r["config"]["weight"] == weight]:
            epochs = range(1, len(r["path"]["test"]) + 1)
            for colour, name in zip(plots.COLOURS, ("test", "validation"), strict=False):
                ax.plot(epochs, [100 * a for a in r["path"][name]], color=colour, label=name)
            losses.plot(epochs, r["path"]["loss"], "--", color="0.5")
        ax.set(title=f"M2, alpha {weight:g}", xlabel="epoch")
    axes[0].set(ylabel="accuracy %")
    axes[0].legend(*(found[:2] for found in axes[0].get_legend_handles_labels()), frameon=False)
    losses.set(ylabel="loss, nats (dashed)")
    plots.save(figure, out / "selection.png")


def starts(results: Results) -> str:
    """Section 3.2: the same runs from fresh weights and from a VAE's."""
    rows = []
    for method, weight in PRETRAINED.items():
        for part, name in (("table", "fresh"), ("pretraining", "a VAE's")):
            if mine := paired(results, part, "pretraining", method, weight):
                commonest = 100 * statistics.fmean(r["commonest"] for r in mine)
                paper = "81.6 (1.2)" if method.endswith("simplified") and part == "pretraining" else ""
                rows.append((method, name, *measures(mine), f"{commonest:.1f}", paper))
    return table(("method", "weights at the start", *MEASURES, "commonest prediction %", "paper 003"), rows)


def paired(results: Results, part: str, other: str, method: str, weight: float) -> list[dict[str, Any]]:
    """A cell's results of a part, on the draws that the other part has too."""
    draws = {r["config"]["draw"] for r in where(results, part=other, method=method, weight=weight)}
    return [r for r in where(results, part=part, method=method, weight=weight) if r["config"]["draw"] in draws]


def lengths(results: Results) -> str:
    """What five times the epochs are worth."""
    rows = [
        (method, f"{weight:g}", r["config"]["training"]["epochs"], *measures(mine))
        for method, weight in LONGER.items()
        for part in ("table", "longer")
        if (mine := paired(results, part, "longer", method, weight)) and (r := mine[0])
    ]
    return table(("method", "alpha or lambda", "epochs", *MEASURES), rows)


def curves(alike: list[dict[str, Any]], apart: list[dict[str, Any]], out: Path) -> None:
    """Figure 8."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
    for colour, label, runs in zip(plots.COLOURS, ("100 + 100", "1 + 499"), (alike, apart), strict=False):
        for i, r in enumerate(runs):
            accuracy = [100 * a for a in r["path"]["test"]]
            ax.plot(range(1, len(accuracy) + 1), accuracy, color=colour, label=label if i == 0 else None)
    ax.set(xlabel="epoch", ylabel="test accuracy %")
    ax.legend(frameon=False, title="labeled + unlabeled data a step")
    plots.save(figure, out / "batches.png")


if __name__ == "__main__":
    main()
