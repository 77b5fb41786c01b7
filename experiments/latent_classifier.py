"""The latent classifier on MNIST with 100 labels: paper 003's Table 1 and its analyses.

Table 1 is accuracy over alpha and lambda; the other parts are batches of mostly unlabeled images,
pretraining and longer training (Figures 2, 5 and 8). Parts `paper` and `pretraining_paper` have the
settings of the preset, at its sigma.

`python experiments/latent_classifier.py --help` explains every option.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_runs import images, measured, trained
from pages import MEASURES, mean_sd, measures, published, table, where
from results_table import Result, Results
from study import Config, Selection, Study, main, of_preset, resolved

from pyro_ssl import (
    Dataset,
    Objective,
    class_bounds,
    eval_mode,
    fit,
    fixed_seed,
    predict_proba,
    reconstruct,
    zoo,
)
from pyro_ssl.evaluation import metrics, plots, style
from pyro_ssl.training import Epoch

WEIGHTS = (0.0, 0.001, 0.1, 0.5, 1.0, 10.0, 100.0, 10000.0)
"""Alpha of M2, lambda of the latent classifiers."""
LATENT = ("latent_classifier", "latent_classifier_exact", "latent_classifier_simplified")
NETWORK: dict[str, Any] = {
    "hidden": (500,),
    "activation": "softplus",
    "sigma": 1.0,
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
}
BY_RECONSTRUCTION = ("m2", "latent_classifier")
"""Methods that also predict by the class of the smallest reconstruction loss."""
ANALYSED = (0.1, 1.0, 100.0)
"""Alphas of M2 whose z is probed, and whose epochs are compared."""
PRETRAINED = {"m2": 0.1, "latent_classifier": 0.5, "latent_classifier_simplified": 0.001}
LONGER = {"latent_classifier": 0.5, "latent_classifier_exact": 0.5, "m2": 0.1}
PRETRAINED_BY_PAPER = (
    ("m2", 1.0),  # appendix B: "a small added discriminative loss"
    ("m2", 10000.0),  # "alpha high enough"
    ("latent_classifier", 0.5),
    ("latent_classifier_simplified", 0.001),
)
"""Methods of sections 3.2 and 5.2, with alpha or lambda as in Table 1."""
STARTS = {"random": "random", "vae": "a VAE's"}
"""Weights at the start of part `pretraining_paper`."""
PARTS = ("table", "paper", "batches", "pretraining", "pretraining_paper", "longer")
PRESET = "paper-003"
OF_TABLE_1 = ("m2", "latent_classifier", "latent_classifier_simplified")
BATCH = 100
"""Images per step in the paper, whose loss adds alpha times a mean to sums over them."""
EPOCHS = {"smoke": 1, "cpu": 10, "paper": 500}
PRETRAINING_EPOCHS = {"smoke": 1, "cpu": 8, "paper": 500}
"""Epochs of the methods in part `pretraining_paper`, from either start."""
VAE_EPOCHS = {"smoke": 1, "cpu": 10, "paper": 500}
"""Epochs of the VAE there."""
DRAWS = {"smoke": [0], "cpu": [0, 1, 2], "paper": [0, 1, 2, 3, 4]}
VALIDATION = 10_000
"""Unlabeled training images whose labels are used to compare ways to select an epoch, and for
nothing else.
"""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    """One draw after the other, so that an unfinished study is a table of fewer draws."""
    return {name: config for draw in draws for name, config in _of_draw(draw, scale)}


def _of_draw(draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    yield f"table_classifier_{draw}", configure("table", "classifier", draw, scale)
    for weight in (0.0, 1.0) if scale == "smoke" else WEIGHTS:
        yield from _of_weight(weight, draw, scale)
    one_label = configure("batches", "m2", draw, scale, 1.0, batches=(1, 499), analysed=True)
    yield f"batches_m2_{draw}", one_label
    yield from _pretraining(draw, scale)
    for method, weight in LONGER.items():
        longer = configure("longer", method, draw, scale, weight)
        longer["training"]["epochs"] *= 5
        yield f"longer_{method}_{draw}", longer


def _of_weight(weight: float, draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    """Runs of Table 1 with one weight; only M2 has a row without the labeled bound."""
    m2 = configure("table", "m2", draw, scale, weight, analysed=weight in ANALYSED)
    yield f"table_m2_{weight:g}_{draw}", m2
    for method in LATENT if weight else ():
        config = configure("table", method, draw, scale, weight)
        yield f"table_{method}_{weight:g}_{draw}", config
    for method in OF_TABLE_1:
        if weight or method == "m2":
            config = configure_by_paper(method, draw, scale, weight)
            yield f"paper_{method}_{weight:g}_{draw}", config


def _pretraining(draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    for method, weight in PRETRAINED.items():
        yield f"pretraining_{method}_{draw}", configure("pretraining", method, draw, scale, weight)
    for method, weight in PRETRAINED_BY_PAPER:
        for start in STARTS:
            config = configure_pretraining_by_paper(method, draw, scale, weight, start)
            yield f"pretraining_paper_{method}_{weight:g}_{start}_{draw}", config


def configure(
    part: str,
    method: str,
    draw: int,
    scale: str,
    weight: float = 1.0,
    batches: tuple[int, int] = (100, 100),
    analysed: bool = False,
) -> Config:
    labeled, unlabeled = batches
    weights = {"labeled_weight": weight}
    if method == "m2":  # its bounds weigh as the paper's sums over such batches
        weights = {"alpha": weight, "labeled_weight": labeled / unlabeled}
    fast: dict[str, Any] = {"smoke": {"hidden": (8,)}, "cpu": {"top_k": 1}, "paper": {}}[scale]
    supervised = method == "classifier" and scale != "smoke"
    training: dict[str, Any] = {
        "batch_size": unlabeled,
        "labeled_batch_size": labeled,
        "lr": 1e-3,
        "schedule": "constant",
        "ema": 0.999,
        "epochs": 1000 if supervised else EPOCHS[scale],
    }
    config: Config = {
        "part": part,
        "data": "mnist",
        "method": method,
        "per_class": 10,
        "draw": draw,
        "weight": weight,
        "analysed": analysed,
        "options": resolved(method, NETWORK | weights | fast),
        "training": training,
    }
    return config | ({"rows": 300} if scale == "smoke" else {})


def configure_by_paper(method: str, draw: int, scale: str, weight: float) -> Config:
    """A cell of Table 1 with the preset's settings, and fewer epochs at scale cpu."""
    weights = {"alpha": weight / BATCH} if method == "m2" else {"labeled_weight": weight}
    small: dict[str, Any] = {"hidden": (8,)} if scale == "smoke" else {}
    settings = of_preset(method, PRESET, epochs=EPOCHS[scale])
    settings["options"] |= resolved(method, settings["options"] | weights | small)
    config = configure("paper", method, draw, scale, weight)
    return config | settings


