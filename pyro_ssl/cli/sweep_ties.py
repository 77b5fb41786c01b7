"""Whether the setting that a sweep chooses can be told from the second best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from pyro_ssl.comparison.intervals import in_points, paired_mean_interval

LEVEL = 0.95
"""Confidence level of the interval of the difference."""


def tie(values: Mapping[str, Sequence[float]], chosen: str) -> str:
    """Say that the best two settings cannot be told apart; empty if they can.

    They can if Student's interval of the mean difference over the seeds excludes zero. With K
    settings, its level is 1 - (1 - `LEVEL`) / (K - 1): the best of several looks better than it is.

    >>> print(tie({"z_dim=2": [0.5, 0.5], "z_dim=3": [0.6, 0.4]}, "z_dim=2"))
    z_dim=2 and z_dim=3 cannot be told apart: they are equally accurate, and the first is chosen

    Arguments:
        values: Accuracies of each setting, in the same order of seeds.
        chosen: The setting with the best mean.
    """
    others = {name: accuracies for name, accuracies in values.items() if name != chosen}
    if not others:
        return ""
    second = max(others, key=lambda name: fmean(others[name]))
    start = f"{chosen} and {second} cannot be told apart: "
    difference = fmean(values[chosen]) - fmean(values[second])
    if math.isclose(difference, 0, abs_tol=1e-9):
        return f"{start}they are equally accurate, and the first is chosen"
    if len(values[chosen]) < 2:
        return (
            f"{start}{100 * difference:.1f} points may be chance, since each has a single run; "
            "give more --seeds"
        )
    level = 1 - (1 - LEVEL) / len(others)
    interval = paired_mean_interval(values[chosen], values[second], level)
    if interval.excludes_zero:
        return ""
    seeds = len(values[chosen])
    return (
        f"{start}the difference over {seeds} seeds is {in_points(interval, level)}; more --seeds "
        "may tell"
    )
