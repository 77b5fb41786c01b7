"""Watch a training from another thread: how far it is, how long it will take, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pyro_ssl.training.run import Callback, Run


class StoppedError(RuntimeError):
    """A training was ended by `Watch.stop`; with a directory, its last checkpoint is kept.

    >>> issubclass(StoppedError, RuntimeError)
    True
    """


class Watch(Callback):
    """The position of the trainings inside a block `watched(watch)`; any thread may read it.

    >>> watch = Watch()
    >>> watch.share, watch.seconds_left
    (0.0, None)

    Attributes:
        share: Share of the steps that are done, 0 to 1.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._stopped = threading.Event()
        self._start: tuple[float, float] | None = None  # time and share after the first step

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step, at the pace so far; None before there is a pace."""
        if self._start is None:
            return None
        started, first = self._start
        if self.share <= first:
            return None
        pace = (time.monotonic() - started) / (self.share - first)
        return pace * (1 - self.share)

    def stop(self) -> None:
        """End the training after its current step, by a `StoppedError` in its thread."""
        self._stopped.set()

    def after_step(self, run: Run) -> None:
        """Note the position.

        Raises:
            StoppedError: `stop` was called.
        """
        if self._stopped.is_set():
            raise StoppedError("the training was stopped; its last checkpoint is kept")
        share = run.position.step / run.total
        if self._start is None or share < self.share:  # the first step, or another training
            self._start = (time.monotonic(), share)
        self.share = share


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
