"""The weights of networks as one random vector W, which a program draws once for all data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pyro_ssl.nn.layers import Linear, SplitLinear
from pyro_ssl.nn.tensor_annotations import mark_normal, normal_of
from pyro_ssl.utils.context import exclusive


class RandomWeights:
    """The places of random weights in networks, which get their values from outside.

    The parameters of all linear layers are taken out of the networks; convolutions and the scales
    of batch norm stay parameters.

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
        parts = dict.fromkeys(part for network in networks for part in network.modules())
        layers = [part for part in parts if isinstance(part, Linear | SplitLinear)]
        # a SplitLinear has its weights in a ParameterList, which is a module of its own
        owners = [owner for layer in layers for owner in layer.modules()]
        parameters = [(owner, name, p) for owner in owners for name, p in _own_parameters(owner)]
        if not parameters:
            raise ValueError(
                "bayesian: got a network without Linear or SplitLinear of pyro_ssl.nn.layers, "
                "whose weights could be random; use an MLP"
            )
        self.places = [(owner, name) for owner, name, _ in parameters]
        self.shapes = [p.shape for _, _, p in parameters]
        self.initial = torch.cat([p.detach().flatten() for _, _, p in parameters])
        for owner, name in self.places:
            delattr(owner, name)
            owner.__dict__[name] = None

    @contextmanager
    def substituted(self, w: Tensor) -> Iterator[None]:
        """Inside the block, the networks have these weights, `(P,)`, or S draws, `(S, 1, P)`."""
        with exclusive():
            before = [owner.__dict__[name] for owner, name in self.places]
            self._put(_views(w, self.shapes))
            try:
                yield
            finally:
                self._put(before)

    def _put(self, values: Iterable[Tensor | None]) -> None:
        for (owner, name), value in zip(self.places, values, strict=True):
            owner.__dict__[name] = value


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a module without those of its parts, under each of their names."""
    return module.named_parameters(recurse=False, remove_duplicate=False)


def _views(w: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """The weights of each place, with their part of the note on w."""
    # (S, 1, P): the 1 is the dimension of data, which a product of matrices has elsewhere
    draws = w.shape[:-2]
    views = _split(w, shapes, draws)
    note = normal_of(w)
    if note is None:
        return views
    locs = _split(note.loc, shapes)
    scales: list[Tensor | None] = [None] * len(shapes)
    if note.scale is not None:
        scales = [*_split(note.scale, shapes)]
    for view, loc, scale in zip(views, locs, scales, strict=True):
        mark_normal(view, loc, scale)
    return views


def _split(w: Tensor, shapes: list[torch.Size], lead: tuple[int, ...] = ()) -> list[Tensor]:
    parts = w.split([shape.numel() for shape in shapes], -1)
    return [part.reshape(*lead, *shape) for part, shape in zip(parts, shapes, strict=True)]
