"""Pictures: decision regions, analogies, samples per class, learning curves. matplotlib is imported on the first call."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.evaluation import calibration
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.generate import generate, reconstruct
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training.fit import History
from pyro_ssl.utils.files import write_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442", "#8C564B", "#4B0092")


def decision_regions(
    probability: Callable[[Tensor], Tensor] | Objective,
    x: Tensor,
    codes: Tensor,
    *,
    title: str = "",
    resolution: int = 200,
    ax: Any = None,
) -> Any:
    """p(y|x) over the plane as colour, unlabeled data as dots, labeled ones as large marks.

    Arguments:
        probability: Objective, or function from `(N, 2)` to `(N, K)`.
        x: Data `(N, 2)`.
        codes: Labels `(N,)`, -1 for unlabeled.
        title: Above the axes.
        resolution: Points per axis.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.
    """
    if x.dim() != 2 or x.shape[1] != 2:
        raise ValueError(f"x should have shape (N, 2), got {tuple(x.shape)}")
    ax = ax or _figure(4.2, 3.6)
    low, high = x.min(0).values - 0.3, x.max(0).values + 0.3
    a, b = (torch.linspace(float(low[i]), float(high[i]), resolution) for i in (0, 1))
    grid = torch.cartesian_prod(a, b)
    probs = predict_proba(probability, grid) if isinstance(probability, Objective) else probability(grid)
    colours = np.array([_rgb(COLOURS[k % len(COLOURS)]) for k in range(probs.shape[1])])
    picture = (probs.numpy() @ colours).reshape(resolution, resolution, 3).transpose(1, 0, 2)
    ax.imshow(
        picture, origin="lower", extent=(a[0], a[-1], b[0], b[-1]), aspect="auto", alpha=0.55, interpolation="bilinear"
    )
    if probs.shape[1] == 2:
        ax.contour(a, b, probs[:, 1].reshape(resolution, resolution).T, levels=[0.5], colors="k", linewidths=0.8)
    free = codes < 0
    ax.scatter(*x[free].T, s=2, c="k", alpha=0.25, linewidths=0)
    labeled = [COLOURS[int(k) % len(COLOURS)] for k in codes[~free]]
    ax.scatter(*x[~free].T, s=70, c=labeled, edgecolors="w", linewidths=1.5, zorder=3)
    ax.set(xticks=[], yticks=[], title=title)
    return ax


def analogies(objective: Objective, x: Tensor, classes: int, *, seed: int = 0) -> Any:
    """Each image (left), then its code under every class y, see `generation.reconstruct`.

    Arguments:
        objective: With a model of x.
        x: Images `(n, C, H, W)`.
        classes: K.
        seed: Of what is drawn.

    Returns:
        The figure.
    """
    eye = torch.eye(classes)
    likeliest = eye[predict_proba(objective, x, seed=seed).argmax(-1)]  # once, and not for each class
    pictures = [reconstruct(objective, x, likeliest, into=y, seed=seed) for y in eye]
    return image_grid(torch.stack([x.cpu(), *pictures], 1), ["x", *map(str, range(classes))])


def class_samples(objective: Objective, classes: int, n: int = 10, *, seed: int = 0) -> Any:
    """n samples of each class, see `generation.generate`: a column has its class, a row its z where y is drawn first."""
    pictures = [generate(objective, n, y, seed=seed) for y in torch.eye(classes)]
    return image_grid(torch.stack(pictures, 1), list(map(str, range(classes))))


def learning_curves(histories: dict[str, History], names: Sequence[str] | None = None) -> Any:
    """Parts of the loss over epochs, one panel each and one line per run.

    Arguments:
        histories: By name of the run, as `fit` returns them.
        names: Parts to draw; by default all but `lr` and `seconds`.
    """
    import matplotlib.pyplot as plt

    every = {k for h in histories.values() for k in h}
    names = names or sorted(every - {"lr", "seconds"})
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.6), squeeze=False, layout="constrained")
    for ax, name in zip(axes[0], names, strict=True):
        for i, (run, history) in enumerate(histories.items()):
            if name in history:
                epochs, marker = np.arange(1, len(history[name]) + 1), "o" if len(history[name]) == 1 else None
                ax.plot(epochs, history[name], label=run, color=COLOURS[i % len(COLOURS)], marker=marker)
        ax.set(title=name, xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].legend(frameon=False, fontsize=8)
    return figure


def reliability(runs: Mapping[str, calibration.Reliability]) -> Any:
    """Accuracy against confidence, one panel per run; a bar's shade is the share of data in its bin.

    Arguments:
        runs: Of each name its bins, from `calibration.reliability`.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(runs), figsize=(3.2 * len(runs), 3.2), squeeze=False, sharey=True, layout="constrained"
    )
    for ax, (name, found) in zip(axes[0], runs.items(), strict=True):
        bins = len(found.share)
        shade = 0.25 + 0.75 * (found.share / found.share.max()).sqrt()
        for i, (accuracy, alpha) in enumerate(zip(found.accuracy.tolist(), shade.tolist(), strict=True)):
            ax.bar((i + 0.5) / bins, accuracy, 0.9 / bins, color=COLOURS[0], alpha=alpha)
        ax.plot([0, 1], [0, 1], color="k", linewidth=0.8, linestyle="--")
        error = 100 * (found.share * (found.accuracy - found.confidence).abs()).nansum()
        ax.set(title=f"{name}\nECE {error:.2f} %", xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
    axes[0][0].set(ylabel="accuracy")
    return figure


def bands(
    curves: Mapping[str, Sequence[Sequence[float]]],
    x: Sequence[float],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    ax: Any = None,
) -> Any:
    """The mean of several runs' curves, and the span from the lowest to the highest, one colour per name.

    Arguments:
        curves: Of each name one sequence per run, as long as x.
        x: Where they were measured.
        xlabel: Of x.
        ylabel: Of the curves.
        title: Above the axes.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.
    """
    ax = ax or _figure(4.2, 3.2)
    for i, (name, runs) in enumerate(curves.items()):
        values, colour = np.asarray(runs), COLOURS[i % len(COLOURS)]
        ax.plot(x, values.mean(0), label=name, color=colour, marker="o", markersize=3)
        ax.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.legend(frameon=False, fontsize=8)
    return ax


def histograms(scores: dict[str, dict[str, Tensor]], own: str) -> Any:
    """Densities of each score on each set, one panel per score.

    Arguments:
        scores: Of each set, `{score: (N,)}`.
        own: The set drawn filled.
    """
    import matplotlib.pyplot as plt

    names = list(scores[own])
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.8), squeeze=False, layout="constrained")
    for ax, name in zip(axes[0], names, strict=True):
        low, high = torch.cat([s[name].double() for s in scores.values()]).quantile(
            torch.tensor([0.005, 0.995]).double()
        )
        for i, (which, found) in enumerate(scores.items()):
            ax.hist(
                found[name].clamp(low, high).numpy(), bins=np.histogram_bin_edges([float(low), float(high)], 49), density=True,
                histtype="stepfilled" if which == own else "step", alpha=0.4 if which == own else 1.0, label=which,
                color=COLOURS[i % len(COLOURS)],
            )  # fmt: skip
        ax.set(title="log max p" if name == "max p" else name, yticks=[])
    axes[0][0].legend(frameon=False, fontsize=8)
    return figure


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure, or the figure of some axes, as PNG and close it."""
    import matplotlib.pyplot as plt

    figure = getattr(figure, "figure", figure)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, bbox_inches="tight", format="png")
    plt.close(figure)
    write_file(path, picture.getvalue())
    return Path(path)


def image_grid(pictures: Tensor, titles: Sequence[str] = ()) -> Any:
    """Images `(rows, columns, C, H, W)` side by side."""
    import matplotlib.pyplot as plt

    rows, columns, channels, height, width = pictures.shape
    gap = max(1, round(0.06 * width))
    white = 1.0 if channels == 3 else 0.0  # the map of greys begins with white
    sheet = pictures.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), white)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + gap), c * (width + gap)
            sheet[:, top : top + height, left : left + width] = pictures[r, c]
    figure, ax = plt.subplots(figsize=(0.6 * columns, 0.6 * rows))  # axes for each image would take 20 ms each
    _show(ax, sheet, "gray_r")
    for c, title in zip(range(columns), titles, strict=False):
        middle = c * (width + gap) + (width - 1) / 2
        above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 9}
        ax.annotate(title, (middle, -0.5), annotation_clip=False, **above)
    return figure


def contact_sheet(images: Tensor, columns: int = 10) -> Any:
    """Images `(n, C, H, W)` by their numbers, in rows of as many columns."""
    import matplotlib.pyplot as plt

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.1 * columns, 1.3 * rows), squeeze=False, layout="constrained")
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i < len(images):
            _show(ax, images[i], "gray")
            ax.set_title(str(i), fontsize=9)
    return figure


def _show(ax: Any, picture: Tensor, grey: str) -> None:
    """An image `(C, H, W)`, of one channel by a map of greys."""
    image = picture.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    ax.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap=grey, vmin=0, vmax=1)
    ax.set_axis_off()


def _figure(width: float, height: float) -> Any:
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
