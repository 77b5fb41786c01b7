"""Earlier names of options, so that models and runs of earlier versions still load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPTIONS = {
    "adapted": "norm_from_mean_weights",
    "labeled": "labeled_weight",
    "local": "local_reparameterisation",
    "sees": "discriminator_inputs",
    "shared_noise": "common_random_numbers",
    "through": "backpropagate",
    "top": "top_k",
    "unlabeled": "unlabeled_weight",
}
"""Today's name of each option, by its earlier name."""

VALUES = {"discriminator_inputs": {"squares": "squared", "products": "quadratic"}}
"""Today's values, by option and earlier value."""


def current_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options to today's names.

    Arguments:
        options: Options of this or an earlier version.

    >>> current_options({"sees": "squares", "z_dim": 2})
    {'discriminator_inputs': 'squared', 'z_dim': 2}
    """
    return dict(_current(name, value) for name, value in options.items())


def _current(name: str, value: Any) -> tuple[str, Any]:
    name = OPTIONS.get(name, name)
    earlier_values = VALUES.get(name, {})
    if isinstance(value, str):
        value = earlier_values.get(value, value)
    return name, value
