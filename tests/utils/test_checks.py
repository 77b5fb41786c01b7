"""What is refused before training, by name, and that nothing has changed then."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_ssl import (
    Objective,
    bounds,
    class_bounds,
    fit,
    one_hot,
    predict_proba,
    zoo,
)
from pyro_ssl.data.labels import LabelWarning, labels_found, warn_of_missing_classes
from pyro_ssl.utils.arguments import (
    as_codes,
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
    "complex tensor": (torch.ones(2, 2, dtype=torch.complex64), TypeError, "real numbers, got torch.complex64"),
    "strings": (np.array([["a", "b"]]), TypeError, "should hold numbers"),
    "objects": (np.array([[{}, 1]]), TypeError, "should hold numbers"),
    "dates": (X.astype("datetime64[s]"), TypeError, "real numbers, got an array of dtype datetime64"),
    "masked": (np.ma.array(X, mask=X > 0.9), ValueError, r"3 masked entries, first in row 7; .*, as by pixels\.filled\(value\)"),
    "rows, one masked": ([X[0], np.ma.array(X[1], mask=[0, 1, 0])], ValueError, "1 masked entries, first in row 1"),
    "scipy's sparse": (scipy.sparse.csr_matrix(X), TypeError, r"a dense array, got a sparse csr_matrix.*toarray\(\)"),
    "sparse array": (scipy.sparse.coo_array(X), TypeError, r"a dense array, got a sparse coo_array.*toarray\(\)"),
    "torch's sparse": (torch.tensor(X).to_sparse(), TypeError, r"a dense array, got a sparse tensor.*to_dense\(\)"),
    "picture": (Image.new("L", (4, 4)), TypeError, r"\(N, C, H, W\) in \[0, 1\], got PIL images; give torch.stack"),
    "pictures": ([Image.new("RGB", (4, 4))] * 2, TypeError, "got PIL images"),
    "tuple": ((torch.ones(4, 2), torch.ones(4)), TypeError, "one array whose rows are data, got a tuple of 2"),
    "tuple of equal arrays": ((X, X), TypeError, "one array whose rows are data, got a tuple of 2"),
    "rows of two lengths": ([[1.0, 2.0], [1.0]], ValueError, "rows of the same shape"),
    "Dataset": (TensorDataset(torch.ones(4, 2)), TypeError, "got a TensorDataset; pyro_ssl.data.from_torch"),
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
    "-1 without a sign": (
        np.array([0, 1, -1]).astype("uint8"),
        ValueError,
        "uint8 and holds 255, which is what -1 becomes",
    ),
    "-1 in a tensor without": (torch.tensor([0, 1, 255], dtype=torch.uint8), ValueError, "uint8 and holds 255"),
    "-1 in 64 bits": (np.array([0, 1, -1]).astype("uint64"), ValueError, "uint64 and holds 18446744073709551615"),
    "sparse": (scipy.sparse.coo_array([0, 1, 1]), TypeError, "dense array, got a sparse coo_array"),
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


def test_masked_labels_are_missing():
    hidden = np.array([False, True, True, False])
    assert as_codes(np.ma.array([0, 1, 1, 2], mask=hidden), 4).tolist() == [0, -1, -1, 2]
    assert as_codes(np.ma.array([0, 255, 1, 2], mask=hidden, dtype=np.uint8), 4).tolist() == [0, -1, -1, 2]
    assert as_codes(np.ma.array([0, 1, 1, 2]), 4).tolist() == [0, 1, 1, 2]
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


def test_fit_takes_masked_labels_as_missing():
    objective = m2()
    fit(objective, X, np.ma.array(np.abs(Y), mask=Y < 0), epochs=1)
    assert objective.sizes == (6, 2)


def test_messages_do_not_print_whole_arrays():
    for call in (lambda v: zoo.build("m2", 3, 3, class_probs=v), lambda v: fit(m2(), X, Y, epochs=v)):
        with pytest.raises(ValueError, match="(class_probs|epochs) should be") as told:
            call(np.linspace(0.1, 0.2, 900))
        assert len(str(told.value)) < 200
    with pytest.raises(ValueError, match="class_probs has 1 masked entries"):
        zoo.build("m2", 3, 3, class_probs=np.ma.array([0.2, 0.3, 0.5], mask=[0, 0, 1]))


def test_masked_one_hot_labels_are_refused():
    y = np.ma.array(np.eye(3)[np.abs(Y)], mask=np.tile(Y[:, None] < 0, 3))
    with pytest.raises(ValueError, match="y has 6 masked entries, first in row 3"):
        bounds(m2(), X, y)


def test_a_class_without_a_label_is_named():
    with pytest.warns(LabelWarning, match="no row of class 2 has a label; label one at least of each class$"):
        fit(m2(), X, np.where(Y == 2, -1, Y), epochs=1)
    with pytest.warns(
        LabelWarning, match=r"class 0 has a label.*\(-1 stands for no label: classes -1 and 1 should be .* 0 and 1"
    ):
        fit(zoo.build("m2", 3, 2, hidden=(5,), z_dim=2), X, np.where(Y == 1, 1, -1), epochs=1)
    with pytest.warns(LabelWarning) as told:
        warn_of_missing_classes([0], [f"c{k}" for k in range(1000)])
    assert "no row of classes 'c1', 'c2'," in str(told[0].message) and "and 989 more" in str(told[0].message)
    assert len(str(told[0].message)) < 300
    warn_of_missing_classes(Y, "abc")  # each has one


def test_what_was_found_is_said_in_one_line():
    assert (
        labels_found(Y, ["cat", "dog", "owl"]) == "labels: 2 of 'cat', 2 of 'dog', 2 of 'owl'; 2 rows without a label"
    )
    many = labels_found(torch.tensor([0, 0, -1]), range(1000))
    assert many == "labels: 2, 0 to 2 of each of 1000 classes; 1 rows without a label"


class Words(nn.Module):
    """p(x|y) of rows of word numbers."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.logits = nn.Embedding(2, words)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(2, dtype=torch.float32)), obs=y)
            p = dist.Categorical(logits=self.logits(y.argmax(-1))[..., None, :].expand(*y.shape[:-1], x.shape[-1], -1))
            pyro.sample("x", p.to_event(1), obs=x)


