"""SIGTERM and SIGINT during training: a checkpoint at the end of the step, and then the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pyro_ssl.training.callbacks import RunDirectory
from pyro_ssl.training.distributed import SIGNALS
from pyro_ssl.training.run import Callback, Run


class Preemption(Callback):
    """Write a checkpoint when a signal has come, and then do what the signal did before.

    The step at hand, with its callbacks, is finished first. A second signal ends the process as if
    training did not handle it, without a checkpoint; with several processes it is ignored, since
    torchrun repeats the signals that its workers get from the terminal.

    Signals that the process ignores stay ignored, and outside the main thread, where Python cannot
    handle signals, nothing changes.

    Arguments:
        run_directory: The directory of the run.
    """

    def __init__(self, run_directory: RunDirectory) -> None:
        self.run_directory = run_directory
        self.processes = run_directory.processes
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle signals inside the block; the handlers are as before afterwards."""
        self._install()
        try:
            yield
        finally:
            self._restore()
        if self.received is not None:  # it came after the last step
            signal.raise_signal(self.received)

    def after_step(self, run: Run) -> None:
        """Write a checkpoint and end, if a signal has come.

        Raises:
            KeyboardInterrupt: At SIGINT, unless the program has a handler of its own.
            SystemExit: At SIGTERM, with code 143, unless the program has a handler of its own.
        """
        number = self.received if self.processes is None else self.processes.signal_of_any
        if number is None:
            return
        self.run_directory.write_checkpoint(run)
        self.received = None
        before = self._before.get(number, signal.SIG_DFL)
        if callable(before):
            before(number, None)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before in (signal.SIG_IGN, None):  # None: a handler that is not Python's
                continue
            self._before[number] = before
            signal.signal(number, self._receive)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.processes is not None:
            self.processes.signal = number
        elif self.received is not None:
            self._restore()
            signal.raise_signal(number)
        self.received = number
