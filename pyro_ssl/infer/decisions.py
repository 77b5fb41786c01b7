"""Decisions that a step makes on a tensor's value, such as the number of classes to sum over.

A captured step is a fixed graph of tensor operations, so it cannot branch. It takes its decisions
from outside, and returns what they should have been; see `pyro_ssl.training.compiled_step`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Decisions:
    """The decisions of one step, in order.

    Arguments:
        assumed: Decisions to make, whatever the tensors say; None makes those of the tensors.

    Attributes:
        made: The decisions made.
        outcomes: The tensors they were asked of, where decisions are assumed.
    """

    def __init__(self, assumed: Sequence[int] | None = None) -> None:
        self.assumed = assumed
        self.made: list[int] = []
        self.outcomes: list[Tensor] = []

    def make(self, value: Tensor) -> int:
        """The next decision.

        Raises:
            IndexError: More decisions are asked for than are assumed.
        """
        if self.assumed is None:
            decision = int(value)
        else:
            decision = self.assumed[len(self.made)]
            self.outcomes.append(value.detach())
        self.made.append(decision)
        return decision


_ACTIVE: ContextVar[Decisions | None] = ContextVar("decisions", default=None)


@contextmanager
def recorded_decisions(assumed: Sequence[int] | None = None) -> Iterator[Decisions]:
    """Record the decisions made inside the block, or make the ones that are assumed.

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
    """The whole number or truth value of a tensor with one element, on which Python may branch.

    Terms and programs of your own can use it in place of `if tensor:`, so that a step with them can
    be compiled.

    >>> import torch
    >>> decide(torch.tensor(True))
    1
    """
    active = _ACTIVE.get()
    return int(value) if active is None else active.make(value)
