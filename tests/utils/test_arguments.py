"""Arrays, labels and shapes that users give, and what is refused by name."""

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from pyro_ssl import (
    bounds,
    fit,
    one_hot,
    zoo,
)
from pyro_ssl.utils.arguments import (
    as_class_indices,
    as_data,
    as_tensor,
    as_values,
    check_event_shape,
    looks_channels_last,
)

X = np.linspace(0, 1, 24).reshape(8, 3)


Y = np.array([0, 1, 2, -1, -1, 0, 1, 2])


def spoiled(value: float) -> np.ndarray:
    x = X.copy()
    x[5, 1] = value
    return x


BAD_DATA = {
    "NaN": (spoiled(np.nan), ValueError, "first in row 5"),
    "infinity": (spoiled(-np.inf), ValueError, "first in row 5"),
    "None": (np.array([[None, 1.0]]), ValueError, "NaN or infinity"),
    "empty": (X[:0], ValueError, r"empty: shape \(0, 3\)"),
    "no feature": (X[:, :0], ValueError, r"empty: shape \(8, 0\)"),
    "one dimension": (X[:, 0], ValueError, r"got \(8,\); one feature is \(data, 1\)"),
    "a number": (3.0, ValueError, r"got \(\)"),
    "complex array": (X + 1j, TypeError, "real numbers, got an array of dtype complex128"),
    "complex tensor": (
        torch.ones(2, 2, dtype=torch.complex64),
        TypeError,
        "real numbers, got torch.complex64",
    ),
    "strings": (np.array([["a", "b"]]), TypeError, "should hold numbers"),
    "objects": (np.array([[{}, 1]]), TypeError, "should hold numbers"),
    "dates": (
        X.astype("datetime64[s]"),
        TypeError,
        "real numbers, got an array of dtype datetime64",
    ),
    "masked": (
        np.ma.array(X, mask=X > 0.9),
        ValueError,
        r"3 masked entries, first in row 7; .*, as by pixels\.filled\(value\)",
    ),
    "rows, one masked": (
        [X[0], np.ma.array(X[1], mask=[0, 1, 0])],
        ValueError,
        "1 masked entries, first in row 1",
    ),
    "scipy's sparse": (
        scipy.sparse.csr_matrix(X),
        TypeError,
        r"a dense array, got a sparse csr_matrix.*toarray\(\)",
    ),
    "sparse array": (
        scipy.sparse.coo_array(X),
        TypeError,
        r"a dense array, got a sparse coo_array.*toarray\(\)",
    ),
    "torch's sparse": (
        torch.tensor(X).to_sparse(),
        TypeError,
        r"a dense array, got a sparse tensor.*to_dense\(\)",
    ),
    "picture": (
        Image.new("L", (4, 4)),
        TypeError,
        r"\(N, C, H, W\) in \[0, 1\], got PIL images; give torch.stack",
    ),
    "pictures": ([Image.new("RGB", (4, 4))] * 2, TypeError, "got PIL images"),
    "tuple": (
        (torch.ones(4, 2), torch.ones(4)),
        TypeError,
        "one array whose rows are data, got a tuple of 2",
    ),
    "tuple of equal arrays": ((X, X), TypeError, "one array whose rows are data, got a tuple of 2"),
    "rows of two lengths": ([[1.0, 2.0], [1.0]], ValueError, "rows of the same shape"),
    "Dataset": (
        TensorDataset(torch.ones(4, 2)),
        TypeError,
        "got a TensorDataset; pyro_ssl.data.from_torch",
    ),
    "DataLoader": (
        DataLoader(TensorDataset(torch.ones(4, 2))),
        TypeError,
        "got a DataLoader; pyro_ssl.data.from_torch",
    ),
}


