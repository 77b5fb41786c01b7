"""The decoder's standard deviation for paper 003's methods on MNIST, chosen on development draws.

Paper 003 tunes sigma (section 3.1) and does not state it. Each run is tested on 5000 training
images that are set aside. The preset `paper-003` has the best sigma.

`python experiments/latent_classifier_sigma.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from image_runs import hold_out, images, measured, trained
from latent_classifier import configure
from pages import mean_sd, table, where
from results_table import Result, Results
from study import DEVELOPMENT, Config, Selection, Study, main

from pyro_ssl import Objective, reconstruct

SIGMAS = (1.0, 0.6, 0.5, 0.3)
WEIGHTS = {"m2": 1.0, "latent_classifier": 0.5}
"""Alpha of M2 and lambda of the latent classifier, near the middle of the paper's grid."""
DRAWS = {"smoke": [DEVELOPMENT], "cpu": [DEVELOPMENT, DEVELOPMENT + 1]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    """One draw after the other."""
    return {name: config for draw in draws for name, config in _of_draw(draw, scale)}


def _of_draw(draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    for method, weight in WEIGHTS.items():
        for sigma in SIGMAS:
            config = configure("sigma", method, draw, scale, weight)
            config["options"]["sigma"] = sigma
            yield f"{method}_{sigma:g}_{draw}", config | {"sigma": sigma}


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train on all but the images that are set aside, and measure on these."""
    dataset, labels = hold_out(*images(config))
    objective, _, _, history = trained(config, directory, (dataset, labels))
    error = squared_error(objective, dataset.x_test)
    return measured(objective, dataset, history) | {"squared_error": error}


def squared_error(objective: Objective, x: torch.Tensor) -> float:
    """Mean squared distance of images from their reconstructions, summed over pixels."""
    return float((reconstruct(objective, x) - x).square().flatten(1).sum(-1).mean())


def report(results: Results, pictures: Path) -> dict[str, str]:
    return {"sigma": sweep(results)}


def sweep(results: Results) -> str:
    """Accuracy on the images set aside, and the error of their reconstructions."""
    rows = []
    for method, weight in WEIGHTS.items():
        for sigma in SIGMAS:
            mine = where(results, method=method, sigma=sigma)
            if not mine:
                continue
            accuracies = [100 * r["accuracy"] for r in mine]
            error = mean_sd([r["squared_error"] for r in mine], 1)
            name = f"{method}, {'alpha' if method == 'm2' else 'lambda'} {weight:g}"
            worst = f"{min(accuracies):.1f}"
            rows.append((name, sigma, mean_sd(accuracies, 1), worst, len(mine), error))
    header = ("method", "sigma", "accuracy %", "worst", "draws", "squared error")
    return table(header, rows)


STUDY = Study(
    "latent_classifier_sigma",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={"methods": Selection("method", tuple(WEIGHTS), "methods to run")},
)

if __name__ == "__main__":
    main(STUDY, __doc__)
