"""A repr that is the same in every process, to compare arguments of an earlier run."""

from __future__ import annotations

import re
from typing import Any


def stable_repr(value: Any) -> str:
    """Repr without memory addresses, which is the same in every process; functions by name.

    >>> stable_repr(stable_repr)
    '<function stable_repr>'
    """
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
