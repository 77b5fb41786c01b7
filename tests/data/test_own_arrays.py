"""Data sets of the user's own arrays and files."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from pyro_ssl import data
from pyro_ssl.data.label_draws import draw_labels


@st.composite
def classes(draw, least: int = 1):
    """Codes in any order, each of K classes at least `least` times, some rows without a class."""
    sizes = draw(st.lists(st.integers(least, 30), min_size=1, max_size=6))
    y = np.repeat([*range(len(sizes)), -1], [*sizes, draw(st.integers(0, 5))])
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(y)


ARRAYS = {
    "x": np.arange(12.0).reshape(6, 2),
    "y": np.array(["b", "a", "b", "c", "a", "b"]),
    "x_test": np.ones((2, 2)),
    "y_test": np.array(["c", "a"]),
}


@pytest.mark.parametrize("given", ["arrays", "npz"])
def test_arrays(tmp_path, given):
    if given == "npz":
        np.savez(tmp_path / "mine.npz", **ARRAYS)
        d = data.load(str(tmp_path / "mine.npz"))
        assert d.name == "mine"
    else:
        d = data.from_arrays(**ARRAYS)
    assert d.classes == ("a", "b", "c")
    assert (d.y.tolist(), d.y_test.tolist()) == ([1, 0, 1, 2, 0, 1], [2, 0])
    assert (d.x.dtype, d.x_shape) == (torch.float32, (2,))
    assert d.x.tolist() == ARRAYS["x"].tolist()


@pytest.mark.parametrize("y", [[5, -1, 9, 5, -1, 9], [5.0, np.nan, 9.0, 5.0, -1.0, 9.0]])
def test_rows_without_a_class_have_none(y):
    d = data.from_arrays(**ARRAYS | {"y": y, "y_test": [9, 5]})
    assert d.y.tolist() == [0, -1, 1, 0, -1, 1]
    assert d.y_test.tolist() == [1, 0]
    assert len(d.classes) == 2


SAME = {
    "int": [3, 10, 3],
    "float": [3.0, 10.0, 3.0],
    "text": ["3", "10", "3"],
    "text with a point": ["3.0", "10.0", "3.0"],
}


@pytest.mark.parametrize("y", SAME.values(), ids=SAME)
@pytest.mark.parametrize("y_test", SAME.values(), ids=SAME)
def test_classes_match_by_name_whatever_their_dtype(y, y_test):
    x = np.ones((3, 2))
    d = data.from_arrays(x, np.array(y), x, np.array(y_test))
    assert [d.classes[k] for k in d.y] == [d.classes[k] for k in d.y_test]
    assert d.classes in (("3", "10"), ("10", "3"), ("10.0", "3.0"))
    other = data.from_arrays(x, np.array(y_test), x, np.array(y_test))
    again = data.with_class_order(other, d.classes)
    assert (
        again.classes == d.classes
        and again.y.tolist() == d.y.tolist()
        and again.y_test.tolist() == d.y_test.tolist()
    )


def test_rows_without_a_label_stay_so_among_other_classes():
    x = np.ones((3, 2))
    d = data.with_class_order(data.from_arrays(x, [5, -1, 9], x[:2], [9, 5]), ("9", "5"))
    assert (d.y.tolist(), d.y_test.tolist()) == ([1, -1, 0], [0, 1])
    for classes in (("5", "8"), ("5", "8", "9")):
        with pytest.raises(ValueError, match="the model lacks|but the model has"):
            data.with_class_order(d, classes)


def test_names_that_differ_by_a_point_only_are_kept_apart():
    d = data.from_arrays(
        np.ones((2, 2)), np.array(["1", "1.0"]), np.ones((2, 2)), np.array(["1.0", "1"])
    )
    assert d.classes == ("1", "1.0") and d.y_test.tolist() == [1, 0]


def test_messages_do_not_print_whole_arrays():
    x, y = np.ones((3000, 2)), np.arange(3000)
    for y_test in (
        np.full(3000, np.nan),
        np.arange(3000) + 5000,
        np.array(["a" * 900 + str(i) for i in range(3000)]),
    ):
        with pytest.raises(ValueError, match="y_test has") as told:
            data.from_arrays(x, y, x, y_test)
        assert len(str(told.value)) < 500
    with pytest.raises(ValueError, match="no class 3000, .* and 2990 more in y") as told:
        draw_labels(y, counts=dict.fromkeys(range(3000, 6000), 1))
    assert len(str(told.value)) < 500


BAD_ARRAYS = {
    "rows": ({"y": np.zeros(5)}, r"y should have shape \(6,\), got \(5,\)"),
    "test rows": ({"y_test": np.zeros(3)}, r"y_test should have shape \(2,\), got \(3,\)"),
    "features": (
        {"x_test": np.ones((2, 3))},
        r"x_test should have rows of shape \(2,\) as x, got \(3,\)",
    ),
    "class of test only": (
        {"y_test": np.array(["a", "d"])},
        "y_test has classes that y lacks: 'd'; the known classes are 'a', 'b', 'c'",
    ),
    "test without class": (
        {"y": np.arange(6), "y_test": np.array([0, -1])},
        "y_test has no label in row 1, 1 such rows in all; leave them out",
    ),
    "NaN": ({"x": np.full((6, 2), np.nan)}, "x holds NaN"),
    "test NaN": ({"x_test": np.full((2, 2), np.nan)}, "x_test holds NaN"),
    "empty": ({"x": np.ones((0, 2))}, "x is empty"),
    "too large": ({"x": ARRAYS["x"] + 1e300}, "x holds NaN or infinity"),
    "masked": (
        {"x": np.ma.array(ARRAYS["x"], mask=ARRAYS["x"] == 4)},
        "x has 1 masked entries, first in row 2",
    ),
    "test masked": (
        {"y_test": np.ma.array(["a", "c"], mask=[False, True])},
        "y_test has no label in row 1, 1 such rows in all; leave them out",
    ),
    "test NaN labels": (
        {"y": np.arange(6), "y_test": np.array([np.nan, np.nan])},
        "y_test has no label in row 0, 2 such",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_refused_by_name(arrays, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(**ARRAYS | arrays)


def test_bad_files(tmp_path, monkeypatch):
    path = tmp_path / "mine.npz"
    with pytest.raises(FileNotFoundError, match="no such file"):
        data.load(str(path))
    np.savez(path, x=ARRAYS["x"], y=ARRAYS["y"])
    with pytest.raises(ValueError, match="x_test, y_test is missing"):
        data.load(str(path))
    monkeypatch.setattr(pickle, "load", None)
    np.savez(path, **ARRAYS | {"y": ARRAYS["y"].astype(object)})
    with pytest.raises(ValueError, match=r"not a readable \.npz file.*holds Python objects"):
        data.load(str(path))
    np.savez(path, **ARRAYS)
    for content in (
        path.read_bytes()[:-200],
        path.read_bytes()[:10],
        b"",
        b"x,y\n1,2\n",
        pickle.dumps(1),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mine\.npz is not a readable \.npz file"):
            data.load(str(path))


BAD_ROWS = {
    "continuous": ([(torch.ones(2), 0.2), (torch.ones(2), 1.7)], ValueError, "continuous values"),
    "strings and numbers": (
        [(torch.ones(2), "0"), (torch.ones(2), 1)],
        ValueError,
        "strings or numbers; got both",
    ),
    "pictures": (
        [(Image.new("L", (2, 2)), k) for k in (0, 1)],
        TypeError,
        "train: x should be .* got PIL images",
    ),
    "shapes": (
        [(torch.ones(2), 0), (torch.ones(3), 1)],
        ValueError,
        "train should return x of one shape",
    ),
    "no pairs": ([torch.ones(3)], TypeError, r"train should return pairs \(x, y\)"),
    "no length": (iter([]), TypeError, "train should be a torch Dataset .* with a length"),
}
