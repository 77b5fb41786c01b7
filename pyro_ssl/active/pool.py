"""The pool of data to choose from: its fingerprint, and an order by values alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ssl.data.sources import InputRows, OrderedSource
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_data, check_positive

ROW_BLOCK = 2**20
"""Values that are projected at once."""


class Fingerprint(NamedTuple):
    """Shape and checksum of a pool, by which another pool is recognised.

    Arguments:
        shape: Shape of the pool.
        checksum: Checksum of its values.

    >>> Fingerprint([2, 2], 0) == Fingerprint([2, 2], 1)
    False
    """

    shape: list[int]
    checksum: int


def fingerprint(pool: Any) -> Fingerprint:
    """Compute the fingerprint of a pool; integers count as the floats they become.

    >>> pool = torch.tensor([[0, 1], [2, 3]])
    >>> fingerprint(pool).shape
    [2, 2]
    >>> fingerprint(pool) == fingerprint(pool.float())
    True
    """
    return Fingerprint(list(pool.shape), files.checksum(as_data(pool, "pool")))


def order_by_value(x: Tensor | InputRows) -> Tensor:
    """Sort the rows by a projection of their values; `(N,)` indices on the CPU.

    Random numbers that are drawn in this order do not depend on the place of a row in the pool.

    >>> x = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    >>> x[order_by_value(x)].equal(x.flip(0)[order_by_value(x.flip(0))])
    True
    """
    width = x[0].numel()
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(width, generator=generator, dtype=torch.float64).to(x[0].device)
    blocks = x.split(max(1, ROW_BLOCK // width))
    projections = [(block.flatten(1) * direction).sum(-1) for block in blocks]
    return torch.cat(projections).argsort(stable=True).cpu()


def in_order(x: Tensor | InputRows, order: Tensor, objective: Objective) -> Tensor | InputRows:
    """The rows of a pool in an order; those of a memory map or a Dataset are read when needed.

    Arguments:
        x: The pool, `(N, *event)`.
        order: A row for each place, `(N,)`.
        objective: The method.

    >>> from pyro_ssl import zoo
    >>> in_order(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 0]), zoo.build("m2", 1, 2)).tolist()
    [[2.0], [1.0]]
    """
    if isinstance(x, Tensor):
        return x[order]
    return InputRows(OrderedSource(x.source, order.numpy()), objective)


def check_count(n: int, size: int) -> None:
    """Raise ValueError unless n data can be chosen from `size`.

    >>> check_count(3, size=2)
    Traceback (most recent call last):
    ...
    ValueError: n should be at most 2, the number of data to choose from; got 3
    """
    check_positive(n=n)
    if n > size:
        raise ValueError(f"n should be at most {size}, the number of data to choose from; got {n}")
