"""Data sets by name, users' own arrays, and which rows keep their labels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.checkpoints import write_text
from pyro_ssl.checks import as_data, is_missing


@dataclass(frozen=True)
class Dataset:
    """A data set with a training and a test part.

    Arguments:
        name: What it is called.
        x: Training data `(N, *event)`, float32.
        y: Their classes `(N,)`, int64 codes.
        x_test: Test data `(N_test, *event)`.
        y_test: Their classes `(N_test,)`.
        classes: Names of the K classes.
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


# --- labels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelDraw:
    """Which rows of a training set keep their labels; it can be saved, named and used again.

    Arguments:
        indices: Rows, sorted.
        n: Rows of the training set that they were drawn from.
        name: How it was drawn, for tables and file names.
    """

    indices: tuple[int, ...]
    n: int
    name: str = ""

    def codes(self, y: Tensor) -> Tensor:
        """The labels `(n,)` with -1 wherever they are not drawn."""
        if len(y) != self.n:
            raise ValueError(f"y should have the {self.n} rows that the labels were drawn from, got {len(y)}")
        kept = torch.full_like(y, -1)
        kept[list(self.indices)] = y[list(self.indices)]
        return kept

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        write_text(
            path,
            json.dumps({"format": "pyro-ssl labels", "name": self.name, "n": self.n, "indices": list(self.indices)}),
        )

    @classmethod
    def load(cls, path: str | Path) -> LabelDraw:
        """Read what `save` wrote.

        Raises:
            ValueError: The file is not a label draw.
        """
        try:
            data = json.loads(Path(path).read_text())
            indices = tuple(int(i) for i in data["indices"])
            if data["format"] == "pyro-ssl labels" and all(0 <= i < data["n"] for i in indices):
                return cls(indices, int(data["n"]), str(data["name"]))
        except (ValueError, TypeError, KeyError):
            pass
        raise ValueError(f"{path} is not a label draw written by LabelDraw.save")


def draw_labels(
    y: Any,
    labels: int | None = None,
    *,
    per_class: int | None = None,
    counts: Mapping[int, int] | None = None,
    how: str = "balanced",
    seed: int = 0,
) -> LabelDraw:
    """Draw which rows keep their labels, by a generator of its own.

    Arguments:
        y: Classes `(N,)` as codes; -1 is never drawn.
        labels: Their number in total.
        per_class: Or their number in each class.
        counts: Or their number in each class by code.
        how: How a total is shared: `balanced` (equal numbers, the rest to classes drawn at random), `stratified` (in
            proportion to the classes), or `random` (any rows).
        seed: Of the draw.

    Raises:
        ValueError: Not exactly one of the three is given, or a class has too few rows.
    """
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"y should have shape (N,), one code per row, got {y.shape}")
    if seed < 0:
        raise ValueError(f"seed should be 0 or above, got {seed}")
    for given, number in {"labels": labels, "per_class": per_class}.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise ValueError(f"{given} should be a whole number, got {number!r}")
    if [labels, per_class, counts].count(None) != 2:
        raise ValueError("give exactly one of labels, per_class and counts")
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(y[y >= 0], return_counts=True)
    if labels is not None and not 0 <= labels <= sizes.sum():
        raise ValueError(f"labels should be in 0 .. {sizes.sum()}, the rows with a class, got {labels}")
    name = f"seed{seed}"
    if counts is not None:
        if unknown := sorted(set(counts) - set(classes.tolist())):
            raise ValueError(f"counts: there is no class {unknown} in y")
        wanted = np.array([counts.get(int(c), 0) for c in classes])
        name = f"counts{int(wanted.sum())}-{name}"
    elif per_class is not None:
        wanted = np.full(len(classes), per_class)
        name = f"{per_class}per-class-{name}"
    else:
        assert labels is not None
        name = f"{labels}{how}-{name}"
        wanted = _share(labels, sizes, how, rng)
    if (wanted > sizes).any() or (wanted < 0).any():
        bad = int(np.argmax((wanted > sizes) | (wanted < 0)))
        raise ValueError(f"class {classes[bad]} has {sizes[bad]} rows, cannot label {wanted[bad]} of them; draw fewer")
    rows = [rng.permutation(np.flatnonzero(y == c))[:k] for c, k in zip(classes, wanted, strict=True)]
    return LabelDraw(tuple(sorted(int(i) for i in np.concatenate(rows))) if rows else (), len(y), name)


