"""The style of all pictures of library and experiments: colours, fonts, legends and titles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""Colours of classes and of lines in drawing order; distinct under colour blindness of any kind.

References:
    Petroff 2021, Accessible color sequences for data visualization, arXiv:2107.02270.
"""
LABELED = COLOURS[0]
UNLABELED = COLOURS[3]
OWN = COLOURS[0]
"""The data set that a method was trained on."""
HIGHLIGHT = "black"
"""Rings around single points, such as those that an acquisition function has chosen."""
GUIDE_LINE: dict[str, Any] = {"color": "0.3", "linewidth": 0.8, "linestyle": "--"}
"""Reference lines, such as perfect calibration or the accuracy with all labels."""

METHOD_COLOURS = {
    "classifier": "#717581",
    "vae": "#a96b59",
    "m2": "#3f90da",
    "m1_m2": "#92dadd",
    "m2_adversarial": "#832db6",
    "adgm": "#ffa90e",
    "sdgm": "#e76300",
    "lvae": "#94a4a2",
    "sslpe": "#b9ac70",
    "sslapd": "#a96b59",
    "latent_classifier": "#bd1f01",
    "latent_classifier_exact": "#e76300",
    "latent_classifier_simplified": "#832db6",
    "latent_classifier_split": "#94a4a2",
    "ce": "#717581",
    "gm": "#ffa90e",
    "vc": "#3f90da",
}
"""Colours of methods by name; methods that share one are not compared in any paper."""

PART_TITLES = {
    "loss": "loss",
    "labeled": "-ELBO of labeled data",
    "unlabeled": "-ELBO of unlabeled data",
    "weights": "KL of the random weights",
    "LabelLogProb": "-log q(y|x) of labeled data",
    "Entropy": "entropy of q(y|x), unlabeled data",
    "MutualInformation": "-I(x; y) of unlabeled data",
    "Consistency": "cross-entropy of noisy inputs",
    "ClassBalance": "KL(mean q(y|x), p(y)) - log K",
    "L2": "squared norm of the weights",
    "Adversary": "log f(y|z) of the adversary",
    "Discrimination": "loss of the discriminators",
    "lr": "learning rate",
    "seconds": "seconds",
    "score": "score for early stopping",
}
"""Titles of the parts of a loss in pictures."""

SETTINGS: dict[str, Any] = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "image.cmap": "viridis",
}


@contextmanager
def context() -> Iterator[None]:
    """Use the settings of this file within a block or, as a decorator, within a function.

    >>> import matplotlib.pyplot as plt
    >>> with context():
    ...     figure, ax = plt.subplots()
    >>> ax.spines["top"].get_visible()
    False
    >>> plt.close(figure)
    """
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = {**SETTINGS, "axes.prop_cycle": cycler(color=COLOURS)}
    with mpl.rc_context(settings):
        yield
        interactive = mpl.is_interactive()
    # a notebook's backend, which the first figure loads, turns this on to show all figures
    mpl.interactive(interactive)


def class_colour(index: int) -> str:
    """Colour of a class; from the eleventh on colours repeat.

    >>> class_colour(1) == class_colour(11)
    True
    """
    return COLOURS[index % len(COLOURS)]


def line_colours(names: Iterable[str]) -> dict[str, str]:
    """Choose colours of lines by name: a method's own colour, and the remaining ones in order.

    >>> line_colours(["m2", "seed 0"])
    {'m2': '#3f90da', 'seed 0': '#ffa90e'}
    """
    names = list(names)
    colours = _own_colours(names)
    left = [colour for colour in COLOURS if colour not in colours.values()] or list(COLOURS)
    others = [name for name in names if name not in colours]
    for i, name in enumerate(others):
        colours[name] = left[i % len(left)]
    return {name: colours[name] for name in names}


def _own_colours(names: Sequence[str]) -> dict[str, str]:
    """Colours of the methods among the names; none if two methods have the same."""
    colours = {name: METHOD_COLOURS[name] for name in names if name in METHOD_COLOURS}
    are_distinct = len(set(colours.values())) == len(colours)
    return colours if are_distinct else {}


def part_title(name: str) -> str:
    """Title of a part of the loss; a second term of the same kind, such as `Entropy_`, is numbered.

    >>> part_title("LabelLogProb")
    '-log q(y|x) of labeled data'
    >>> part_title("Entropy_")
    'entropy of q(y|x), unlabeled data (2)'
    """
    kind = name.rstrip("_")
    title = PART_TITLES.get(kind, kind)
    if kind == name:
        return title
    return f"{title} ({1 + len(name) - len(kind)})"


def mixed_colours(probs: Any) -> np.ndarray:
    """Class colours mixed by probabilities `(..., K)`: RGB values `(..., 3)` in [0, 1].

    >>> mixed_colours([[1.0, 0.0], [0.5, 0.5]]).shape
    (2, 3)
    """
    probs = np.asarray(probs)
    colours = np.array([rgb(class_colour(k)) for k in range(probs.shape[-1])])
    return np.clip(probs @ colours, 0, 1)  # rounding may give 1 + 1e-8, which matplotlib reports


def rgb(colour: str) -> tuple[float, ...]:
    """Convert a colour `#rrggbb` to red, green and blue in [0, 1].

    >>> rgb("#ff0000")
    (1.0, 0.0, 0.0)
    """
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def legend_beside(ax: Axes, **options: Any) -> None:
    """Put the legend to the right of the axes, where it covers no points.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> lines = ax.plot([1, 2], label="m2")
    >>> legend_beside(ax, title="method")
    >>> ax.get_legend().get_title().get_text()
    'method'
    >>> plt.close(figure)

    Arguments:
        ax: Axes with labeled artists.
        options: Other arguments of matplotlib's `legend`, such as `title`.
    """
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def figure_legend(figure: Figure, **options: Any) -> None:
    """Put one legend to the right of all axes of a figure with a constrained layout.

    A label that several axes share appears once.

    >>> import matplotlib.pyplot as plt
    >>> figure, axes = plt.subplots(1, 2, layout="constrained")
    >>> lines = [ax.plot([1, 2], label="m2") for ax in axes]
    >>> figure_legend(figure)
    >>> len(figure.legends[0].get_texts())
    1
    >>> plt.close(figure)

    Arguments:
        figure: Figure whose axes have labeled artists.
        options: Other arguments of matplotlib's `legend`, such as `title`.
    """
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", **options)
