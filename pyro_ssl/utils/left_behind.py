"""Work in other threads that the end of the program does not wait for."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from threading import Event

_LEFT: list[Event] = []


def leave_behind(has_ended: Event) -> None:
    """Do not wait for some work at the end of the program; see `end_without_it`.

    Arguments:
        has_ended: Set when the work ends. Its thread is a daemon, or Python would wait for it.

    >>> has_ended = Event()
    >>> leave_behind(has_ended)
    >>> has_ended.set()
    """
    _LEFT.append(has_ended)


def end_without_it(code: int) -> None:
    """End the process at once, if work that was left behind goes on.

    Python would let its thread go on while it clears up, and a thread inside torch could then end
    the process by a crash. Only the program itself calls this, as its last step.

    Arguments:
        code: Exit code.

    >>> end_without_it(0)  # nothing goes on
    """
    if all(has_ended.is_set() for has_ended in _LEFT):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that nobody reads
            stream.flush()
    os._exit(code)
