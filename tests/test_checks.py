"""What is refused before training, by name, and that nothing has changed then."""

import numpy as np
import pyro
import pytest
import torch

from pyro_ssl import fit, one_hot, predict_proba, zoo
from pyro_ssl.checks import as_codes, as_data, check_event_shape, looks_channels_last

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
    "complex tensor": (torch.ones(2, 2, dtype=torch.complex64), TypeError, "real numbers, got torch.complex64"),
    "strings": (np.array([["a", "b"]]), TypeError, "should hold numbers"),
    "objects": (np.array([[{}, 1]]), TypeError, "should hold numbers"),
    "dates": (X.astype("datetime64[s]"), TypeError, "real numbers, got an array of dtype datetime64"),
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
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "uint16", "int64", "bool", "O", ">f4"]
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
    "floats": ([0.0, 1.0, 2.0], TypeError, "integer codes"),
    "NaN": ([0, np.nan, 1], TypeError, "integer codes"),
    "None": ([0, None, 1], TypeError, "integer codes"),
    "bools": ([True, False, True], TypeError, "integer codes"),
    "strings": (["a", "b", "c"], TypeError, "integer codes"),
    "complex": ([1j, 0, 1], TypeError, "integer codes"),
    "short": ([0, 1], ValueError, r"\(3,\), one label per row of x, got \(2,\)"),
    "one-hot": (np.eye(3, dtype=int), ValueError, r"got \(3, 3\)"),
}


@pytest.mark.parametrize(("y", "error", "message"), BAD_CODES.values(), ids=BAD_CODES)
def test_bad_codes_are_refused_by_name(y, error, message):
    with pytest.raises(error, match=f"classes.*{message}"):
        as_codes(y, 3, "classes")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint64", "int64", ">i4"])
def test_codes_of_any_integer_dtype(dtype):
    codes = as_codes(np.array([0, 2, 1], dtype), 3)
    assert codes.dtype == torch.int64
    assert codes.tolist() == [0, 2, 1]


