"""Variational classification: paper 000's Tables 1 to 4 and Figures 1 to 8.

It compares CE, GM and VC by accuracy, calibration, out-of-distribution detection and robustness,
with all labels and with few, by settings of ours and by the paper's (`variational_presets.py`).

`python experiments/variational_classification.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import margins
import torch
import variational_pictures as figures
import variational_presets as presets
import variational_tables as tables
from image_runs import hold_out, images, trained
from pages import published, where
from results_table import Result, Results
from study import DEVELOPMENT, Config, Selection, Study, main, resolved
from study import SETTINGS as WHOSE_SETTINGS
from torch import Tensor
from variational_measures import (
    OTHER_SETS,
    TITLES,
    from_prior,
    in_chunks,
    logits_of,
    plane,
    shifted,
    shifts_of,
)
from variational_tables import Rows, by_method, named

from pyro_ssl import Dataset, Objective, predict_proba
from pyro_ssl.evaluation import calibration, metrics

HELD_OUT = 5000
"""Training images without label in training, on which a temperature is fitted."""
METHODS = presets.METHODS
WEIGHTS: dict[str, dict[str, Any]] = {"gm": {"density": 0.1}, "vc": {"ratio": 0.1, "density": 0.03}}
WEIGHTS_ON: dict[str, dict[str, dict[str, Any]]] = {
    "mnist": {"vc": {"ratio": 0.03, "density": 0.03, "shared_variance": True, "stochastic": True}},
    "semi": {"vc": {"ratio": 0.03, "density": 0.03}},
    "cifar": {"vc": {"ratio": 0.03, "density": 0.01}},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "mnist": {"warp": 0.2, "noise": 0.1},
    "fashion_mnist": {"crop": 2, "flip": True},
    "cifar": {"crop": 4, "flip": True, "z_dim": 64},
    "low": {"warp": 0.2},
    "semi": {  # without batch norm, under which clean and noisy inputs see different classifiers
        "backbone": None,
        "network": "conv",
        "channels": [32, 64, 128],
        "noise": 0.15,
        "dropout": 0.3,
        "warp": 0.25,
        "consistency": 3.0,
        "balance": 4.0,
        "unlabeled_weight": 0.2,
    },
    "plane": {"warp": 0.2, "z_dim": 2},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gm, weight 1": {"density": 1.0},
    "vc, T without gradient to the encoder": {"backpropagate": False},
    "vc, weight 1": {"ratio": 1.0, "density": 0.0},
    "vc, weight 1, not bounded": {"ratio": 1.0, "density": 0.0, "bounded": False},
    "vc, weight 1, T without gradient to the encoder": {
        "ratio": 1.0,
        "density": 0.0,
        "backpropagate": False,
    },
    "vc, T linear": {"discriminator_inputs": "linear"},
    "vc, T with a hidden layer": {"discriminator_hidden": 64},
    "vc, T of products": {"discriminator_inputs": "quadratic"},
    "vc, T of spectral norm 1": {"spectral_norm": True},
    "vc, Gaussian latent": {"stochastic": True},
}


def weights(method: str, key: str) -> dict[str, Any]:
    """Weights of a method's loss for a key of `SETTINGS`."""
    return WEIGHTS_ON.get(key, {}).get(method, WEIGHTS.get(method, {}))


@dataclass(frozen=True)
class Scale:
    """Epochs by key of `SETTINGS`, networks of CIFAR-10, and the width of the CNN."""

    epochs: dict[str, int]
    cifar: tuple[str, ...]
    cnn: str = "cnn-16"


SCALES = {
    "smoke": Scale(dict.fromkeys(SETTINGS, 1), ("wrn-10-1",), "cnn-2"),
    "cpu": Scale(
        {"mnist": 10, "fashion_mnist": 20, "low": 60, "semi": 12, "plane": 6, "cifar": 15},
        ("wrn-10-2",),
    ),
    "paper": Scale(
        {"mnist": 60, "fashion_mnist": 60, "low": 200, "semi": 60, "plane": 30, "cifar": 200},
        ("wrn-28-10", "resnet50"),
        "cnn-32",
    ),
}
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4], "paper": [0, 1, 2, 3, 4]}
PARTS = ("full", "low", "semi", "plane", "cifar", *presets.PARTS)


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    return {name: config for draw in draws for name, config in _of_draw(draw, scale)}


