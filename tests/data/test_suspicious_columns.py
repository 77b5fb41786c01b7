"""Columns that look like identifiers or like copies of the labels are named before training."""

import warnings

import numpy as np
import pytest

from pyro_ssl.data import Reading, read
from pyro_ssl.data.suspicious_columns import ColumnWarning, is_copy, is_identifier

RNG = np.random.default_rng(0)
ROWS = 24


def write(path, **columns):
    columns["width"] = RNG.normal(size=ROWS).round(3)
    columns["label"] = [("cat", "dog")[i % 2] if i < 12 else "" for i in range(ROWS)]
    lines = [",".join(columns)]
    lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "numbers",
    [range(ROWS), range(1000, 0, -10)[:ROWS], np.cumsum(RNG.integers(1, 9, ROWS))]
    + [RNG.permutation(ROWS) + 70],
)
def test_an_identifier_is_named_with_the_option_that_leaves_it_out(tmp_path, numbers):
    path = write(tmp_path / "pets.csv", number=list(numbers))
    with pytest.warns(ColumnWarning, match="column 'number' .*--ignore-columns number"):
        content = read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path, Reading(ignore_columns=("number",)))
        read(path, content.reading)  # a trained model's: its user was warned before


def test_a_copy_of_the_labels_is_named(tmp_path):
    path = write(tmp_path / "pets.csv", code=[7 - 3 * (i % 2) for i in range(ROWS)])
    with pytest.warns(ColumnWarning, match="column 'code' has one value for each class in all 12"):
        read(path)


def test_ordinary_columns_are_not_named(tmp_path):
    counts = RNG.integers(0, 500, ROWS)
    sorted_lengths = np.sort(RNG.normal(size=ROWS)).round(4)
    binary = (np.arange(ROWS) // 2) % 2
    path = write(tmp_path / "pets.csv", count=counts, length=sorted_lengths, binary=binary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path)


def test_few_rows_are_not_judged():
    assert not is_identifier(np.arange(9.0)) and is_identifier(np.arange(10.0))
    assert not is_copy(np.arange(12.0), np.array(list("abcdefghijkl")))  # one label each
    assert not is_copy(np.zeros(20), np.array(["a", "b"] * 10))
    assert not is_copy(np.tile([0.0, 1.0, 2.0, 2.0], 5), np.array(["a", "b"] * 10))
