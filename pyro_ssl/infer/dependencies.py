"""Which variables each site of a program depends on: the edges of its graphical model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.inspect import TrackProvenance
from pyro.ops.provenance import ProvenanceTensor, detach_provenance, get_provenance
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_ssl.infer.sites import Site, data_plates
from pyro_ssl.utils.context import empty_param_store, preserve_random_state, validation_disabled

Kind = Literal["sample", "deterministic", "factor"]

WRAPPERS = (dist.MaskedDistribution, dist.Independent, dist.ExpandedDistribution)
"""Distributions that leave the kind of their base distribution as it is."""


@dataclass(frozen=True)
class Factor:
    """A site of a program, and the variables that its log-density depends on.

    Arguments:
        name: Name of the site.
        parents: Names of the variables: x first, then in the order of the program.
        observed: True if the site is observed.
        plates: Names of the plates around the site, outermost first.
        kind: `deterministic` for `pyro.deterministic`, `factor` for `pyro.factor`, else `sample`.
        arguments: The arguments of the program, of x and y, that an observed value is computed
            from.

    >>> Factor("x", ("y", "z"), observed=True).formula("p")
    'p(x|y,z)'
    """

    name: str
    parents: tuple[str, ...] = ()
    observed: bool = False
    plates: tuple[str, ...] = ()
    kind: Kind = "sample"
    arguments: frozenset[str] = frozenset()

    def renamed(self, names: Mapping[str, str]) -> Factor:
        """The factor with other names of some variables."""
        parents = tuple(names.get(parent, parent) for parent in self.parents)
        return replace(self, name=names.get(self.name, self.name), parents=parents)

    def formula(self, letter: str) -> str:
        """The factor as it stands in a paper, such as q(z|x,y)."""
        if self.kind == "factor":
            return f"{self.name}({','.join(self.parents)})"
        if not self.parents:
            return f"{letter}({self.name})"
        return f"{letter}({self.name}|{','.join(self.parents)})"


class _TrackArguments(TrackProvenance):
    """Pyro's handler, which also records what observed values are computed from."""

    def __init__(self) -> None:
        super().__init__(include_deterministic=True)
        self.arguments: dict[str, frozenset[str]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            self.arguments[msg["name"]] = get_provenance(msg["value"]) & {"x", "y"}
        super()._pyro_post_sample(msg)


class _ShapesAlone(TorchFunctionMode):
    """Drop the names of tensors in functions that take only their shape, type and device."""

    FUNCTIONS = frozenset(
        {
            torch.Tensor.new_empty,
            torch.Tensor.new_full,
            torch.Tensor.new_ones,
            torch.Tensor.new_tensor,
            torch.Tensor.new_zeros,
            torch.empty_like,
            torch.full_like,
            torch.ones_like,
            torch.rand_like,
            torch.randint_like,
            torch.randn_like,
            torch.zeros_like,
        }
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.FUNCTIONS:
            args = (detach_provenance(args[0]), *args[1:])
        return func(*args, **kwargs)


def factors(program: Callable[..., Any], x: Tensor, y: Tensor | None = None) -> tuple[Factor, ...]:
    """Find the factors of a program `forward(x, y=None)`, in the order of its sites.

    It runs the program once, and records which of x, y and the sites before it the log-density of
    each site is computed from. A mask does not hide a dependency. The shape alone of a value, as in
    `x.new_zeros(2)`, makes none, but a product with 0 does.

    Arguments:
        program: A model or a guide.
        x: Data `(B, *event)`.
        y: Labels `(B, K)`, or None.

    >>> from pyro_ssl import zoo
    >>> adgm = zoo.build("adgm", (4,), 3, hidden=(8,), z_dim=2).eval()
    >>> [factor.formula("p") for factor in factors(adgm.model, torch.rand(5, 4))]
    ['p(y)', 'p(z)', 'p(x|y,z)', 'p(a|x,y,z)']
    """
    arguments = [tracked(x, "x")]
    if y is not None:
        arguments.append(tracked(y, "y"))
    track = _TrackArguments()
    with preserve_random_state(), validation_disabled(), empty_param_store(), torch.no_grad():
        with track, _ShapesAlone():
            trace = poutine.trace(program).get_trace(*arguments)
            sites = [site for site in trace.nodes.values() if _is_variable(site)]
            ranks = _ranks(sites)
            return tuple(_factor(site, ranks, track.arguments) for site in sites)


def tracked(value: Tensor, name: str) -> Tensor:
    """A tensor that marks all that is computed from it with a name; see `names_in`.

    >>> sorted(names_in(tracked(torch.ones(2), "x") + tracked(torch.ones(2), "y")))
    ['x', 'y']
    """
    marked: Tensor = ProvenanceTensor(value, frozenset({name}))
    return marked


def names_in(value: Tensor) -> frozenset[str]:
    """The names of the tracked tensors that a value was computed from.

    >>> names_in(torch.ones(2))
    frozenset()
    """
    names: frozenset[str] = get_provenance(value)
    return names


def _is_variable(site: Site) -> bool:
    return site["type"] == "sample" and not site_is_subsample(site)


def _ranks(sites: list[Site]) -> dict[str, int]:
    """The order of variables in a formula: x, then sites in plates, then what all data share."""
    in_plates = [site["name"] for site in sites if _plates(site)]
    shared = [site["name"] for site in sites if not _plates(site)]
    given = [name for name in ("x", "y") if name not in in_plates]
    names = dict.fromkeys(["x", *given, *in_plates, *shared])
    return {name: rank for rank, name in enumerate(names)}


def _plates(site: Site) -> tuple[str, ...]:
    return tuple(frame.name for frame in data_plates(site))


def _factor(site: Site, ranks: dict[str, int], arguments: dict[str, frozenset[str]]) -> Factor:
    fn = site["fn"]
    while isinstance(fn, dist.MaskedDistribution):  # a mask of False drops the log-density
        fn = fn.base_dist
    name = site["name"]
    used = names_in(fn.log_prob(site["value"])) - {name}
    parents = used & ranks.keys()  # the others are parameters of the store
    return Factor(
        name,
        tuple(sorted(parents, key=ranks.__getitem__)),
        bool(site["is_observed"]),
        _plates(site),
        _kind(site),
        arguments.get(name, frozenset()),
    )


def _kind(site: Site) -> Kind:
    fn = site["fn"]
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    if isinstance(fn, dist.Unit):
        return "factor"
    if isinstance(fn, dist.Delta) and site["is_observed"]:
        return "deterministic"
    return "sample"
