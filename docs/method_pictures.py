"""Draw the graphical model of every method from its programs, for the methods' pages.

`python docs/method_pictures.py` writes them to `build/methods`.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

from pyro_ssl import zoo
from pyro_ssl.evaluation import plots

ROWS, FEATURES, CLASSES = 5, 4, 3
"""A few data on which the programs are run; the sizes do not change a graph."""
SMALL = {"hidden": (5, 5), "z_dim": 2}
"""Options of networks, where a method has them."""


def draw_methods(directory: Path) -> None:
    """Write one SVG for each method of the zoo."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    directory.mkdir(parents=True, exist_ok=True)
    x = torch.rand(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
    y = torch.eye(CLASSES)[torch.arange(ROWS) % CLASSES]
    for name in zoo.METHODS:
        options = {k: v for k, v in SMALL.items() if k in zoo.options_of(name)}
        axes = plots.graphical_model(zoo.build(name, (FEATURES,), CLASSES, **options), x, y)
        axes.figure.savefig(directory / f"{name}.svg", bbox_inches="tight")
        plt.close(axes.figure)


if __name__ == "__main__":
    draw_methods(Path("build/methods"))
