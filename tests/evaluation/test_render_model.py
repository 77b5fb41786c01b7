"""Pictures of the model and of the guide alone, of every method."""

import re

import matplotlib.pyplot as plt
import pytest
import torch
from pyro.infer import inspect

from pyro_ssl import zoo
from pyro_ssl.evaluation import plots
from pyro_ssl.evaluation.graph_pictures import label_of
from pyro_ssl.objectives.graphical_model import graph_of

X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
Y = torch.eye(3)[[0, 1, 2, 0, 1]]
SMALL = {"z_dim": 2, "z1_dim": 2, "hidden": (6,), "m1_hidden": (6,)}


@pytest.fixture(autouse=True)
def agg():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def build(name):
    options = {k: v for k, v in SMALL.items() if k in zoo.options_of(name)}
    return zoo.build(name, (4,), 3, **options)


def arrows_of(factorisation: str) -> dict[str, set[str]]:
    """The parents of each variable of a factorisation, such as y: {x} of `q(y|x)`."""
    arrows = {}
    for variable, _, parents in re.findall(r"[pq]\((\w+)(\|([\w,]+))?\)", factorisation):
        arrows[variable] = set(parents.split(",")) - {""}
    return arrows


@pytest.mark.parametrize("part", ["model", "guide"])
@pytest.mark.parametrize("name", zoo.METHODS)
def test_every_program_is_drawn_with_the_variables_of_its_factorisation(name, part, tmp_path):
    graph = graph_of(build(name), X, Y)  # test_graphical_model.py compares it with the method's row
    factorisation = graph.q if part == "guide" else graph.p or graph.q
    ax = plots.render_model(build(name), X, Y, part=part)
    variables = arrows_of(factorisation)
    expected = {label_of(v) for v in set(variables).union(*variables.values())}
    texts = {text.get_text() for text in ax.texts} - {"data", "log ratio"}
    assert texts == expected
    assert plots.save(ax, tmp_path / "picture.png").stat().st_size > 1000


@pytest.mark.parametrize("part", ["model", "guide"])
@pytest.mark.parametrize("name", zoo.METHODS)
def test_pyros_own_function_runs_on_every_program(name, part):
    """It takes what the programs take: for M1+M2, the latents of M1."""
    objective = build(name).eval()
    program = getattr(objective, part)
    if program is None:
        return
    for arguments in ((objective.encode(X),), (objective.encode(X), Y)):
        relations = inspect.get_model_relations(program, arguments)
        specification = inspect.generate_graph_specification(relations)
        assert specification["node_data"].keys() == relations["sample_sample"].keys()


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="part should be one of model, guide, got 'adversary'"):
        plots.render_model(build("m2"), X, Y, part="adversary")


def test_the_model_that_a_classifier_lacks_is_no_picture():
    with pytest.raises(ValueError, match="graph has no variable to draw"):
        plots.graphical_model(build("classifier"), X, Y, parts=["model"])
