"""Variational classification: paper 000's Tables 1 to 4 and Figures 1 to 8.

It compares CE, GM and VC by accuracy, calibration, out-of-distribution detection and robustness,
with all labels and with few, by settings of ours and by the paper's (`variational_presets.py`).

`python experiments/variational_classification.py --help` explains every option.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import margins
import numpy as np
import torch
import variational_presets as presets
from image_runs import hold_out, images, other_sets, trained, tsne_steps
from pages import mean_sd, published, table, where
from panels import COLOURS
from results_table import Result, Results
from sklearn.manifold import TSNE
from study import DEVELOPMENT, Config, Selection, Study, main, resolved, write_json
from study import SETTINGS as WHOSE_SETTINGS
from torch import Tensor

from pyro_ssl import Dataset, Objective, data, eval_mode, fit, predict_proba, zoo
from pyro_ssl.evaluation import attacks, calibration, corruptions, metrics, ood, plots, style

EPSILONS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Sizes of attacks: largest change of a pixel in [0, 1]."""
OTHER_SETS = {
    "mnist": ("fashion_mnist", "kmnist", "notmnist"),
    "fashion_mnist": ("mnist", "kmnist", "notmnist"),
    "cifar10": ("cifar100",),
}
TITLES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "kmnist": "KMNIST",
    "notmnist": "notMNIST",
}
HELD_OUT = 5000
"""Training images without label in training, on which a temperature is fitted."""
FIRST = 1000
"""Test images that PGD attacks."""
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


def named(method: str, options: dict[str, Any]) -> str:
    """Name a method with its weights and the kind of its latent."""
    parts = [method]
    parts += [f"{k} {options[k]:g}" for k in ("ratio", "density") if options.get(k)]
    if options.get("shared_variance") and method != "ce":
        parts.append("one variance")
    if options.get("stochastic"):
        parts.append("Gaussian latent")
    return ", ".join(parts)


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
            in_chunks(objective, _logits(objective), part) for part in (dataset.x[held_out], x)
        )
        result["temperature"] = calibration.temperature(of_held_out, dataset.y[held_out])
        probs = (of_test / result["temperature"]).softmax(-1)
    result |= metrics.evaluate(probs, y)
    result["calibration_p_value"] = calibration.calibration_test(probs, y)
    result["from_prior"] = from_prior(objective, x, y)
    if _shifts(config):
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


OF_IMAGES = ("reliability", "ood", "corruptions", "fgsm", "fgsm_first", "pgd_first")
SHIFTS = {
    "full": OF_IMAGES,
    "cifar": OF_IMAGES,
    "paper_full": ("reliability", "ood", "fgsm"),
    "margins_full": ("reliability", "ood", "fgsm"),
    "attacks": ("small_fgsm",),
}
"""What `shifted` measures, by part."""


def _shifts(config: Config) -> tuple[str, ...]:
    """What `shifted` measures in a run; nothing where a temperature is fitted."""
    return () if "held_out" in config else SHIFTS.get(config["part"], ())