@pytest.mark.parametrize("codes", [[0, 3], [-1, 0]])
def test_one_hot(codes):
    with pytest.raises(ValueError, match=r"0 \.\. 2, got "):
        one_hot(torch.tensor(codes), 3)
    assert one_hot(torch.tensor([[2, 0]]), 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    assert one_hot(torch.tensor([], dtype=torch.int64), 3).shape == (0, 3)


def m2(**options):
    return zoo.build(
        "m2", 3, 3, **{"hidden": (5,), "z_dim": 2, "batch_norm": True, "likelihood": "bernoulli"} | options
    )


REFUSED = {
    "label beyond K": (X, np.where(Y == 2, 7, Y), {}, "got label 7, but .* 3 classes"),
    "labels of other data": (X, Y[:-1], {}, r"y should have shape \(8,\)"),
    "features": (X[:, :2], Y, {}, r"input 0 should have shape \(\*, 3\), got \(2, 2\)"),
    "pixels 0..255": (255 * X, Y, {}, "site 'x' is observed outside .* divide by 255"),
    "other units": (
        1e5 * X,
        Y,
        {"likelihood": "gaussian"},
        "more than 300 times its standard deviation .* larger sigma",
    ),
    "one pixel beyond": (spoiled(1.5), Y, {"labeled_batch_size": 2}, "site 'x' is observed outside"),
    "pixels 0..255, no labels": (255 * X, None, {}, "site 'x' is observed outside"),
    "NaN": (spoiled(np.nan), Y, {}, "x holds NaN"),
    "too large": (X * 1e300, Y, {}, "x holds NaN or infinity"),
    "epochs": (X, Y, {"epochs": 0}, "epochs should be a whole number above 0, got 0"),
    "batch_size": (X, Y, {"batch_size": 1.5}, "batch_size should be a whole number above 0, got 1.5"),
    "labeled_batch_size": (X, Y, {"labeled_batch_size": -1}, "labeled_batch_size should be a whole number"),
    "lr": (X, Y, {"lr": float("nan")}, "lr should be above 0"),
    "ema": (X, Y, {"ema": 1.0}, r"ema should be in \[0, 1\)"),
    "warmup": (X, Y, {"warmup": -1}, "warmup should be 0 or more"),
    "clip_norm": (X, Y, {"clip_norm": 0}, "clip_norm should be above 0"),
    "schedule": (X, Y, {"schedule": "slow"}, "schedule should be one of constant, .*'slow'"),
}


@pytest.mark.parametrize(("x", "y", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_fit_refuses_and_changes_nothing(tmp_path, x, y, arguments, message):
    arguments = dict(arguments)
    objective = m2(likelihood=arguments.pop("likelihood", "bernoulli"))
    objective.sizes = (1, 2)
    before, random = {k: v.clone() for k, v in objective.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        fit(objective, x, y, directory=tmp_path / "run", **{"epochs": 1} | arguments)
    assert all(torch.equal(before[k], v) for k, v in objective.state_dict().items())
    assert objective.training and objective.sizes == (1, 2)
    assert torch.equal(random, torch.get_rng_state())
    assert not list(tmp_path.iterdir())
    assert not pyro.get_param_store()


@pytest.mark.parametrize("y", [Y, np.abs(Y), None], ids=["some labels", "all labels", "no labels"])
def test_batch_larger_than_the_data(y):
    objective = m2()
    before = [p.clone() for p in objective.parameters()]
    history = fit(objective, X, y, epochs=2, batch_size=1000, labeled_batch_size=1000)
    assert len(history["loss"]) == 2
    assert any((a != b).any() for a, b in zip(before, objective.parameters(), strict=True))


def test_data_without_labels_for_a_classifier_are_refused():
    with pytest.raises(ValueError, match="a classifier needs labels"):
        fit(zoo.build("classifier", 3, 3), X)


def test_prediction_checks_its_data():
    with pytest.raises(ValueError, match="x holds NaN"):
        predict_proba(m2(), spoiled(np.nan))


BAD_ZOO = {
    "method": (("m7", 3, 3), {}, "method should be one of"),
    "option": (("m2", 3, 3), {"zdim": 2}, "no option zdim; it has z_dim"),
    "network": (("m2", 3, 3), {"network": "cnn"}, "network should be one of mlp, conv, got 'cnn'"),
    "activation": (("m2", 3, 3), {"activation": "gelu"}, "activation should be one of softplus"),
    "hidden": (("m2", 3, 3), {"hidden": (0,)}, "hidden should be"),
    "z_dim": (("vae", 3, 3), {"z_dim": 0}, "z_dim should be a whole number above 0"),
    "likelihood": (("m2", 3, 3), {"likelihood": "poisson"}, "likelihood should be"),
    "sigma": (("m2", 3, 3), {"likelihood": "gaussian", "sigma": -1.0}, "sigma should be above 0"),
    "sigma 0": (("m2", 3, 3), {"likelihood": "gaussian", "sigma": 0.0}, "sigma should be above 0"),
    "weight": (("m2", 3, 3), {"unlabeled": -1.0}, "unlabeled should be 0 or above"),
    "image": (("m2", 3, 3), {"network": "conv"}, "should have an image"),
    "classifier's image": (("m2", 3, 3), {"classifier_network": "conv"}, "should have an image"),
    "no channels": (("m2", (1, 8, 8), 3), {"network": "conv", "channels": ()}, "and channels"),
    "classifier network": (
        ("m2", 3, 3),
        {"classifier_network": "resnet"},
        "classifier_network should be .* got 'resnet'",
    ),
    "adversary_lr": (("m2_adversarial", 3, 3), {"adversary_lr": -1.0}, "adversary_lr should be above 0"),
    "class_probs": (("m2", 3, 3), {"class_probs": (0.5, 0.5)}, "class_probs should be 3 probabilities above 0"),
    "class_probs of 0": (("sslpe", 3, 3), {"class_probs": (0.5, 0.5, 0.0)}, "class_probs should be 3 probabilities"),
    "class_probs, words": (("vc", 3, 3), {"class_probs": "abc"}, "class_probs should be 3 probabilities"),
    "sigma1": (("m1_m2", 3, 3), {"sigma1": -1.0}, "sigma1 should be above 0"),
    "m1_hidden": (("m1_m2", 3, 3), {"m1_hidden": (0,)}, "m1_hidden should be"),
    "probe_hidden": (("vae", 3, 3), {"probe_hidden": (0,)}, "probe_hidden should be"),
    "prior_scale": (("sslpe", 3, 3), {"prior_scale": 0.0}, "prior_scale should be above 0"),
    "adapted": (("sslapd", 3, 3), {"adapted": False}, "adapted=False needs local=False"),
    "free bits of a flow": (("m2", 3, 3), {"free_bits": 1.0, "flow": 1}, "free_bits are of"),
    "free bits of a vamp prior": (("adgm", 3, 3), {"free_bits": 1.0, "prior": "vamp"}, "free_bits are of"),
    "free bits of a mixture": (("sslpe", 3, 3), {"free_bits": 1.0, "mixture": True}, "no free_bits"),
}


@pytest.mark.parametrize(("where", "options", "message"), BAD_ZOO.values(), ids=BAD_ZOO)
def test_a_method_refuses_options_by_name(where, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(*where, **options)


OTHER_SHAPES = {
    "flat rows": ((5, 784), (1, 28, 28), r"rows of shape \(1, 28, 28\), got \(5, 784\).*x.reshape\(-1, 1, 28, 28\)"),
    "no channel": ((5, 28, 28), (1, 28, 28), r"\(N, 1, 28, 28\).*got \(5, 28, 28\); add the channel.* x\[:, None\]"),
    "channels last": ((5, 8, 6, 3), (3, 8, 6), r"got \(5, 8, 6, 3\); move the channels .*x.transpose\(0, 3, 1, 2\)"),
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
        ((28, 28, 1), True), ((32, 24, 3), True), ((64, 64, 4), True),
        ((1, 28, 28), False), ((3, 32, 32), False), ((3, 3, 3), False), ((512, 1, 1), False), ((16, 4, 4), False),
        ((28, 28), False), ((784,), False),
    ],
)  # fmt: skip
def test_channels_last_is_recognised(shape, expected):
    assert looks_channels_last(shape) is expected
