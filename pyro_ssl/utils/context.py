"""Context managers for eval mode, buffers, seeds and checks.

All of them hold one lock: what a process has once is used by one thread at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ContextDecorator, contextmanager

import pyro
import torch
from torch import nn
from torch.distributions import Distribution

from pyro_ssl.utils.arguments import check_seed
from pyro_ssl.utils.compat import distributions_validate


class _Turns(ContextDecorator):
    """A re-entrant lock; its holder can let threads that wait have it for a while."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._door = threading.Lock()  # held by the thread that is next in line
        self._depth = 0

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            with self._door:
                self._lock.acquire()
        self._depth += 1

    def __exit__(self, *exception: object) -> None:
        self._depth -= 1
        self._lock.release()

    @property
    def mine(self) -> bool:
        """Whether this thread has it."""
        if not self._lock.acquire(blocking=False):
            return False
        depth = self._depth
        self._lock.release()
        return depth > 0

    def give_way(self) -> None:
        """Let the thread that is next in line have it first.

        Nothing happens if no thread waits, or if the holder has entered more than once.
        """
        if self._depth > 1 or not self._door.locked():
            return
        self.__exit__()
        try:
            with self._door:  # free once the other thread is in; else this one would be back first
                pass
        finally:
            self._lock.acquire()
            self._depth += 1

    def renew_door(self) -> None:
        """Forget who is in line: in a forked process there is one thread."""
        self._door = threading.Lock()


_TURNS = _Turns()
_TRAININGS = threading.RLock()


def exclusive() -> _Turns:
    """Let one thread at a time into the block, or the decorated function; it may enter again.

    It belongs around everything that uses what a process has once: Pyro's stack of handlers and its
    parameter store, torch's random state, the checks of distributions. And around networks that are
    in another mode, or have other weights, for a while.
    """
    return _TURNS


@contextmanager
def one_training() -> Iterator[None]:
    """Let one thread at a time train; others can predict meanwhile, whenever it calls `give_way`."""
    if _TURNS.mine:  # who trains elsewhere waits for this thread, which must not wait for it
        yield
        return
    with _TRAININGS:
        yield


def give_way() -> None:
    """Let threads that wait predict now, between two steps; they leave everything as they found it."""
    _TURNS.give_way()


def _after_fork_in_child() -> None:
    global _TRAININGS
    _TURNS.renew_door()
    _TURNS.__exit__()
    if _TRAININGS.acquire(blocking=False):
        _TRAININGS.release()
    else:  # a thread that is not in this process was training
        _TRAININGS = threading.RLock()


if hasattr(os, "register_at_fork"):
    # Forked while another thread is at work, a process would keep that thread's handlers and lock.
    os.register_at_fork(
        before=_TURNS.__enter__,
        after_in_parent=_TURNS.__exit__,
        after_in_child=_after_fork_in_child,
    )


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Leave torch's generators as they were before the block."""
    with exclusive(), torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        yield


@contextmanager
def fixed_seed(seed: int) -> Iterator[None]:
    """Seed torch's generators inside the block, and leave the caller's as they were.

    Raises:
        ValueError: The seed is no whole number in 0 .. 2**64 - 1.
    """
    check_seed(seed)
    with preserve_random_state():
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # torch.manual_seed would note the whole call stack for each kind of device that is not there
            torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def preserve_validation() -> Iterator[None]:
    """Leave the checks of torch's distributions as they were before the block: on, or off."""
    with exclusive():
        validate = distributions_validate()
        try:
            yield
        finally:
            Distribution.set_default_validate_args(validate)


@contextmanager
def validation_disabled() -> Iterator[None]:
    """Turn Pyro's and torch's checks off inside the block, and leave each as it was before.

    `pyro.validation_enabled` alone would leave torch's as Pyro's were.
    """
    with preserve_validation(), pyro.validation_enabled(False):
        yield


@contextmanager
def validation_enabled() -> Iterator[None]:
    """Turn Pyro's and torch's checks on inside the block, and leave each as it was before."""
    with preserve_validation(), pyro.validation_enabled(True):
        yield


@contextmanager
def empty_param_store() -> Iterator[None]:
    """An empty parameter store inside the block; the caller's is neither read nor written."""
    with exclusive(), pyro.get_param_store().scope():
        yield


@contextmanager
def parts_in_eval_mode(parts: Iterable[nn.Module]) -> Iterator[None]:
    """These parts, without what is inside them, in evaluation mode inside the block."""
    with exclusive():
        modes = {part: part.training for part in parts}
        try:
            for part in modes:
                part.training = False
            yield
        finally:
            for part, training in modes.items():
                part.training = training


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """The whole module in evaluation mode, without gradients, inside the block."""
    with parts_in_eval_mode(module.modules()), torch.no_grad():
        module.eval()  # of a module that does more than set flags
        yield


@contextmanager
def preserve_buffers(module: nn.Module) -> Iterator[None]:
    """Put the buffers back after the block: a trial run must not move batch norm's statistics."""
    with exclusive():
        before = [b.clone() for b in module.buffers()]
        try:
            yield
        finally:
            for buffer, value in zip(module.buffers(), before, strict=True):
                buffer.copy_(value)
