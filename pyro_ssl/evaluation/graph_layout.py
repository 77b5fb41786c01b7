"""Positions of the variables and arrows of a graphical model in a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pyro_ssl.objectives.graphical_model import Edge, Graph

Point = tuple[float, float]
Positions = dict[str, Point]

RADIUS = 0.28
"""Radius of a variable; rows of variables are 1 apart."""
NAME_OFFSET = 0.2
"""Distance of the name of a factor from its centre."""
LETTER = 0.065
"""Width of one letter of such a name."""
CLEARANCE = 0.42
"""Least distance of an arrow from the centre of a variable that it passes."""
COLUMNS = tuple(0.5 * step for step in range(-4, 5))
"""Horizontal positions of variables."""
BENDS = (0.0, 0.3, -0.3, 0.55, -0.55, 0.8, -0.8)
"""Bends of arrows, as the share of its length by which the control point is off its middle."""
STARTS = 6
"""Number of orders of the variables from which the search for positions starts."""


def positions(graph: Graph) -> Positions:
    """Place causes above effects, so that few arrows cross or pass close to a variable.

    Every row holds the variables with the same longest path from a cause. Columns are chosen by
    coordinate descent from several orders; the same graph always has the same positions.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.objectives.graphical_model import graph_of
    >>> vae = zoo.build("vae", (4,), 3, hidden=(8,), z_dim=2)
    >>> place = positions(graph_of(vae, torch.rand(3, 4), torch.eye(3)))
    >>> place["z"][1] > place["x"][1]
    True
    """
    rows = _rows(graph)
    names = list(rows)
    best: dict[str, float] = {}
    lowest = float("inf")
    for order in itertools.islice(itertools.permutations(names), STARTS):
        columns = _spread(order, rows)
        cost = _descend(graph, rows, columns)
        if cost < lowest:
            lowest = cost
            best = columns
    return {name: (best[name], -float(rows[name])) for name in names}


def _rows(graph: Graph) -> dict[str, int]:
    """The longest path to each variable along the model's arrows; others are below neighbours.

    Without a model, the arrows of all parts count.
    """
    edges = [edge for edge in graph.edges if edge.part == "model"] or list(graph.edges)
    rows = _longest_paths(graph.nodes, edges)
    placed = _ends(edges)
    for name in graph.nodes:
        neighbours = _neighbours(graph, name) & placed
        if name not in placed and neighbours:
            rows[name] = max(rows[neighbour] for neighbour in neighbours) + 1
    for edge in graph.edges:
        if edge.part == "classifier":  # its label is below what it is computed from
            rows[edge.target] = rows[edge.source] + 1
    return rows


def _ends(edges: Iterable[Edge]) -> set[str]:
    return {end for edge in edges for end in (edge.source, edge.target)}


def _longest_paths(names: Iterable[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The longest path to each variable; in a cycle, as many arrows as there are variables."""
    rows = dict.fromkeys(names, 0)
    for _ in rows:
        for edge in edges:
            rows[edge.target] = max(rows[edge.target], rows[edge.source] + 1)
        if max(rows.values()) >= len(rows):
            break
    return rows


def _neighbours(graph: Graph, name: str) -> set[str]:
    """The other ends of the arrows of a variable."""
    ends = [{edge.source, edge.target} for edge in graph.edges]
    return {end for pair in ends if name in pair for end in pair} - {name}


def _spread(order: Sequence[str], rows: Mapping[str, int]) -> dict[str, float]:
    """Columns of a start: the variables of a row in order, 1 apart and centred."""
    columns: dict[str, float] = {}
    for row in set(rows.values()):
        names = [name for name in order if rows[name] == row]
        for i, name in enumerate(names):
            columns[name] = i - (len(names) - 1) / 2
    return columns


def _descend(graph: Graph, rows: Mapping[str, int], columns: dict[str, float]) -> float:
    """Move one variable at a time to its best column, until nothing improves; give the cost."""
    cost = _cost(graph, rows, columns)
    improved = True
    while improved:
        improved = False
        for name in columns:
            for column in COLUMNS:
                trial = columns | {name: column}
                cost_of_trial = _cost(graph, rows, trial)
                if cost_of_trial < cost - 1e-9:
                    columns[name] = column
                    cost = cost_of_trial
                    improved = True
    return cost


def _cost(graph: Graph, rows: Mapping[str, int], columns: Mapping[str, float]) -> float:
    """How poor a picture is: variables too close, arrows that pass variables or cross, length."""
    place = {name: (columns[name], -float(rows[name])) for name in rows}
    lines = _lines(graph)
    cost = 0.05 * sum(abs(column) for column in columns.values())
    cost += sum(_cost_of_pair(graph, place, a, b) for a, b in itertools.combinations(rows, 2))
    cost += sum(_cost_of_line(place, a, b) for a, b in lines)
    for (a, b), (c, d) in itertools.combinations(lines, 2):
        shares_end = {a, b} & {c, d}
        if not shares_end and _cross(place[a], place[b], place[c], place[d]):
            cost += 2
    return cost


def _lines(graph: Graph) -> list[tuple[str, str]]:
    """The pairs of variables with an arrow between them, in either direction."""
    # not a set: its order, and so the rounding of the sum, would change from process to process
    pairs = dict.fromkeys(tuple(sorted((edge.source, edge.target))) for edge in graph.edges)
    return [(a, b) for a, b in pairs if a != b]


