"""Data sets by name, users' own arrays, and which rows keep their labels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.data.labels import missing_labels, warn_of_markers, warn_of_words
from pyro_ssl.utils.arguments import MISSING_WORDS, as_codes, as_data, check_seed
from pyro_ssl.utils.arrays import as_array, brief, check_array_like, check_signed, few
from pyro_ssl.utils.files import CheckpointError, read_sealed, write_sealed


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


DRAW_FORMAT = "pyro-ssl labels"


@dataclass(frozen=True)
class LabelDraw:
    """Which rows of a training set keep their labels; it can be saved, named and used again.

    Arguments:
        indices: Rows, sorted.
        n: Rows of the training set that they were drawn from.
        name: How it was drawn, for tables and file names.

    Raises:
        ValueError: A row is not a whole number, not in 0 .. n - 1, or there twice.
    """

    indices: tuple[int, ...]
    n: int
    name: str = ""

    def __post_init__(self) -> None:
        if not _is_whole(self.n) or self.n < 0:
            raise ValueError(f"n should be a whole number, 0 or above, got {brief(self.n)}")
        indices = list(self.indices)
        if wrong := [i for i in indices if not _is_whole(i)]:
            raise ValueError(f"indices should be whole numbers, got {brief(wrong[0])}")
        if outside := [i for i in indices if not 0 <= i < self.n]:
            raise ValueError(f"indices should be in 0 .. {self.n - 1}, got {outside[0]}")
        if len(set(indices)) < len(indices):
            twice = next(i for i, count in Counter(indices).items() if count > 1)
            raise ValueError(f"indices: row {twice} is there twice; give each row once")
        object.__setattr__(self, "indices", tuple(sorted(int(i) for i in indices)))  # it is frozen
        object.__setattr__(self, "n", int(self.n))

    def codes(self, y: Any) -> Tensor:
        """The labels `(n,)`, int64, with -1 wherever they are not drawn.

        Arguments:
            y: LatentOptions of all rows, `(n,)`, a tensor or an array.

        Raises:
            ValueError: y has not n rows.
            TypeError: It does not hold codes.
        """
        shape = _shape(y)
        if shape != (self.n,):
            raise ValueError(f"y should have the {self.n} rows that the labels were drawn from, got {shape[0]}")
        y = as_codes(y, self.n)
        kept = torch.full_like(y, -1)
        kept[list(self.indices)] = y[list(self.indices)]
        return kept

    def save(self, path: str | Path) -> None:
        """Write it as JSON, with a checksum."""
        write_sealed(path, {"format": DRAW_FORMAT, "name": self.name, "n": self.n, "indices": list(self.indices)})

    @classmethod
    def load(cls, path: str | Path) -> LabelDraw:
        """Read what `save` wrote, in this version or an earlier one, which had no checksum.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: The file is not a label draw, or damaged.
        """
        data = read_sealed(path)
        if data.get("format") != DRAW_FORMAT or not {"name", "n", "indices"} <= data.keys():
            raise CheckpointError(f"{path} is not a label draw written by LabelDraw.save")
        try:
            return cls(data["indices"], data["n"], str(data["name"]))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is not a label draw written by LabelDraw.save: {error}") from None


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _shape(y: Any) -> tuple[int, ...]:
    shape = as_array(y, "y")[0].shape
    if len(shape) != 1:
        raise ValueError(f"y should have shape (N,), one code per row, got {shape}")
    return shape


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
        y: Classes `(N,)` as codes; -1, or a masked one, is never drawn.
        labels: Their number in total.
        per_class: Or their number in each class.
        counts: Or their number in each class by code.
        how: How a total is shared: `balanced` (equal numbers, the rest to classes drawn at random), `stratified` (in
            proportion to the classes), or `random` (any rows).
        seed: Of the draw.

    Raises:
        ValueError: Not exactly one of the three is given, or a class has too few rows.
        TypeError: y does not hold codes.
    """
    y = as_codes(y, _shape(y)[0]).cpu().numpy()
    check_seed(seed)
    for given, number in {"labels": labels, "per_class": per_class}.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise ValueError(f"{given} should be a whole number, got {number!r}")
    if [labels, per_class, counts].count(None) != 2:
        raise ValueError("give exactly one of labels, per_class and counts")
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(y[y >= 0], return_counts=True)
    if not len(classes):
        raise ValueError("y has no label to draw: every row is -1 or masked, or there is none")
    if labels is not None and not 0 <= labels <= sizes.sum():
        raise ValueError(f"labels should be in 0 .. {sizes.sum()}, the rows with a class, got {labels}")
    name = f"seed{seed}"
    if counts is not None:
        if unknown := [k for k in counts if k not in classes.tolist()]:
            raise ValueError(f"counts: there is no class {few(unknown)} in y")
        if wrong := [k for k in counts.values() if not _is_whole(k)]:
            raise ValueError(f"counts should be whole numbers, got {brief(wrong[0])}")
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

    A row has no label where y is masked, -1, NaN, NA or None, or text that such a value becomes,
    such as "", "-1", "nan" and "<NA>". A `LabelWarning` names the words "None", "NA", "N/A" and
    "null", which are no label either but could be classes, and a class of most rows that looks
    like another such mark, such as "unknown" or 999.

    Raises:
        ValueError: y has another length, no label, one class only, or labels that cannot be told apart as classes.
        TypeError: It is no array.
    """
    values, missing = _rows_of_labels(y, n)
    known = _values_of_classes(values[~missing])
    classes, counts = np.unique(known, return_counts=True)
    if len(classes) < 2:
        raise ValueError(_of_one_class(classes[0], values[missing]))
    warn_of_words(values)
    warn_of_markers(classes.tolist(), counts.tolist())
    codes = np.full(n, -1)
    codes[~missing] = np.searchsorted(classes, known)
    return classes, codes


def _rows_of_labels(y: Any, n: int, name: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """Labels as an array `(n,)`, and which rows have none."""
    from sklearn.utils.validation import column_or_1d

    if y is None:
        raise ValueError(
            f"{name} should hold labels, with -1 for unlabeled rows; requires y to be passed, but the target y is None"
        )
    values, masked = as_array(y, name)
    values = column_or_1d(values, warn=True)
    masked = masked.reshape(values.shape)
    if len(values) != n:
        raise ValueError(
            f"{name} should have one label per row of X, {n}; got {len(values)}, inconsistent numbers of samples"
        )
    check_signed(values[~masked], name)
    return values, masked | missing_labels(values)


def _values_of_classes(known: np.ndarray, name: str = "y") -> np.ndarray:
    """The labels of rows that have one, all of one kind: whole numbers, truth values or strings."""
    if not len(known):
        raise ValueError(f"{name} has no label: every row is -1, NaN or None; at least two classes need one")
    if known.dtype == object:
        known = _of_one_type(known, name)
    if known.dtype.kind == "f":
        _check_whole(known, name)
    if known.dtype.kind not in "biufU":
        raise ValueError(f"{name}: Unknown label type: {known.dtype}; classes should be whole numbers or strings")
    return known


def _of_one_type(known: np.ndarray, name: str) -> np.ndarray:
    """Objects as strings, or as numbers."""
    texts = sum(isinstance(value, str) for value in known)
    if texts == len(known):
        return known.astype(str)
    if texts:
        raise ValueError(f"{name} should be of one type, strings or numbers; got both")
    return np.array(known.tolist())


def _check_whole(known: np.ndarray, name: str) -> None:
    if not np.isfinite(known).all():
        raise ValueError(f"{name} holds infinity")
    if (known != np.round(known)).any():
        raise ValueError(f"{name}: Unknown label type: continuous values; classes should be whole numbers or strings")


def _of_one_class(label: Any, unlabeled: np.ndarray) -> str:
    """What to say to labels of one class: -1 and 1 may have been meant as two."""
    said = f"y has labels of one class only, {brief(label)}; at least two classes need one"
    if str(label) in ("1", "1.0") and set(map(str, unlabeled.tolist())) & {"-1", "-1.0"}:
        return f"{said}; -1 stands for no label, so write classes -1 and 1 as 0 and 1"
    words = MISSING_WORDS.intersection(str(value).strip() for value in unlabeled if isinstance(value, str))
    if words:
        return f"{said}; {few(sorted(words))} is taken to be no label, so give a class of that name another"
    return said


def from_arrays(x: Any, y: Any, x_test: Any, y_test: Any, name: str = "arrays") -> Dataset:
    """A data set of arrays; x is kept as it is.

    Classes may be any values, and rows of y without one as in `encode`. Classes of y and y_test are matched by their names: 1, 1.0 and "1" are the same.

    Raises:
        ValueError: Shapes do not match, y has fewer than two classes or continuous values, or the
            test part has a class that the training part has not, or a row without one.
        TypeError: One of them is no array.
    """
    x, x_test = as_data(x, "x", torch.float32), as_data(x_test, "x_test", torch.float32)
    if x.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"x_test should have rows of shape {tuple(x.shape[1:])} as x, got {tuple(x_test.shape[1:])}")
    for part, labels, rows in (("y", y, x), ("y_test", y_test, x_test)):
        shape = as_array(labels, part)[0].shape
        if shape != (len(rows),):
            raise ValueError(f"{part} should have shape ({len(rows)},), got {shape}")
    values, codes = encode(y, len(x))
    classes = names_of(values)
    codes_test = _codes_of_test(y_test, len(x_test), classes)
    return Dataset(name, x, torch.as_tensor(codes), x_test, torch.as_tensor(codes_test), classes)


def _codes_of_test(y: Any, n: int, classes: tuple[str, ...]) -> np.ndarray:
    """Test labels as codes into the training labels' classes, matched by name."""
    values, missing = _rows_of_labels(y, n, "y_test")
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise ValueError(
            f"y_test has no label in row {row}, {missing.sum()} such rows in all; "
            "leave them out, for each test row needs one"
        )
    known, inverse = np.unique(_values_of_classes(values), return_inverse=True)
    return codes_of(names_of(known), classes, "y_test has classes that y has not")[inverse]


