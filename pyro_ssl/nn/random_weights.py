"""The weights of networks as one random vector W, which a program draws once for all data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pyro_ssl.nn.layers import Linear, SplitLinear, mark_normal, normal_of
from pyro_ssl.utils.context import exclusive


class RandomWeights:
    """Places for weights in networks: their parameters are taken out, and values are put in from outside, for a while.

    Of linear layers alone: convolutions and the scales of batch norm stay what they are.

    Arguments:
        networks: The networks.

    Raises:
        ValueError: They have no linear layer.
    """

    def __init__(self, *networks: nn.Module) -> None:
        parts = dict.fromkeys(part for network in networks for part in network.modules())
        layers = [part for part in parts if isinstance(part, Linear | SplitLinear)]
        owners = [owner for layer in layers for owner in layer.modules()]  # a SplitLinear has a list of weights
        found = [(owner, name, p) for owner in owners for name, p in _own_parameters(owner)]
        self.places = [(owner, name) for owner, name, _ in found]
        if not self.places:
            raise ValueError(
                "bayesian: the network has no linear layer of pyro_ssl.layers, whose weights could be random"
            )
        self.shapes = [p.shape for _, _, p in found]
        self.initial = torch.cat([p.detach().flatten() for _, _, p in found])
        for owner, name in self.places:
            delattr(owner, name)
            owner.__dict__[name] = None

    @contextmanager
    def substituted(self, w: Tensor) -> Iterator[None]:
        """Inside the block the networks have these weights, `(P,)`, or several draws of them, `(S, 1, P)`."""
        with exclusive():
            before = [owner.__dict__[name] for owner, name in self.places]
            for (owner, name), value in zip(self.places, _views(w, self.shapes), strict=True):
                owner.__dict__[name] = value
            try:
                yield
            finally:
                for (owner, name), value in zip(self.places, before, strict=True):
                    owner.__dict__[name] = value


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Not those of its parts, and by each of its names."""
    return module.named_parameters(recurse=False, remove_duplicate=False)


def _views(w: Tensor, shapes: Iterable[torch.Size]) -> Iterator[Tensor]:
    shapes = list(shapes)
    sizes = [s.numel() for s in shapes]
    lead = w.shape[:-2]  # (S, 1, P): the 1 stands for the data, which a product of matrices has in its own place
    note = normal_of(w)
    parts = [w, *(t for t in note or () if t is not None)]
    views = [
        [v.reshape(*(lead if p is w else ()), *s) for v, s in zip(p.split(sizes, -1), shapes, strict=True)]
        for p in parts
    ]
    for i, view in enumerate(views[0]):
        if note is not None:
            mark_normal(view, views[1][i], views[2][i] if note[1] is not None else None)
        yield view