def configure_pretraining_by_paper(
    method: str, draw: int, scale: str, weight: float, start: str
) -> Config:
    """Section 3.2 with the preset's settings, its sigma among them."""
    config = configure_by_paper(method, draw, scale, weight)
    config["training"]["epochs"] = PRETRAINING_EPOCHS[scale]
    return config | {
        "part": "pretraining_paper",
        "start": start,
        "vae_epochs": VAE_EPOCHS[scale],
    }


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one method on one draw, and analyse it; save pictures of the first draw."""
    loaded = dataset, labels = images(config)
    path: dict[str, list[float]] = {"validation": [], "test": [], "loss": []}
    validation = (labels < 0).nonzero().squeeze(1)[-VALIDATION:]

    def watch(epoch: Epoch) -> None:
        of_validation = predict_proba(epoch.objective, dataset.x[validation])
        of_test = predict_proba(epoch.objective, dataset.x_test)
        path["validation"].append(metrics.accuracy(of_validation, dataset.y[validation]))
        path["test"].append(metrics.accuracy(of_test, dataset.y_test))
        path["loss"].append(epoch.metrics["loss"])

    if config["analysed"]:  # without checkpoints: the path is kept in memory
        objective, _, _, history = trained(config, None, loaded, callbacks=(watch,))
    else:
        start = None
        if _starts_from_vae(config):
            vae = pretrained_vae(config, dataset, directory / "vae", pictures)
            start = started_from(vae, config, dataset)
        objective, _, _, history = trained(config, directory, loaded, objective=start)
    probs = predict_proba(objective, dataset.x_test)
    result = measured(objective, dataset, history)
    result["commonest"] = float(probs.argmax(-1).bincount().max() / len(probs))
    if path["loss"]:
        result["path"] = path
    if _is_probed(config):
        result["probe"] = probe(objective, dataset)
    is_compared = config["part"] in ("table", "pretraining_paper")
    if is_compared and config["method"] in BY_RECONSTRUCTION:
        scores = class_bounds(objective, dataset.x_test, only=("x",))
        result["by_reconstruction"] = metrics.accuracy(scores.softmax(-1), dataset.y_test)
    if _shows_analogies(config):
        count = 2 if "rows" in config else 10  # fewer in a smoke run
        picture = plots.analogies(objective, dataset.x_test[:count], 10)
        plots.save(picture, pictures / f"analogies_{_picture_name(config)}.png")
    return result


def _starts_from_vae(config: Config) -> bool:
    return config["part"] == "pretraining" or config.get("start") == "vae"


def _is_probed(config: Config) -> bool:
    """Whether the class is predicted from z: M2 in the table and after pretraining."""
    if config["part"] == "pretraining_paper":
        return config["method"] == "m2"
    return config["analysed"] and config["part"] == "table"


def _shows_analogies(config: Config) -> bool:
    """Whether a run saves a picture: M2 on the first draw, in a part on pretraining or with weight
    1.
    """
    if config["draw"] != 0 or config["method"] != "m2":
        return False
    return config["part"].startswith("pretraining") or config["weight"] == 1


def _picture_name(config: Config) -> str:
    """The part; with the paper's settings also the weights at the start, and alpha."""
    if config["part"] != "pretraining_paper":
        return config["part"]
    return f"{config['part']}_{config['start']}_{config['weight']:g}"


