"""The number of threads in training: one for small networks, whose steps are mostly Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from pyro_ssl.objectives.objective import Objective
from pyro_ssl.training.batches import Batches
from pyro_ssl.training.source_batches import SourceBatches

SMALL = 2e7
"""A step with fewer multiplications than this (weights times rows) uses one thread.

So many multiplications take about 2 ms, less than Pyro's handlers, so a second thread could save a
tenth of the step. If other processes use the cores, waiting for the second thread costs much more:
on two busy cores, a step of M2 took 10 to 80 times as long with two to ten threads as with one. See
`docs/howto/several_machines.md`.
"""
CHOSEN_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which the user chooses the number of threads."""
_whole: ContextVar[int | None] = ContextVar("whole", default=None)
"""The number of threads before `half_of_the_threads`, inside its block."""


@contextmanager
def half_of_the_threads() -> Iterator[None]:
    """Let torch use half of its threads inside the block, so that something else stays quick.

    >>> with half_of_the_threads():
    ...     torch.get_num_threads() >= 1
    True
    """
    before = torch.get_num_threads()
    token = _whole.set(before)
    torch.set_num_threads(max(1, before // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _whole.reset(token)


@contextmanager
def threads_for(objective: Objective, batches: Batches | SourceBatches) -> Iterator[None]:
    """Use one thread inside the block if the networks are small; restore the number afterwards.

    The choice depends on the networks and the batches, not on the load of the machine: the number
    of threads changes how sums are rounded, and a resumed run should equal an unbroken one. A
    number that the user has set, by an environment variable or by `torch.set_num_threads`, is kept,
    unless it equals torch's default.

    Arguments:
        objective: The objective to train.
        batches: Its batches.
    """
    before = torch.get_num_threads()
    if is_chosen_by_user(_whole.get() or before) or not is_small(objective, batches):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_chosen_by_user(threads: int) -> bool:
    """Return True if the number of threads is not torch's default, or the environment sets it.

    >>> is_chosen_by_user(10**6)
    True
    """
    if any(os.environ.get(name) for name in CHOSEN_BY_USER):
        return True
    cores = os.cpu_count() or 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    defaults = {count for whole in (cores, available) for count in (whole, whole // 2)}
    return threads not in defaults


def is_small(objective: Objective, batches: Batches | SourceBatches) -> bool:
    """Return True if a step is small: on the CPU, no convolutions, few weights times rows."""
    parameters = list(objective.parameters())
    if any(p.is_cuda or p.dim() > 2 for p in parameters):
        return False
    weights = sum(p.numel() for p in parameters)
    rows = batches.labeled_size + batches.unlabeled_size
    return weights * rows < SMALL
