"""The memory of this machine, and memory maps that do not fit into it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np


def physical_memory() -> int | None:
    """Return the bytes of memory of this machine; None if the system does not tell.

    >>> physical_memory() != 0
    True
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def check_fits(x: Any, name: str) -> None:
    """Check that a memory map fits into memory, where all of it is read at once.

    Arguments:
        x: An array; only a memory map is checked.
        name: Name of the argument, for messages.

    Raises:
        ValueError: It does not fit, as float32.

    >>> check_fits(np.zeros(3), "x")
    """
    memory = physical_memory()
    if not isinstance(x, np.memmap) or memory is None:
        return
    needed = max(x.nbytes, 4 * x.size)
    if needed <= memory:
        return
    raise ValueError(
        f"{name} is a memory map of shape {x.shape}, which is needed as a whole here, in "
        f"{needed / 1e9:.1f} GB of memory; this machine has {memory / 1e9:.1f} GB; give some of "
        f"its rows, such as {name}[::10]"
    )
