"""Pictures: decision regions, analogies, samples, curves, histograms, graphical models."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.evaluation import calibration, style
from pyro_ssl.evaluation.graph_pictures import graphical_model as graphical_model
from pyro_ssl.evaluation.graph_pictures import render_model as render_model
from pyro_ssl.evaluation.style import COLOURS as COLOURS  # for `plots.COLOURS` in scripts
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.generate import generate, reconstruct
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import History
from pyro_ssl.utils.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_LOSSES = ("lr", "seconds", "score")
"""Entries of a history that are not parts of the loss."""
PANELS_PER_ROW = 4
MAX_BANDS = 2
"""Most translucent bands in one picture; with more curves, vertical lines show the ranges."""
MAX_NAMED = 40
"""Most names along an axis of a confusion matrix, and most classes whose counts are written."""
SCORE_TITLES = {"max p": "log max p(y|x)", "entropy": "-H(p(y|x))"}
"""Axis labels of scores of `ood.scores` whose name would not do as a label."""


@style.context()
def decision_regions(
    probability: Callable[[Tensor], Tensor] | Objective,
    x: Tensor,
    labels: Tensor,
    *,
    classes: Sequence[str] | None = None,
    title: str = "",
    resolution: int = 200,
    ax: Axes | None = None,
) -> Axes:
    """Draw p(y|x) over the plane as colour, unlabeled data as dots, labeled data as large marks.

    >>> points = torch.randn(20, 2)
    >>> labels = torch.full((20,), -1)
    >>> ax = decision_regions(lambda x: x.softmax(-1), points, labels, resolution=5)
    >>> ax.images[0].get_array().shape
    (5, 5, 3)

    Arguments:
        probability: Objective, or function from `(N, 2)` to `(N, K)`.
        x: Data `(N, 2)`.
        labels: Class indices `(N,)`, -1 for unlabeled.
        classes: Names of the classes, for a legend; None draws no legend.
        title: Title above the axes.
        resolution: Points per axis.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.
    """
    if x.dim() != 2 or x.shape[1] != 2:
        raise ValueError(f"x should have shape (N, 2), got {tuple(x.shape)}")
    ax = ax or _new_axes(4.2, 3.6)
    low = x.min(0).values - 0.3
    high = x.max(0).values + 0.3
    horizontal = torch.linspace(float(low[0]), float(high[0]), resolution)
    vertical = torch.linspace(float(low[1]), float(high[1]), resolution)
    grid = torch.cartesian_prod(horizontal, vertical)
    if isinstance(probability, Objective):
        probs = predict_proba(probability, grid)
    else:
        probs = probability(grid)
    size = probs.shape[1]
    picture = style.mixed_colours(probs).reshape(resolution, resolution, 3).transpose(1, 0, 2)
    corners = [float(edge) for edge in (low[0], high[0], low[1], high[1])]
    ax.imshow(
        picture,
        origin="lower",
        extent=(corners[0], corners[1], corners[2], corners[3]),
        aspect="auto",
        alpha=0.55,
        interpolation="bilinear",
    )
    if size == 2:
        second = probs[:, 1].reshape(resolution, resolution).T.numpy()
        ax.contour(
            horizontal.numpy(), vertical.numpy(), second, levels=[0.5], colors="k", linewidths=0.8
        )
    _scatter_labels(ax, x, labels, list(classes or map(str, range(size))))
    ax.set(xticks=[], yticks=[], xlabel="$x_1$", ylabel="$x_2$", title=title)
    if classes is not None:
        style.legend_beside(ax)
    return ax


def _scatter_labels(ax: Axes, x: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    free = labels < 0
    points = x[free].numpy()
    ax.scatter(points[:, 0], points[:, 1], s=2, c="k", alpha=0.25, linewidths=0, label="unlabeled")
    for k, name in enumerate(names):
        points = x[labels == k].numpy()
        ax.scatter(
            points[:, 0],
            points[:, 1],
            s=70,
            color=style.class_colour(k),
            edgecolors="w",
            linewidths=1.5,
            zorder=3,
            label=name,
        )


def analogies(
    objective: Objective, x: Tensor, classes: int | Sequence[str], *, seed: int = 0
) -> Figure:
    """Draw each image, and right of it its latent decoded under every class; see `reconstruct`.

    >>> from pyro_ssl import zoo
    >>> figure = analogies(zoo.build("m2", (1, 4, 4), 3, hidden=(8,)), torch.rand(2, 1, 4, 4), 3)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['x', '0', '1', '2']

    Arguments:
        objective: An objective with a model of x.
        x: Images `(n, C, H, W)`.
        classes: Names of the classes, or K.
        seed: Seed of the draws.

    Returns:
        The figure.
    """
    names = _class_names(classes)
    one_hot = torch.eye(len(names))
    predicted = one_hot[predict_proba(objective, x, seed=seed).argmax(-1)]
    pictures = [x.cpu()]
    for y in one_hot:
        pictures.append(reconstruct(objective, x, predicted, into=y, seed=seed))
    return image_grid(torch.stack(pictures, 1), ["x", *names])


def class_samples(
    objective: Objective, classes: int | Sequence[str], n: int = 10, *, seed: int = 0
) -> Figure:
    """Draw n samples of each class; rows share z if the model samples y first. See `generate`.

    >>> from pyro_ssl import zoo
    >>> figure = class_samples(zoo.build("m2", (1, 4, 4), 3, hidden=(8,)), ["a", "b", "c"], n=2)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'b', 'c']

    Arguments:
        objective: An objective with a model of x.
        classes: Names of the classes, or K.
        n: Samples of each class.
        seed: Seed of the draws.

    Returns:
        The figure.
    """
    names = _class_names(classes)
    pictures = [generate(objective, n, y, seed=seed) for y in torch.eye(len(names))]
    return image_grid(torch.stack(pictures, 1), names)


def _class_names(classes: int | Sequence[str]) -> list[str]:
    if isinstance(classes, int):
        return [str(k) for k in range(classes)]
    return list(classes)


@style.context()
def learning_curves(histories: Mapping[str, History], names: Sequence[str] | None = None) -> Figure:
    """Draw the parts of the loss over epochs, one panel each and one line per run.

    >>> figure = learning_curves({"m2": {"loss": [3.0, 2.0], "labeled": [3.0, 2.0]}})
    >>> [ax.get_title() for ax in figure.axes]
    ['loss', '-ELBO of labeled data']

    Arguments:
        histories: Histories by name of the run, as `fit` returns them.
        names: Parts to draw; by default all but the learning rate, the seconds and the score.

    Returns:
        The figure.
    """
    names = names or _parts_of(histories.values())
    figure, axes = _panels(len(names), width=3.0, height=2.4)
    colours = style.line_colours(histories)
    for ax, name in zip(axes, names, strict=True):
        for run, history in histories.items():
            if name in history:
                values = history[name]
                marker = "o" if len(values) == 1 else ""
                epochs = np.arange(1, len(values) + 1)
                ax.plot(epochs, values, label=run, color=colours[run], marker=marker)
        ylabel = "" if name in NOT_LOSSES else "nats per datum"
        ax.set(title=style.part_title(name), xlabel="epoch", ylabel=ylabel)
        ax.locator_params(axis="x", integer=True)
    style.figure_legend(figure)
    return figure


def _parts_of(histories: Iterable[History]) -> list[str]:
    """Names of the parts of the loss, the loss itself and the bounds first."""
    names = {name for history in histories for name in history if name not in NOT_LOSSES}
    first = [name for name in ("loss", "labeled", "unlabeled") if name in names]
    return first + sorted(names - set(first))


@style.context()
def reliability(runs: Mapping[str, calibration.Reliability]) -> Figure:
    """Draw accuracy against confidence, one panel per run; darker bars hold more of the data.

    >>> bins = calibration.reliability([[0.7, 0.3], [0.4, 0.6]], [0, 0], bins=2)
    >>> reliability({"m2": bins}).axes[0].get_xlabel()
    'confidence'

    Arguments:
        runs: Bins of each run by its name, from `calibration.reliability`.

    Returns:
        The figure.
    """
    figure, axes = _panels(len(runs), width=3.0, height=3.0, sharey=True)
    for ax, (name, binned) in zip(axes, runs.items(), strict=True):
        bins = len(binned.share)
        shades = 0.25 + 0.75 * (binned.share / binned.share.max()).sqrt()
        for i in range(bins):
            centre = (i + 0.5) / bins
            height = float(binned.accuracy[i])
            alpha = float(shades[i])
            ax.bar(centre, height, 0.9 / bins, color=style.OWN, alpha=alpha)
        ax.plot([0, 1], [0, 1], **style.GUIDE_LINE)
        error = 100 * (binned.share * (binned.accuracy - binned.confidence).abs()).nansum()
        ax.set(title=f"{name}\nECE {error:.2f} %", xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
    axes[0].set(ylabel="accuracy")
    return figure


@style.context()
def confusion_matrix(predicted: Tensor, y: Tensor, classes: Sequence[str]) -> Figure:
    """Draw how often each class was predicted for the rows of each class.

    With more classes than `MAX_NAMED`, counts are colours only, and only some classes are named.

    >>> y = torch.tensor([0, 0, 1])
    >>> figure = confusion_matrix(torch.tensor([0, 1, 1]), y, ["a", "b"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '0', '1']

    Arguments:
        predicted: Predicted class indices `(N,)`.
        y: Class indices of the data `(N,)`.
        classes: Names of the classes.

    Returns:
        The figure.
    """
    from sklearn.metrics import ConfusionMatrixDisplay
    from sklearn.metrics import confusion_matrix as counts_of

    number = len(classes)
    counts = counts_of(y.cpu().numpy(), predicted.cpu().numpy(), labels=range(number))
    size = 1.8 + 0.42 * min(number, MAX_NAMED)
    ax = _new_axes(size, size)
    display = ConfusionMatrixDisplay(counts, display_labels=classes)
    is_crowded = max(map(len, classes)) > 2
    rotation: Any = "vertical" if is_crowded else "horizontal"
    display.plot(
        ax=ax,
        cmap="Blues",
        colorbar=False,
        include_values=number <= MAX_NAMED,
        values_format="d",
        xticks_rotation=rotation,
    )
    named = range(0, number, -(-number // MAX_NAMED))
    names = [classes[k] for k in named]
    ax.set(xticks=named, xticklabels=names, yticks=named, yticklabels=names)
    ax.set(xlabel="predicted", ylabel="class")
    whole: Any = ax.figure
    return whole


@style.context()
def feature_map(features: Tensor, y: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the first two principal components of features, one colour per class.

    >>> figure = feature_map(torch.randn(9, 3), torch.arange(9) % 2, ["a", "b"])
    >>> figure.axes[0].get_xlabel()
    'first component'

    Arguments:
        features: Features `(N, F)`, F at least 2.
        y: Class indices `(N,)`.
        classes: Names of the classes.

    Returns:
        The figure.
    """
    from sklearn.decomposition import PCA

    plane = PCA(2, random_state=0).fit_transform(features.cpu().double().numpy())
    ax = _new_axes(4.6, 3.6)
    for k, name in enumerate(classes):
        first, second = plane[(y == k).cpu().numpy()].T
        ax.scatter(first, second, s=5, color=style.class_colour(k), label=name, linewidths=0)
    ax.set(xlabel="first component", ylabel="second component", xticks=[], yticks=[])
    style.legend_beside(ax, markerscale=3)
    whole: Any = ax.figure
    return whole


@style.context()
def bands(
    curves: Mapping[str, Sequence[Sequence[float]]],
    x: Sequence[float],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean and the range of several runs, one colour per name.

    The range from lowest to highest is a band for one or two names, and vertical lines for more.

    >>> ax = bands({"m2": [[80.0, 90.0], [82.0, 91.0]]}, [10, 20], xlabel="labels", ylabel="%")
    >>> ax.lines[0].get_ydata().tolist()
    [81.0, 90.5]

    Arguments:
        curves: For each name one sequence per run, as long as x.
        x: Horizontal positions of the points of a curve.
        xlabel: Label of x.
        ylabel: Label of the curves.
        title: Title above the axes.
        legend: Draw a legend to the right of the axes.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.
    """
    ax = ax or _new_axes(4.6, 3.0)
    colours = style.line_colours(curves)
    for name, runs in curves.items():
        values = np.asarray(runs)
        ax.plot(x, values.mean(0), label=name, color=colours[name], marker="o")
        if len(values) == 1:
            continue
        low = values.min(0)
        high = values.max(0)
        if len(curves) <= MAX_BANDS:
            ax.fill_between(x, low, high, color=colours[name], alpha=0.2, linewidth=0)
        else:
            ax.vlines(x, low, high, color=colours[name], linewidth=0.8)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if legend:
        style.legend_beside(ax)
    return ax


@style.context()
def histograms(scores: Mapping[str, Mapping[str, Tensor]], own: str) -> Figure:
    """Draw the density of each score on each data set, one panel per score.

    >>> figure = histograms({"digits": {"energy": torch.rand(50)}}, "digits")
    >>> figure.axes[0].get_xlabel()
    'energy'

    Arguments:
        scores: For each data set, `{score: (N,)}`, as from `ood.score_sets`.
        own: Name of the set that the method was trained on, which is drawn filled.

    Returns:
        The figure.
    """
    names = list(scores[own])
    figure, axes = _panels(len(names), width=2.6, height=2.4)
    for ax, name in zip(axes, names, strict=True):
        together = torch.cat([values[name].double() for values in scores.values()])
        low, high = together.quantile(torch.tensor([0.005, 0.995]).double()).tolist()
        edges = np.histogram_bin_edges([low, high], 49).tolist()
        for i, (data, values) in enumerate(scores.items()):
            ax.hist(
                values[name].clamp(low, high).numpy(),
                bins=edges,
                density=True,
                histtype="stepfilled" if data == own else "step",
                alpha=0.4 if data == own else 1.0,
                label=data,
                color=style.class_colour(i),
            )
        ax.set(xlabel=SCORE_TITLES.get(name, name), yticks=[])
        ax.locator_params(axis="x", nbins=4)
    for ax in axes[::PANELS_PER_ROW]:
        ax.set(ylabel="density")
    style.figure_legend(figure)
    return figure


@style.context()
def image_grid(pictures: Tensor, titles: Sequence[str] = ()) -> Figure:
    """Draw images `(rows, columns, C, H, W)` side by side.

    >>> figure = image_grid(torch.rand(2, 3, 1, 4, 4), ["a", "b", "c"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'b', 'c']

    Arguments:
        pictures: The images, with values in [0, 1].
        titles: Titles of the columns.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    rows, columns, channels, height, width = pictures.shape
    gap = max(1, round(0.06 * width))
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap)
    white = 1.0 if channels == 3 else 0.0  # the colour map of grey images begins with white
    sheet = pictures.new_full((channels, *size), white)
    for r in range(rows):
        for c in range(columns):
            top = r * (height + gap)
            left = c * (width + gap)
            sheet[:, top : top + height, left : left + width] = pictures[r, c]
    # one image in one pair of axes: axes for each image would take 20 ms each
    figure, ax = plt.subplots(figsize=(0.6 * columns, 0.6 * rows), layout="none")
    _show(ax, sheet, "gray_r")
    for c, title in zip(range(columns), titles, strict=False):
        middle = c * (width + gap) + (width - 1) / 2
        ax.annotate(
            title,
            (middle, -0.5),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            annotation_clip=False,
        )
    return figure


@style.context()
def contact_sheet(images: Tensor, columns: int = 10) -> Figure:
    """Draw numbered images, in rows.

    >>> contact_sheet(torch.rand(3, 1, 4, 4)).axes[2].get_title()
    '2'

    Arguments:
        images: Images `(n, C, H, W)` with values in [0, 1].
        columns: Images per row.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = (1.1 * columns, 1.3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i < len(images):
            _show(ax, images[i], "gray")
            ax.set_title(str(i))
    return figure


def save(figure: Figure | Axes, path: str | Path) -> Path:
    """Write a figure, or the figure of some axes, as PNG, and close it.

    Arguments:
        figure: Figure or axes.
        path: The file; its folder is made if missing.

    Returns:
        The path.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(contact_sheet(torch.rand(1, 1, 4, 4)), Path(folder) / "sheet.png").name
    'sheet.png'
    """
    import matplotlib.pyplot as plt

    whole: Any = getattr(figure, "figure", figure)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    with style.context():
        whole.savefig(picture, format="png")
    plt.close(whole)
    write_file(path, picture.getvalue())
    return Path(path)


def _panels(
    n: int, *, width: float, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with n panels, in rows."""
    import matplotlib.pyplot as plt

    columns = min(PANELS_PER_ROW, n)
    rows = -(-n // columns)
    size = (width * columns + 1.0, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=sharey)
    panels = list(axes.flat)
    for ax in panels[n:]:
        ax.remove()
    return figure, panels[:n]


def _show(ax: Axes, picture: Tensor, grey: str) -> None:
    """Draw an image `(C, H, W)`, with a map of greys if it has one channel."""
    image = picture.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    if image.shape[-1] != 3:
        image = image[..., 0]
    ax.imshow(image, cmap=grey, vmin=0, vmax=1)
    ax.set_axis_off()


def _new_axes(width: float, height: float) -> Axes:
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height))[1]
