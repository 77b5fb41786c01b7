"""Pictures of graphical models: nothing overlaps, plates hold what is theirs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from pyro_ssl import zoo
from pyro_ssl.evaluation import plots
from pyro_ssl.evaluation.graph_layout import RADIUS, bends, box, curve, positions
from pyro_ssl.evaluation.graph_pictures import draw_graphs
from pyro_ssl.objectives.graphical_model import graph_of

X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
Y = torch.eye(3)[[0, 1, 2, 0, 1]]


@pytest.fixture(autouse=True)
def agg():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def build(name):
    return zoo.build(name, (4,), 3, hidden=(6,))


@pytest.mark.parametrize("name", zoo.METHODS)
def test_nothing_overlaps(name):
    graph = graph_of(build(name), X, Y)
    place = positions(graph)
    bent = bends(graph, place)
    centres = {node: np.array(point) for node, point in place.items()}
    for a, b in [(a, b) for a in centres for b in centres if a < b]:
        assert np.linalg.norm(centres[a] - centres[b]) > 2 * RADIUS
    for edge, bend in bent.items():
        points = curve(place[edge.source], place[edge.target], bend)
        for other in centres.keys() - {edge.source, edge.target}:
            assert np.linalg.norm(points - centres[other], axis=1).min() > RADIUS, (edge, other)
    shapes = [(frozenset((e.source, e.target)), e.source, bend) for e, bend in bent.items()]
    bows = {(pair, bend if source == min(pair) else -bend) for pair, source, bend in shapes}
    assert len(bows) == len(shapes)  # no two arrows lie on each other
    low, high = box(graph, "data", place, bent) if name != "classifier" else ((-9, -9), (9, 9))
    for node, (x, y) in place.items():
        inside = low[0] <= x - RADIUS <= x + RADIUS <= high[0] and low[1] <= y <= high[1]
        assert inside == (name == "classifier" or "data" in graph.nodes[node].plates)


def test_the_same_graph_has_the_same_positions():
    first, second = (positions(graph_of(build("adgm"), X, Y)) for _ in range(2))
    assert first == second


def test_a_picture_has_a_legend_and_every_variable(tmp_path):
    ax = plots.graphical_model(build("sslapd"), X, Y, title="SSLAPD")
    names = {text.get_text() for text in ax.texts}
    assert names == {"$W$", "$x$", "$y$", "$z$", "data"} and ax.get_title() == "SSLAPD"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["model", "guide", "observed in labeled data only", "latent"] or legend == [
        "model",
        "guide",
        "observed",
        "observed in labeled data only",
        "latent",
    ]
    assert plots.save(ax, tmp_path / "graph.png").stat().st_size > 1000


def test_parts_are_drawn_side_by_side_at_one_scale():
    graph = graph_of(build("m2_adversarial"), X, Y)
    figure = draw_graphs({part: graph.only([part]) for part in ("model", "adversary")})
    heights = {np.ptp(ax.get_ylim()).round(6) for ax in figure.axes}
    assert len(heights) == 1 and [ax.get_title() for ax in figure.axes] == ["model", "adversary"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:2] == ["model", "adversary"]


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match="got encoder"):
        plots.graphical_model(build("m2"), X, Y, parts=["encoder"])
