"""Image data sets, read or downloaded by torchvision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pyro_ssl.utils.torchvision_repair import torchvision

NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
"""Names of image sets, each with the name of its class in torchvision."""


def read_images(name: str, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read images `(N, C, H, W)` in [0, 1] and classes `(N,)`, for training and for test.

    Arguments:
        name: A name in `NAMES`.
        root: Folder of the files, which are downloaded if they are missing.

    Raises:
        FileNotFoundError: The files are missing and cannot be downloaded.

    >>> x, y, x_test, y_test = read_images("mnist", Path("data"))  # doctest: +SKIP
    """
    x, y = _read_part(name, root, train=True)
    x_test, y_test = _read_part(name, root, train=False)
    return x, y, x_test, y_test


def data_root(root: str | Path | None = None) -> Path:
    """Folder of the image sets: `root`, or the environment's PYRO_SSL_DATA, or `data`.

    >>> str(data_root("images"))
    'images'
    """
    return Path(root or os.environ.get("PYRO_SSL_DATA") or "data")


def check_root(root: str | Path | None) -> None:
    """Check that the folder that the user names exists; a mistyped one is not made.

    Raises:
        FileNotFoundError: It does not exist.

    >>> check_root("no-such-folder")
    Traceback (most recent call last):
    FileNotFoundError: data root (--data-root): no-such-folder is not a directory; ...
    """
    given = root or os.environ.get("PYRO_SSL_DATA")
    if given and not Path(given).is_dir():
        name = "data root (--data-root)" if root else "PYRO_SSL_DATA"
        raise FileNotFoundError(
            f"{name}: {given} is not a directory; make it first, to have data downloaded to it"
        )


def _read_part(name: str, root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    dataset = _open(name, root, train)
    images = np.asarray(dataset.data)
    labels = np.asarray(dataset.labels if name == "svhn" else dataset.targets)
    if images.ndim == 3:
        images = images[:, None]
    elif name != "svhn":  # channels are last
        images = images.transpose(0, 3, 1, 2)
    return images.astype(np.float32) / 255.0, labels.astype(np.int64)


def _open(name: str, root: Path, train: bool) -> Any:
    make = getattr(torchvision().datasets, NAMES[name])
    part: dict[str, Any] = {"train": train}
    if name == "svhn":
        part = {"split": "train" if train else "test"}
    try:
        try:
            return make(str(root), download=False, **part)
        except RuntimeError:  # missing, or incomplete
            return make(str(root), download=True, **part)
    except Exception as error:
        raise FileNotFoundError(
            f"{NAMES[name]} is missing or damaged in {root} and could not be downloaded "
            f"({type(error).__name__}); "
            "give its folder by --data-root or the environment's PYRO_SSL_DATA"
        ) from None
