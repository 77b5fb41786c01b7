"""The one place that imports torchvision, repaired where it is beside a CPU-only torch."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch

_libraries: list[Any] = []  # operators live as long as the library that declares them


def torchvision() -> ModuleType:
    """torchvision, importable even where its CUDA build meets a CPU-only torch.

    The registry's builds expect two operators that a CPU-only torch lacks. Where they are missing,
    they are declared here, without a body. Data sets, transforms and models then work; calling the
    operators does not.

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
