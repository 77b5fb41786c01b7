"""The graphical models of papers 000, 002, 003 and 004, drawn from the programs themselves.

It runs model and guide of each method, reads off which variable depends on which, and draws the
graph; the table compares the factorisation that was found with the one that the method documents.

`python experiments/graphical_models.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from network_pictures import draw_networks, layer_sizes
from pages import table, where
from pyro.nn import PyroModule
from results_table import Result, Results
from study import Config, Study, main
from torch import Tensor, nn

from pyro_ssl import (
    MLP,
    Normal,
    Objective,
    OneHotCategorical,
    StandardNormal,
    guides,
    models,
    zoo,
)
from pyro_ssl.evaluation import plots
from pyro_ssl.evaluation.graph_pictures import draw_graphs
from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.objectives.graphical_model import Graph, graph_of

ROWS = 5
FEATURES = 4
CLASSES = 3
SMALL: dict[str, Any] = {"hidden": (5, 5), "z_dim": 2}
"""Sizes do not change a graph; of the networks that are drawn they are those of the picture."""
DRAWS = {"smoke": [0], "cpu": [0]}


@dataclass(frozen=True)
class Panel:
    """One graph of a picture.

    Arguments:
        title: Its title.
        program: A method of the zoo, or a key of `PROGRAMS`.
        parts: The parts that are drawn; all by default.
    """

    title: str
    program: str
    parts: Sequence[str] = ("model", "guide", "classifier", "adversary")


MODEL, GUIDE = ("model",), ("guide",)
PICTURES: dict[str, tuple[str, Sequence[Panel]]] = {
    "000_figure_2": ("000 Fig. 2", [Panel("VC", "vc")]),
    "002_figure_1.1": (
        "002 Fig. 1.1",
        [
            Panel("(a) VAE", "vae", ("model", "guide")),
            Panel("(b) conditional VAE", "m2"),
            Panel("BNN", "bnn"),
            Panel("(c) BNN with stochastic inputs", "bnn_inputs"),
        ],
    ),
    "002_figure_2.4": ("002 Fig. 2.4", [Panel("BNN with stochastic inputs", "bnn_inputs")]),
    "002_figure_3.1": ("002 Fig. 3.1", [Panel("M2", "m2")]),
    "002_figure_3.2": ("002 Fig. 3.2", [Panel("M1 + M2", "m1_m2")]),
    "002_figure_3.3": ("002 Fig. 3.3", [Panel("(a) ADGM", "adgm"), Panel("(b) SDGM", "sdgm")]),
    "002_figure_4.1": ("002 Fig. 4.1", [Panel("SSLPE", "sslpe"), Panel("SSLAPD", "sslapd")]),
    "003_figure_1": ("003 Fig. 1", [Panel("(a) M1", "vae"), Panel("(b) M2", "m2")]),
    "003_figure_6": (
        "003 Fig. 6",
        [
            Panel("(a) ours", "latent_classifier"),
            Panel("(b) ours, simplified", "latent_classifier_simplified"),
        ],
    ),
    "003_figure_7": (
        "003 Fig. 7",
        [Panel("(a) M2", "m2"), Panel("(b) ours, split", "latent_classifier_split")],
    ),
    "003_figure_9": ("003 Fig. 9", [Panel("M2 with an adversary", "m2_adversarial")]),
    "003_supplement_4": (
        "003 suppl. Fig. 4",
        [Panel("original", "encoder"), Panel("reparameterised", "reparameterised")],
    ),
    "004_figure_1": (
        "004 Fig. 1",
        [Panel("(a) generative model", "m2", MODEL), Panel("(b) inference model", "m2", GUIDE)],
    ),
    "other_methods": (
        "in no paper",
        [
            Panel("classifier", "classifier"),
            Panel("LVAE", "lvae"),
            Panel("CE, GM", "gm"),
            Panel("ours, exact", "latent_classifier_exact"),
        ],
    ),
}
"""Name of each picture, the paper's figure, and its panels."""
NETWORKS = {
    "002_figure_2.1": ("002 Fig. 2.1", ["q(z|x)"]),
    "003_supplement_5": ("003 suppl. Fig. 5", ["q(z|x)", "p(x|z)"]),
}
"""Pictures of networks: the paper's figure, and the conditionals of a VAE."""


# --- programs that are no method of the zoo -------------------------------------------------------


class Discriminative(PyroModule):
    """p(y|x) alone: the model of a Bayesian neural network."""

    def __init__(self, p_y: nn.Module) -> None:
        super().__init__()
        self.p_y = p_y

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is not None:
                pyro.sample("y", self.p_y(x), obs=y)


class StochasticInputs(PyroModule):
    """p(z) p(y|x,z): a network with a random input z beside x."""

    def __init__(self, p_z: nn.Module, p_y: nn.Module) -> None:
        super().__init__()
        self.p_z = p_z
        self.p_y = p_y

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            if y is not None:
                pyro.sample("y", self.p_y(x, z), obs=y)


class InputPosterior(PyroModule):
    """q(z), with a mean and a scale for each datum: there is no inference network."""

    def __init__(self, rows: int, z_dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(rows, z_dim))
        self.log_scale = nn.Parameter(torch.zeros(rows, z_dim))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))


