"""The picture of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_ssl.comparison.intervals import Interval
from pyro_ssl.comparison.result import LABELS_ALONE, Comparison
from pyro_ssl.evaluation import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.context()
def draw_comparison(comparison: Comparison) -> Figure:
    """Draw accuracies, and their differences from the labels alone, with intervals.

    Arguments:
        comparison: The comparison.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    names = [competitor.name for competitor in comparison.competitors]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.4, 1.2 + 0.42 * len(names)), sharey=True, layout="constrained"
    )
    _draw_intervals(left, names, [comparison.accuracy(name) for name in names], comparison)
    differences = [
        None if name == LABELS_ALONE else comparison.accuracy_difference(name) for name in names
    ]
    _draw_intervals(right, names, differences, comparison)
    right.axvline(0, **style.GUIDE_LINE)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel="accuracy, %", title="on held-out labels")
    right.set(xlabel="points of accuracy", title="difference from the labels alone")
    level = f"{100 * comparison.level:g} % intervals"
    figure.suptitle(
        f"{len(comparison.rows)} labels, {comparison.unlabeled} unlabeled rows; {level}"
    )
    return figure


def _draw_intervals(
    ax: Axes, names: list[str], intervals: list[Interval | None], comparison: Comparison
) -> None:
    for place, (name, interval) in enumerate(zip(names, intervals, strict=True)):
        if interval is None:
            continue
        estimate, low, high = (100 * value for value in interval)
        colour = style.COLOURS[0] if name in comparison.methods else style.UNLABELED
        ax.plot([low, high], [place, place], color=colour, linewidth=2)
        ax.plot([estimate], [place], "o", color=colour)
    ax.set_ylim(-0.6, len(names) - 0.4)