def names_of(classes: np.ndarray) -> tuple[str, ...]:
    """Names of classes; whole numbers have no decimal point, whatever their dtype."""
    if classes.dtype.kind == "f":
        return tuple(f"{value:.0f}" for value in classes.tolist())
    return tuple(map(str, classes.tolist()))


def codes_of(names: Sequence[str], classes: Sequence[str], message: str) -> np.ndarray:
    """Places of names among the names of classes; "1.0", as earlier versions wrote, is "1" too.

    Raises:
        ValueError: A name is not there; it begins with `message`.
    """
    places = {_plain(name): k for k, name in enumerate(classes)}
    exact = {name: k for k, name in enumerate(classes)}
    found = [exact.get(name, places.get(_plain(name), -1)) for name in names]
    if unknown := [name for name, k in zip(names, found, strict=True) if k < 0]:
        raise ValueError(f"{message}: {few(unknown)}; those are {few(classes)}")
    return np.array(found)


def _plain(name: str) -> str:
    return re.sub(r"^(-?\d+)\.0$", r"\1", name)


def recoded(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """A data set with its codes in the order of the given names of classes, such as a model's.

    Raises:
        ValueError: Its classes are others.
    """
    message = "the data have classes that are not the model's"
    new = torch.as_tensor(codes_of(dataset.classes, classes, message))
    if len(new.unique()) < len(classes):
        raise ValueError(f"the classes of the data, {few(dataset.classes)}, are not the model's, {few(classes)}")
    y = torch.where(dataset.y >= 0, new[dataset.y], -1)
    return replace(dataset, y=y, y_test=new[dataset.y_test], classes=tuple(classes))


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
        other = "it has another format, or holds Python objects; write arrays of numbers or strings with numpy.savez"
        reason = other if "pickle" in str(error) else str(error)
        raise ValueError(f"{path} is not a readable .npz file: {reason}") from None


def from_torch(train: torch.utils.data.Dataset, test: torch.utils.data.Dataset, name: str = "torch") -> Dataset:
    """A data set from two torch Datasets of (x, y) pairs, read once; labels as in `from_arrays`.

    Raises:
        ValueError: A dataset is empty, or what it gives does not fit; see `from_arrays`.
        TypeError: It has no length, or does not give pairs of an array and a label.
    """
    x, y = _stack(train, "train")
    x_test, y_test = _stack(test, "test")
    return from_arrays(x, y, x_test, y_test, name)


def _stack(dataset: Any, name: str) -> tuple[Tensor, np.ndarray]:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(f"{name} should be a torch Dataset of (x, y) pairs with a length, got {type(dataset).__name__}")
    rows = [dataset[i] for i in range(len(dataset))]
    if not rows:
        raise ValueError(f"{name}: dataset is empty")
    if not all(isinstance(row, tuple | list) and len(row) == 2 for row in rows):
        raise TypeError(f"{name} should give pairs (x, y), got {brief(rows[0])}")
    for x, _ in rows:
        check_array_like(x, f"{name}: x")
    data = [torch.as_tensor(x) for x, _ in rows]
    if len({x.shape for x in data}) > 1:
        raise ValueError(f"{name} should give x of one shape, got {few({tuple(x.shape) for x in data})}")
    labels = np.empty(len(rows), dtype=object)  # numpy would make strings of numbers beside strings
    labels[:] = [_label(y) for _, y in rows]
    return torch.stack(data), labels


def _label(y: Any) -> Any:
    """A label as a Python value, if it is a number in a tensor or array."""
    return y.item() if getattr(y, "ndim", None) == 0 and hasattr(y, "item") else y


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
        from pyro_ssl.utils.torchvision_repair import read_images

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
