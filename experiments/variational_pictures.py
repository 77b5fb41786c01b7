"""Pictures of `variational_classification.py`: paper 000's Figures 1 to 8."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from panels import COLOURS
from results_table import Result
from variational_measures import TITLES
from variational_tables import Rows

from pyro_ssl.evaluation import calibration, corruptions, plots, style


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
        sizes = [at["epsilon"] for at in mine[0]["fgsm"]]
        _range(axes[2], sizes, attacked, i, colour, label)
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


def plot_planes(rows: Rows, pictures: Path) -> None:
    """Draw what there is of the part `plane`."""
    planes = {_short(row): mine[0] for row, mine in rows.items()}
    if planes:
        plot_ambiguous(planes, pictures / "ambiguous_ways.png")
    with_latents = {row: r for row, r in planes.items() if "latents" in r}
    if with_latents:
        plot_plane(with_latents, pictures / "plane.png")


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
