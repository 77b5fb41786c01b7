"""Draw the pictures of README.md: `python docs/pictures.py` writes docs/moons.png."""

from pathlib import Path

import matplotlib
import numpy as np
from sklearn.datasets import make_moons

from pyro_ssl import SemiSupervisedClassifier
from pyro_ssl.evaluation import style

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

BLUE, ORANGE = style.COLOURS[:2]
METHODS = (
    ("classifier", {}, "labels alone"),
    ("m2", {"z_dim": 1}, "M2: labels and unlabeled points"),
)


def main() -> None:
    x, classes = make_moons(1000, noise=0.1, random_state=0)
    labels = np.full(1000, -1)
    for k in (0, 1):
        labels[np.flatnonzero(classes == k)[:4]] = k
    figure, axes = plt.subplots(
        1, 2, figsize=(8, 3), sharex=True, sharey=True, layout="constrained"
    )
    for ax, (method, options, title) in zip(axes, METHODS, strict=True):
        model = SemiSupervisedClassifier(method, options=options, random_state=0).fit(x, labels)
        draw(ax, model, x, labels)
        ax.set_title(f"{title}: {100 * model.score(x, classes):.0f} % right")
    figure.savefig(Path(__file__).parent / "moons.png", dpi=100)


def draw(ax: plt.Axes, model: SemiSupervisedClassifier, x: np.ndarray, labels: np.ndarray) -> None:
    """Draw the points, the labels, and p(y|x) as colour."""
    across = np.linspace(*_range(x[:, 0]), 200)
    up = np.linspace(*_range(x[:, 1]), 120)
    grid = np.stack(np.meshgrid(across, up), -1)
    p = model.predict_proba(grid.reshape(-1, 2))[:, 1].reshape(120, 200)
    levels = np.linspace(0, 1, 11)
    palette = matplotlib.colors.LinearSegmentedColormap.from_list(
        "classes", [BLUE, "white", ORANGE]
    )
    ax.contourf(across, up, p, levels, cmap=palette, alpha=0.5)
    ax.contour(across, up, p, [0.5], colors="black", linewidths=1)
    ax.scatter(*x[labels < 0].T, s=4, color="0.4")
    for k, colour in enumerate((BLUE, ORANGE)):
        ax.scatter(
            *x[labels == k].T, s=90, color=colour, edgecolors="black", label=f"label {k}", zorder=3
        )
    ax.set_xticks([])
    ax.set_yticks([])


def _range(values: np.ndarray) -> tuple[float, float]:
    return values.min() - 0.3, values.max() + 0.3


if __name__ == "__main__":
    main()
