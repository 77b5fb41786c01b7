"""The graphical model of an objective, found by running its programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from pyro_ssl.infer.dependencies import Factor, Kind, factors, names_in, tracked
from pyro_ssl.objectives.adversarial import Adversary
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.pretrained_encoder import PretrainedEncoder
from pyro_ssl.types import EmbeddingGuide, Guide
from pyro_ssl.utils.context import eval_mode

Shading = Literal["none", "half", "full"]
Part = Literal["model", "guide", "classifier", "adversary"]


@dataclass(frozen=True)
class Node:
    """A variable.

    Arguments:
        name: Its name.
        shading: `full` if it is observed, `half` if it is observed in labeled data and latent in
            unlabeled data, `none` if it is latent.
        plates: Names of the plates around it, outermost first.
        kind: The kind of its site, see `Factor`.
        parts: The programs with a site of this name.
    """

    name: str
    shading: Shading = "none"
    plates: tuple[str, ...] = ()
    kind: Kind = "sample"
    parts: frozenset[Part] = frozenset()


@dataclass(frozen=True)
class Edge:
    """An arrow: the distribution of `target` is computed from `source`.

    Arguments:
        source: Name of the variable at its start.
        target: Name of the variable at its end.
        part: The program with the arrow; `classifier` for a q(y|x) that is no site of the programs,
            `adversary` for the classifier of a term `Adversary`.
    """

    source: str
    target: str
    part: Part


@dataclass(frozen=True)
class Graph:
    """Variables, arrows, and the factorisations that they stand for.

    Arguments:
        nodes: The variables, by name.
        edges: The arrows, each once.
        model: The factors of the model.
        guide: The factors of the guide, for unlabeled data.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    model: tuple[Factor, ...] = ()
    guide: tuple[Factor, ...] = ()

    @property
    def p(self) -> str:
        """The model's factorisation, such as `p(y) p(z) p(x|y,z)`."""
        return " ".join(factor.formula("p") for factor in self.model)

    @property
    def q(self) -> str:
        """The guide's factorisation, and a classifier that is no site of the programs."""
        texts = [factor.formula("q") for factor in self.guide]
        sources = [edge.source for edge in self.edges if edge.part == "classifier"]
        if sources:
            texts.append(f"q(y|{','.join(sources)})")
        return " ".join(texts)

    def only(self, parts: Iterable[Part]) -> Graph:
        """The graph with the variables and the arrows of some parts."""
        parts = set(parts)
        edges = tuple(edge for edge in self.edges if edge.part in parts)
        ends = {name for edge in edges for name in (edge.source, edge.target)}
        nodes = {
            name: node for name, node in self.nodes.items() if name in ends or node.parts & parts
        }
        return replace(self, nodes=nodes, edges=edges)

    def renamed(self, names: Mapping[str, str]) -> Graph:
        """The graph with other names of some variables."""
        nodes = [
            replace(node, name=names.get(node.name, node.name)) for node in self.nodes.values()
        ]
        edges = (
            Edge(names.get(e.source, e.source), names.get(e.target, e.target), e.part)
            for e in self.edges
        )
        return Graph(
            {node.name: node for node in nodes},
            tuple(edges),
            tuple(factor.renamed(names) for factor in self.model),
            tuple(factor.renamed(names) for factor in self.guide),
        )


def graph_of(objective: Objective, x: Tensor, y: Tensor) -> Graph:
    """Find the graphical model of an objective: model, guide, and the terms with a classifier.

    Model and guide run twice, with labels and without, so that the graph tells what is observed in
    which data. A classifier without a model, which `pyro.render_model` cannot draw, has the arrow
    of its q(y|x). With a `PretrainedEncoder`, whose latents are the data of model and guide, both
    models are drawn, and their latents are called z_1 and z_2.

    Arguments:
        objective: The objective.
        x: Some data, `(B, *event)`.
        y: Their labels, one-hot `(B, K)` or real `(B, D)`.

    Raises:
        ValueError: x and y do not have the same number of rows, or y is not a matrix.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, hidden=(8,), z_dim=2)
    >>> graph = graph_of(sslpe, torch.rand(3, 4), torch.eye(3))
    >>> graph.p, graph.q
    ('p(z) p(x|z) p(y|x,z)', 'q(y|x) q(z|x,y)')
    >>> {name: node.shading for name, node in graph.nodes.items()}
    {'z': 'none', 'x': 'full', 'y': 'half'}
    """
    if y.dim() != 2:
        raise ValueError(f"y should have shape (B, K), got {tuple(y.shape)}")
    if len(x) != len(y):
        raise ValueError(f"x and y should have as many rows, got {len(x)} and {len(y)}")
    with eval_mode(objective):
        graph = _graph(objective, objective.encode(x), y)
        if isinstance(objective.features, PretrainedEncoder):
            first = graph_of(objective.features.objective, x, y)
            return _stacked(first, graph)
        return graph


