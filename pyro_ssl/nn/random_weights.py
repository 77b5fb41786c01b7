"""Networks with random weights: a program draws one vector W and puts its parts into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pyro_ssl.nn.layers import Linear, SplitLinear
from pyro_ssl.nn.tensor_marks import mark_normal, normal_of
from pyro_ssl.utils.context import exclusive


class RandomWeights:
    """Linear layers whose weights are replaced by parts of a vector W.

    Their parameters are removed from the networks. Convolutions and the scales of batch norm stay
    parameters.

    Arguments:
        networks: The networks.

    Raises:
        ValueError: The networks have no linear layer.

    >>> layer = Linear(3, 2)
    >>> weights = RandomWeights(layer)
    >>> weights.initial.shape, list(layer.parameters())
    (torch.Size([8]), [])
    >>> with weights.substituted(torch.zeros(8)):
    ...     layer(torch.ones(1, 3))
    tensor([[0., 0.]])
    """

    def __init__(self, *networks: nn.Module) -> None:
        parameters = _linear_parameters(networks)
        if not parameters:
            raise ValueError(
                "bayesian: the network has no Linear or SplitLinear layer of pyro_ssl.nn.layers, "
                "and only these can have random weights; use an MLP"
            )
        self.entries = [(owner, name) for owner, name, _ in parameters]
        self.shapes = [p.shape for _, _, p in parameters]
        self.initial = torch.cat([p.detach().flatten() for _, _, p in parameters])
        for owner, name in self.entries:
            delattr(owner, name)
            owner.__dict__[name] = None

    @contextmanager
    def substituted(self, w: Tensor) -> Iterator[None]:
        """Give the networks these weights inside the block: `(P,)`, or S draws `(S, 1, P)`."""
        with exclusive():
            before = [owner.__dict__[name] for owner, name in self.entries]
            self._put(_views(w, self.shapes))
            try:
                yield
            finally:
                self._put(before)

    def _put(self, values: Iterable[Tensor | None]) -> None:
        for (owner, name), value in zip(self.entries, values, strict=True):
            owner.__dict__[name] = value


def _linear_parameters(
    networks: Iterable[nn.Module],
) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """The parameters of the linear layers, each with its module and its name there."""
    parts = dict.fromkeys(part for network in networks for part in network.modules())
    layers = [part for part in parts if isinstance(part, Linear | SplitLinear)]
    # a SplitLinear keeps its weights in a ParameterList, which is another module
    owners = [owner for layer in layers for owner in layer.modules()]
    return [(owner, name, p) for owner in owners for name, p in _own_parameters(owner)]


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a module itself, not of its parts; a shared one under each name."""
    return module.named_parameters(recurse=False, remove_duplicate=False)


def _views(w: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Split w into the weights of each layer, and split its mean and scale likewise."""
    # of (S, 1, P): the 1 is the dimension of data, which matrix products do not need
    draws = w.shape[:-2]
    views = _split(w, shapes, draws)
    normal = normal_of(w)
    if normal is None:
        return views
    locs = _split(normal.loc, shapes)
    scales: list[Tensor | None] = [None] * len(shapes)
    if normal.scale is not None:
        scales = [*_split(normal.scale, shapes)]
    for view, loc, scale in zip(views, locs, scales, strict=True):
        mark_normal(view, loc, scale)
    return views


def _split(w: Tensor, shapes: list[torch.Size], lead: tuple[int, ...] = ()) -> list[Tensor]:
    parts = w.split([shape.numel() for shape in shapes], -1)
    return [part.reshape(*lead, *shape) for part, shape in zip(parts, shapes, strict=True)]