@pytest.mark.parametrize(("x", "error", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_refused_by_name(x, error, message):
    with pytest.raises(error, match=f"pixels.*{message}"):
        as_data(x, "pixels")


def test_too_large_for_its_dtype():
    assert as_data(X * 1e300).dtype == torch.float64
    with pytest.raises(ValueError, match=r"NaN or infinity, first in row 0, as torch\.float32"):
        as_data(X * 1e300, dtype=torch.float32)


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "int8", "uint8", "uint16", "int64", "bool", "O", ">f4"],
)
def test_any_real_dtype_is_data(dtype):
    given = np.arange(6).reshape(3, 2).astype(dtype)
    given.flags.writeable = False
    for array in (given, given[::-1], given.T):
        x = as_data(array)
        assert x.dtype == (torch.float64 if dtype in ("float64", "O") else torch.float32)
        assert x.tolist() == array.astype(float).tolist()


BAD_CODES = {
    "below -1": ([0, -2, 1], ValueError, "0 .. K - 1, or -1 for unlabeled, got -2"),
    "floats": ([0.0, 1.0, 2.0], TypeError, "class indices"),
    "NaN": ([0, np.nan, 1], TypeError, "class indices"),
    "None": ([0, None, 1], TypeError, "class indices"),
    "bools": ([True, False, True], TypeError, "class indices"),
    "strings": (["a", "b", "c"], TypeError, "class indices"),
    "complex": ([1j, 0, 1], TypeError, "class indices"),
    "short": ([0, 1], ValueError, r"\(3,\), one label per row of x, got \(2,\)"),
    "one-hot": (np.eye(3, dtype=int), ValueError, r"got \(3, 3\)"),
    "-1 without a sign": (
        np.array([0, 1, -1]).astype("uint8"),
        ValueError,
        "uint8 and holds 255, which is what -1 becomes",
    ),
    "-1 in a tensor without": (
        torch.tensor([0, 1, 255], dtype=torch.uint8),
        ValueError,
        "uint8 and holds 255",
    ),
    "-1 in 64 bits": (
        np.array([0, 1, -1]).astype("uint64"),
        ValueError,
        "uint64 and holds 18446744073709551615",
    ),
    "sparse": (scipy.sparse.coo_array([0, 1, 1]), TypeError, "dense array, got a sparse coo_array"),
}


@pytest.mark.parametrize(("y", "error", "message"), BAD_CODES.values(), ids=BAD_CODES)
def test_bad_codes_are_refused_by_name(y, error, message):
    with pytest.raises(error, match=f"classes.*{message}"):
        as_class_indices(y, 3, "classes")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint64", "int64", ">i4"])
def test_codes_of_any_integer_dtype(dtype):
    indices = as_class_indices(np.array([0, 2, 1], dtype), 3)
    assert indices.dtype == torch.int64
    assert indices.tolist() == [0, 2, 1]


def test_masked_labels_are_missing():
    hidden = np.array([False, True, True, False])
    assert as_class_indices(np.ma.array([0, 1, 1, 2], mask=hidden), 4).tolist() == [0, -1, -1, 2]
    assert as_class_indices(
        np.ma.array([0, 255, 1, 2], mask=hidden, dtype=np.uint8), 4
    ).tolist() == [
        0,
        -1,
        -1,
        2,
    ]
    assert as_class_indices(np.ma.array([0, 1, 1, 2]), 4).tolist() == [0, 1, 1, 2]
    values, known = as_values(np.ma.array([0.5, 1.0, 2.0, 3.0], mask=hidden), 4, 1)
    assert known.tolist() == (~hidden).tolist() and values[known].flatten().tolist() == [0.5, 3.0]
    values, known = as_values(np.ma.array([1, 2, 3, 4], mask=hidden), 4, 1)
    assert known.tolist() == (~hidden).tolist() and values[known].flatten().tolist() == [1.0, 4.0]
    with pytest.raises(ValueError, match="NaN in all of a row"):
        as_values(np.ma.array(np.ones((4, 2)), mask=[[False, True]] * 4), 4, 2)


def test_an_array_whose_mask_hides_nothing_is_data():
    assert as_data(np.ma.array(X)).tolist() == X.tolist()
    assert as_data(tuple(map(tuple, X))).tolist() == X.tolist()
    assert as_tensor([1, 2], "y").tolist() == [1, 2]


