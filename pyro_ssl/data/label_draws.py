"""Label draws: which rows of a training set keep their labels, and how they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.utils.arguments import as_class_indices, check_seed, is_whole
from pyro_ssl.utils.arrays import as_array, brief, few
from pyro_ssl.utils.files import CheckpointError, read_sealed, write_sealed

DRAW_FORMAT = "pyro-ssl labels"
"""Mark of a file of `LabelDraw.save`."""


@dataclass(frozen=True)
class LabelDraw:
    """The rows of a training set that keep their labels.

    Arguments:
        indices: Indices of the rows.
        n: Number of rows of the training set.
        name: Description of the draw, for tables and file names.

    Raises:
        ValueError: An index is not a whole number, not in 0 .. n - 1, or given twice.

    >>> LabelDraw((3, 0), n=4).masked_labels([5, 6, 7, 8])
    tensor([ 5, -1, -1,  8])
    """

    indices: tuple[int, ...]
    n: int
    name: str = ""

    def __post_init__(self) -> None:
        if not is_whole(self.n) or self.n < 0:
            raise ValueError(f"n should be a whole number, 0 or above, got {brief(self.n)}")
        indices = list(self.indices)
        _check_whole("indices", indices)
        outside = [i for i in indices if not 0 <= i < self.n]
        if outside:
            raise ValueError(f"indices should be in 0 .. {self.n - 1}, got {outside[0]}")
        if len(set(indices)) < len(indices):
            twice = next(i for i, count in Counter(indices).items() if count > 1)
            raise ValueError(f"indices: row {twice} is given twice; give each row once")
        # A frozen dataclass has no other way to set its fields.
        object.__setattr__(self, "indices", tuple(sorted(int(i) for i in indices)))
        object.__setattr__(self, "n", int(self.n))

    def masked_labels(self, y: Any) -> Tensor:
        """Class indices `(n,)`, int64, with -1 for rows that are not drawn.

        Arguments:
            y: Class indices of all rows, `(n,)`, a tensor or an array.

        Raises:
            ValueError: y does not have n rows.
            TypeError: y does not hold class indices.
        """
        rows = _number_of_rows(y)
        if rows != self.n:
            raise ValueError(
                f"y should have the {self.n} rows that the labels were drawn from, got {rows}"
            )
        y = as_class_indices(y, self.n)
        kept = list(self.indices)
        masked = torch.full_like(y, -1)
        masked[kept] = y[kept]
        return masked

    def save(self, path: str | Path) -> None:
        """Write the draw as JSON with a checksum."""
        write_sealed(
            path,
            {
                "format": DRAW_FORMAT,
                "name": self.name,
                "n": self.n,
                "indices": list(self.indices),
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> LabelDraw:
        """Read a file of `save`, or of an earlier version that wrote no checksum.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: The file is not a label draw, or is damaged.
        """
        foreign = f"{path} is not a label draw written by LabelDraw.save"
        data = read_sealed(path)
        if data.get("format") != DRAW_FORMAT or not {"name", "n", "indices"} <= data.keys():
            raise CheckpointError(foreign)
        try:
            return cls(data["indices"], data["n"], str(data["name"]))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{foreign}: {error}") from None


def draw_labels(
    y: Any,
    labels: int | None = None,
    *,
    per_class: int | None = None,
    counts: Mapping[int, int] | None = None,
    how: str = "balanced",
    seed: int = 0,
) -> LabelDraw:
    """Draw the rows that keep their labels; give exactly one of `labels`, `per_class` and `counts`.

    The caller's random state is not used.

    Arguments:
        y: Class indices `(N,)`; rows that are -1 or masked are never drawn.
        labels: Number of labels in total.
        per_class: Number of labels of each class.
        counts: Number of labels by class index.
        how: Shares of the classes in a total: `balanced` (equal, with a remainder for random
            classes), `stratified` (in proportion to the classes), or `random` (any rows).
        seed: Seed of the draw.

    Raises:
        ValueError: None or several of the three are given, or a class has too few rows.
        TypeError: y does not hold class indices.

    >>> y = torch.tensor([0, 0, 0, 1, 1, 1])
    >>> draw = draw_labels(y, per_class=2)
    >>> draw.name, (draw.masked_labels(y) >= 0).sum()
    ('2per-class-seed0', tensor(4))
    """
    y = as_class_indices(y, _number_of_rows(y)).cpu().numpy()
    check_seed(seed)
    _check_numbers(labels, per_class, counts)
    classes, sizes = np.unique(y[y >= 0], return_counts=True)
    if not len(classes):
        raise ValueError("y has no label to draw: every row is -1 or masked, or there is none")
    rng = np.random.default_rng(seed)
    if counts is not None:
        wanted = _wanted_by_class(counts, classes)
        name = f"counts{int(wanted.sum())}-seed{seed}"
    elif per_class is not None:
        wanted = np.full(len(classes), per_class)
        name = f"{per_class}per-class-seed{seed}"
    else:
        assert labels is not None
        if not 0 <= labels <= sizes.sum():
            raise ValueError(
                f"labels should be in 0 .. {sizes.sum()}, the rows with a class, got {labels}"
            )
        wanted = _share(labels, sizes, how, rng)
        name = f"{labels}{how}-seed{seed}"
    impossible = (wanted > sizes) | (wanted < 0)
    if impossible.any():
        k = int(np.argmax(impossible))
        raise ValueError(
            f"class {classes[k]} has {sizes[k]} rows, cannot label {wanted[k]} of them; draw fewer"
        )
    rows: list[int] = []
    for k, number in zip(classes, wanted, strict=True):
        rows += rng.permutation(np.flatnonzero(y == k))[:number].tolist()
    return LabelDraw(tuple(sorted(rows)), len(y), name)


def _check_numbers(
    labels: int | None, per_class: int | None, counts: Mapping[int, int] | None
) -> None:
    """Check that exactly one number, or mapping of numbers, is given."""
    for name, number in (("labels", labels), ("per_class", per_class)):
        if number is not None and not is_whole(number):
            raise ValueError(f"{name} should be a whole number, got {number!r}")
    if [labels, per_class, counts].count(None) != 2:
        raise ValueError("give exactly one of labels, per_class and counts")


def _wanted_by_class(counts: Mapping[int, int], classes: np.ndarray) -> np.ndarray:
    unknown = [k for k in counts if k not in classes.tolist()]
    if unknown:
        raise ValueError(f"counts: there is no class {few(unknown)} in y")
    _check_whole("counts", counts.values())
    return np.array([counts.get(int(k), 0) for k in classes])


def _share(labels: int, sizes: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers of labels of the classes, whose sum is the total."""
    if how == "random":
        return rng.multivariate_hypergeometric(sizes, labels)
    if how == "balanced":
        exact = labels * np.full(len(sizes), 1 / len(sizes))
    elif how == "stratified":
        exact = labels * (sizes / sizes.sum())
    else:
        raise ValueError(f"how should be balanced, stratified or random, got {how!r}")
    wanted = np.floor(exact + 1e-9).astype(int)
    # Labels left over go to the largest remainders, or to random classes if there are ties.
    priority = rng.random(len(sizes)) * 1e-3
    if how == "stratified":
        priority = exact - wanted + priority
    priority[wanted >= sizes] = -1.0  # no row is left
    wanted[np.argsort(-priority)[: labels - wanted.sum()]] += 1
    return wanted


def _number_of_rows(y: Any) -> int:
    shape = as_array(y, "y")[0].shape
    if len(shape) != 1:
        raise ValueError(f"y should have shape (N,), one class index per row, got {shape}")
    return int(shape[0])


def _check_whole(name: str, values: Any) -> None:
    for value in values:
        if not is_whole(value):
            raise ValueError(f"{name} should be whole numbers, got {brief(value)}")
