"""The methods: one function each, their options and presets, and trained models on disk."""

from pyro_ssl.zoo.earlier_names import current_options
from pyro_ssl.zoo.registry import (
    METHODS,
    Method,
    build,
    method,
    options_of,
    preset_names,
    preset_of,
    training_of,
)

__all__ = [
    "METHODS",
    "Method",
    "build",
    "current_options",
    "method",
    "options_of",
    "preset_names",
    "preset_of",
    "training_of",
]
