"""Classes of labels of any kind, missing labels, and warnings of labels that look wrong."""

import warnings

import numpy as np
import pytest
from hypothesis import strategies as st

from pyro_ssl.data.classes import encode
from pyro_ssl.data.missing_labels import LabelWarning


@st.composite
def classes(draw, least: int = 1):
    """Codes in any order, each of K classes at least `least` times, some rows without a class."""
    sizes = draw(st.lists(st.integers(least, 30), min_size=1, max_size=6))
    y = np.repeat([*range(len(sizes)), -1], [*sizes, draw(st.integers(0, 5))])
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(y)


MARKS = ["", " ", "-1", "-1.0", "nan", "NaN", "<NA>", "#N/A", "NaT", "--"]


WORDS = ["None", "NA", "N/A", "n/a", "null", "NULL"]


def ham_or_spam(mark, labeled: int = 10) -> np.ndarray:
    """A hundred labels in turn, the mark after the first ones."""
    return np.array([["ham", "spam"][i % 2] if i < labeled else mark for i in range(100)])


def assert_ten_labels(y) -> None:
    classes, indices = encode(y, 100)
    assert classes.tolist() == ["ham", "spam"]
    assert indices.tolist() == [0, 1] * 5 + [-1] * 90


@pytest.mark.parametrize("mark", MARKS)
def test_text_of_a_missing_label_is_none(mark):
    assert_ten_labels(ham_or_spam(mark))
    assert_ten_labels(ham_or_spam(mark).astype(object))


@pytest.mark.parametrize("mark", WORDS)
def test_a_word_for_a_missing_label_is_taken_so_with_a_warning(mark):
    with pytest.warns(
        LabelWarning,
        match=f"90 rows of '{mark}' are taken to have no label; if that is a class, give it",
    ):
        assert_ten_labels(ham_or_spam(mark))


@pytest.mark.parametrize(
    "mark", ["unknown", "Unknown", "?", "UNLABELED", "missing", "no_label", "not labeled", "n.a."]
)
def test_a_class_of_most_rows_that_looks_like_a_mark_is_named(mark):
    with pytest.warns(
        LabelWarning, match=r"class '.*' has 90 of the 100 labels and looks like a mark"
    ):
        classes, _ = encode(ham_or_spam(mark), 100)
    assert set(classes) == {"ham", "spam", mark}
    encode(ham_or_spam(mark, labeled=60), 100)  # one class among others
    encode(ham_or_spam("eggs"), 100)  # nearly all rows, but a name


def test_minus_beside_plus_is_a_class():
    y = np.array(["+", "-"])[(np.arange(100) < 60).astype(int)]
    assert encode(y, 100)[0].tolist() == ["+", "-"]


def test_a_class_that_a_word_takes_away_is_named():
    with pytest.raises(
        ValueError, match="one class only, 'some'.*; 'None' is read as a missing label, so rename"
    ):
        encode(np.array(["None", "some"])[np.arange(100) % 2], 100)


@pytest.mark.parametrize("mark", [-2, -99, -999, 99, 999, 255, 65535])
@pytest.mark.parametrize("dtype", [int, float])
def test_a_number_of_most_rows_that_looks_like_a_mark_is_named(mark, dtype):
    y = np.where(np.arange(100) < 10, np.arange(100) % 2, mark).astype(dtype)
    with pytest.warns(
        LabelWarning, match=f"class {dtype(mark)} has 90 of the 100 labels and looks like a mark"
    ):
        encode(y, 100)
    encode(np.where(y == mark, 7, y), 100)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_what_minus_one_becomes_without_a_sign_is_refused(dtype):
    y = np.where(np.arange(100) < 10, np.arange(100) % 2, -1)
    with pytest.raises(
        ValueError, match=rf"y is {dtype} and holds \d+, which is what -1 becomes there"
    ):
        encode(y.astype(dtype), 100)
    assert encode((y % 2).astype(dtype), 100)[0].tolist() == [0, 1]
    classes, indices = encode(np.ma.array(y.astype(dtype), mask=y < 0), 100)
    assert classes.tolist() == [0, 1] and indices.tolist() == y.tolist()


@pytest.mark.parametrize("values", [[5, 9], [5.0, 9.0], ["a", "b"], [False, True]])
def test_masked_labels_have_no_class(values):
    hidden = np.arange(100) >= 10
    classes, indices = encode(np.ma.array([values[i % 2] for i in range(100)], mask=hidden), 100)
    assert classes.tolist() == values and indices.tolist() == [0, 1] * 5 + [-1] * 90
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of a masked number in a list
        assert encode([values[0], values[1], np.ma.masked], 3)[1].tolist() == [0, 1, -1]


def test_minus_one_and_one_are_no_two_classes():
    for y in (np.array([-1, 1, 1]), np.array([-1.0, 1.0, 1.0]), np.array(["-1", "1", "1"])):
        with pytest.raises(
            ValueError,
            match="one class only, .*1.*; -1 means that there is no label, so write .* as 0 and 1",
        ):
            encode(y, 3)
    with pytest.raises(ValueError, match="one class only, 1; at least two classes need one$"):
        encode([1, 1, None], 3)


class NAType:
    """As pandas' NA."""


class Int64:
    """As pandas' dtype of whole numbers, some of them NA."""


class Series:
    """As pandas' Series of that dtype, whose array is of floats unless asked for objects."""

    dtype = dtypes = Int64()

    def __init__(self, values):
        self.values = values

    def isna(self):
        return np.array([value is None for value in self.values])

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        if getattr(dtype, "kind", "") == "O":
            return np.array([NAType() if value is None else value for value in self.values], object)
        return np.array([np.nan if value is None else value for value in self.values])


def test_whole_numbers_beside_na_stay_whole():
    classes, indices = encode(Series([5, None, 9]), 3)
    assert classes.dtype.kind == "i" and classes.tolist() == [5, 9]
    assert indices.tolist() == [0, -1, 1]