def probe(objective: Any, dataset: Dataset) -> float:
    """Test accuracy of an MLP that predicts the class from the mean of q(z|x,y), under a label
    drawn at random.
    """

    def code(x: torch.Tensor) -> torch.Tensor:
        with eval_mode(objective), fixed_seed(0):
            means = []
            for part in x.split(4096):
                y = torch.eye(10)[torch.randint(10, (len(part),))]
                means.append(objective.guide.encode(part, y).mean)
            return torch.cat(means)

    z, z_test = code(dataset.x), code(dataset.x_test)
    reader = zoo.build("classifier", z.shape[1:], 10, seed=0, hidden=(500,), noise=0.0, dropout=0.0)
    fit(reader, z, dataset.y, epochs=3 if len(z) > 1000 else 1, batch_size=200, lr=1e-3, seed=0)
    return metrics.accuracy(predict_proba(reader, z_test), dataset.y_test)


def pretrained_vae(config: Config, dataset: Dataset, directory: Path, pictures: Path) -> Objective:
    """Train a VAE on all images, without use of y; save reconstructions of the first draw."""
    options, seed = config["options"], config["draw"]
    shared = {k: options[k] for k in ("hidden", "activation", "likelihood", "sigma", "z_dim")}
    vae = zoo.build("vae", dataset.x_shape, 10, seed=seed, **shared)
    epochs = config.get("vae_epochs", config["training"]["epochs"])
    training = {"epochs": epochs, "batch_size": 200, "lr": 1e-3}
    fit(vae, dataset.x, seed=seed, directory=directory, resume=True, identity=shared, **training)
    if seed == 0:  # Figure 5a
        x = dataset.x_test[:10]
        picture = plots.image_grid(torch.stack([x, reconstruct(vae, x)]))
        suffix = "_paper" if config["part"] == "pretraining_paper" else ""
        plots.save(picture, pictures / f"reconstructions_vae{suffix}.png")
    return vae


def started_from(vae: Objective, config: Config, dataset: Dataset) -> Objective:
    """Build a pair whose encoder and decoder start as those of a VAE."""
    objective = zoo.build(
        config["method"], dataset.x_shape, 10, seed=config["draw"], **config["options"]
    )
    copy_weights(vae.model.p_x.network, objective.model.p_x.network, inputs_at=-1)
    copy_weights(vae.guide.q_z.network, objective.guide.q_z.network, inputs_at=0)
    return objective


@torch.no_grad()
def copy_weights(source: Any, target: Any, inputs_at: int) -> None:
    """Copy a network with one input into one with several, whose other weights become zero."""
    for weights in target.first.weights:
        weights.zero_()
    target.first.weights[inputs_at].copy_(source.first.weights[0])
    target.first.bias.copy_(source.first.bias)
    target.rest.load_state_dict(source.rest.state_dict())