def test_messages_do_not_print_whole_arrays():
    for call in (
        lambda v: zoo.build("m2", 3, 3, class_probs=v),
        lambda v: fit(m2(), X, Y, epochs=v),
    ):
        with pytest.raises(ValueError, match="(class_probs|epochs) should be") as told:
            call(np.linspace(0.1, 0.2, 900))
        assert len(str(told.value)) < 200
    with pytest.raises(ValueError, match="class_probs has 1 masked entries"):
        zoo.build("m2", 3, 3, class_probs=np.ma.array([0.2, 0.3, 0.5], mask=[0, 0, 1]))


def test_masked_one_hot_labels_are_refused():
    y = np.ma.array(np.eye(3)[np.abs(Y)], mask=np.tile(Y[:, None] < 0, 3))
    with pytest.raises(ValueError, match="y has 6 masked entries, first in row 3"):
        bounds(m2(), X, y)


@pytest.mark.parametrize("indices", [[0, 3], [-1, 0]])
def test_one_hot(indices):
    with pytest.raises(ValueError, match=r"0 \.\. 2, got "):
        one_hot(torch.tensor(indices), 3)
    assert one_hot(torch.tensor([[2, 0]]), 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    assert one_hot(torch.tensor([], dtype=torch.int64), 3).shape == (0, 3)


def m2(**options):
    return zoo.build(
        "m2",
        3,
        3,
        **{"hidden": (5,), "z_dim": 2, "batch_norm": True, "likelihood": "bernoulli"} | options,
    )


OTHER_SHAPES = {
    "flat rows": (
        (5, 784),
        (1, 28, 28),
        r"rows of shape \(1, 28, 28\), got \(5, 784\).*x.reshape\(-1, 1, 28, 28\)",
    ),
    "no channel": (
        (5, 28, 28),
        (1, 28, 28),
        r"\(N, 1, 28, 28\).*got \(5, 28, 28\); add the channel.* x\[:, None\]",
    ),
    "channels last": (
        (5, 8, 6, 3),
        (3, 8, 6),
        r"got \(5, 8, 6, 3\); move the channels .*x.transpose\(0, 3, 1, 2\)",
    ),
    "one row": ((3, 8, 6), (3, 8, 6), r"got \(3, 8, 6\); for a single row give x\[None\]"),
    "sides swapped": ((5, 3, 6, 8), (3, 8, 6), r"rows of shape \(3, 8, 6\), got \(5, 3, 6, 8\)"),
    "other columns": ((5, 3), (4,), r"\(N, 4\), rows of shape \(4,\), got \(5, 3\)$"),
    "one dimension": ((4,), (2, 2), r"rows of shape \(2, 2\), got \(4,\)"),
}


@pytest.mark.parametrize(("got", "wanted", "message"), OTHER_SHAPES.values(), ids=OTHER_SHAPES)
@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_rows_of_another_shape_are_refused_with_both_shapes(got, wanted, message, make):
    with pytest.raises(ValueError, match=message):
        check_event_shape(make(got), wanted)
    check_event_shape(make((5, *wanted)), wanted)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 1), True),
        ((32, 24, 3), True),
        ((64, 64, 4), True),
        ((1, 28, 28), False),
        ((3, 32, 32), False),
        ((3, 3, 3), False),
        ((512, 1, 1), False),
        ((16, 4, 4), False),
        ((28, 28), False),
        ((784,), False),
    ],
)
def test_channels_last_is_recognised(shape, expected):
    assert looks_channels_last(shape) is expected


def test_images_of_uint8_are_pixels():
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    assert as_data(pixels).equal(pixels.float() / 255)
    assert as_data(pixels.numpy(), dtype=torch.float64).equal(pixels.double() / 255)
    assert as_data(pixels, integers=True).equal(pixels.long())
    for other in (pixels.flatten(1), pixels.int(), pixels[:, 0]):
        assert as_data(other).equal(other.float())
    assert as_data(torch.zeros(5, 1, 4, 4, dtype=torch.uint8)).sum() == 0


def test_binary_images_of_uint8_are_refused():
    with pytest.raises(ValueError, match="uint8 with no number above 1.*binary images as float32"):
        as_data(torch.ones(5, 1, 4, 4, dtype=torch.uint8))
