"""Import torchvision, whose CUDA build fails with a CPU-only torch, in one place."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch

_libraries: list[Any] = []  # an operator exists as long as its library


def torchvision() -> ModuleType:
    """Import torchvision, even its CUDA build with a CPU-only torch.

    That build expects two operators, `nms` and `qnms`, which a CPU-only torch lacks. They are
    declared here without a body: data sets, transforms and models work, and only a call of these
    operators fails.

    >>> torchvision().__name__
    'torchvision'
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _forget_failed_import()
        _declare_operators()
        import torchvision
    return torchvision


def _forget_failed_import() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "torchvision":
            del sys.modules[name]


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