def _cost_of_pair(graph: Graph, place: Positions, a: str, b: str) -> float:
    """Two variables of a row are 1 apart; what is in fewer plates is left of the others."""
    cost = 0.0
    right = place[a][0] - place[b][0]
    if place[a][1] == place[b][1]:
        cost += 50 * max(0.0, 1 - abs(right))
    more_plates = len(graph.nodes[a].plates) - len(graph.nodes[b].plates)
    if more_plates:
        cost += 20 * max(0.0, 1 - right * more_plates)
    return cost


def _cost_of_line(place: Positions, a: str, b: str) -> float:
    """A line is short, and passes other variables at a distance."""
    cost = 0.2 * abs(place[a][0] - place[b][0])
    for name, centre in place.items():
        if name not in (a, b):
            cost += 30 * max(0.0, CLEARANCE - _distance(centre, place[a], place[b]))
    return cost


def _distance(point: Point, start: Point, end: Point) -> float:
    """Distance of a point from a segment."""
    px, py = point[0] - start[0], point[1] - start[1]
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = dx * dx + dy * dy
    share = 0.0 if length == 0 else min(1.0, max(0.0, (px * dx + py * dy) / length))
    return float(np.hypot(px - share * dx, py - share * dy))


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """True if the segments ab and cd cross."""

    def side(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


# --- arrows ---------------------------------------------------------------------------------------


def bends(graph: Graph, place: Positions) -> dict[Edge, float]:
    """Bend arrows away from each other and from variables that they would pass.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.objectives.graphical_model import graph_of
    >>> vae = graph_of(zoo.build("vae", (4,), 3, z_dim=2), torch.rand(3, 4), torch.eye(3))
    >>> vae = vae.only(["model", "guide"])
    >>> [edge.part for edge, bend in bends(vae, positions(vae)).items() if bend]
    ['guide']
    """
    chosen: dict[Edge, float] = {}
    curves: list[tuple[Edge, np.ndarray]] = []
    for edge in graph.edges:
        costs = {bend: _bend_cost(edge, bend, place, curves) for bend in BENDS}
        bend = min(costs, key=costs.__getitem__)
        chosen[edge] = bend
        curves.append((edge, curve(place[edge.source], place[edge.target], bend)))
    return chosen


def curve(start: Point, end: Point, bend: float) -> np.ndarray:
    """Points `(20, 2)` of matplotlib's arrow of style `arc3`, without its ends.

    >>> curve((0.0, 0.0), (0.0, 2.0), 0.0).shape
    (20, 2)
    """
    first, last = np.array(start), np.array(end)
    dx, dy = last - first
    control = (first + last) / 2 + bend * np.array([dy, -dx])
    t = np.linspace(0.15, 0.85, 20)[:, None]
    return (1 - t) ** 2 * first + 2 * t * (1 - t) * control + t**2 * last


def _bend_cost(
    edge: Edge, bend: float, place: Positions, curves: Sequence[tuple[Edge, np.ndarray]]
) -> float:
    points = curve(place[edge.source], place[edge.target], bend)
    cost = 0.5 * abs(bend)
    for name, centre in place.items():
        if name not in (edge.source, edge.target):
            nearest = float(np.linalg.norm(points - centre, axis=1).min())
            cost += 20 * max(0.0, CLEARANCE - nearest)
    for other, theirs in curves:
        gaps = np.linalg.norm(points[:, None] - theirs[None], axis=-1).min(1)
        together = float((gaps < 0.12).mean())
        cost += 4 * together
        if together and {other.source, other.target} == {edge.source, edge.target}:
            cost += 10
    return cost


def box(
    graph: Graph, plate: str, place: Positions, bent: Mapping[Edge, float]
) -> tuple[Point, Point]:
    """The lower left and the upper right corner of the box of a plate.

    It holds the variables of the plate and the arrows between them. An outer plate has more room
    around them than the plates inside it.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.objectives.graphical_model import graph_of
    >>> vae = graph_of(zoo.build("vae", (4,), 3, z_dim=2), torch.rand(3, 4), torch.eye(3))
    >>> place = positions(vae)
    >>> low, high = box(vae, "data", place, bends(vae, place))
    >>> low[1] < place["x"][1] < place["z"][1] < high[1]
    True
    """
    inside = [name for name, node in graph.nodes.items() if plate in node.plates]
    depths = (graph.nodes[name].plates.index(plate) for name in inside)
    deepest = (len(graph.nodes[name].plates) for name in inside)
    nested = max(all_plates - depth for all_plates, depth in zip(deepest, depths, strict=True))
    margin = RADIUS + 0.14 * nested
    circles = np.array([place[name] for name in inside])
    names = _names_of_factors(graph, inside, place)
    arrows = _arrows(inside, place, bent)
    points = np.concatenate([circles - margin, circles + margin, *names, *arrows])
    low, high = points.min(0), points.max(0)
    below = 0.12 * nested  # for the plate's name
    return (float(low[0]), float(low[1]) - below), (float(high[0]), float(high[1]))


def _names_of_factors(graph: Graph, names: Sequence[str], place: Positions) -> list[np.ndarray]:
    """The right ends of the names that stand beside factors."""
    factors = [name for name in names if graph.nodes[name].kind == "factor"]
    return [
        np.array([[place[name][0] + NAME_OFFSET + LETTER * len(name) + 0.1, place[name][1]]])
        for name in factors
    ]


def _arrows(names: Sequence[str], place: Positions, bent: Mapping[Edge, float]) -> list[np.ndarray]:
    """Points around the arrows between some variables."""
    around = []
    for edge, bend in bent.items():
        if edge.source in names and edge.target in names:
            points = curve(place[edge.source], place[edge.target], bend)
            around += [points - 0.12, points + 0.12]
    return around
