"""How networks and random numbers are for a while, and that they are afterwards as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def reproducibly(seed: int) -> Iterator[None]:
    """Seed torch's generators inside the block, and leave the caller's as they were."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        yield


@contextmanager
def in_evaluation(parts: Iterable[nn.Module]) -> Iterator[None]:
    """These parts, without what is inside them, in evaluation mode inside the block."""
    modes = {part: part.training for part in parts}
    try:
        for part in modes:
            part.training = False
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The whole module in evaluation mode, without gradients, inside the block."""
    with in_evaluation(module.modules()), torch.no_grad():
        module.eval()  # of a module that does more than set flags
        yield


@contextmanager
def same_buffers(module: nn.Module) -> Iterator[None]:
    """Put the buffers back after the block: a trial run must not move batch norm's statistics."""
    before = [b.clone() for b in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)