# --- tables and pictures ----------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    blocks = {}
    if where(results, part="table"):
        blocks["grid"] = grid(results, "table")
    if where(results, part="paper"):
        blocks["grid, the paper's settings"] = grid(results, "paper")
    analysed = where(results, part="table", analysed=True)
    if analysed:
        blocks["probe"] = probes(analysed)
        blocks["selection"] = selection(analysed)
        plot_selection(analysed, pictures / "selection.png")
    if where(results, part="pretraining"):
        blocks["pretraining"] = starts(results)
    blocks["pretraining, the paper's settings"] = starts_by_paper(results)
    if where(results, part="longer"):
        blocks["longer"] = lengths(results)
    batches = where(results, part="batches")
    if batches:
        alike = where(results, part="table", method="m2", weight=1.0)
        plot_batches(alike, batches, pictures / "batches.png")
    return blocks


def grid(results: Results, part: str) -> str:
    """Table 1: part `table` has settings of ours, part `paper` those of the preset."""
    cells = {name: r for name, r in results.items() if r["config"]["part"] == part}
    methods = [method for method in ("m2", *LATENT) if where(cells, method=method)]
    rows = [row for method in methods for row in _method_rows(cells, method)]
    for text in _others(results):
        rows.append((text, *[""] * len(WEIGHTS)))
    draws = " or ".join(map(str, _draws_by_cell(cells)))
    title = f"MNIST, 100 labels, {draws} draws, accuracy %; alpha of M2, lambda of the others"
    return table((title, *(f"{w:g}" for w in WEIGHTS)), rows)


def _draws_by_cell(cells: Results) -> list[int]:
    """The numbers of draws that a cell has."""
    counts = Counter((r["config"]["method"], r["config"]["weight"]) for r in cells.values())
    return sorted(set(counts.values()))


def _method_rows(cells: Results, method: str) -> Iterator[tuple[str, ...]]:
    """Mean and worst accuracy of a method by weight, and the paper's numbers."""
    by_weight = [where(cells, method=method, weight=w) for w in WEIGHTS]
    yield (method, *(_mean(mine, "accuracy") for mine in by_weight))
    yield ("- worst draw", *map(_worst, by_weight))
    if any("by_reconstruction" in r for mine in by_weight for r in mine):
        means = [_mean(mine, "by_reconstruction") for mine in by_weight]
        yield ("- by reconstruction loss", *means)
    theirs = published("latent_classifier", method)
    if theirs:
        yield ("- paper 003", *(theirs.get(f"{w:g}", "") for w in WEIGHTS))


def _others(results: Results) -> Iterator[str]:
    """The classifier on the labels alone, and published numbers of other methods."""
    baseline = where(results, part="table", method="classifier")
    theirs = published("latent_classifier")
    yield f"classifier: {_mean(baseline, 'accuracy')}; paper 003 {theirs['classifier']}"
    peers = [f"{name} {value}" for name, value in theirs.items() if name != "classifier"]
    yield f"peers: {'; '.join(peers)}"


def _worst(results: list[Result]) -> str:
    return f"{min(100 * r['accuracy'] for r in results):.1f}" if results else ""


def _mean(results: list[Result], measure: str) -> str:
    values = [100 * r[measure] for r in results if measure in r]
    return mean_sd(values, 1) if values else ""


def probes(analysed: list[Result]) -> str:
    """Section 3.3."""
    rows = []
    for weight in ANALYSED:
        mine = [r for r in analysed if r["config"]["weight"] == weight]
        if mine:
            accuracy, probe = (mean_sd(100 * r[k] for r in mine) for k in ("accuracy", "probe"))
            rows.append((f"{weight:g}", accuracy, probe))
    theirs = published("latent_classifier", "probe")["m2"]
    return table(
        ("alpha", "M2, accuracy %", f"accuracy % of a classifier on z (paper 003: {theirs})"), rows
    )


def selection(analysed: list[Result]) -> str:
    """Supplement 12: test accuracy of the epoch that each rule selects."""
    rows = []
    for weight in ANALYSED:
        paths = [r["path"] for r in analysed if r["config"]["weight"] == weight]
        if not paths:
            continue
        of_validation = mean_sd(100 * p["test"][int(np.argmax(p["validation"]))] for p in paths)
        of_loss = mean_sd(100 * p["test"][int(np.argmin(p["loss"]))] for p in paths)
        last = mean_sd(100 * p["test"][-1] for p in paths)
        rows.append((f"{weight:g}", of_validation, of_loss, last))
    return table(("alpha", "best of 10,000 validation labels", "lowest loss", "last epoch"), rows)


