"""The one place that imports torchvision, repaired where it stands beside a CPU-only torch."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

_library: list[Any] = []  # operators live as long as the library that declares them


def torchvision() -> ModuleType:
    """torchvision, importable also where its CUDA build meets a CPU-only torch.

    The registry's builds expect two operators that a CPU-only torch lacks; they are declared here, without a body, where
    they are missing. Data sets, transforms and models then work; calling the operators does not.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.append(library)
        import torchvision
    return torchvision


NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


def read_images(name: str, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images `(N, C, H, W)` in [0, 1] and classes `(N,)`, for training and for test; downloaded if they are not in `root`.

    Raises:
        FileNotFoundError: They are not there and cannot be downloaded.
    """
    parts = [_part(name, root, train) for train in (True, False)]
    return (*parts[0], *parts[1])


def _part(name: str, root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    kind = getattr(torchvision().datasets, NAMES[name])
    which: dict[str, Any] = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
    try:
        try:
            dataset = kind(str(root), download=False, **which)
        except RuntimeError:  # not there, or not whole
            dataset = kind(str(root), download=True, **which)
    except Exception as error:
        raise FileNotFoundError(
            f"{NAMES[name]} is missing or damaged in {root} and could not be downloaded ({type(error).__name__}); "
            "give its folder by --data-root or the environment's PYRO_SSL_DATA"
        ) from None
    images, labels = np.asarray(dataset.data), np.asarray(dataset.labels if name == "svhn" else dataset.targets)
    images = images[:, None] if images.ndim == 3 else images if name == "svhn" else images.transpose(0, 3, 1, 2)
    return images.astype(np.float32) / 255.0, labels.astype(np.int64)
