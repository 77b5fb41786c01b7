"""The command `pyro-ssl`, cheap to import: Ctrl-C is handled while the libraries are loading."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main() -> int:
    """Import the command line and run it; see `cli.app.main`."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _end)
    from pyro_ssl.cli.app import main as command
    from pyro_ssl.utils.left_behind import end_without_it

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = command()
    finally:
        if interruptible:  # only threads that are ending are left, or are left behind
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_without_it(code)
    return code


def _end(number: int, frame: FrameType | None) -> None:
    """End the process at once, since nothing has started."""
    os.write(2, b"\npyro-ssl: stopped\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
