"""Context managers that change something temporarily, and restore it afterwards.

Eval mode, buffers, seeds, validation and the parameter store. All belong to the whole process, so
every context manager holds the lock `exclusive()`, which lets one thread in at a time.
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
    """Restore the state of torch's generators after the block.

    >>> with preserve_random_state():
    ...     first = torch.rand(3)
    >>> torch.equal(torch.rand(3), first)
    True
    """
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

    After `pyro.validation_enabled` alone, torch's validation would be what Pyro's was.

    >>> with validation_disabled():
    ...     distributions_validate()
    False
    """
    with preserve_validation(), pyro.validation_enabled(False):
        yield


@contextmanager
def validation_enabled() -> Iterator[None]:
    """Turn Pyro's and torch's validation on inside the block, and restore each afterwards.

    >>> with validation_enabled():
    ...     distributions_validate()
    True
    """
    with preserve_validation(), pyro.validation_enabled(True):
        yield


@contextmanager
def preserve_validation() -> Iterator[None]:
    """Restore the validation of torch's distributions, on or off, after the block.

    >>> before = distributions_validate()
    >>> with preserve_validation():
    ...     Distribution.set_default_validate_args(not before)
    >>> distributions_validate() == before
    True
    """
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
    """Put a module and all its parts into eval mode, and compute no gradients, inside the block.

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
    """Put modules, but not the modules inside them, into eval mode inside the block.

    >>> network = nn.Sequential(nn.Dropout())
    >>> with parts_in_eval_mode([network]):
    ...     network.training, network[0].training
    (False, True)
    """
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
    """Restore a module's buffers after the block, such as batch norm's statistics.

    >>> norm = nn.BatchNorm1d(2)
    >>> with preserve_buffers(norm):
    ...     h = norm(torch.ones(3, 2))
    >>> norm.running_mean
    tensor([0., 0.])
    """
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
        """True if this thread holds the lock."""
        if not self._lock.acquire(blocking=False):
            return False
        depth = self._depth
        self._lock.release()
        return depth > 0

    def give_way(self) -> None:
        """Hand the lock to the thread that is next in line, and take it back afterwards.

        Nothing happens if no thread waits, or if this thread has entered more than once.
        """
        if self._depth > 1 or not self._door.locked():
            return
        self.__exit__()
        try:
            # The door is free once the other thread has the lock. Without this wait, this thread
            # would take the lock back first.
            with self._door:
                pass
        finally:
            self._lock.acquire()
            self._depth += 1

    def renew_door(self) -> None:
        """Replace the door: a forked process has one thread, and nobody waits."""
        self._door = threading.Lock()


_TURNS = _Turns()
_TRAININGS = threading.RLock()


def exclusive() -> _Turns:
    """A lock as a context manager or decorator: one thread at a time, which may enter again.

    Hold it wherever the code uses what the whole process shares, which is Pyro's stack of handlers
    and parameter store, torch's random state, and the validation of distributions; and wherever it
    changes the mode or the weights of networks for a while.

    >>> with exclusive(), exclusive():
    ...     pass
    """
    return _TURNS


@contextmanager
def one_training() -> Iterator[None]:
    """Let one thread at a time train; other threads predict when it calls `give_way`.

    >>> with one_training():
    ...     give_way()
    """
    if _TURNS.mine:  # a training in another thread waits for this lock: do not wait for it
        yield
        return
    with _TRAININGS:
        yield


def give_way() -> None:
    """Let waiting threads predict now, between two steps of training.

    >>> give_way()  # nobody waits
    """
    _TURNS.give_way()


def _after_fork_in_child() -> None:
    global _TRAININGS
    _TURNS.renew_door()
    _TURNS.__exit__()
    if _TRAININGS.acquire(blocking=False):
        _TRAININGS.release()
    else:  # held by a thread of the parent process, which is not in this one
        _TRAININGS = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A process that is forked while another thread works would inherit its handlers and lock.
    os.register_at_fork(
        before=_TURNS.__enter__,
        after_in_parent=_TURNS.__exit__,
        after_in_child=_after_fork_in_child,
    )