def plot_selection(analysed: list[Result], path: Path) -> None:
    """Supplement 12: test and validation accuracy, and loss, by epoch."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(ANALYSED), figsize=(3.8 * len(ANALYSED), 3), layout="constrained"
    )
    handles: dict[str, Any] = {}
    for ax, weight in zip(axes, ANALYSED, strict=True):
        losses = ax.twinx()
        for r in [r for r in analysed if r["config"]["weight"] == weight]:
            epochs = range(1, len(r["path"]["test"]) + 1)
            for colour, name in zip(style.COLOURS, ("test", "validation"), strict=False):
                line = ax.plot(epochs, [100 * a for a in r["path"][name]], color=colour)
                handles[f"{name} accuracy"] = line[0]
            handles["loss"] = losses.plot(epochs, r["path"]["loss"], "--", color="0.5")[0]
        ax.set(title=f"M2, alpha {weight:g}", xlabel="epoch", ylabel="accuracy %")
        losses.set(ylabel="loss, nats")
    figure.legend(
        handles.values(), handles.keys(), frameon=False, ncols=3, loc="outside lower center"
    )
    plots.save(figure, path)


def starts(results: Results) -> str:
    """Section 3.2: the same runs from random weights and from a VAE's."""
    theirs = published("latent_classifier", "pretraining")
    rows = []
    for method, weight in PRETRAINED.items():
        for part, name in (("table", "random"), ("pretraining", "a VAE's")):
            mine = paired(results, part, "pretraining", method, weight)
            if mine:
                commonest = f"{100 * statistics.fmean(r['commonest'] for r in mine):.1f}"
                paper = theirs.get(method, "") if part == "pretraining" else ""
                rows.append((method, name, *measures(mine), commonest, paper))
    return table(
        ("method", "weights at the start", *MEASURES, "commonest prediction %", "paper 003"), rows
    )


def starts_by_paper(results: Results) -> str:
    """Sections 3.2, 3.3 and 5.2 with the preset's settings: two starts, side by side."""
    theirs = published("latent_classifier", "pretraining")
    rows = []
    for method, weight in PRETRAINED_BY_PAPER:
        for start, name in STARTS.items():
            part = {"part": "pretraining_paper", "method": method}
            mine = where(results, **part, weight=weight, start=start)
            if mine:
                paper = theirs.get(method, "") if start == "vae" else ""
                analyses = [_mean(mine, k) for k in ("commonest", "by_reconstruction", "probe")]
                rows.append((method, f"{weight:g}", name, *measures(mine), *analyses, paper))
    if not rows:
        return "No runs yet."
    header = (
        "method",
        "alpha or lambda",
        "weights at the start",
        *MEASURES,
        "commonest prediction %",
        "accuracy % by reconstruction loss",
        "accuracy % of a classifier on z",
        "paper 003",
    )
    return table(header, rows)


def paired(results: Results, part: str, other: str, method: str, weight: float) -> list[Result]:
    """Results of a part, on the draws that the other part also has."""
    draws = {r["config"]["draw"] for r in where(results, part=other, method=method, weight=weight)}
    return [
        r
        for r in where(results, part=part, method=method, weight=weight)
        if r["config"]["draw"] in draws
    ]


def lengths(results: Results) -> str:
    """The same runs with five times the epochs."""
    rows = []
    for method, weight in LONGER.items():
        for part in ("table", "longer"):
            mine = paired(results, part, "longer", method, weight)
            if mine:
                epochs = mine[0]["config"]["training"]["epochs"]
                rows.append((method, f"{weight:g}", epochs, *measures(mine)))
    return table(("method", "alpha or lambda", "epochs", *MEASURES), rows)


def plot_batches(alike: list[Result], apart: list[Result], path: Path) -> None:
    """Figure 8."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    for colour, label, runs in zip(
        style.COLOURS, ("100 + 100", "1 + 499"), (alike, apart), strict=False
    ):
        for i, r in enumerate(runs):
            accuracy = [100 * a for a in r["path"]["test"]]
            ax.plot(
                range(1, len(accuracy) + 1), accuracy, color=colour, label=label if i == 0 else None
            )
    ax.set(xlabel="epoch", ylabel="test accuracy %")
    style.legend_beside(ax, title="labeled + unlabeled images per step")
    plots.save(figure, path)


STUDY = Study(
    "latent_classifier",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={"parts": Selection("part", PARTS, "parts of the study to run")},
)

if __name__ == "__main__":
    main(STUDY, __doc__)