def _logits(objective: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: objective.classify(x).logits


def in_chunks(objective: Objective, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of rows in evaluation mode, 1024 rows at a time: `(N, *)` on the CPU."""
    device = next(objective.parameters()).device
    with eval_mode(objective):
        return torch.cat([function(part.to(device)).cpu() for part in x.split(1024)])


def shifted(
    objective: Objective,
    config: Config,
    dataset: Dataset,
    labels: Tensor,
    probs: Tensor,
    directory: Path,
) -> Result:
    """Measure what the run's part has of calibration by bins, out-of-distribution detection,
    corruptions and attacks; for the first draw of some also t-SNE, for Figure 6.

    Each part is written as it is measured, so that a killed run does not measure it again.
    """
    x, y = dataset.x_test, dataset.y_test
    pgd_steps = config.get("pgd_steps", 20)
    others = _other_sets(config, len(x)) if "ood" in _shifts(config) else {}

    def measure_ood() -> dict[str, Any]:
        known = labels >= 0
        densities = ood.fit_densities(objective, dataset.x[known], labels[known])
        return ood.ood_metrics(ood.score_sets(objective, {config["data"]: x, **others}, densities))

    def measure_reliability() -> dict[str, Any]:
        return {k: v.tolist() for k, v in calibration.reliability(probs, y, 20)._asdict().items()}

    first = x[:FIRST], y[:FIRST]
    measures: dict[str, Callable[[], Any]] = {
        "reliability": measure_reliability,
        "ood": measure_ood,
        "corruptions": lambda: corruptions.under_corruption(objective, x, y),
        "fgsm": lambda: attacks.under_attack(objective, x, y, EPSILONS),
        "fgsm_first": lambda: attacks.under_attack(objective, *first, EPSILONS),
        "pgd_first": lambda: attacks.under_attack(
            objective, *first, EPSILONS, "pgd", steps=pgd_steps
        ),
        "small_fgsm": lambda: attacks.under_attack(objective, x, y, presets.SMALL_EPSILONS),
    }
    result: Result = {}
    for name in _shifts(config):
        path = directory / f"{name}.json"
        if not path.exists():
            write_json(path, measures[name]())
        result[name] = json.loads(path.read_text())
    if config["draw"] == 0 and others and _shifts(config) == OF_IMAGES:
        sets = {config["data"]: x[:1000], **{k: v[:1000] for k, v in others.items()}}
        result["tsne"] = embedded({k: ood.features(objective, v) for k, v in sets.items()})
    return result


def _other_sets(config: Config, rows: int) -> dict[str, Tensor]:
    """Other sets' test images; in development training images, so that those of the tables stay
    unseen.
    """
    names = OTHER_SETS[config["data"]]
    if config["draw"] < DEVELOPMENT:
        return other_sets(names, config.get("rows"))
    return {name: data.load(name).x[:rows] for name in names if name in OTHER_SETS}


def from_prior(objective: Any, x: Tensor, y: Tensor) -> float:
    """Distance of the latents from their class's prior, in nats per dimension.

    It is KL(q || p) of the diagonal Gaussian with the mean and variance of the latents of a class,
    averaged over the classes of `y`. The variance of Gaussian latents is that of their means plus
    the mean of their own.
    """
    p_z = objective.model.p_z

    def moments(x: Tensor) -> Tensor:
        q_z = objective.guide.code(x)
        return torch.stack([q_z.mean, q_z.variance], 1)

    z, own = in_chunks(objective, moments, x).unbind(1)
    present = y.unique()  # the first images of a test set may lack a class
    loc = p_z.loc.detach().cpu()
    scale = p_z.scale.detach().cpu().expand(len(loc), -1)[present]
    member = torch.nn.functional.one_hot(y, len(loc)).T.float()[present]
    loc = loc[present]
    mean = member @ z / member.sum(1, keepdim=True)
    variance = member @ (z.square() + own) / member.sum(1, keepdim=True) - mean.square()
    latents = torch.distributions.Normal(mean, variance.clamp_min(1e-12).sqrt())
    priors = torch.distributions.Normal(loc, scale)
    return float(torch.distributions.kl_divergence(latents, priors).mean())


def plane(
    objective: Any, dataset: Dataset, directory: Path, epochs: int, picture: Path | None
) -> Result:
    """Latents in the plane, and those of ambiguous digits."""
    x, y = dataset.x_test[:5000], dataset.y_test[:5000]
    blends, pairs = ambiguous(dataset, directory, epochs)
    if picture is not None:
        plots.save(plots.image_grid(torch.stack(blends)), picture)
    return {
        "latents": [[round(v, 3) for v in row] for row in ood.features(objective, x).tolist()],
        "classes": y.tolist(),
        "means": objective.model.p_z.loc.tolist(),
        "scales": objective.model.p_z.scale.expand(len(dataset.classes), -1).tolist(),
        "pairs": pairs,
        "blended": [ood.features(objective, b).tolist() for b in blends],
        "probs": [predict_proba(objective, b).tolist() for b in blends],
        "familiar": [ood.scores(objective, b)["log p(z)"].tolist() for b in blends],
    }


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


def ambiguous(
    dataset: Dataset, directory: Path, epochs: int
) -> tuple[list[Tensor], list[list[int]]]:
    """Images between a 7 and a 1, a 7 and a 2, and a 4 and a 9.

    They are decoded from latents of a VAE on the line between two digits.
    """
    vae: Any = zoo.build("vae", dataset.x_shape, 10, seed=0, z_dim=16)
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": 200, "lr": 1e-3, "progress": False}
    fit(vae, dataset.x, seed=0, directory=directory, resume=True, **settings)
    pairs = [[7, 1], [7, 2], [4, 9]]
    blends = []
    with eval_mode(vae):
        for a, b in pairs:
            start, end = (
                vae.guide.q_z(dataset.x_test[dataset.y_test == k][:1]).mean for k in (a, b)
            )
            blends.append(
                vae.model.p_x(torch.lerp(start, end, torch.linspace(0, 1, 9)[:, None])).mean
            )
    return blends, pairs


def embedded(features: dict[str, Tensor]) -> dict[str, list[list[float]]]:
    """Features of several sets in one plane, by t-SNE."""
    z = torch.cat(list(features.values()))
    flat = TSNE(random_state=0, init="pca", max_iter=tsne_steps(len(z))).fit_transform(z.numpy())
    ends = np.cumsum([len(f) for f in features.values()])[:-1]
    parts = np.split(flat, ends)
    return {name: part.round(1).tolist() for name, part in zip(features, parts, strict=True)}


# --- tables and pictures ----------------------------------------------------------------------

Rows = dict[str, list[Result]]
"""Results by name of the row."""


def report(results: Results, pictures: Path) -> dict[str, str]:
    blocks = {}
    for name, title, rows, paper in _full(results):
        if not rows:
            continue
        blocks[f"{name}: accuracy"] = accuracies(title, rows, paper)
        measured = {row: mine for row, mine in rows.items() if "ood" in mine[0]}
        if measured:
            blocks[f"{name}: out-of-distribution"] = out_of_distribution(title, measured)
            blocks[f"{name}: attacks"] = under_attacks(title, measured)
            plot_reliability(measured, title, pictures / f"reliability_{name}.png")
            plot_shift(measured, title, pictures / f"shift_{name}.png")
            plot_tsne(measured, pictures / f"tsne_{name}.png")
    few = where(results, part="low") + where(results, part="semi")
    if few:
        blocks["few labels"] = few_labels(few)
    blocks |= by_the_paper(results)
    by_picture = {
        "attacks_mnist": (presets.rows_of(results, "paper_full", data="mnist"), "fgsm"),
        "attacks_cifar10": (presets.rows_of(results, "attacks"), "small_fgsm"),
    }
    for name, (rows, attack) in by_picture.items():
        plot_attacks(rows, attack, pictures / f"{name}.png")
    _plot_planes(by_method(where(results, part="plane")), pictures)
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


def _plot_planes(rows: Rows, pictures: Path) -> None:
    """Draw what there is of the part `plane`."""
    planes = {_short(row): mine[0] for row, mine in rows.items()}
    if planes:
        plot_ambiguous(planes, pictures / "ambiguous_ways.png")
    with_latents = {row: r for row, r in planes.items() if "latents" in r}
    if with_latents:
        plot_plane(with_latents, pictures / "plane.png")


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


def by_method(results: list[Result]) -> Rows:
    """Group runs by method and weights; CE with a fitted temperature is a row of its own."""
    rows: Rows = {}
    for r in results:
        method, options = r["config"]["method"], r["config"]["options"]
        rows.setdefault(
            "ce, temperature" if "temperature" in r else named(method, options), []
        ).append(r)

    def place(row: str) -> tuple[int, bool]:
        return METHODS.index(row.split(",")[0]), "temperature" in row

    return {row: rows[row] for row in sorted(rows, key=place)}


def _short(row: str) -> str:
    """A row's name without weights, in capitals, for legends."""
    method, *others = row.split(", ")
    kept = [part for part in others if not part.startswith(("ratio", "density", "one variance"))]
    return ", ".join([method.upper(), *kept])


def _row_colours(rows: Iterable[str]) -> dict[str, str]:
    """Colours by row: the method's own for its first row, and others for further ones."""
    names: dict[str, str] = {}
    for row in rows:
        method = row.split(",")[0].lower()
        names[row] = row if method in names.values() else method
    colours = style.line_colours(names.values())
    return {row: colours[name] for row, name in names.items()}


def accuracies(title: str, rows: Rows, paper: dict[str, str]) -> str:
    """Tables 1 and 2."""
    header = (
        title,
        "accuracy %, mean (sd)",
        "worst",
        "draws",
        "log-likelihood",
        "ECE %, 20 bins",
        "worst",
        "adaptive ECE %",
        "p if calibrated, median (lowest)",
        "latents from p(z|y), nats per dimension",
        "s per run",
        "paper 000: accuracy, ECE",
    )
    cells = []
    for row, mine in rows.items():
        accuracy = [100 * r["accuracy"] for r in mine]
        ece = [100 * r["ece_20"] for r in mine]
        p = [r["calibration_p_value"] for r in mine]
        cells.append(
            (
                row,
                mean_sd(accuracy),
                f"{min(accuracy):.2f}",
                len(mine),
                mean_sd((r["log_likelihood"] for r in mine), 3),
                mean_sd(ece),
                f"{max(ece):.2f}",
                mean_sd(100 * r["ece_adaptive"] for r in mine),
                f"{statistics.median(p):.3f} ({min(p):.3f})",
                mean_sd((r["from_prior"] for r in mine), 3),
                f"{statistics.fmean(r['seconds'] for r in mine):.0f}",
                paper.get(row.split(",")[0], ""),
            )
        )
    return table(header, cells)


OOD_MEASURES = {"auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR95"}


def out_of_distribution(title: str, rows: Rows) -> str:
    """Table 3, by every score."""
    sets = list(next(iter(rows.values()))[0]["ood"])
    cells = []
    for row, mine in rows.items():
        for score in mine[0]["ood"][sets[0]] if sets else ():
            cells.append((row, score, *(_ood_cell(mine, name, score) for name in sets)))
    measures = ", ".join(OOD_MEASURES.values())
    return table(
        (f"{title}: {measures}, mean (sd), worst, against", "score", *(TITLES[s] for s in sets)),
        cells,
    )


def _ood_cell(mine: list[Result], name: str, score: str) -> str:
    parts = []
    for measure in OOD_MEASURES:
        values = [r["ood"][name][score][measure] for r in mine]
        worst = max(values) if measure == "fpr95" else min(values)
        parts.append(f"{mean_sd(values, 3)}, {worst:.3f}")
    return "; ".join(parts)


KINDS = {
    "FGSM up the loss": ("fgsm", "loss"),
    "FGSM, the worse of both aims": ("fgsm", "either"),
    f"FGSM, the worse of both aims, first {FIRST}": ("fgsm_first", "either"),
    f"PGD, the worse of both aims, first {FIRST}": ("pgd_first", "either"),
}
"""Attacks by name: the key of the result, and its aim."""


def under_attacks(title: str, rows: Rows) -> str:
    """Figure 5 in numbers."""
    cells = []
    for row, mine in rows.items():
        for kind, (attack, aim) in KINDS.items():
            by_size = [[100 * r[attack][i][aim] for r in mine] for i in range(len(EPSILONS))]
            cells.append(
                (row, kind, *(f"{mean_sd(values)}, worst {min(values):.1f}" for values in by_size))
            )
    return table(
        (f"{title}: accuracy % under attack", "epsilon:", *(f"{e:g}" for e in EPSILONS)), cells
    )


def few_labels(results: list[Result]) -> str:
    """Table 4, and VC in other forms."""
    by_row: Rows = {}
    for r in results:
        by_row.setdefault(r["config"]["row"], []).append(r)
    theirs = published("variational_classification", "500 labels")
    paper = {f"{named(m, weights(m, 'low'))}, 500 labels alone": text for m, text in theirs.items()}
    header = (
        "MNIST",
        "accuracy %, mean (s.e.)",
        "worst",
        "draws",
        "log-likelihood",
        "ECE %, 20 bins",
        "latents from p(z|y), nats per dimension",
        "s per run",
        "paper 000",
    )
    return table(header, [(row, *_few(mine), paper.get(row, "")) for row, mine in by_row.items()])


def _few(mine: list[Result]) -> tuple[str, ...]:
    accuracy = [100 * r["accuracy"] for r in mine]
    error = f" ({statistics.stdev(accuracy) / len(mine) ** 0.5:.2f})" if len(mine) > 1 else ""
    return (
        f"{statistics.fmean(accuracy):.2f}{error}",
        f"{min(accuracy):.2f}",
        str(len(mine)),
        mean_sd((r["log_likelihood"] for r in mine), 3),
        mean_sd(100 * r["ece_20"] for r in mine),
        mean_sd((r["from_prior"] for r in mine), 3),
        f"{statistics.fmean(r['seconds'] for r in mine):.0f}",
    )


def plot_reliability(rows: Rows, title: str, path: Path) -> None:
    """Figure 3, of one draw."""
    diagrams = {}
    for row, mine in rows.items():
        bins = [
            torch.tensor(np.array(mine[0]["reliability"][k], dtype=float))
            for k in calibration.Reliability._fields
        ]
        diagrams[_short(row)] = calibration.Reliability(*bins)
    figure = plots.reliability(diagrams)
    figure.suptitle(title)
    plots.save(figure, path)


def plot_shift(rows: Rows, title: str, path: Path) -> None:
    """Figures 4, 5 and 7: mean and range over the draws, under corruption and under attack."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.2), layout="constrained")
    colours = _row_colours(rows)
    for i, (row, mine) in enumerate(rows.items()):
        label, colour = _short(row), colours[row]
        severities = list(corruptions.SEVERITIES)
        _range(axes[0], severities, [_by_severity(r, "accuracy") for r in mine], i, colour, label)
        _range(axes[1], severities, [_by_severity(r, "ece_20") for r in mine], i, colour, label)
        attacked = [[100 * at["either"] for at in r["fgsm"]] for r in mine]
        _range(axes[2], list(EPSILONS), attacked, i, colour, label)
    axes[0].set(xlabel="severity, mean of ten corruptions", ylabel="accuracy %")
    axes[1].set(xlabel="severity, mean of ten corruptions", ylabel="ECE %")
    axes[2].set(xlabel="epsilon of FGSM", ylabel="accuracy %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside center right")
    figure.suptitle(title)
    plots.save(figure, path)


def _range(
    ax: Any, at: list[float], values: list[list[float]], i: int, colour: str, label: str
) -> None:
    """A line of means with bars from worst to best; lines are set apart a little, so that bars do
    not overlap.
    """
    v = np.array(values)
    mean = v.mean(0)
    aside = np.array(at) + 0.02 * i * (at[-1] - at[0])
    around = np.array([mean - v.min(0), v.max(0) - mean])
    ax.errorbar(
        aside, mean, around, fmt="o-", markersize=3, elinewidth=0.8, color=colour, label=label
    )


def _by_severity(result: Result, measure: str) -> list[float]:
    severities = range(len(corruptions.SEVERITIES))
    return [
        100 * float(np.mean([by[s][measure] for by in result["corruptions"].values()]))
        for s in severities
    ]


def plot_attacks(rows: Rows, attack: str, path: Path) -> None:
    """Figure 5: the accuracy under FGSM up the loss, by the paper's settings and by ours, mean and
    range over the draws.
    """
    import matplotlib.pyplot as plt

    panels = _by_settings(rows)
    if not panels:
        return
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False, layout="constrained"
    )
    for ax, (settings, own) in zip(axes[0], panels.items(), strict=True):
        _plot_attack(ax, own, attack)
        ax.set(title=f"settings: {settings}", xlabel="epsilon of FGSM", ylabel="accuracy %")
        ax.legend(frameon=False)
    plots.save(figure, path)


def _by_settings(rows: Rows) -> dict[str, Rows]:
    """The rows by their settings, without runs that diverged."""
    panels: dict[str, Rows] = {}
    for row, mine in rows.items():
        ended = [r for r in mine if "diverged" not in r]
        if ended:
            panels.setdefault(ended[0]["config"]["settings"], {})[row] = ended
    return panels


def _plot_attack(ax: Any, rows: Rows, attack: str) -> None:
    """One line for each row: the accuracy by the size of the attack."""
    colours = _row_colours(rows)
    for i, (row, mine) in enumerate(rows.items()):
        values = [[100 * at["loss"] for at in r[attack]] for r in mine]
        sizes = [f"{at['epsilon']:g}" for at in mine[0][attack]]
        _range(ax, list(range(len(sizes))), values, i, colours[row], row.split(",")[0].upper())
        ax.set_xticks(range(len(sizes)), sizes)


def plot_tsne(rows: Rows, path: Path) -> None:
    """Figure 6: features of test data and of out-of-distribution data."""
    import matplotlib.pyplot as plt

    panels = {_short(row): r["tsne"] for row, mine in rows.items() for r in mine if "tsne" in r}
    if not panels:
        return
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.4 * len(panels) + 1.2, 3.4), squeeze=False, layout="constrained"
    )
    for ax, (method, sets) in zip(axes[0], panels.items(), strict=True):
        for i, (name, points) in enumerate(sets.items()):
            ax.scatter(*np.array(points).T, s=3, color=COLOURS[i], label=TITLES[name], linewidths=0)
        ax.set(title=method, xticks=[], yticks=[])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, markerscale=3, loc="outside center right")
    plots.save(figure, path)


def plot_plane(planes: dict[str, Result], path: Path) -> None:
    """Figures 1 and 8: latents and priors in the plane; below, the paths of ambiguous digits."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Ellipse

    figure, axes = plt.subplots(
        2, len(planes), figsize=(3.6 * len(planes), 7.2), squeeze=False, layout="constrained"
    )
    for (above, below), (method, r) in zip(axes.T, planes.items(), strict=True):
        z, y = np.array(r["latents"]), np.array(r["classes"])
        low, high = np.percentile(z, 0.5, 0), np.percentile(z, 99.5, 0)
        for ax, alpha in ((above, 0.6), (below, 0.1)):
            ax.scatter(*z.T, s=3, c=COLOURS[y], alpha=alpha, linewidths=0)
            ax.set(
                title=method,
                xlabel="$z_1$",
                ylabel="$z_2$",
                xlim=(low[0], high[0]),
                ylim=(low[1], high[1]),
            )
        for k, (mean, scale) in enumerate(zip(r["means"], r["scales"], strict=True)):
            above.add_patch(
                Ellipse(tuple(mean), 4 * scale[0], 4 * scale[1], fill=False, edgecolor=COLOURS[k])
            )
            above.annotate(
                str(k), mean, fontsize=11, ha="center", va="center", annotation_clip=True
            )
        for way, (a, b) in zip(r["blended"], r["pairs"], strict=True):
            below.plot(*np.array(way).T, "k.-", linewidth=1)
            for at, digit in ((way[0], a), (way[-1], b)):
                below.annotate(str(digit), at, fontsize=11, annotation_clip=True)
    plots.save(figure, path)


def plot_ambiguous(planes: dict[str, Result], path: Path) -> None:
    """Figure 2: class probabilities and log p(z) along the paths of ambiguous digits."""
    import matplotlib.pyplot as plt

    pairs = next(iter(planes.values()))["pairs"]
    colours = _row_colours(planes)
    figure, axes = plt.subplots(
        2,
        len(pairs),
        figsize=(3.6 * len(pairs), 5),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for column, (a, b) in enumerate(pairs):
        for method, r in planes.items():
            probs = np.array(r["probs"][column])
            at = np.linspace(0, 1, len(probs))
            colour = colours[method]
            axes[0, column].plot(at, probs[:, a], color=colour, label=f"{method}, first digit")
            axes[0, column].plot(
                at, probs[:, b], "--", color=colour, label=f"{method}, second digit"
            )
            axes[1, column].plot(at, r["familiar"][column], color=colour)
        axes[0, column].set(title=f"from a {a} to a {b}")
        axes[1, column].set(xlabel="position between the two digits")
    axes[0, 0].set(ylabel="p(y|x)")
    axes[1, 0].set(ylabel="log p(z), nats")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=3, loc="outside lower center")
    plots.save(figure, path)


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
