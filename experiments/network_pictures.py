"""Pictures of networks as layers of units, drawn from their modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from pyro_ssl.evaluation import style
from pyro_ssl.nn.layers import SplitLinear

RADIUS = 0.3
GAP = 2.2
"""Distance of two layers; units of a layer are 1 apart."""
OUTPUTS = {"Normal": ("\\mu", "\\sigma"), "Bernoulli": ("p",)}
"""The parameters that a network computes for each dimension, by the kind of its conditional."""


def layer_sizes(conditional: nn.Module) -> list[int]:
    """The number of inputs of a network, and of outputs of each of its layers.

    The network has one input.
    """
    sizes: list[int] = []
    for layer in conditional.modules():
        if isinstance(layer, SplitLinear):
            sizes += [len(layer.weights[0]), layer.weights[0].shape[1]]
        elif isinstance(layer, nn.Linear):
            sizes.append(layer.out_features)
    return sizes


def draw_networks(conditionals: Mapping[str, nn.Module]) -> Any:
    """Draw the networks of conditionals in a row, each after a draw from the one before it."""
    import matplotlib.pyplot as plt

    sizes = {name: layer_sizes(part) for name, part in conditionals.items()}
    widths = [GAP * len(layers) for layers in sizes.values()]
    height = max(max(layers) for layers in sizes.values())
    figsize = (0.5 * sum(widths) + 0.6, 0.5 * height + 0.9)
    figure, axes = plt.subplots(1, len(sizes), figsize=figsize, width_ratios=widths, squeeze=False)
    for ax, (name, conditional) in zip(axes[0], conditionals.items(), strict=True):
        _draw_network(ax, conditional, sizes[name], height)
        ax.set(title=f"network of {name}")
    return figure


def _draw_network(ax: Any, conditional: nn.Module, sizes: list[int], height: int) -> None:
    from matplotlib.patches import Circle

    places = [_units(i, size) for i, size in enumerate(sizes)]
    for before, after in zip(places, places[1:], strict=False):
        for start in before:
            for end in after:
                ax.plot(*np.array([start, end]).T, color="0.7", linewidth=0.6, zorder=1)
    inputs = "x" if type(conditional).__name__ == "Normal" else "z"
    names = {0: [f"{inputs}_{i + 1}" for i in range(sizes[0])], len(sizes) - 1: []}
    parameters = OUTPUTS[type(conditional).__name__]
    each = sizes[-1] // len(parameters)
    names[len(sizes) - 1] = [f"{name}_{i + 1}" for name in parameters for i in range(each)]
    colours = {0: "0.78", len(sizes) - 1: style.COLOURS[1]}
    for layer, units in enumerate(places):
        for unit, centre in enumerate(units):
            colour = colours.get(layer, style.COLOURS[9])
            ax.add_patch(Circle(centre, RADIUS, facecolor=colour, edgecolor="0.15", zorder=2))
            if layer in names:
                ax.text(*centre, f"${names[layer][unit]}$", ha="center", va="center", zorder=3)
        ax.text(GAP * layer, -height / 2 - 0.25, _layer_name(layer, sizes), ha="center", va="top")
    ax.set(xlim=(-1, GAP * (len(sizes) - 1) + 1), ylim=(-height / 2 - 0.9, height / 2 + 0.1))
    ax.set_aspect("equal")
    ax.set_axis_off()


def _units(layer: int, size: int) -> list[tuple[float, float]]:
    return [(GAP * layer, (size - 1) / 2 - unit) for unit in range(size)]


def _layer_name(layer: int, sizes: list[int]) -> str:
    if layer == 0:
        return "input"
    if layer == len(sizes) - 1:
        return "output"
    return f"hidden {layer}"
