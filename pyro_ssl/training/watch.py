"""Watch a training from another thread: how far it is, how long it will take, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from pyro_ssl.training.run import Callback, Run


class StoppedError(RuntimeError):
    """A training was ended by `Watch.stop`; with a directory, its last checkpoint is kept.

    >>> issubclass(StoppedError, RuntimeError)
    True
    """


class _Position(NamedTuple):
    """How far a training is. It is replaced as a whole, so any thread may read it.

    Arguments:
        share: Share of the steps that are done, 0 to 1.
        started: Time after its first step.
        first: Share after its first step.
    """

    share: float
    started: float
    first: float


class Watch(Callback):
    """The position of the trainings inside a block `watched(watch)`; any thread may read it.

    >>> watch = Watch()
    >>> watch.share, watch.seconds_left
    (0.0, None)
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._position: _Position | None = None  # None before the first step

    @property
    def share(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        position = self._position
        return 0.0 if position is None else position.share

    @property
    def is_stopped(self) -> bool:
        """True if the training is to end after its current step."""
        return self._stopped.is_set()

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step, at the pace so far; None before there is a pace."""
        position = self._position  # once: the training may replace it
        if position is None or position.share <= position.first:
            return None
        share, started, first = position
        pace = (time.monotonic() - started) / (share - first)
        return pace * (1 - share)

    def stop(self) -> None:
        """End the training after its current step, by a `StoppedError` in its thread."""
        self._stopped.set()

    def after_step(self, run: Run) -> None:
        """Note the position.

        Raises:
            StoppedError: `stop` was called.
        """
        if self.is_stopped:
            raise StoppedError("the training was stopped; its last checkpoint is kept")
        share = run.position.step / run.total
        before = self._position
        if before is None or share < before.share:  # the first step, or another training
            self._position = _Position(share, time.monotonic(), share)
        else:
            self._position = before._replace(share=share)


_CURRENT: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Let a watch follow every `fit` that this thread calls inside the block.

    >>> from pyro_ssl import fit, zoo
    >>> import torch
    >>> watch = Watch()
    >>> with watched(watch):
    ...     _ = fit(zoo.build("vae", 4, 2, hidden=(8,)), torch.rand(20, 4), epochs=2)
    >>> watch.share
    1.0
    """
    token = _CURRENT.set(watch)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_watch() -> Watch | None:
    """The watch of this thread, if there is one.

    >>> current_watch() is None
    True
    """
    return _CURRENT.get()
