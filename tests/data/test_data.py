"""Data sets, users' own arrays, and which rows keep their labels."""

import json
import pickle
import subprocess
import sys
import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from pyro_ssl import data
from pyro_ssl.data.datasets import LabelDraw, draw_labels, encode
from pyro_ssl.data.labels import LabelWarning
from pyro_ssl.utils import torchvision_repair as vision
from pyro_ssl.utils.files import CheckpointError

quick = settings(max_examples=40, deadline=None, derandomize=True)


# --- label draws ----------------------------------------------------------------------------------------------------


@st.composite
def classes(draw, least: int = 1):
    """Codes in any order, each of K classes at least `least` times, some rows without a class."""
    sizes = draw(st.lists(st.integers(least, 30), min_size=1, max_size=6))
    y = np.repeat([*range(len(sizes)), -1], [*sizes, draw(st.integers(0, 5))])
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(y)


def counted(y: np.ndarray, drawn: LabelDraw) -> np.ndarray:
    """Labels in each class, after what holds of every draw."""
    assert list(drawn.indices) == sorted(set(drawn.indices))
    assert drawn.n == len(y)
    assert (y[list(drawn.indices)] >= 0).all()
    return np.bincount(y[list(drawn.indices)], minlength=y.max() + 1)


@quick
@given(y=classes(least=5), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_balanced_total(y, share, seed):
    k = y.max() + 1
    n = int(share * 5 * k)
    counts = counted(y, draw_labels(y, n, seed=seed))
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_stratified_total(y, share, seed):
    sizes = np.bincount(y[y >= 0])
    n = int(share * sizes.sum())
    counts = counted(y, draw_labels(y, n, how="stratified", seed=seed))
    assert counts.sum() == n
    more = counts - n * sizes / sizes.sum()
    assert (abs(more) < 1 + 1e-6).all()
    assert more.max() - more.min() < 1 + 2e-3  # the largest remainders are rounded up


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_random_total(y, share, seed):
    n = int(share * (y >= 0).sum())
    assert counted(y, draw_labels(y, n, how="random", seed=seed)).sum() == n


@quick
@given(y=classes(least=3), per_class=st.integers(0, 3), seed=st.integers(0, 9), choice=st.data())
def test_per_class_and_counts(y, per_class, seed, choice):
    assert (counted(y, draw_labels(y, per_class=per_class, seed=seed)) == per_class).all()
    wanted = choice.draw(st.dictionaries(st.integers(0, int(y.max())), st.integers(0, 3)))
    counts = counted(y, draw_labels(y, counts=wanted, seed=seed))
    assert counts.tolist() == [wanted.get(c, 0) for c in range(y.max() + 1)]


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_balanced_total_is_refused_only_where_there_is_none(y, share, seed):
    sizes = np.bincount(y[y >= 0])
    n = int(share * sizes.sum())
    each, rest = divmod(n, len(sizes))
    if sizes.min() >= each and (sizes > each).sum() >= rest:
        assert counted(y, draw_labels(y, n, seed=seed)).sum() == n
    else:
        with pytest.raises(ValueError, match=r"class \d has \d+ rows, cannot label \d+"):
            draw_labels(y, n, seed=seed)


def test_a_draw_depends_on_its_seed_alone():
    y = torch.arange(100) % 4
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    draws = [draw_labels(y, 20, seed=seed) for seed in range(5)]
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert draws == [draw_labels(y.numpy(), 20, seed=seed) for seed in range(5)]
    assert len({d.indices for d in draws}) == 5
    assert len({d.name for d in draws}) == 5


Y = np.array([0, 0, 0, 1, 2, 2, -1])
BAD_DRAWS = {
    "nothing": ({}, "exactly one of labels, per_class and counts"),
    "two": ({"labels": 2, "per_class": 1}, "exactly one of"),
    "below 0": ({"labels": -1}, r"labels should be in 0 \.\. 6"),
    "too many": ({"labels": 7}, r"labels should be in 0 \.\. 6, the rows with a class, got 7"),
    "too many of one": ({"labels": 6}, "class 1 has 1 rows, cannot label 2"),
    "per class": ({"per_class": 2}, "class 1 has 1 rows, cannot label 2"),
    "per class below 0": ({"per_class": -2}, "cannot label -2"),
    "counts": ({"counts": {0: 1, 2: 3}}, "class 2 has 2 rows, cannot label 3"),
    "half a label": ({"counts": {0: 1.5}}, "counts should be whole numbers, got 1.5"),
    "unknown class": ({"counts": {0: 1, 5: 1}}, "there is no class 5 in y"),
    "how": ({"labels": 2, "how": "any"}, "how should be balanced, stratified or random, got 'any'"),
    "seed": ({"labels": 2, "seed": -1}, "seed should be a whole number in 0"),
    "one-hot": ({"y": np.eye(3, dtype=int), "labels": 2}, r"y should have shape \(N,\)"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_DRAWS.values(), ids=BAD_DRAWS)
def test_bad_draws_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_labels(**{"y": Y} | arguments)


@quick
@given(y=classes(least=2), seed=st.integers(0, 9))
def test_draw_goes_round_and_hides_the_rest(tmp_path_factory, y, seed):
    drawn = draw_labels(y, per_class=2, seed=seed)
    path = tmp_path_factory.mktemp("draw") / "labels.json"
    drawn.save(path)
    assert LabelDraw.load(path) == drawn
    codes = drawn.codes(torch.as_tensor(y))
    assert torch.nonzero(codes >= 0).flatten().tolist() == list(drawn.indices)
    assert (codes[list(drawn.indices)].numpy() == y[list(drawn.indices)]).all()
    with pytest.raises(ValueError, match=f"the {len(y)} rows that the labels were drawn from, got {len(y) + 1}"):
        drawn.codes(torch.zeros(len(y) + 1))


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"format": "pyro-ssl labels", "n": 3, "name": "a", "indices": [3]}', '{"n": 3, "ind'] +
    ['{"format": "pyro-ssl labels", "n": 3, "name": "a", "indices": [-1]}', '{"format": "x", "n": 3, "indices": []}'],
)  # fmt: skip
def test_a_file_that_is_no_draw_is_refused(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"labels\.json is (not a label draw|damaged)"):
        LabelDraw.load(path)
    with pytest.raises(FileNotFoundError):
        LabelDraw.load(tmp_path / "none.json")


def test_a_changed_byte_of_a_draw_is_found(tmp_path):
    """Each byte in turn, by one bit and by its highest one: the draw is as it was, or refused."""
    path, draw = tmp_path / "labels.json", LabelDraw((1, 5, 20, 31), 40, "four")
    draw.save(path)
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                assert LabelDraw.load(path) == draw
            except CheckpointError as error:
                refused += 1
                assert "labels.json is" in str(error)
    assert refused > 1.9 * (len(whole) - len("checksum"))


def test_a_draw_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"format": "pyro-ssl labels", "name": "a", "n": 3, "indices": [0, 2]}')
    assert LabelDraw.load(path) == LabelDraw((0, 2), 3, "a")


