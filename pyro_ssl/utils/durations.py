"""Durations as text."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A rough duration in seconds, minutes or hours.

    >>> duration(12.3), duration(600), duration(20000)
    ('12 s', '10 min', '5.6 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