def _graph(objective: Objective, x: Tensor, y: Tensor) -> Graph:
    """The graph of a pair, whose data are x."""
    model = objective.model
    labeled = () if model is None else factors(model, x, y)
    unlabeled = () if model is None else factors(model, x)
    guide = factors(objective.guide, x)
    of_guide = _merged(guide, factors(objective.guide, x, y))
    of_model = _merged(unlabeled, labeled)
    names = _argument_names(of_model)
    nodes = _nodes(labeled, unlabeled, guide, of_guide, names)
    edges = [*_edges(of_model, "model", names), *_edges(of_guide, "guide", names)]
    edges += _classifier_edges(objective, x, nodes, names)
    edges += _adversary_edges(objective, names)
    for edge in edges:
        for end in (edge.source, edge.target):
            nodes.setdefault(end, Node(end, "full", _plates_of_data(nodes)))
    return Graph(
        nodes,
        tuple(dict.fromkeys(edges)),
        of_model,
        guide,
    )


def _merged(first: Iterable[Factor], second: Iterable[Factor]) -> tuple[Factor, ...]:
    """The factors of two runs, with the parents of both."""
    merged = {factor.name: factor for factor in first}
    for factor in second:
        known = merged.get(factor.name, factor)
        parents = dict.fromkeys([*known.parents, *factor.parents])
        arguments = known.arguments | factor.arguments
        merged[factor.name] = replace(known, parents=tuple(parents), arguments=arguments)
    return tuple(merged.values())


def _argument_names(model: Iterable[Factor]) -> dict[str, list[str]]:
    """The model's names of the data x and the labels y: the sites that observe them."""
    names: dict[str, list[str]] = {}
    for factor in model:
        for argument in factor.arguments if factor.kind == "sample" else ():
            names.setdefault(argument, []).append(factor.name)
    return names


def _nodes(
    labeled: Iterable[Factor],
    unlabeled: Iterable[Factor],
    guide: Iterable[Factor],
    of_guide: Iterable[Factor],
    names: Mapping[str, list[str]],
) -> dict[str, Node]:
    """The variables of all runs."""
    observed = {factor.name for factor in labeled if factor.observed}
    latent = {f.name for f in [*unlabeled, *guide] if not f.observed}
    nodes: dict[str, Node] = {}
    of_model = _merged(unlabeled, labeled)
    programs: list[tuple[Part, Iterable[Factor]]] = [("model", of_model), ("guide", of_guide)]
    for part, of_program in programs:
        for factor in of_program:
            shading: Shading = "none"
            if factor.name in observed and factor.kind == "sample":
                shading = "half" if factor.name in latent else "full"
            node = Node(factor.name, shading, factor.plates, factor.kind)
            node = nodes.get(factor.name, node)
            nodes[factor.name] = replace(node, parts=node.parts | {part})
    return nodes


def _edges(
    of_program: Iterable[Factor], part: Part, names: Mapping[str, list[str]]
) -> Iterable[Edge]:
    for factor in of_program:
        for parent in factor.parents:
            for source in names.get(parent, [parent]):
                if source != factor.name:
                    yield Edge(source, factor.name, part)


def _classifier_edges(
    objective: Objective, x: Tensor, nodes: Mapping[str, Node], names: Mapping[str, list[str]]
) -> Iterable[Edge]:
    """The arrow of a q(y|x) whose y is no site of the programs."""
    guide = objective.guide
    if "y" in names or "y" in nodes or not isinstance(guide, Guide):
        return
    sources = names_in(guide.classify(tracked(x, "x")).mean)
    if isinstance(guide, EmbeddingGuide):
        sources = frozenset(name for name, node in nodes.items() if node.shading == "none")
    for source in sorted(sources):
        for name in names.get(source, [source]):
            yield Edge(name, "y", "classifier")


def _adversary_edges(objective: Objective, names: Mapping[str, list[str]]) -> Iterable[Edge]:
    """The arrow of the classifier f(y|z) that model and guide are trained against."""
    if any(isinstance(term, Adversary) for term in objective.terms):
        for label in names.get("y", ["y"]):
            yield Edge("z", label, "adversary")


def _plates_of_data(nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """The plates of a program's arguments: those of its sites that are in most plates."""
    plates = [node.plates for node in nodes.values()]
    return max(plates, key=len, default=())


def _stacked(first: Graph, second: Graph) -> Graph:
    """The graph of two models, where the latent z of the first one is the data x of the second."""
    first = first.only(["model", "guide"]).renamed({"z": "z_1"})
    second = second.renamed({"x": "z_1", "z": "z_2"})
    own_prior = {"z_1"}  # of the first model, in whose place the second model stands
    model = (*second.model, *(f for f in first.model if f.name not in own_prior))
    return Graph(
        {**second.nodes, **first.nodes},
        tuple(dict.fromkeys([*second.edges, *first.edges])),
        model,
        (*first.guide, *second.guide),
    )