BAD_INDICES = {
    "twice": ([1, 1, 1], "row 1 is there twice"),
    "not whole": ([1.7], "indices should be whole numbers, got 1.7"),
    "truth value": ([True], "indices should be whole numbers, got True"),
    "beyond": ([0, 3], r"indices should be in 0 \.\. 2, got 3"),
    "below 0": ([-1], r"indices should be in 0 \.\. 2, got -1"),
    "text": (["0"], "indices should be whole numbers, got '0'"),
}


@pytest.mark.parametrize(("indices", "message"), BAD_INDICES.values(), ids=BAD_INDICES)
def test_rows_that_cannot_be_drawn_are_refused(tmp_path, indices, message):
    with pytest.raises(ValueError, match=message):
        LabelDraw(tuple(indices), 3)
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"format": "pyro-ssl labels", "name": "a", "n": 3, "indices": indices}))
    with pytest.raises(CheckpointError, match=f"is not a label draw.*{message}"):
        LabelDraw.load(path)


def test_a_draw_is_of_plain_numbers():
    assert LabelDraw(np.array([2, 0]), np.int64(3)) == LabelDraw((0, 2), 3)
    with pytest.raises(ValueError, match="n should be a whole number, 0 or above, got 2.5"):
        LabelDraw((), 2.5)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list, lambda y: np.asarray(y, np.uint8)])
