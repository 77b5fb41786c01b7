"""Data sets by name, and data sets from your arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.data import images
from pyro_ssl.data.classes import (
    class_indices_of,
    encode,
    names_of,
    rows_of_labels,
    values_of_classes,
)
from pyro_ssl.utils.arguments import as_data
from pyro_ssl.utils.arrays import as_array, brief, check_array_like, few


@dataclass(frozen=True)
class Dataset:
    """A data set with a training and a test part.

    Arguments:
        name: Name of the data set.
        x: Training data `(N, *event)`, float32; images of files may be pixels of uint8, which
            `fit`, `predict_proba` and the functions of `evaluation` divide by 255.
        y: Class indices of x, `(N,)`, int64.
        x_test: Test data `(N_test, *event)`.
        y_test: Class indices of x_test, `(N_test,)`.
        classes: Names of the K classes.

    >>> load("digits").x_shape
    (1, 8, 8)
    """

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Event shape of x."""
        return tuple(self.x.shape[1:])


# --- data sets by name ----------------------------------------------------------------------------


def load(name: str, root: str | Path | None = None) -> Dataset:
    """Load a data set by its name, or from an `.npz` file.

    Arguments:
        name: A name in `DATASETS`, or a path that ends in `.npz`.
        root: Folder of the image sets, which are downloaded if they are missing. By default it is
            the environment's `PYRO_SSL_DATA`, or else `data`.

    Raises:
        ValueError: There is no data set of that name.
        FileNotFoundError: The folder does not exist.

    >>> load("moons").x.shape
    torch.Size([2000, 2])
    """
    if name.endswith(".npz"):
        return from_npz(name)
    if name not in DATASETS:
        names = ", ".join(DATASETS)
        raise ValueError(f"data should be one of {names}, or a path to an .npz file; got {name!r}")
    if name in WITHOUT_FILES:
        return DATASETS[name]()
    return DATASETS[name](root)


def two_moons(n: int = 2000, n_test: int = 2000, noise: float = 0.15, seed: int = 0) -> Dataset:
    """scikit-learn's two moons; training and test points have different seeds.

    Arguments:
        n: Number of training points.
        n_test: Number of test points.
        noise: Standard deviation of the noise.
        seed: Seed from which both seeds are derived.

    >>> two_moons(n=100).x.shape
    torch.Size([100, 2])
    """
    from sklearn.datasets import make_moons

    return _synthetic("moons", partial(make_moons, noise=noise), n, n_test, seed)


def circles(
    n: int = 2000,
    n_test: int = 2000,
    noise: float = 0.05,
    factor: float = 0.5,
    seed: int = 0,
) -> Dataset:
    """scikit-learn's two circles; training and test points have different seeds.

    Arguments:
        n: Number of training points.
        n_test: Number of test points.
        noise: Standard deviation of the noise.
        factor: Radius of the inner circle relative to the outer one.
        seed: Seed from which both seeds are derived.

    >>> circles(n=100).classes
    ('0', '1')
    """
    from sklearn.datasets import make_circles

    return _synthetic("circles", partial(make_circles, noise=noise, factor=factor), n, n_test, seed)


def _synthetic(name: str, make: Callable[..., Any], n: int, n_test: int, seed: int) -> Dataset:
    seeds = np.random.SeedSequence(seed).generate_state(2)
    x, y = make(n, random_state=int(seeds[0]))
    x_test, y_test = make(n_test, random_state=int(seeds[1]))
    return from_arrays(x, y, x_test, y_test, name)


def digits(n_test: int = 597, seed: int = 0) -> Dataset:
    """scikit-learn's 1797 digits, as 8x8 images in [0, 1].

    Arguments:
        n_test: Number of test images.
        seed: Seed of the split into training and test images.

    >>> digits().x_test.shape
    torch.Size([597, 1, 8, 8])
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x = (x[order] / 16.0).reshape(-1, 1, 8, 8)
    y = y[order]
    return from_arrays(x[n_test:], y[n_test:], x[:n_test], y[:n_test], "digits")


def _image_set(name: str, root: str | Path | None = None) -> Dataset:
    images.check_root(root)
    x, y, x_test, y_test = images.read_images(name, images.data_root(root))
    return from_arrays(x, y, x_test, y_test, name)


DATASETS: dict[str, Callable[..., Dataset]] = {
    "moons": two_moons,
    "circles": circles,
    "digits": digits,
    **{name: partial(_image_set, name) for name in images.NAMES},
}
"""Functions of the folder of files that load a data set, by its name. Add yours here."""
WITHOUT_FILES = ("moons", "circles", "digits")
"""Names of data sets that come with scikit-learn; their functions take no folder."""


# --- data sets from arrays ------------------------------------------------------------------------


def from_arrays(x: Any, y: Any, x_test: Any, y_test: Any, name: str = "arrays") -> Dataset:
    """Make a data set of arrays; x is not scaled.

    Classes are whole numbers, truth values or strings; `encode` says which rows of y count as
    unlabeled. Classes of y and y_test with the same name are the same: 1, 1.0 and "1".

    Arguments:
        x: Training data `(N, *event)`.
        y: Classes of x, `(N,)`.
        x_test: Test data `(N_test, *event)`.
        y_test: Classes of x_test, `(N_test,)`.
        name: Name of the data set.

    Raises:
        ValueError: Shapes do not match; y has fewer than two classes, or continuous values; y_test
            has a class that y lacks, or a row without a label.
        TypeError: An argument is not an array.

    >>> from_arrays([[0.0], [1.0]], ["a", "b"], [[0.5]], ["b"]).y_test
    tensor([1])
    """
    x = as_data(x, "x", torch.float32)
    x_test = as_data(x_test, "x_test", torch.float32)
    if x.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"x_test should have rows of shape {tuple(x.shape[1:])} as x, "
            f"got {tuple(x_test.shape[1:])}"
        )
    _check_one_per_row("y", y, len(x))
    _check_one_per_row("y_test", y_test, len(x_test))
    values, indices = encode(y, len(x))
    classes = names_of(values)
    indices_test = _encode_test(y_test, len(x_test), classes)
    return Dataset(
        name, x, torch.as_tensor(indices), x_test, torch.as_tensor(indices_test), classes
    )


def _check_one_per_row(name: str, labels: Any, rows: int) -> None:
    shape = as_array(labels, name)[0].shape
    if shape != (rows,):
        raise ValueError(f"{name} should have shape ({rows},), got {shape}")


def _encode_test(y: Any, n: int, classes: tuple[str, ...]) -> np.ndarray:
    """Class indices of test labels, whose names are looked up among the training classes."""
    values, missing = rows_of_labels(y, n, "y_test")
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise ValueError(
            f"y_test has no label in row {row}, {missing.sum()} such rows in all; "
            "leave them out, since each test row needs one"
        )
    known, inverse = np.unique(values_of_classes(values), return_inverse=True)
    return class_indices_of(names_of(known), classes, "y_test has classes that y lacks")[inverse]


def with_class_order(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Renumber the classes of a data set to a given order, such as that of a model.

    Arguments:
        dataset: The data set.
        classes: Names of the classes, in the new order.

    Raises:
        ValueError: The data set has other classes.

    >>> data = from_arrays([[0.0], [1.0]], ["a", "b"], [[0.5]], ["b"])
    >>> with_class_order(data, ["b", "a"]).y_test
    tensor([0])
    """
    message = "the data have classes that the model lacks"
    new = torch.as_tensor(class_indices_of(dataset.classes, classes, message))
    if len(new.unique()) < len(classes):
        raise ValueError(
            f"the data have only the classes {few(dataset.classes)}, "
            f"but the model has {few(classes)}"
        )
    y = torch.where(dataset.y >= 0, new[dataset.y], -1)
    return replace(dataset, y=y, y_test=new[dataset.y_test], classes=tuple(classes))


