"""Decisions that a step makes on a tensor's value, such as the number of classes to sum over.

A captured step is a fixed graph of tensor operations, so it cannot branch; see
`pyro_ssl.training.compiled_step`. On a GPU, reading the value would make Python wait. In both cases
the step assumes given decisions, and returns what they should have been.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Decisions:
    """The decisions of one step, in order.

    Arguments:
        assumed: Decisions to make whatever the values of tensors are; further ones are made by the
            values, as all are with None.

    Attributes:
        made: The decisions made.
        outcomes: For each assumed decision, the tensor on whose value it depends.

    >>> import torch
    >>> decisions = Decisions([1])
    >>> decisions.make(torch.tensor(False)), decisions.make(torch.tensor(7))
    (1, 7)
    >>> decisions.outcomes
    [tensor(False)]
    """

    def __init__(self, assumed: Sequence[int] | None = None) -> None:
        self.assumed = assumed
        self.made: list[int] = []
        self.outcomes: list[Tensor] = []

    def make(self, value: Tensor) -> int:
        """Make the next decision."""
        place = len(self.made)
        if self.assumed is not None and place < len(self.assumed):
            decision = self.assumed[place]
            self.outcomes.append(value.detach())
        else:
            decision = int(value)
        self.made.append(decision)
        return decision


_ACTIVE: ContextVar[Decisions | None] = ContextVar("decisions", default=None)


@contextmanager
def recorded_decisions(assumed: Sequence[int] | None = None) -> Iterator[Decisions]:
    """Record the decisions made inside the block; if some are assumed, make these.

    >>> import torch
    >>> with recorded_decisions() as decisions:
    ...     decide(torch.tensor(3) > 2)
    1
    >>> decisions.made
    [1]
    >>> with recorded_decisions([0]) as decisions:
    ...     decide(torch.tensor(3) > 2)
    0
    >>> decisions.outcomes
    [tensor(True)]
    """
    decisions = Decisions(assumed)
    token = _ACTIVE.set(decisions)
    try:
        yield decisions
    finally:
        _ACTIVE.reset(token)


def decide(value: Tensor) -> int:
    """Return the integer or truth value of a one-element tensor, on which Python may branch.

    In your own terms and programs, write `if decide(tensor):` instead of `if tensor:`, so that
    their steps can be compiled.

    >>> import torch
    >>> decide(torch.tensor(True))
    1
    """
    active = _ACTIVE.get()
    return int(value) if active is None else active.make(value)
