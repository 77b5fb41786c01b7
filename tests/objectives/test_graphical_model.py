"""The graph of every method is that of its paper."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_ssl import Objective, zoo
from pyro_ssl.objectives.graphical_model import Edge, graph_of

X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
Y = torch.eye(3)[[0, 1, 2, 0, 1]]
OTHERWISE = {
    "classifier": ("", "q(y|x)"),
    "vae": ("p(z) p(x|z)", "q(z|x) q(y|z)"),
    "m1_m2": ("p(y) p(z_2) p(z_1|y,z_2) p(x|z_1)", "q(z_1|x) q(y|z_1) q(z_2|z_1,y)"),
    "m2_adversarial": ("p(y) p(z) p(x|y,z)", "q(y|x) q(z|x,y)"),
    "lvae": (
        "p(y) p(z_3) p(z_2|z_3) p(z_1|z_2) p(x|y,z_1)",
        "q(y|x) q(z_3|x,y) q(z_2|z_3,x,y) q(z_1|z_2,x,y)",
    ),
    "latent_classifier": ("p(z) p(y|z) p(x|y,z)", "q(z|x) q(y|z)"),
    "ce": ("p(y) p(z|y)", "q(z|x) q(y|z)"),
    "gm": ("p(y) p(z|y)", "q(z|x) q(y|z)"),
    "vc": ("p(y) p(z|y) log_ratio(y,z)", "q(z|x) q(y|z)"),
}
"""Factorisations of methods whose row in the table of methods is not a list of factors."""
LABELED_ALONE = {"classifier", "vae", "latent_classifier_simplified", "latent_classifier_split"}
"""Methods whose y is in no program when it is missing."""


def graph(name, **options):
    return graph_of(zoo.build(name, (4,), 3, **{"hidden": (6,)} | options), X, Y)


def factor_set(text):
    """The factors of a formula, whatever their order."""
    found = re.findall(r"(\w+)\(([\w,]+)(?:\|([\w,]+))?\)", text)
    return {(letter, name, frozenset(parents.split(","))) for letter, name, parents in found}


@pytest.mark.parametrize("name", zoo.METHODS)
def test_a_method_factorises_as_its_row_says(name):
    row = zoo.method(name)
    model, guide = OTHERWISE.get(name, (row.model, row.guide))
    found = graph(name)
    assert factor_set(found.p.replace("log_ratio(y,z)", "log_ratio(y|z)")) == factor_set(
        model.replace("log_ratio(y,z)", "log_ratio(y|z)")
    )
    assert factor_set(found.q) == factor_set(guide)


@pytest.mark.parametrize("name", zoo.METHODS)
def test_shading_tells_what_is_observed(name):
    nodes = graph(name).nodes
    assert nodes["x"].shading == "full"
    assert nodes["y"].shading == ("full" if name in LABELED_ALONE else "half")
    latents = [node for node in nodes.values() if node.name[0] in "zaW"]
    assert all(node.shading == "none" for node in latents)
    assert latents or name == "classifier"


@pytest.mark.parametrize(
    ("name", "options", "edge"),
    [
        ("m2", {"class_prior": True}, Edge("y", "z", "model")),
        ("m2", {"flow": 1}, Edge("x", "z", "guide")),
        ("m2", {"prior": "vamp", "class_prior": True}, Edge("y", "z", "model")),
        ("sslpe", {"mixture": True}, Edge("z", "y", "guide")),
        ("latent_classifier", {"bayesian": ("p_y",)}, Edge("W", "y", "guide")),
        ("m2_adversarial", {}, Edge("z", "y", "adversary")),
        ("vae", {}, Edge("z", "y", "classifier")),
        ("classifier", {}, Edge("x", "y", "classifier")),
    ],
)
def test_an_option_adds_its_arrow(name, options, edge):
    assert edge in graph(name, **options).edges


def test_only_random_weights_are_outside_the_plate():
    plates = {name: node.plates for name, node in graph("sslapd").nodes.items()}
    assert plates == {"W": (), "z": ("data",), "x": ("data",), "y": ("data",)}


def test_a_part_keeps_its_variables():
    whole = graph("sslapd")
    guide = whole.only(["guide"])
    assert set(guide.nodes) == {"W", "x", "y", "z"}
    assert {edge.part for edge in guide.edges} == {"guide"}
    assert set(graph("m2").only(["model"]).nodes) == {"x", "y", "z"}


class Words(PyroModule):
    """A model with names of its own for the data and for the label."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(2, 4)

    def forward(self, x, y=None):
        with pyro.plate("documents", len(x)):
            topic = pyro.sample("topic", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            p = dist.Bernoulli(logits=self.decoder(topic), validate_args=False)
            pyro.sample("words", p.to_event(1), obs=x)
            label = None if y is None else y.argmax(-1)
            pyro.sample("label", dist.Categorical(logits=topic.new_zeros(3)), obs=label)


class WordsGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 2)

    def forward(self, x, y=None):
        with pyro.plate("documents", len(x)):
            pyro.sample("topic", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_arrows_of_the_guide_start_from_the_models_name_of_the_data():
    found = graph_of(Objective(Words(), WordsGuide()), X, Y)
    assert set(found.nodes) == {"topic", "words", "label"}
    assert set(found.edges) == {
        Edge("topic", "words", "model"),
        Edge("words", "topic", "guide"),
    }
    assert found.nodes["label"].shading == "half"


def test_looking_changes_nothing():
    objective = zoo.build("sslapd", (4,), 3, hidden=(6,), batch_norm=True)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    state = torch.get_rng_state()
    graph_of(objective, X, Y)
    assert torch.equal(torch.get_rng_state(), state) and objective.training
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [(X, Y.argmax(-1), r"\(B, K\), got \(5,\)"), (X[:3], Y, "got 3 and 5")],
)
def test_labels_that_do_not_fit_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        graph_of(zoo.build("m2", (4,), 3), x, y)
