"""SIGTERM and SIGINT during training: finish the step, write a checkpoint, and end."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

from pyro_ssl.training.callbacks import RunDirectory
from pyro_ssl.training.distributed import SIGNALS
from pyro_ssl.training.run import Callback, Run

GRACE = 8.0
"""Seconds that a process waits for the others after a signal to end."""


class Preemption(Callback):
    """After a signal, write a checkpoint, and then handle the signal as the program does.

    Before `begin`, while the run is being prepared, there is nothing to write, and the signal ends
    it at once. Afterwards, the current step and its callbacks are finished first. A second signal
    is handled at once, without a checkpoint; by default it ends the process. With several
    processes, a second signal is ignored, since torchrun repeats the signals that its workers get
    from the terminal. If one of several processes cannot finish its step, because it waits for a
    process that hangs or has ended, it ends after `GRACE` seconds without a checkpoint.

    Signals that the process ignores stay ignored. Outside the main thread nothing changes, since
    Python cannot handle signals there.

    Arguments:
        run_directory: The directory of the run.
    """

    def __init__(self, run_directory: RunDirectory) -> None:
        self.run_directory = run_directory
        self.processes = run_directory.processes
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._has_begun = False
        self._is_answering = False
        self._last_answer = -math.inf

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle signals inside the block, and restore the handlers afterwards."""
        try:
            self._install()
            waiting = self._ending_if_stuck() if self._before and self.processes else nullcontext()
            with waiting:
                yield
        finally:
            self._restore()
            if self.received is not None:  # after the last step, or in a step that failed
                self._end(self.received, None)

    def begin(self) -> None:
        """From here on there are steps, after which a checkpoint can be written."""
        self._has_begun = True

    def after_step(self, run: Run) -> None:
        """Write a checkpoint and end, if a signal has been received.

        Raises:
            KeyboardInterrupt: After SIGINT, unless the program has a handler of its own.
            SystemExit: After SIGTERM, with code 143, unless the program has a handler of its own.
        """
        number = self.received if self.processes is None else self.processes.signal_of_any
        if number is None:
            return
        self._is_answering = True
        self.run_directory.write_checkpoint(run)
        self.received = None
        if self.processes is not None:
            self.processes.signal = None
        self._end(number, None)
        self._last_answer = time.monotonic()
        self._is_answering = False

    def _end(self, number: int, frame: FrameType | None) -> None:
        """Do what the signal did before; its default is to end with an exception."""
        before = self._before.get(number, signal.SIG_DFL)
        if callable(before):
            before(number, frame)
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

    @contextmanager
    def _ending_if_stuck(self) -> Iterator[None]:
        """End the process `GRACE` seconds after a signal, if no step has ended since.

        Python calls a handler only between two of its own instructions, so not while the process
        waits inside torch for another one. But the number of the signal is written to a pipe at
        once, and a thread reads the pipe.
        """
        read, write = os.pipe()
        os.set_blocking(write, False)
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._wait_for_signal, args=(read,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_answering = True
            signal.set_wakeup_fd(before)
            os.close(write)  # this ends the thread
            thread.join()
            os.close(read)

    def _wait_for_signal(self, pipe: int) -> None:
        for byte in iter(lambda: os.read(pipe, 1), b""):
            if byte[0] in SIGNALS:
                timer = threading.Timer(GRACE, self._end_if_stuck, (byte[0],))
                timer.daemon = True
                timer.start()

    def _end_if_stuck(self, number: int) -> None:
        """End the process, unless the signal of `GRACE` seconds ago was answered after a step."""
        is_answered = time.monotonic() - self._last_answer <= GRACE + 1.0
        if not (is_answered or self._is_answering):
            os._exit(128 + number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._has_begun:
            self._end(number, frame)
            return
        if self.processes is not None:
            self.processes.signal = number
        elif self.received is not None:
            self._restore()
            self.received = None  # the second signal ends the run, and the first is done with
            signal.raise_signal(number)
        self.received = number


@contextmanager
def preempted(run_directory: RunDirectory | None) -> Iterator[Preemption | None]:
    """Handle signals inside the block, if a run has a directory.

    >>> with preempted(None) as preemption:
    ...     preemption is None
    True

    Arguments:
        run_directory: The directory of the run; without one, signals are left alone.
    """
    if run_directory is None:
        yield None
        return
    preemption = Preemption(run_directory)
    with preemption.watching():
        yield preemption