def _of_draw(draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    yield from _with_few_labels(draw, scale)
    yield from _with_all_labels(draw, scale)
    make = partial(configure, draw=draw, scale=scale)
    for method in METHODS if draw == 0 else ():
        yield f"plane_{method}", make("plane", "mnist", method)
    for backbone in SCALES[scale].cifar:
        for method in METHODS:
            config = make("cifar", "cifar10", method, {"backbone": backbone})
            yield f"cifar_{backbone}_{method}_{draw}", config
    network = {"backbone": SCALES[scale].cifar[0]}
    ours = [make("cifar", "cifar10", method, network) for method in METHODS]
    yield from presets.configs_of_draw(draw, scale, ours)


def _with_few_labels(draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    """Runs with 500 labels alone, and with the other images as unlabeled ones."""
    make = partial(configure, draw=draw, scale=scale)
    for method in METHODS:
        row = f"{named(method, weights(method, 'low'))}, 500 labels alone"
        yield f"low_{method}_{draw}", make("low", "mnist", method, row=row, per_class=50)
    for i, (row, options) in enumerate(VARIANTS.items()):
        config = make("low", "mnist", row[:2], options, row=row, per_class=50)
        yield f"low_{row[:2]}_{i}_{draw}", config
    for method, per_class in (("vc", 50), ("ce", 50), ("vc", 10), ("ce", 10)):
        labels = f"{10 * per_class} labels, the others unlabeled"
        row = f"{named(method, weights(method, 'semi'))}, {labels}"
        config = make("semi", "mnist", method, row=row, per_class=per_class)
        yield f"semi_{method}_{10 * per_class}_{draw}", config


def _with_all_labels(draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    make = partial(configure, draw=draw, scale=scale)
    for name in ("mnist", "fashion_mnist"):
        for method in METHODS:
            yield f"full_{name}_{method}_{draw}", make("full", name, method)
        yield f"full_{name}_temperature_{draw}", make("full", name, "ce", held_out=HELD_OUT)
    yield f"full_mnist_gaussian_latent_{draw}", make("full", "mnist", "ce", {"stochastic": True})


def configure(
    part: str,
    name: str,
    method: str,
    options: dict[str, Any] | None = None,
    *,
    draw: int,
    scale: str,
    **others: Any,
) -> Config:
    key = name if part == "full" else part
    chosen: dict[str, Any] = {"backbone": SCALES[scale].cnn, "z_dim": 16, "unlabeled_weight": 0.0}
    chosen |= SETTINGS[key] | weights(method, key) | (options or {})
    batch = 50 if part == "low" else 100
    training: dict[str, Any] = {
        "epochs": SCALES[scale].epochs[key],
        "batch_size": batch,
        "labeled_batch_size": batch,
        "lr": 3e-3,
        "ema": 0.999,
        "precision": "bfloat16",
    }
    if scale == "smoke":
        _shrink(part, chosen, training, others)
    if part == "cifar" and scale == "paper":
        training |= {"batch_size": 128, "labeled_batch_size": 128, "lr": 0.1, "ema": 0.0}
        others |= {"sgd": True, "rows": 50_000}
    labels = {} if "per_class" in others else {"labels": "all"}
    return {
        "part": part,
        "data": name,
        "method": method,
        "draw": draw,
        **labels,
        **others,
        "options": resolved(method, chosen),
        "training": training,
    }


def _shrink(
    part: str, chosen: dict[str, Any], training: dict[str, Any], others: dict[str, Any]
) -> None:
    """Make options, batches and data of a run small, in place, for a smoke test."""
    chosen["z_dim"] = min(4, chosen["z_dim"])
    if part == "semi":
        chosen["channels"] = [4, 8, 8]
    if part in ("low", "semi"):  # 500 labels in two steps
        others |= {"rows": 800, "test_rows": 100}
        training |= {"batch_size": 250, "labeled_batch_size": 250}
    elif part == "cifar":
        others |= {"rows": 40, "test_rows": 20, "pgd_steps": 1}
    else:
        others |= {"rows": 100, "test_rows": 60, "pgd_steps": 1}
    if "held_out" in others:
        others["held_out"] = 50


def wide_resnet_schedule(
    optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """A fifth of the rate after 30, 60 and 80 % of the steps."""
    milestones = [int(share * steps) for share in (0.3, 0.6, 0.8)]
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)


SGD: dict[str, Any] = {
    "optimizer": partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "schedule": wide_resnet_schedule,
}
"""Optimiser of the repository that the paper names, meliketoy/wide-resnet.pytorch."""


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one classifier, and measure what its part of the study is about."""
    dataset, labels = images(config)
    if config["draw"] >= DEVELOPMENT:
        dataset, labels = hold_out(dataset, labels)
    held_out = _held_out(config, len(labels))
    labels = labels.index_fill(0, held_out, -1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    own = dict(SGD) if config.get("sgd") else {}
    own |= {"objective": _comparator(config, dataset), "device": device}
    objective, _, _, history = trained(config, directory, (dataset, labels), **own)
    x, y = dataset.x_test, dataset.y_test
    result: Result = {"seconds": history["seconds"][-1]}
    probs = predict_proba(objective, x)
    if len(held_out):
        of_held_out, of_test = (
            in_chunks(objective, logits_of(objective), part) for part in (dataset.x[held_out], x)
        )
        result["temperature"] = calibration.temperature(of_held_out, dataset.y[held_out])
        probs = (of_test / result["temperature"]).softmax(-1)
    result |= metrics.evaluate(probs, y)
    result["calibration_p_value"] = calibration.calibration_test(probs, y)
    result["from_prior"] = from_prior(objective, x, y)
    if shifts_of(config):
        result |= shifted(objective, config, dataset, labels, probs, directory)
    if config["part"] == "plane":
        picture = pictures / "ambiguous.png" if config["method"] == "vc" else None
        result |= plane(
            objective, dataset, directory / "vae", config["training"]["epochs"], picture
        )
    return result


def _held_out(config: Config, rows: int) -> Tensor:
    """Training images that have no label in training: `held_out` of the config, or none."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(config["draw"]))
    return order[: config.get("held_out", 0)]


def _comparator(config: Config, dataset: Dataset) -> Objective | None:
    """The objective of an earlier loss, or None for a method of the zoo."""
    if "comparator" not in config:
        return None
    return margins.build(
        config["comparator"],
        dataset.x_shape,
        len(dataset.classes),
        arguments=config["arguments"],
        seed=config["draw"],
        options=config["options"],
    )


def report(results: Results, pictures: Path) -> dict[str, str]:
    blocks = {}
    for name, title, rows, paper in _full(results):
        if not rows:
            continue
        blocks[f"{name}: accuracy"] = tables.accuracies(title, rows, paper)
        measured = {row: mine for row, mine in rows.items() if "ood" in mine[0]}
        if measured:
            blocks[f"{name}: out-of-distribution"] = tables.out_of_distribution(title, measured)
            blocks[f"{name}: attacks"] = tables.under_attacks(title, measured)
            figures.plot_reliability(measured, title, pictures / f"reliability_{name}.png")
            figures.plot_shift(measured, title, pictures / f"shift_{name}.png")
            figures.plot_tsne(measured, pictures / f"tsne_{name}.png")
    few = where(results, part="low") + where(results, part="semi")
    if few:
        paper = {
            f"{named(method, weights(method, 'low'))}, 500 labels alone": text
            for method, text in published("variational_classification", "500 labels").items()
        }
        blocks["few labels"] = tables.few_labels(few, paper)
    blocks |= by_the_paper(results)
    by_picture = {
        "attacks_mnist": (presets.rows_of(results, "paper_full", data="mnist"), "fgsm"),
        "attacks_cifar10": (presets.rows_of(results, "attacks"), "small_fgsm"),
    }
    for name, (rows, attack) in by_picture.items():
        figures.plot_attacks(rows, attack, pictures / f"{name}.png")
    figures.plot_planes(by_method(where(results, part="plane")), pictures)
    return blocks


def by_the_paper(results: Results) -> dict[str, str]:
    """Tables of the paper's settings, each row followed by ours."""
    blocks = {}
    for name in ("mnist", "fashion_mnist"):
        sets = {other: TITLES[other] for other in OTHER_SETS[name]}
        ours = by_method(where(results, part="full", data=name))
        in_full = {
            f"{row}, our settings": mine
            for row, mine in ours.items()
            if not row.startswith("ce, ")  # the temperature and the Gaussian latent
        }
        rows = presets.rows_of(results, "paper_full", data=name)
        if rows:
            rows = presets.in_order(rows, in_full)
        rows |= presets.rows_of(results, "margins_full", data=name)
        title = f"{TITLES[name]}, all labels"
        blocks[f"{name}: the paper's settings"] = presets.with_all_labels(title, rows, sets)
    few = presets.rows_of(results, "paper_low", "margins_low")
    paper = published("variational_classification", "500 labels")
    title = "MNIST, 500 labels, no warps"
    blocks["few labels: the paper's settings"] = presets.with_few_labels(title, few, paper)
    attacked = presets.rows_of(results, "attacks")
    title = "CIFAR-10: accuracy % under FGSM of epsilon"
    blocks["cifar10: small attacks"] = presets.under_small_attacks(title, attacked)
    return blocks


def _full(results: Results) -> Iterator[tuple[str, str, Rows, dict[str, str]]]:
    """Name, title, rows and published numbers of each table with all labels."""
    for name in ("mnist", "fashion_mnist"):
        yield (
            name,
            f"{TITLES[name]}, all labels",
            by_method(where(results, part="full", data=name)),
            {},
        )
    cifar = where(results, part="cifar")
    for backbone in sorted({r["config"]["options"]["backbone"] for r in cifar}):
        mine = [r for r in cifar if r["config"]["options"]["backbone"] == backbone]
        setting = f"cifar10, {backbone}"
        accuracy = published("variational_classification", setting)
        ece = published("variational_classification", setting, "ECE %")
        paper = {method: f"{accuracy[method]}, {ece[method]}" for method in accuracy}
        yield f"cifar10_{backbone}", f"CIFAR-10, {backbone}", by_method(mine), paper


STUDY = Study(
    "variational_classification",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "parts": Selection("part", PARTS, "parts of the study to run"),
        "data": Selection("data", tuple(OTHER_SETS), "data sets to run"),
        "methods": Selection("method", METHODS, "methods to run"),
        "settings": WHOSE_SETTINGS,
    },
    arrays=["tsne", "latents", "classes"],
)

if __name__ == "__main__":
    main(STUDY, __doc__)