def _share(labels: int, sizes: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """Labels per class that add up to the total."""
    if how == "random":
        return rng.multivariate_hypergeometric(sizes, labels)
    if how not in ("balanced", "stratified"):
        raise ValueError(f"how should be balanced, stratified or random, got {how!r}")
    exact = labels * (sizes / sizes.sum() if how == "stratified" else np.full(len(sizes), 1 / len(sizes)))
    wanted = np.floor(exact + 1e-9).astype(int)
    remainder = np.where(how == "stratified", exact - wanted, 0.0) + rng.random(len(sizes)) * 1e-3
    remainder[wanted >= sizes] = -1.0  # no row is left there
    wanted[np.argsort(-remainder)[: labels - wanted.sum()]] += 1
    return wanted


# --- users' own arrays ----------------------------------------------------------------------------------------------


def encode(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels' values, sorted, and codes `(n,)` into them, -1 where there is no label.

    Raises:
        ValueError: y has another length, no label, one class only, or labels that cannot be told apart as classes.
    """
    from sklearn.utils.validation import column_or_1d

    if y is None:
        raise ValueError(
            "y should hold labels, with -1 for unlabeled rows; requires y to be passed, but the target y is None"
        )
    y = column_or_1d(y, warn=True)
    if len(y) != n:
        raise ValueError(f"y should have one label per row of X, {n}; got {len(y)}, inconsistent numbers of samples")
    missing = np.array([is_missing(v) for v in y.tolist()], dtype=bool)
    known = y[~missing]
    if known.dtype == object and not any(isinstance(v, str) for v in known):
        known = np.array(known.tolist())
    if known.dtype.kind == "f":
        if not np.isfinite(known).all():
            raise ValueError("y holds infinity")
        if (known != np.round(known)).any():
            raise ValueError("y: Unknown label type: continuous values; classes should be whole numbers or strings")
    if not len(known):
        raise ValueError("y has no label: every row is -1, NaN or None; at least two classes need one")
    if known.dtype == object and not all(isinstance(v, str) for v in known):
        raise ValueError("y should be of one type, strings or numbers; got both")
    if known.dtype == object:
        known = known.astype(str)
    if known.dtype.kind not in "biufU":
        raise ValueError(f"y: Unknown label type: {known.dtype}; classes should be whole numbers or strings")
    classes = np.unique(known)
    if len(classes) < 2:
        raise ValueError(f"y has labels of one class only, {classes[0]!r}; at least two classes need one")
    codes = np.full(n, -1)
    codes[~missing] = np.searchsorted(classes, known)
    return classes, codes


def from_arrays(x: Any, y: Any, x_test: Any, y_test: Any, name: str = "arrays") -> Dataset:
    """A data set of arrays; classes may be any values, -1 or NaN where y has none; x is kept as it is.

    Raises:
        ValueError: Shapes do not match, y has fewer than two classes or continuous values, or the test part has a class that
            the training part has not.
    """
    x, x_test = as_data(x, "x", torch.float32), as_data(x_test, "x_test", torch.float32)
    if x.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"x_test should have rows of shape {tuple(x.shape[1:])} as x, got {tuple(x_test.shape[1:])}")
    y, y_test = np.asarray(y), np.asarray(y_test)
    for part, labels, rows in (("y", y, x), ("y_test", y_test, x_test)):
        if labels.shape != (len(rows),):
            raise ValueError(f"{part} should have shape ({len(rows)},), got {labels.shape}")
    classes, codes = encode(y, len(x))
    if unknown := sorted(set(y_test.tolist()) - set(classes.tolist())):
        raise ValueError(f"y_test has classes that y has not: {unknown}")
    codes_test = np.searchsorted(classes, y_test)
    return Dataset(name, x, torch.as_tensor(codes), x_test, torch.as_tensor(codes_test), tuple(map(str, classes)))


def from_npz(path: str | Path) -> Dataset:
    """A data set from an `.npz` file with arrays `x`, `y`, `x_test`, `y_test`; it is read without pickling.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or an array is missing.
    """
    arrays = arrays_of(path)
    if missing := [k for k in ("x", "y", "x_test", "y_test") if k not in arrays]:
        raise ValueError(f"{path} should hold arrays x, y, x_test, y_test; {', '.join(missing)} is missing")
    return from_arrays(arrays["x"], arrays["y"], arrays["x_test"], arrays["y_test"], Path(path).stem)


def arrays_of(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name, read without pickling.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {k: file[k] for k in file.files}
    except Exception as error:  # zipfile and numpy raise half a dozen kinds for a damaged file
        raise ValueError(f"{path} is not a readable .npz file: {error}") from None


def from_torch(train: torch.utils.data.Dataset, test: torch.utils.data.Dataset, name: str = "torch") -> Dataset:
    """A data set from two torch Datasets of (x, y) pairs, read into memory once."""
    (x, y), (x_test, y_test) = _stack(train), _stack(test)
    return from_arrays(x, y, x_test, y_test, name)


def _stack(dataset: Any) -> tuple[Tensor, np.ndarray]:
    rows = [dataset[i] for i in range(len(dataset))]
    if not rows:
        raise ValueError("dataset is empty")
    return torch.stack([torch.as_tensor(x) for x, _ in rows]), np.asarray([int(y) for _, y in rows])


# --- data sets by name ----------------------------------------------------------------------------------------------


def two_moons(n: int = 2000, n_test: int = 2000, noise: float = 0.15, seed: int = 0) -> Dataset:
    """scikit-learn's two moons; `noise` is a standard deviation. Training and test points are drawn apart."""
    from sklearn.datasets import make_moons

    return _synthetic("moons", lambda n, s: make_moons(n, noise=noise, random_state=s), n, n_test, seed)


def circles(n: int = 2000, n_test: int = 2000, noise: float = 0.05, factor: float = 0.5, seed: int = 0) -> Dataset:
    """scikit-learn's two circles, `factor` the inner radius. Training and test points are drawn apart."""
    from sklearn.datasets import make_circles

    make = lambda n, s: make_circles(n, noise=noise, factor=factor, random_state=s)  # noqa: E731
    return _synthetic("circles", make, n, n_test, seed)


def _synthetic(name: str, make: Callable[[int, int], Any], n: int, n_test: int, seed: int) -> Dataset:
    first, second = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
    (x, y), (x_test, y_test) = make(n, first), make(n_test, second)
    return from_arrays(x, y, x_test, y_test, name)


def digits(n_test: int = 597, seed: int = 0) -> Dataset:
    """scikit-learn's 8x8 digits, 1797 in all, as images in [0, 1]; the test part is drawn by seed."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = (x[order] / 16.0).reshape(-1, 1, 8, 8), y[order]
    return from_arrays(x[n_test:], y[n_test:], x[:n_test], y[:n_test], "digits")


def _images(name: str) -> Callable[..., Dataset]:
    def read(root: str | Path | None = None) -> Dataset:
        from pyro_ssl.vision import read_images

        _check_root(root)
        return from_arrays(*read_images(name, data_root(root)), name)

    return read


DATASETS: dict[str, Callable[..., Dataset]] = {
    "moons": two_moons,
    "circles": circles,
    "digits": digits,
    **{name: _images(name) for name in ("mnist", "fashion_mnist", "kmnist", "svhn", "cifar10", "cifar100")},
}


def load(name: str, root: str | Path | None = None) -> Dataset:
    """A data set by name, or a user's own from the path of an `.npz` file.

    Arguments:
        name: One of `DATASETS`, or a path that ends in `.npz`.
        root: Folder of the image sets; by default `PYRO_SSL_DATA`, else `data`. What is not there is downloaded.

    Raises:
        ValueError: There is no data set of that name.
        FileNotFoundError: The folder that is given is not there.
    """
    if name.endswith(".npz"):
        return from_npz(name)
    if name not in DATASETS:
        raise ValueError(f"data should be one of {', '.join(DATASETS)}, or a path to an .npz file; got {name!r}")
    return DATASETS[name](root) if name not in ("moons", "circles", "digits") else DATASETS[name]()


def data_root(root: str | Path | None = None) -> Path:
    """Where image sets are kept: the argument, else the environment's PYRO_SSL_DATA, else `data`."""
    return Path(root or os.environ.get("PYRO_SSL_DATA") or "data")


def _check_root(root: str | Path | None) -> None:
    """Raise FileNotFoundError if a folder is given that is not there: it is not made, for its name may be mistyped."""
    given = root or os.environ.get("PYRO_SSL_DATA")
    if given and not Path(given).is_dir():
        name = "data root (--data-root)" if root else "PYRO_SSL_DATA"
        raise FileNotFoundError(f"{name}: {given} is not a directory; make it first, to have data downloaded to it")
