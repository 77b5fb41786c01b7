"""Quality of predictions, in numbers and pictures: calibration, other data, attacks, and more."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = [
    "attacks",
    "calibration",
    "corruptions",
    "metrics",
    "ood",
    "plots",
    "reports",
    "style",
]


def __getattr__(name: str) -> ModuleType:
    """Import a file of this folder on first use: some need matplotlib or scikit-learn."""
    if name in __all__:
        return import_module(f"pyro_ssl.evaluation.{name}")
    raise AttributeError(f"module 'pyro_ssl.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
