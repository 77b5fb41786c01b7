"""Context managers for eval mode, buffers, seeds and validation.

All hold one lock, `exclusive()`: one thread at a time uses the resources of the whole process.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import ContextDecorator, contextmanager

import numpy as np
import pyro
import torch
from torch import nn
from torch.distributions import Distribution

from pyro_ssl.utils.arguments import check_seed
from pyro_ssl.utils.private_names import distributions_validate

# --- random state, validation, parameter store ----------------------------------------------------


@contextmanager
def fixed_seed(seed: int) -> Iterator[None]:
    """Seed torch's generators inside the block, and restore the caller's afterwards.

    Raises:
        ValueError: The seed is not a whole number in 0 .. 2**64 - 1.

    >>> with fixed_seed(0):
    ...     first = torch.rand(3)
    >>> with fixed_seed(0):
    ...     torch.equal(torch.rand(3), first)
    True
    """
    check_seed(seed)
    with preserve_random_state():
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # torch.manual_seed would record the call stack for each kind of absent device
            torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore the state of torch's generators after the block."""
    with exclusive(), torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        yield


@contextmanager
def fixed_reading_seed(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch's CPU inside the block, and restore them.

    A user's `Dataset` may draw from any of them. Devices are left alone: a worker process must not
    touch them.

    Raises:
        ValueError: The seed is not a whole number in 0 .. 2**64 - 1.

    >>> with fixed_reading_seed(0):
    ...     first = (random.random(), np.random.rand())
    >>> with fixed_reading_seed(0):
    ...     (random.random(), np.random.rand()) == first
    True
    """
    check_seed(seed)
    with exclusive(), torch.random.fork_rng(devices=[]):
        of_python = random.getstate()
        of_numpy = np.random.get_state()
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


@contextmanager
def validation_disabled() -> Iterator[None]:
    """Turn Pyro's and torch's validation off inside the block, and restore each afterwards.

    `pyro.validation_enabled` alone would set torch's to Pyro's afterwards.
    """
    with preserve_validation(), pyro.validation_enabled(False):
        yield


@contextmanager
def validation_enabled() -> Iterator[None]:
    """Turn Pyro's and torch's validation on inside the block, and restore each afterwards."""
    with preserve_validation(), pyro.validation_enabled(True):
        yield


@contextmanager
def preserve_validation() -> Iterator[None]:
    """Restore the validation of torch's distributions, on or off, after the block."""
    with exclusive():
        validate = distributions_validate()
        try:
            yield
        finally:
            Distribution.set_default_validate_args(validate)


@contextmanager
def empty_param_store() -> Iterator[None]:
    """An empty parameter store inside the block; the caller's is neither read nor written.

    >>> with empty_param_store():
    ...     weight = pyro.param("weight", torch.zeros(2))
    >>> "weight" in pyro.get_param_store()
    False
    """
    with exclusive(), pyro.get_param_store().scope():
        yield


# --- modules --------------------------------------------------------------------------------------


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """The whole module in eval mode, without gradients, inside the block.

    >>> network = nn.Dropout()
    >>> with eval_mode(network):
    ...     network.training
    False
    >>> network.training
    True
    """
    with parts_in_eval_mode(module.modules()), torch.no_grad():
        module.eval()  # a module may do more there than set flags
        yield


@contextmanager
def parts_in_eval_mode(parts: Iterable[nn.Module]) -> Iterator[None]:
    """These modules, without those inside them, in eval mode inside the block."""
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
def preserve_buffers(module: nn.Module) -> Iterator[None]:
    """Restore the buffers after the block: a trial run must not move batch norm's statistics."""
    with exclusive():
        before = [buffer.clone() for buffer in module.buffers()]
        try:
            yield
        finally:
            for buffer, value in zip(module.buffers(), before, strict=True):
                buffer.copy_(value)


# --- threads --------------------------------------------------------------------------------------


class _Turns(ContextDecorator):
    """A re-entrant lock whose holder can hand it to a waiting thread."""

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
        """Whether this thread holds the lock."""
        if not self._lock.acquire(blocking=False):
            return False
        depth = self._depth
        self._lock.release()
        return depth > 0

    def give_way(self) -> None:
        """Let the thread that is next in line have the lock first.

        Nothing happens if no thread waits, or if the holder has entered more than once.
        """
        if self._depth > 1 or not self._door.locked():
            return
        self.__exit__()
        try:
            # The door is free once the other thread is in; without it this one would be back first.
            with self._door:
                pass
        finally:
            self._lock.acquire()
            self._depth += 1

    def renew_door(self) -> None:
        """Forget the line: a forked process has one thread."""
        self._door = threading.Lock()


_TURNS = _Turns()
_TRAININGS = threading.RLock()


def exclusive() -> _Turns:
    """Let one thread at a time into the block, or the decorated function; it may enter again.

    It belongs around all uses of a resource of the whole process: Pyro's stack of handlers and its
    parameter store, torch's random state, the validation of distributions. It also belongs around
    networks whose mode or weights are changed temporarily.

    >>> with exclusive(), exclusive():
    ...     pass
    """
    return _TURNS


@contextmanager
def one_training() -> Iterator[None]:
    """Let one thread at a time train; others can predict whenever it calls `give_way`."""
    if _TURNS.mine:  # a training in another thread waits for this one, which must not wait for it
        yield
        return
    with _TRAININGS:
        yield


def give_way() -> None:
    """Let waiting threads predict now, between two steps; they leave everything as it was."""
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