class Reader(nn.Module):
    """q(y|x) of the mean of word vectors, which wants whole numbers."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(words, 4)
        self.out = nn.Linear(4, 2)
        self.seen: list[torch.dtype] = []

    def classify(self, x):
        self.seen.append(x.dtype)
        return dist.OneHotCategorical(logits=self.out(self.vectors(x)))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", self.classify(x), infer={"enumerate": "parallel"})


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_whole_numbers_stay_whole_for_an_embedding(dtype):
    torch.manual_seed(0)
    rng, y = np.random.default_rng(0), np.arange(60) % 2
    tokens = (rng.integers(0, 10, (60, 6)) + 10 * y[:, None]).astype(dtype)
    objective = Objective(Words(20), Reader(20))
    fit(objective, tokens, np.where(np.arange(60) < 10, y, -1), epochs=100, lr=0.1)
    assert set(objective.guide.seen) == {torch.int64}
    assert (predict_proba(objective, tokens).argmax(-1).numpy() == y).mean() > 0.9
    assert class_bounds(objective, tokens).argmax(-1).tolist() == y.tolist()
    assert bounds(objective, tokens, one_hot(torch.tensor(y), 2)).isfinite().all()
    assert set(objective.guide.seen) == {torch.int64}


def test_whole_numbers_become_those_of_the_weights_elsewhere():
    objective = m2()
    fit(objective, (X > 0.5).astype(np.int64), Y, epochs=1)
    assert predict_proba(objective, (X > 0.5).astype(np.int64)).shape == (8, 3)


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
    "option": (("m2", 3, 3), {"zdim": 2}, "no option zdim; did you mean 'z_dim'"),
    "network": (("m2", 3, 3), {"network": "cnn"}, "network should be one of mlp, conv, got 'cnn'"),
    "activation": (("m2", 3, 3), {"activation": "gelu"}, "activation should be one of softplus"),
    "hidden": (("m2", 3, 3), {"hidden": (0,)}, "hidden should be"),
    "z_dim": (("vae", 3, 3), {"z_dim": 0}, "z_dim should be a whole number above 0"),
    "likelihood": (("m2", 3, 3), {"likelihood": "poisson"}, "likelihood should be"),
    "sigma": (("m2", 3, 3), {"likelihood": "gaussian", "sigma": -1.0}, "sigma should be above 0"),
    "sigma 0": (("m2", 3, 3), {"likelihood": "gaussian", "sigma": 0.0}, "sigma should be above 0"),
    "weight": (("m2", 3, 3), {"unlabeled_weight": -1.0}, "unlabeled_weight should be 0 or above"),
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
    "norm_from_mean_weights": (
        ("sslapd", 3, 3),
        {"norm_from_mean_weights": False},
        "norm_from_mean_weights=False needs local_reparameterisation=False",
    ),
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


LAST = (8, 8, 3)
CHANNELS_LAST = {
    "conv": {"network": "conv"},
    "classifier": {"classifier_network": "conv"},
    "backbone": {"backbone": "cnn-8"},
    "warp": {"warp": 0.1},
    "crop": {"crop": 1},
    "flip": {"flip": True},
}


@pytest.mark.parametrize("options", CHANNELS_LAST.values(), ids=CHANNELS_LAST)
def test_methods_that_know_images_refuse_channels_last(options):
    with pytest.raises(ValueError, match=r"\(C, H, W\).*\(8, 8, 3\) looks like \(H, W, C\)"):
        zoo.build("m2", LAST, 2, **options)
    zoo.build("m2", (3, 8, 8), 2, **options)
    zoo.build("m2", LAST, 2)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="classes should be 2 or above, got 1"):
        zoo.build("m2", 3, 1)
