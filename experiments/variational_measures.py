"""What `variational_classification.py` measures of a trained classifier.

Calibration by bins, out-of-distribution detection, corruptions and attacks, the distance of the
latents from their prior, and latents in the plane.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import variational_presets as presets
from image_runs import other_sets, tsne_steps
from results_table import Result
from sklearn.manifold import TSNE
from study import DEVELOPMENT, Config, write_json
from torch import Tensor

from pyro_ssl import Dataset, Objective, data, eval_mode, fit, predict_proba, zoo
from pyro_ssl.evaluation import attacks, calibration, corruptions, ood, plots

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
FIRST = 1000
"""Test images that PGD attacks."""
OF_IMAGES = ("reliability", "ood", "corruptions", "fgsm", "fgsm_first", "pgd_first")
SHIFTS = {
    "full": OF_IMAGES,
    "cifar": OF_IMAGES,
    "paper_full": ("reliability", "ood", "fgsm"),
    "margins_full": ("reliability", "ood", "fgsm"),
    "attacks": ("small_fgsm",),
}
"""What `shifted` measures, by part."""


def shifts_of(config: Config) -> tuple[str, ...]:
    """What `shifted` measures in a run; nothing where a temperature is fitted."""
    return () if "held_out" in config else SHIFTS.get(config["part"], ())


def logits_of(objective: Any) -> Callable[[Tensor], Tensor]:
    """The function that gives the logits of p(y|x) for rows."""
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
    others = _other_sets(config, len(x)) if "ood" in shifts_of(config) else {}

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
    for name in shifts_of(config):
        path = directory / f"{name}.json"
        if not path.exists():
            write_json(path, measures[name]())
        result[name] = json.loads(path.read_text())
    if config["draw"] == 0 and others and shifts_of(config) == OF_IMAGES:
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
