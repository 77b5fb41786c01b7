"""The picture of a graphical model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyro_ssl.evaluation import style
from pyro_ssl.evaluation.graph_layout import RADIUS, Positions, bends, box, positions
from pyro_ssl.infer.dependencies import Kind
from pyro_ssl.objectives.graphical_model import Edge, Graph, Node, Part, Shading, graph_of
from pyro_ssl.objectives.objective import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADE = "0.78"
INK = "0.15"
LINES: dict[Part, dict[str, Any]] = {
    "model": {"color": INK, "linestyle": "-"},
    "guide": {"color": style.COLOURS[0], "linestyle": (0, (4, 2))},
    "classifier": {"color": style.COLOURS[6], "linestyle": (0, (1, 1.5))},
    "adversary": {"color": style.COLOURS[2], "linestyle": (0, (5, 2, 1, 2))},
}
"""The arrows of each part."""
PARTS: tuple[Part, ...] = ("model", "guide", "classifier", "adversary")
SHADINGS: dict[Shading, str] = {
    "full": "observed",
    "half": "observed in labeled data only",
    "none": "latent",
}
"""What the shading of a variable means, for the legend."""
FILLS: dict[Shading, tuple[str, str]] = {
    "full": (SHADE, SHADE),
    "half": (SHADE, "w"),
    "none": ("w", "w"),
}
"""Colours of the left and the right half of a variable."""
GREEK = ("alpha", "beta", "gamma", "epsilon", "theta", "phi", "mu", "sigma")
"""Names of variables that are drawn as Greek letters."""
INCHES = 0.95
"""Size of one row."""
LEGEND_INCHES = 2.2
"""Width of the legend."""


@style.context()
def graphical_model(
    objective: Objective,
    x: Tensor,
    y: Tensor,
    *,
    parts: Iterable[Part] = PARTS,
    title: str = "",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the graphical model of an objective as its programs define it.

    Circles are variables, shaded if observed; a box is a plate, a square a `pyro.factor`, a diamond
    a `pyro.deterministic`. Solid arrows are of the model, dashed ones of the guide. Nothing besides
    matplotlib is needed.

    >>> from pyro_ssl import zoo
    >>> import torch
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> ax = graphical_model(m2, torch.rand(3, 4), torch.eye(3), title="M2")
    >>> sorted(text.get_text() for text in ax.texts)
    ['$x$', '$y$', '$z$', 'data']

    Arguments:
        objective: The objective.
        x: Some data, `(B, *event)`, on which the programs are run.
        y: Their labels, one-hot `(B, K)` or real `(B, D)`.
        parts: What to draw, of `model`, `guide`, `classifier` (a q(y|x) that is no site of the
            programs) and `adversary`.
        title: Title above the axes.
        legend: Explain arrows and shading to the right of the axes.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        ValueError: A part is unknown; x and y do not fit together.
    """
    parts = list(parts)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"parts should be of {', '.join(PARTS)}; got {', '.join(unknown)}")
    return draw_graph(graph_of(objective, x, y).only(parts), title=title, legend=legend, ax=ax)


