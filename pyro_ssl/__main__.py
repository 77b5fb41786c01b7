"""The command `pyro-ssl`: light to import, so that Ctrl-C is in one line while libraries load."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

STOPPED = 130
"""Exit code after Ctrl-C."""


def main() -> int:
    """Import the command line and run it; see `cli.main.main`."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _stop)
    from pyro_ssl.cli.main import main as command

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return command()
    finally:
        if interruptible:  # nothing but threads that are ending is left to stop
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(*_: Any) -> None:
    """End at once: no work has begun."""
    os.write(2, b"\npyro-ssl: stopped\n")
    os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main())