def test_codes_of_any_array(kind):
    codes = LabelDraw((0, 2), 3).codes(kind([1, 2, 0]))
    assert codes.dtype == torch.int64 and codes.tolist() == [1, -1, 0]


def test_masked_labels_are_not_drawn():
    y = np.ma.array([0, 1] * 10, mask=[False] * 4 + [True] * 16)
    assert draw_labels(y, per_class=2).indices == (0, 1, 2, 3)
    assert LabelDraw((0, 7), 20).codes(y).tolist() == [0] + [-1] * 19
    with pytest.raises(ValueError, match=r"labels should be in 0 \.\. 4"):
        draw_labels(y, 10)


BAD_LABELS = {
    "strings": (np.array(["a", "b"]), "y should hold integer codes .* got dtype <U1; pyro_ssl.data.encode"),
    "fractions": (np.array([0.5, 1.0]), "y should hold integer codes .* got dtype float64"),
    "sparse": (scipy.sparse.csr_matrix([[0, 1]]), "y should be a dense array, got a sparse csr_matrix"),
}


@pytest.mark.parametrize(("y", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_are_no_codes_are_refused(y, message):
    with pytest.raises(TypeError, match=message):
        draw_labels(y, 1)
    with pytest.raises(TypeError, match=message):
        LabelDraw((0,), 2).codes(y)


# --- users' own arrays ------------------------------------------------------------------------------------------------

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


MARKS = ["", " ", "-1", "-1.0", "nan", "NaN", "<NA>", "#N/A", "NaT", "--"]
WORDS = ["None", "NA", "N/A", "n/a", "null", "NULL"]


def ham_or_spam(mark, labeled: int = 10) -> np.ndarray:
    """A hundred labels in turn, the mark after the first ones."""
    return np.array([["ham", "spam"][i % 2] if i < labeled else mark for i in range(100)])


def assert_ten_labels(y) -> None:
    classes, codes = encode(y, 100)
    assert classes.tolist() == ["ham", "spam"]
    assert codes.tolist() == [0, 1] * 5 + [-1] * 90


@pytest.mark.parametrize("mark", MARKS)
def test_text_of_a_missing_label_is_none(mark):
    assert_ten_labels(ham_or_spam(mark))
    assert_ten_labels(ham_or_spam(mark).astype(object))


@pytest.mark.parametrize("mark", WORDS)
def test_a_word_for_a_missing_label_is_taken_so_with_a_warning(mark):
    with pytest.warns(
        LabelWarning, match=f"90 rows of '{mark}' are taken to have no label; if that is a class, give it"
    ):
        assert_ten_labels(ham_or_spam(mark))


@pytest.mark.parametrize("mark", ["unknown", "Unknown", "?", "UNLABELED", "missing", "no_label", "not labeled", "n.a."])
def test_a_class_of_most_rows_that_looks_like_a_mark_is_named(mark):
    with pytest.warns(LabelWarning, match=r"class '.*' has 90 of the 100 labels and looks like a mark"):
        classes, _ = encode(ham_or_spam(mark), 100)
    assert set(classes) == {"ham", "spam", mark}
    encode(ham_or_spam(mark, labeled=60), 100)  # one class among others
    encode(ham_or_spam("eggs"), 100)  # nearly all rows, but a name


def test_minus_beside_plus_is_a_class():
    y = np.array(["+", "-"])[(np.arange(100) < 60).astype(int)]
    assert encode(y, 100)[0].tolist() == ["+", "-"]


def test_a_class_that_a_word_takes_away_is_named():
    with pytest.raises(ValueError, match="one class only, 'some'.*; 'None' is taken to be no label, so give"):
        encode(np.array(["None", "some"])[np.arange(100) % 2], 100)


@pytest.mark.parametrize("mark", [-2, -99, -999, 99, 999, 255, 65535])
@pytest.mark.parametrize("dtype", [int, float])
def test_a_number_of_most_rows_that_looks_like_a_mark_is_named(mark, dtype):
    y = np.where(np.arange(100) < 10, np.arange(100) % 2, mark).astype(dtype)
    with pytest.warns(LabelWarning, match=f"class {dtype(mark)} has 90 of the 100 labels and looks like a mark"):
        encode(y, 100)
    encode(np.where(y == mark, 7, y), 100)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_what_minus_one_becomes_without_a_sign_is_refused(dtype):
    y = np.where(np.arange(100) < 10, np.arange(100) % 2, -1)
    with pytest.raises(ValueError, match=rf"y is {dtype} and holds \d+, which is what -1 becomes there"):
        encode(y.astype(dtype), 100)
    assert encode((y % 2).astype(dtype), 100)[0].tolist() == [0, 1]
    classes, codes = encode(np.ma.array(y.astype(dtype), mask=y < 0), 100)
    assert classes.tolist() == [0, 1] and codes.tolist() == y.tolist()


@pytest.mark.parametrize("values", [[5, 9], [5.0, 9.0], ["a", "b"], [False, True]])
def test_masked_labels_have_no_class(values):
    hidden = np.arange(100) >= 10
    classes, codes = encode(np.ma.array([values[i % 2] for i in range(100)], mask=hidden), 100)
    assert classes.tolist() == values and codes.tolist() == [0, 1] * 5 + [-1] * 90
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of a masked number in a list
        assert encode([values[0], values[1], np.ma.masked], 3)[1].tolist() == [0, 1, -1]


def test_minus_one_and_one_are_no_two_classes():
    for y in (np.array([-1, 1, 1]), np.array([-1.0, 1.0, 1.0]), np.array(["-1", "1", "1"])):
        with pytest.raises(ValueError, match="one class only, .*1.*; -1 stands for no label, so write .* as 0 and 1"):
            encode(y, 3)
    with pytest.raises(ValueError, match="one class only, 1; at least two classes need one$"):
        encode([1, 1, None], 3)


class NAType:
    """As pandas' NA."""


class Int64:
    """As pandas' dtype of whole numbers, some of them NA."""


class Series:
    """As pandas' Series of that dtype, which gives numpy numbers with a point unless it is asked for objects."""

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
    classes, codes = encode(Series([5, None, 9]), 3)
    assert classes.dtype.kind == "i" and classes.tolist() == [5, 9]
    assert codes.tolist() == [0, -1, 1]


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
    again = data.recoded(other, d.classes)
    assert (
        again.classes == d.classes and again.y.tolist() == d.y.tolist() and again.y_test.tolist() == d.y_test.tolist()
    )


def test_rows_without_a_label_stay_so_among_other_classes():
    x = np.ones((3, 2))
    d = data.recoded(data.from_arrays(x, [5, -1, 9], x[:2], [9, 5]), ("9", "5"))
    assert (d.y.tolist(), d.y_test.tolist()) == ([1, -1, 0], [0, 1])
    for classes in (("5", "8"), ("5", "8", "9")):
        with pytest.raises(ValueError, match="are not the model's"):
            data.recoded(d, classes)


def test_names_that_differ_by_a_point_only_are_kept_apart():
    d = data.from_arrays(np.ones((2, 2)), np.array(["1", "1.0"]), np.ones((2, 2)), np.array(["1.0", "1"]))
    assert d.classes == ("1", "1.0") and d.y_test.tolist() == [1, 0]


def test_messages_do_not_print_whole_arrays():
    x, y = np.ones((3000, 2)), np.arange(3000)
    for y_test in (np.full(3000, np.nan), np.arange(3000) + 5000, np.array(["a" * 900 + str(i) for i in range(3000)])):
        with pytest.raises(ValueError, match="y_test has") as told:
            data.from_arrays(x, y, x, y_test)
        assert len(str(told.value)) < 500
    with pytest.raises(ValueError, match="no class 3000, .* and 2990 more in y") as told:
        draw_labels(y, counts=dict.fromkeys(range(3000, 6000), 1))
    assert len(str(told.value)) < 500


BAD_ARRAYS = {
    "rows": ({"y": np.zeros(5)}, r"y should have shape \(6,\), got \(5,\)"),
    "test rows": ({"y_test": np.zeros(3)}, r"y_test should have shape \(2,\), got \(3,\)"),
    "features": ({"x_test": np.ones((2, 3))}, r"x_test should have rows of shape \(2,\) as x, got \(3,\)"),
    "class of test only": (
        {"y_test": np.array(["a", "d"])},
        "y_test has classes that y has not: 'd'; those are 'a', 'b', 'c'",
    ),
    "test without class": (
        {"y": np.arange(6), "y_test": np.array([0, -1])},
        "y_test has no label in row 1, 1 such rows in all; leave them out",
    ),
    "NaN": ({"x": np.full((6, 2), np.nan)}, "x holds NaN"),
    "test NaN": ({"x_test": np.full((2, 2), np.nan)}, "x_test holds NaN"),
    "empty": ({"x": np.ones((0, 2))}, "x is empty"),
    "too large": ({"x": ARRAYS["x"] + 1e300}, "x holds NaN or infinity"),
    "masked": ({"x": np.ma.array(ARRAYS["x"], mask=ARRAYS["x"] == 4)}, "x has 1 masked entries, first in row 2"),
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
    for content in (path.read_bytes()[:-200], path.read_bytes()[:10], b"", b"x,y\n1,2\n", pickle.dumps(1)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mine\.npz is not a readable \.npz file"):
            data.load(str(path))


def test_torch_datasets():
    x = torch.rand(6, 1, 4, 4)
    train = TensorDataset(x, torch.tensor([3, 5, 3, 5, 3, 5]))
    d = data.from_torch(train, TensorDataset(x[:2], torch.tensor([5, 3])))
    assert torch.equal(d.x, x)
    assert (d.classes, d.y.tolist(), d.y_test.tolist()) == (("3", "5"), [0, 1] * 3, [1, 0])
    with pytest.raises(ValueError, match="dataset is empty"):
        data.from_torch(TensorDataset(x[:0], x[:0]), train)


@pytest.mark.parametrize(
    "make", [float, int, str, np.int32, np.float32, torch.tensor, lambda v: torch.tensor(float(v))]
)
def test_labels_of_torch_datasets_are_taken_as_they_are(make):
    rows = lambda labels: [(torch.full((1, 2, 2), float(v)), make(v)) for v in labels]  # noqa: E731
    d = data.from_torch(rows([3, 5, 3]), rows([5, 3]))
    assert d.y.tolist() == [0, 1, 0] and d.y_test.tolist() == [1, 0]
    assert d.classes == (("3", "5"))


@pytest.mark.parametrize("missing", [None, -1, float("nan"), torch.tensor(-1)])
def test_rows_of_torch_datasets_without_a_label(missing):
    rows = [(torch.ones(2), label) for label in (0, 1, missing)]
    assert data.from_torch(rows, rows[:2]).y.tolist() == [0, 1, -1]


BAD_ROWS = {
    "continuous": ([(torch.ones(2), 0.2), (torch.ones(2), 1.7)], ValueError, "continuous values"),
    "strings and numbers": ([(torch.ones(2), "0"), (torch.ones(2), 1)], ValueError, "strings or numbers; got both"),
    "pictures": ([(Image.new("L", (2, 2)), k) for k in (0, 1)], TypeError, "train: x should be .* got PIL images"),
    "shapes": ([(torch.ones(2), 0), (torch.ones(3), 1)], ValueError, "train should give x of one shape"),
    "no pairs": ([torch.ones(3)], TypeError, r"train should give pairs \(x, y\)"),
    "no length": (iter([]), TypeError, "train should be a torch Dataset .* with a length"),
}


@pytest.mark.parametrize(("rows", "error", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_torch_datasets_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        data.from_torch(rows, [(torch.ones(2), 0)])


# --- data sets by name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "n", "n_test", "k"),
    [("moons", (2,), 2000, 2000, 2), ("circles", (2,), 2000, 2000, 2), ("digits", (1, 8, 8), 1200, 597, 10)],
)
def test_embedded_sets(name, shape, n, n_test, k):
    d = data.load(name)
    assert (d.name, d.x_shape, d.x.shape[0], d.x_test.shape[0], len(d.classes)) == (name, shape, n, n_test, k)
    assert d.x.dtype == torch.float32
    assert set(d.y.tolist()) == set(d.y_test.tolist()) == set(range(k))
    counts = Counter(d.y.tolist())
    assert max(counts.values()) < 1.2 * min(counts.values())
    limit = (0, 1) if name == "digits" else (-3, 3)
    assert d.x.min() >= limit[0]
    assert d.x.max() <= limit[1]
    rows = {tuple(r) for r in d.x.flatten(1).tolist()}
    assert not any(tuple(r) in rows for r in d.x_test.flatten(1).tolist())
    again = data.load(name)
    assert torch.equal(again.x, d.x)
    assert not torch.equal(data.DATASETS[name](seed=1).x, d.x)


def test_unknown_set():
    with pytest.raises(
        ValueError, match=r"data should be one of moons, .*cifar100, or a path to an \.npz file; got 'mnits'"
    ):
        data.load("mnits")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    vision.torchvision()
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


def write_idx(folder, images: np.ndarray, labels: np.ndarray, part: str) -> None:
    """An MNIST-format pair of files."""
    folder.mkdir(parents=True, exist_ok=True)
    for array, name in ((images, f"{part}-images-idx3-ubyte"), (labels, f"{part}-labels-idx1-ubyte")):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
        (folder / name).write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_mnist_format(no_network, tmp_path, monkeypatch, name, folder, by):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    images[0, 0, :2] = 0, 255
    raw = tmp_path / folder / "raw"
    write_idx(raw, images, np.arange(30) % 10, "train")
    write_idx(raw, images[:10], np.arange(10), "t10k")
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path if by == "environment" else tmp_path / "elsewhere"))
    d = data.load(name, None if by == "environment" else tmp_path)
    assert (d.name, d.x.shape, d.x_test.shape) == (name, (30, 1, 28, 28), (10, 1, 28, 28))
    assert (d.x.min(), d.x.max()) == (0, 1)
    np.testing.assert_allclose(d.x[:, 0].numpy(), images / 255, rtol=1e-6)
    assert d.y.tolist() == [i % 10 for i in range(30)]
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "train-images-idx3-ubyte").read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=rf"{folder} is missing or damaged in {tmp_path}"):
        data.load(name, tmp_path)


@pytest.mark.parametrize("name", vision.NAMES)
def test_absent_images_are_said(no_network, tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"{vision.NAMES[name]} is missing.* --data-root or .* PYRO_SSL_DATA"):
        data.load(name, tmp_path)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_beside_any_torch():
    code = """
import torch
try:
    import torchvision  # fails where its CUDA build meets a CPU-only torch
except RuntimeError:
    pass
from pyro_ssl.utils import torchvision_repair as vision
print(vision.torchvision() is vision.torchvision(), hasattr(vision.torchvision().datasets, "MNIST"))
"""
    assert python(code) == "True True"


def test_importing_is_cheap():
    code = """
import sys, pyro_ssl
print([m for m in ('torchvision', 'matplotlib', 'sklearn') if m in sys.modules])
from pyro_ssl import zoo, data, fit, SemiSupervisedClassifier
print([m for m in ('torchvision', 'matplotlib') if m in sys.modules])
"""
    assert python(code).splitlines() == ["[]", "[]"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_colour_images_come_channels_first_in_0_to_1(name, monkeypatch, tmp_path):
    """torchvision gives CIFAR as (N, H, W, C) under `train=`, SVHN as (N, C, H, W) under `split=`."""
    svhn = name == "svhn"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)

    class Images:
        def __init__(self, root, download, **part):
            assert part in ([{"split": "train"}, {"split": "test"}] if svhn else [{"train": True}, {"train": False}])
            self.data = pixels if svhn else pixels.transpose(0, 2, 3, 1)
            self.labels = self.targets = [0, 1, 0, 1]

    fakes = SimpleNamespace(datasets=SimpleNamespace(**dict.fromkeys(("CIFAR10", "CIFAR100", "SVHN"), Images)))
    monkeypatch.setattr(vision, "torchvision", lambda: fakes)
    dataset = data.load(name, tmp_path)
    assert torch.equal(dataset.x, torch.from_numpy(pixels).float() / 255)
    assert dataset.y.tolist() == [0, 1, 0, 1] and dataset.x_shape == (3, 32, 32)
