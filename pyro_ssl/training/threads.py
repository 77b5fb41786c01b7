"""How many threads a step is worth: one for small networks, whose steps are mostly Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyro_ssl.objectives.objective import Objective
from pyro_ssl.training.batches import Batches
from pyro_ssl.training.source_batches import SourceBatches

SMALL = 2e7
"""Multiplications of weights and rows below which a step has one thread.

They take about 2 ms, less than the handlers, so that a second thread could save a tenth of a step.
Where other processes have the cores, waiting for it costs a multiple: two to ten threads on two
busy cores took 10 to 80 times as long for a step of M2 as one thread, see `docs/many_machines.md`.
"""
CHOSEN_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which the user chooses the number of threads."""


@contextmanager
def threads_for(objective: Objective, batches: Batches | SourceBatches) -> Iterator[None]:
    """Use one thread inside the block if the networks are small; restore the number afterwards.

    The number depends on the networks and the batches and not on how busy the machine is, since
    sums over threads are rounded in another order: a resumed run should equal an unbroken one.
    What the user has chosen stays, by an environment variable or by `torch.set_num_threads`;
    only a number that equals torch's default cannot be told from it.

    Arguments:
        objective: What is trained.
        batches: Its batches.
    """
    before = torch.get_num_threads()
    if is_chosen_by_user(before) or not is_small(objective, batches):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_chosen_by_user(threads: int) -> bool:
    """Whether a number of threads is another than torch's default, or set by the environment.

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
    """Whether a step multiplies little: no convolutions, and few weights or few rows."""
    parameters = list(objective.parameters())
    if any(p.is_cuda or p.dim() > 2 for p in parameters):
        return False
    weights = sum(p.numel() for p in parameters)
    rows = batches.labeled_size + batches.unlabeled_size
    return weights * rows < SMALL
