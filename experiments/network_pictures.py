"""Pictures of networks as layers of units, drawn from their modules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product
from typing import Any

import numpy as np
from torch import nn

from pyro_ssl.evaluation import style
from pyro_ssl.nn.layers import SplitLinear

RADIUS = 0.3
GAP = 2.2
"""Distance of two layers; units of a layer are 1 apart."""
COLOURS = {"input": "0.78", "output": style.COLOURS[1]}
"""Colours of layers; hidden ones have another."""
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
    places = [_units(i, size) for i, size in enumerate(sizes)]
    for before, after in pairwise(places):
        for start, end in product(before, after):
            ax.plot(*np.array([start, end]).T, color="0.7", linewidth=0.6, zorder=1)
    for layer, units in enumerate(places):
        name = _layer_name(layer, sizes)
        ax.text(GAP * layer, -height / 2 - 0.25, name, ha="center", va="top")
        labels = _unit_labels(conditional, name, len(units))
        colour = COLOURS.get(name, style.COLOURS[9])
        for centre, label in zip(units, labels, strict=True):
            _draw_unit(ax, centre, colour, label)
    ax.set(xlim=(-1, GAP * (len(sizes) - 1) + 1), ylim=(-height / 2 - 0.9, height / 2 + 0.1))
    ax.set_aspect("equal")
    ax.set_axis_off()


def _draw_unit(ax: Any, centre: tuple[float, float], colour: str, label: str) -> None:
    from matplotlib.patches import Circle

    ax.add_patch(Circle(centre, RADIUS, facecolor=colour, edgecolor="0.15", zorder=2))
    ax.text(*centre, label, ha="center", va="center", zorder=3)


def _unit_labels(conditional: nn.Module, layer: str, size: int) -> list[str]:
    """Names of the inputs and of the parameters that are computed; hidden units have none."""
    kind = type(conditional).__name__
    letters: tuple[str, ...] = ("",)
    if layer == "input":
        letters = ("x",) if kind == "Normal" else ("z",)
    elif layer == "output":
        letters = OUTPUTS[kind]
    each = size // len(letters)
    return [f"${letter}_{i + 1}$" if letter else "" for letter in letters for i in range(each)]


def _units(layer: int, size: int) -> list[tuple[float, float]]:
    return [(GAP * layer, (size - 1) / 2 - unit) for unit in range(size)]


def _layer_name(layer: int, sizes: list[int]) -> str:
    if layer == 0:
        return "input"
    if layer == len(sizes) - 1:
        return "output"
    return f"hidden {layer}"