@style.context()
def draw_graph(
    graph: Graph, *, title: str = "", legend: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw a graph of `graph_of`, or a part of one.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> graph = graph_of(zoo.build("vae", (4,), 3, z_dim=2), torch.rand(3, 4), torch.eye(3))
    >>> len(draw_graph(graph.only(["guide"])).texts)
    3

    Arguments:
        graph: The graph.
        title: Title above the axes.
        legend: Explain arrows and shading to the right of the axes.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.
    """
    picture = _Picture(graph)
    if ax is None:
        ax = _new_axes(picture.width, picture.height, legend)
    picture.draw(ax, title)
    if legend:
        style.legend_beside(ax, handles=legend_handles(graph))
    return ax


@style.context()
def draw_graphs(graphs: Mapping[str, Graph]) -> Figure:
    """Draw graphs side by side, at one scale and with one legend.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> graph = graph_of(zoo.build("vae", (4,), 3, z_dim=2), torch.rand(3, 4), torch.eye(3))
    >>> figure = draw_graphs({part: graph.only([part]) for part in ("model", "guide")})
    >>> [ax.get_title() for ax in figure.axes]
    ['model', 'guide']

    Arguments:
        graphs: The graphs, by title.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    pictures = {title: _Picture(graph) for title, graph in graphs.items()}
    widths = [picture.width for picture in pictures.values()]
    tallest = max(picture.height for picture in pictures.values())
    figure, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(
            INCHES * (sum(widths) + 0.4 * len(widths)) + LEGEND_INCHES,
            INCHES * tallest + 0.4,
        ),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    for ax, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        picture.draw(ax, title, height=tallest)
    handles = legend_handles(*graphs.values())
    figure.legend(handles=handles, loc="outside right upper")
    return figure


class _Picture:
    """A graph with the places of its variables, arrows and plates."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.place = positions(graph)
        self.bent = bends(graph, self.place)
        self.boxes = {plate: box(graph, plate, self.place, self.bent) for plate in _plates(graph)}
        corners = [point for pair in self.boxes.values() for point in pair]
        corners += [(x + s, y + s) for x, y in self.place.values() for s in (-0.35, 0.35)]
        across = [x for x, _ in corners]
        up = [y for _, y in corners]
        self.left, self.right = min(across) - 0.05, max(across) + 0.05
        self.low, self.high = min(up) - 0.05, max(up) + 0.05

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.high - self.low

    def draw(self, ax: Axes, title: str, height: float = 0.0) -> None:
        """Draw everything, at the top of axes of at least this height in rows."""
        for plate, (lower, upper) in self.boxes.items():
            _draw_plate(ax, plate, lower, upper)
        for edge, bend in self.bent.items():
            _draw_edge(ax, edge, bend, self.graph, self.place)
        for node in self.graph.nodes.values():
            _draw_node(ax, node, self.place[node.name])
        low = min(self.low, self.high - height)
        ax.set(xlim=(self.left, self.right), ylim=(low, self.high), aspect="equal", title=title)
        ax.set_axis_off()


def _plates(graph: Graph) -> list[str]:
    """The plates, outer ones first."""
    return list(dict.fromkeys(plate for node in graph.nodes.values() for plate in node.plates))


def _draw_plate(ax: Axes, plate: str, lower: Any, upper: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    width = upper[0] - lower[0]
    height = upper[1] - lower[1]
    shape = "round,pad=0,rounding_size=0.12"
    box_patch = FancyBboxPatch(
        lower, width, height, boxstyle=shape, facecolor="none", edgecolor="0.45", linewidth=0.9
    )
    ax.add_patch(box_patch)
    corner = (upper[0] - 0.09, lower[1] + 0.07)
    ax.text(corner[0], corner[1], plate, ha="right", va="bottom", fontsize=8, color="0.3")


def _draw_edge(ax: Axes, edge: Edge, bend: float, graph: Graph, place: Positions) -> None:
    from matplotlib.patches import FancyArrowPatch

    ends = (graph.nodes[edge.source], graph.nodes[edge.target])
    # an invisible circle around each end stops the arrow there, at any size of the picture
    circles = [_outline(ax, node, place[node.name]) for node in ends]
    line = LINES[edge.part]
    ax.add_patch(
        FancyArrowPatch(
            place[edge.source],
            place[edge.target],
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>,head_length=4.5,head_width=2.2",
            patchA=circles[0],
            patchB=circles[1],
            shrinkA=0,
            shrinkB=1,
            linewidth=1.2,
            color=line["color"],
            linestyle=line["linestyle"],
            zorder=1,
        )
    )


def _outline(ax: Axes, node: Node, centre: Any) -> Any:
    from matplotlib.patches import Circle

    radius = 0.13 if node.kind == "factor" else RADIUS
    patch = Circle(centre, radius, visible=False)
    ax.add_patch(patch)
    return patch


def _draw_node(ax: Axes, node: Node, centre: Any) -> None:
    from matplotlib.patches import Circle, RegularPolygon, Wedge

    outline: dict[str, Any] = {"edgecolor": INK, "linewidth": 1.2, "zorder": 2}
    if node.kind == "factor":
        ax.add_patch(RegularPolygon(centre, 4, radius=0.14, orientation=0.785, color=INK, zorder=2))
        ax.text(centre[0] + 0.2, centre[1], node.name.replace("_", " "), va="center", fontsize=8)
        return
    if node.kind == "deterministic":
        ax.add_patch(RegularPolygon(centre, 4, radius=RADIUS * 1.1, facecolor="w", **outline))
    else:
        ax.add_patch(Circle(centre, RADIUS, facecolor="w", **outline))
    if node.shading != "none":
        angles = (0, 360) if node.shading == "full" else (90, 270)
        ax.add_patch(Wedge(centre, RADIUS, *angles, facecolor=SHADE, edgecolor="none", zorder=2))
        ax.add_patch(Circle(centre, RADIUS, facecolor="none", **outline))
    ax.text(
        centre[0], centre[1], label_of(node.name), ha="center", va="center", fontsize=11, zorder=3
    )


def label_of(name: str) -> str:
    """The name of a variable as a formula: a letter, or a letter with an index.

    >>> label_of("z_1"), label_of("epsilon"), label_of("weights")
    ('$z_{1}$', '$\\\\epsilon$', 'weights')
    """
    if name in GREEK:
        return f"$\\{name}$"
    if re.fullmatch(r"[A-Za-z]", name):
        return f"${name}$"
    indexed = re.fullmatch(r"([A-Za-z])_(\w+)", name)
    if indexed:
        letter, index = indexed.groups()
        return f"${letter}_{{{index}}}$" if len(index) == 1 else f"${letter}_{{\\rm {index}}}$"
    return name


def legend_handles(*graphs: Graph) -> list[Any]:
    """Legend entries for the arrows and the variables of graphs.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> graph = graph_of(zoo.build("vae", (4,), 3, z_dim=2), torch.rand(3, 4), torch.eye(3))
    >>> [handle.get_label() for handle in legend_handles(graph)]
    ['model', 'guide', 'classifier', 'observed', 'latent']
    """
    from matplotlib.lines import Line2D

    drawn = {edge.part for graph in graphs for edge in graph.edges}
    nodes = [node for graph in graphs for node in graph.nodes.values()]
    arrows: list[Any] = [
        Line2D([], [], linewidth=1.2, label=part, **LINES[part]) for part in PARTS if part in drawn
    ]
    shadings = {node.shading for node in nodes if node.kind == "sample"}
    return arrows + _circle_handles(shadings) + _special_handles({node.kind for node in nodes})


def _circle_handles(shadings: set[Shading]) -> list[Any]:
    return [
        _handle("o", label, *FILLS[shading])
        for shading, label in SHADINGS.items()
        if shading in shadings
    ]


def _special_handles(kinds: set[Kind]) -> list[Any]:
    handles = []
    if "deterministic" in kinds:
        handles.append(_handle("D", "deterministic", "w", "w"))
    if "factor" in kinds:
        handles.append(_handle("s", "factor", INK, INK))
    return handles


def _handle(marker: str, label: str, left: str, right: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        markersize=8 if marker == "o" else 6,
        fillstyle="full" if left == right else "left",
        markerfacecolor=left,
        markerfacecoloralt=right,
        markeredgecolor=INK,
        label=label,
    )


def _new_axes(width: float, height: float, legend: bool) -> Axes:
    import matplotlib.pyplot as plt

    across = INCHES * max(width, 1.2) + (LEGEND_INCHES if legend else 0.0)
    return plt.subplots(figsize=(across, INCHES * max(height, 1.2) + 0.3))[1]
