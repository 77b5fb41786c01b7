"""Parts of pictures that several studies share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.evaluation import plots, style

COLOURS = np.array(style.COLOURS)
"""Colours of classes, to be indexed by class."""
Window = tuple[float, float, float, float]
"""Left, right, low and high end of a part of the plane."""


def grid_points(window: Window, resolution: int) -> Tensor:
    """Points of a square grid over a part of the plane, `(resolution**2, 2)`."""
    across = torch.linspace(*window[:2], resolution)
    up = torch.linspace(*window[2:], resolution)
    return torch.cartesian_prod(across, up)


def percentages(probs: Tensor) -> list[int]:
    """p(y=1|x) of two classes in whole per cent, for `region`."""
    return [round(100 * p) for p in probs[:, 1].tolist()]


def region(ax: Any, percentages: Sequence[float], window: Window, title: str = "") -> None:
    """Colour the plane by p(y=1|x) in per cent on a square grid: the colours of both classes,
    mixed.
    """
    n = math.isqrt(len(percentages))
    p = np.array(percentages).reshape(n, n).T / 100
    picture = 0.75 * style.mixed_colours(np.stack([1 - p, p], -1)) + 0.25
    ax.imshow(picture, origin="lower", extent=window, aspect="auto")
    across, up = np.linspace(*window[:2], n), np.linspace(*window[2:], n)
    ax.contour(across, up, p, levels=[0.5], colors="k", linewidths=0.8)
    ax.set(title=title)


def frame(ax: Any, window: Window) -> None:
    """Show a part of the plane, without ticks: only shapes matter there."""
    ax.set(xticks=[], yticks=[], xlim=window[:2], ylim=window[2:])
    ax.spines[:].set_visible(True)


def image_rows(rows: dict[str, Sequence[Sequence[float]]]) -> Any:
    """Draw square grey images `(N, side * side)` in rows, with the name of each row to its left."""
    import matplotlib.pyplot as plt

    count = len(next(iter(rows.values())))
    size = (0.8 * count + 0.6, 0.85 * len(rows))
    figure, axes = plt.subplots(len(rows), count, figsize=size, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, pixels in zip(line, images, strict=True):
            side = math.isqrt(len(pixels))
            ax.imshow(np.reshape(pixels, (side, side)), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def side_by_side(pictures: dict[str, Path], out: Path, title: str) -> None:
    """Show saved pictures side by side, with their names as titles, if all of them exist."""
    import matplotlib.pyplot as plt

    if not all(path.exists() for path in pictures.values()):
        return
    images = [plt.imread(path) for path in pictures.values()]
    height = 4.2 * max(image.shape[0] / image.shape[1] for image in images) + 0.8
    figure, axes = plt.subplots(
        1, len(pictures), figsize=(4.2 * len(pictures), height), squeeze=False, layout="constrained"
    )
    for ax, name, image in zip(axes[0], pictures, images, strict=True):
        ax.imshow(image)
        ax.set(title=name)
        ax.axis("off")
    figure.suptitle(title)
    plots.save(figure, out)


def reduce_colours(folder: Path) -> None:
    """Store the pictures of a folder with a palette of 256 colours, a third of their size."""
    from PIL import Image

    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            if picture.mode != "P":
                picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                    path, optimize=True
                )
