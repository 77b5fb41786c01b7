"""Pictures of latent spaces on MNIST: paper 002's Figures 2.2 and 2.3, and paper 000's Figure 2.

It shows samples of a VAE with a latent of 10, the plane of a VAE with a latent of 2, what encoder
and decoder do with one image, and p(z) and p(y|z) of VC along a line between two images.

`python experiments/latent_pictures.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from image_runs import measured, trained
from pages import table, where
from results_table import Result, Results
from study import Config, Study, main, resolved
from torch import Tensor

from pyro_ssl import Dataset, Objective, eval_mode, generate, predict_proba
from pyro_ssl.evaluation import ood, plots, style

VAE: dict[str, Any] = {"hidden": (400,), "activation": "relu", "likelihood": "bernoulli"}
VC: dict[str, Any] = {"hidden": (500,), "z_dim": 16, "ratio": 0.1, "density": 0.03}
"""The default weights of the study of VC; paper 000 has a ratio of 1 and no density."""
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae_10": ("vae", VAE | {"z_dim": 10}),
    "vae_2": ("vae", VAE | {"z_dim": 2}),
    "vc": ("vc", VC),
}
EPOCHS = {
    "smoke": {"vae": 1, "vc": 1},
    "cpu": {"vae": 4, "vc": 3},
    "paper": {"vae": 100, "vc": 60},
}
DRAWS = {"smoke": [0], "cpu": [0], "paper": [0]}
SIDE = 20
"""Images in a row of the plane."""
SAMPLES = 10
ENDS = ("4", "9")
"""Classes of the two images on a line."""
BEYOND = 0.5
"""How far the line goes on behind each image, as a share of their distance."""
STEPS = 81
"""Points of the line; every tenth is shown."""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    return {f"{row}_{draw}": configure(row, draw, scale) for row in ROWS for draw in draws}


def configure(row: str, draw: int, scale: str) -> Config:
    method, options = ROWS[row]
    config: Config = {
        "data": "mnist",
        "row": row,
        "method": method,
        "labels": "all",
        "draw": draw,
        "options": resolved(method, options),
        "training": {
            "epochs": EPOCHS[scale][method],
            "batch_size": 200,
            "labeled_batch_size": 200,
            "lr": 3e-3,
        },
    }
    return config | ({"rows": 300} if scale == "smoke" else {})


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one method, and save its pictures."""
    objective, dataset, _, history = trained(config, directory)
    if config["row"] == "vae_10":
        plots.save(samples(objective), pictures / "samples.png")
    elif config["row"] == "vae_2":
        plots.save(plane(objective), pictures / "plane.png")
        plots.save(encoded_and_decoded(objective, dataset), pictures / "encoder_decoder.png")
    else:
        plots.save(line(objective, dataset), pictures / "line.png")
    return measured(objective, dataset, history)


def samples(objective: Objective) -> Any:
    """Figure 2.3a: samples of x, by ancestral sampling."""
    drawn = generate(objective, SAMPLES * SAMPLES)
    return plots.image_grid(drawn.unflatten(0, (SAMPLES, SAMPLES)))


def quantiles(count: int) -> Tensor:
    """Standard normal quantiles of equally spaced probabilities, none of them 0 or 1.

    They are equally probable values of a latent.
    """
    probabilities = (torch.arange(count) + 0.5) / count
    return torch.distributions.Normal(0.0, 1.0).icdf(probabilities)


def plane(objective: Objective) -> Any:
    """Figure 2.3b: images decoded from a grid that the inverse normal CDF maps to the plane."""
    steps = quantiles(SIDE)
    z = torch.cartesian_prod(steps.flip(0), steps).flip(-1)  # rows go down, z_1 to the right
    return plots.image_grid(decode(objective, z).unflatten(0, (SIDE, SIDE)))


def decode(objective: Objective, z: Tensor) -> Tensor:
    """The mean of p(x|z), `(N, *event)`."""
    with eval_mode(objective):
        mean: Tensor = objective.model.p_x(z).mean
    return mean