class ReparameterisedEncoder(PyroModule):
    """q(z|x) whose z is a function of x and of noise epsilon without parameters."""

    def __init__(self, q_z: nn.Module) -> None:
        super().__init__()
        self.q_z = q_z

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        q = self.q_z(x)
        with pyro.plate("data", len(x)):
            noise = dist.Normal(torch.zeros(q.event_shape), 1.0).to_event(1)
            epsilon = pyro.sample("epsilon", noise)
            pyro.deterministic("z", q.mean + q.stddev * epsilon, event_dim=1)


def bnn() -> Objective:
    """p(W) p(y|x,W), with q(W)."""
    p_y = OneHotCategorical(MLP(FEATURES, CLASSES, hidden=(5,)))
    weights = RandomWeights(p_y)
    guide = guides.MeanField(guides.Classifier(p_y), weights.initial, slots=weights)
    return Objective(models.Bayesian(Discriminative(p_y), weights), guide)


def bnn_inputs() -> Objective:
    """p(W) p(z) p(y|x,z,W), with q(W) q(z)."""
    p_y = OneHotCategorical(MLP([FEATURES, 2], CLASSES, hidden=(5,)))
    weights = RandomWeights(p_y)
    model = models.Bayesian(StochasticInputs(StandardNormal(2), p_y), weights)
    return Objective(model, guides.MeanField(InputPosterior(ROWS, 2), weights.initial))


def encoder() -> Objective:
    """q(z|x) alone."""
    return Objective(None, _Encoder(Normal(MLP(FEATURES, 4))))


def reparameterised() -> Objective:
    """q(z|x) as a function of x and noise epsilon."""
    return Objective(None, ReparameterisedEncoder(Normal(MLP(FEATURES, 4))))


class _Encoder(PyroModule):
    def __init__(self, q_z: nn.Module) -> None:
        super().__init__()
        self.q_z = q_z

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q_z(x))


PROGRAMS: dict[str, Callable[[], Objective]] = {
    "bnn": bnn,
    "bnn_inputs": bnn_inputs,
    "encoder": encoder,
    "reparameterised": reparameterised,
}


# --- runs and pictures ----------------------------------------------------------------------------


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    made: dict[str, Config] = {}
    for picture, (figure, panels) in PICTURES.items():
        for number, panel in enumerate(panels):
            made[f"{picture}_{number}"] = {
                "picture": picture,
                "figure": figure,
                "title": panel.title,
                "program": panel.program,
                "parts": list(panel.parts),
            }
    for picture, (figure, conditionals) in NETWORKS.items():
        made[picture] = {"picture": picture, "figure": figure, "networks": conditionals}
    return made


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Find the factorisation of a panel, or the sizes of the layers of its networks."""
    if "networks" in config:
        return {"layers": {name: layer_sizes(network) for name, network in networks().items()}}
    graph = panel_graph(config)
    return {"model": graph.p, "guide": graph.q, "arrows": len(graph.edges)}


def panel_graph(config: Config) -> Graph:
    """The graph of a panel."""
    return program_graph(config["program"]).only(config["parts"])


@lru_cache
def program_graph(program: str) -> Graph:
    """The graph of a method of the zoo, or of one of `PROGRAMS`."""
    x = torch.rand(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
    y = torch.eye(CLASSES)[torch.arange(ROWS) % CLASSES]
    if program in PROGRAMS:
        return graph_of(PROGRAMS[program](), x, y)
    known = zoo.options_of(program)
    options = {option: value for option, value in SMALL.items() if option in known}
    return graph_of(zoo.build(program, (FEATURES,), CLASSES, **options), x, y)


def networks() -> dict[str, nn.Module]:
    """The networks of a VAE with two hidden layers, by the conditional that they belong to."""
    vae = zoo.build("vae", (FEATURES,), CLASSES, **SMALL)
    return {"q(z|x)": vae.guide.q_z, "p(x|z)": vae.model.p_x}


def report(results: Results, pictures: Path) -> dict[str, str]:
    rows = []
    drawn: dict[str, dict[str, Graph]] = {}
    for result in where(results):
        config = result["config"]
        if "networks" in config:
            of_figure = {name: networks()[name] for name in config["networks"]}
            plots.save(draw_networks(of_figure), pictures / f"{config['picture']}.png")
            continue
        drawn.setdefault(config["picture"], {})[config["title"]] = panel_graph(config)
        rows.append((config["figure"], config["title"], *_formulas(result)))
    for picture, graphs in drawn.items():
        plots.save(draw_graphs(graphs), pictures / f"{picture}.png")
    return {"graphs": table(("figure", "panel", "model", "guide"), rows)}


def _formulas(result: Result) -> tuple[str, str]:
    """The factorisations of the programs that a panel shows."""
    model = f"`{result['model']}`" if result["model"] else ""
    guide = f"`{result['guide']}`" if result["guide"] else ""
    parts = result["config"]["parts"]
    return model if "model" in parts else "", guide if "guide" in parts else ""


STUDY = Study("graphical_models", configs, run, report, draws=DRAWS, workers=1)

if __name__ == "__main__":
    main(STUDY, __doc__)