def from_npz(path: str | Path) -> Dataset:
    """Load a data set from an `.npz` file with arrays `x`, `y`, `x_test` and `y_test`.

    Pickled objects are refused.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or an array is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory) / "mine.npz"
    ...     np.savez(path, x=[[0.0], [1.0]], y=["a", "b"], x_test=[[0.5]], y_test=["b"])
    ...     from_npz(path).name
    'mine'
    """
    arrays = arrays_of(path)
    names = ("x", "y", "x_test", "y_test")
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} should hold arrays x, y, x_test, y_test; {', '.join(missing)} is missing"
        )
    name = Path(path).stem
    return from_arrays(arrays["x"], arrays["y"], arrays["x_test"], arrays["y_test"], name)


def arrays_of(path: str | Path) -> dict[str, np.ndarray]:
    """Load the arrays of an `.npz` file by name; pickled objects are refused.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     np.savez(Path(directory) / "a.npz", x=np.zeros(3))
    ...     arrays_of(Path(directory) / "a.npz")["x"].shape
    (3,)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile and numpy raise six kinds for damaged files
        reason = str(error)
        if "pickle" in reason:
            reason = (
                "it has another format, or holds Python objects; "
                "write arrays of numbers or strings with numpy.savez"
            )
        raise ValueError(f"{path} is not a readable .npz file: {reason}") from None


def from_torch(
    train: torch.utils.data.Dataset[Any],
    test: torch.utils.data.Dataset[Any],
    name: str = "torch",
) -> Dataset:
    """Make a data set from two torch Datasets of pairs (x, y), which are read once.

    Arguments:
        train: Training data, with labels as in `from_arrays`.
        test: Test data.
        name: Name of the data set.

    Raises:
        ValueError: A Dataset is empty, or its pairs do not fit; see `from_arrays`.
        TypeError: A Dataset has no length, or does not return pairs of an array and a label.

    >>> pairs = torch.utils.data.TensorDataset(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    >>> from_torch(pairs, pairs).x.shape
    torch.Size([4, 2])
    """
    x, y = _stack(train, "train")
    x_test, y_test = _stack(test, "test")
    return from_arrays(x, y, x_test, y_test, name)


def _stack(dataset: Any, name: str) -> tuple[Tensor, np.ndarray]:
    rows = _pairs_of(dataset, name)
    for x, _ in rows:
        check_array_like(x, f"{name}: x")
    data = [torch.as_tensor(x) for x, _ in rows]
    shapes = {x.shape for x in data}
    if len(shapes) > 1:
        raise ValueError(f"{name} should return x of one shape, got {few(map(tuple, shapes))}")
    labels = np.empty(len(rows), dtype=object)  # numpy would make strings of numbers
    labels[:] = [_as_python(y) for _, y in rows]
    return torch.stack(data), labels


def _pairs_of(dataset: Any, name: str) -> list[tuple[Any, Any]]:
    """The pairs (x, y) of a torch Dataset."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"{name} should be a torch Dataset of (x, y) pairs with a length, "
            f"got {type(dataset).__name__}"
        )
    rows = [dataset[i] for i in range(len(dataset))]
    if not rows:
        raise ValueError(f"{name}: dataset is empty")
    if not all(isinstance(row, tuple | list) and len(row) == 2 for row in rows):
        raise TypeError(f"{name} should return pairs (x, y), got {brief(rows[0])}")
    return rows


def _as_python(y: Any) -> Any:
    """Convert a number in a tensor or array to a Python value; other labels stay."""
    is_scalar = getattr(y, "ndim", None) == 0 and hasattr(y, "item")
    return y.item() if is_scalar else y