def encoded_and_decoded(objective: Objective, dataset: Dataset) -> Any:
    """Figure 2.2: an image, q(z|x) among the latents of the test images, and decoded draws."""
    import matplotlib.pyplot as plt

    shown, count = dataset.x_test[:3], 4
    with eval_mode(objective):
        latents = objective.guide.q_z(dataset.x_test[:2000]).mean
        q = objective.guide.q_z(shown)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, *q.mean.shape, generator=generator)
    draws = q.mean + q.stddev * noise
    decoded = decode(objective, draws)
    figure = plt.figure(figsize=(8.6, 3.6), layout="constrained")
    parts = figure.subfigures(1, 3, width_ratios=(0.28, 1.05, 1))
    for ax, image in zip(parts[0].subplots(len(shown), 1), shown, strict=True):
        _show(ax, image)
    parts[0].suptitle("x")
    ax = parts[1].subplots()
    classes = dataset.y_test[: len(latents)]
    for k, name in enumerate(dataset.classes):
        own = latents[classes == k]
        ax.scatter(*own.T, s=3, color=style.class_colour(k), linewidths=0, alpha=0.6, label=name)
    for i in range(len(shown)):
        ax.scatter(*draws[:, i].T, s=16, color=style.HIGHLIGHT, marker="x", linewidths=1)
    ax.set(xlabel="$z_1$", ylabel="$z_2$")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=3, title="class")
    parts[1].suptitle("means of q(z|x), and draws (x) of it")
    panels = parts[2].subplots(len(shown), count)
    for i, row in enumerate(panels):
        for ax, image in zip(row, decoded[:, i], strict=True):
            _show(ax, image)
    parts[2].suptitle("p(x|z) at the draws")
    return figure


def _show(ax: Any, image: Tensor) -> None:
    ax.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
    ax.set_axis_off()


def line(objective: Objective, dataset: Dataset) -> Any:
    """Figure 2, right: p(y|z) and p(z) for z = f(x), with x on a line through two test images."""
    import matplotlib.pyplot as plt

    first, second = (_first_of(dataset, name) for name in ENDS)
    share = torch.linspace(-BEYOND, 1 + BEYOND, STEPS)
    x = first + share.view(-1, 1, 1, 1) * (second - first)
    probs = predict_proba(objective, x)
    density = ood.scores(objective, x)["log p(z)"]
    figure, axes = plt.subplots(3, 1, figsize=(7, 4.6), height_ratios=(1.2, 1.2, 0.55))
    for k, name in enumerate(dataset.classes):
        if probs[:, k].max() > 0.05:
            axes[0].plot(share, probs[:, k], color=style.class_colour(k), label=f"class {name}")
    axes[0].set(ylabel="p(y|z)", xlim=(-BEYOND, 1 + BEYOND), xticks=[])
    style.legend_beside(axes[0])
    axes[1].plot(share, density, color="0.2")
    axes[1].set(ylabel="log p(z), nats", xlim=(-BEYOND, 1 + BEYOND))
    axes[1].set_xticks([0, 1], [f"image of a {name}" for name in ENDS])
    for ax in axes[:2]:
        for end in (0, 1):
            ax.axvline(end, **style.GUIDE_LINE)
    pixels = x[:: (STEPS - 1) // 8, 0].clamp(0, 1)
    axes[2].imshow(torch.cat(list(pixels), -1).numpy(), cmap="gray_r", vmin=0, vmax=1)
    axes[2].set(xticks=[], yticks=[], xlabel="x on the line, from left to right")
    axes[2].set_aspect("auto")
    return figure


def _first_of(dataset: Dataset, name: str) -> Tensor:
    """The first test image of a class; of the training set, if the test set has none."""
    k = list(dataset.classes).index(name)
    own = dataset.x_test[dataset.y_test == k]
    return own[0] if len(own) else dataset.x[dataset.y == k][0]


def report(results: Results, pictures: Path) -> dict[str, str]:
    rows = []
    for row, (method, options) in ROWS.items():
        for r in where(results, row=row):
            epochs = r["config"]["training"]["epochs"]
            bound = f"{r['bound']:.1f}" if method == "vae" else ""
            accuracy = f"{100 * r['accuracy']:.2f}"
            seconds = f"{r['seconds']:.0f}"
            rows.append((method, options["z_dim"], epochs, bound, accuracy, seconds))
    header = ("MNIST", "z", "epochs", "bound on log p(x), nats", "accuracy %", "s per run")
    return {"runs": table(header, rows)}


STUDY = Study("latent_pictures", configs, run, report, draws=DRAWS)

if __name__ == "__main__":
    main(STUDY, __doc__)
