"""The scikit-learn estimators: conventions, labels, refused input, and state after a refusal."""

import json
import pickle
import random
import warnings

import numpy as np
import pyro
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyro_ssl import SemiSupervisedClassifier, SemiSupervisedRegressor, data, zoo
from pyro_ssl.estimator import column_defaults
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo import presets

EXPECTED_FAILURES = {
    "check_classifiers_classes": "it takes -1 for a class; here -1 means that a row has no label"
}
UNLABELED = np.array([i % 10 >= 2 for i in range(40)])


def tiny(**arguments) -> SemiSupervisedClassifier:
    options = {"hidden": (8,), "z_dim": 2, "sigma": 1.0}
    return SemiSupervisedClassifier(
        **{"epochs": 2, "min_steps": 30, "lr": 0.03, "options": options, "random_state": 0}
        | arguments
    )


def tiny_regressor(**arguments) -> SemiSupervisedRegressor:
    options = {"hidden": (8,), "z_dim": 2, "gibbs_steps": 3}
    return SemiSupervisedRegressor(
        **{"epochs": 2, "min_steps": 40, "lr": 0.03, "options": options, "random_state": 0}
        | arguments
    )


@parametrize_with_checks(
    [tiny(min_steps=40), tiny_regressor()],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture
def blobs():
    """Two far blobs of 20 rows each, and the blob of each row."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(-2, 0.3, (20, 2)), rng.normal(2, 0.3, (20, 2))]), np.repeat(
        [0, 1], 20
    )


def masked(values: np.ndarray, missing) -> np.ndarray:
    """Object array of labels, `missing` where there is none."""
    y = values.astype(object)
    y[UNLABELED] = missing
    return y


class NAType:
    """As pandas' NA: it compares with nothing."""

    def __eq__(self, other):
        return self

    __ne__ = __eq__
    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


LABELS = {
    "5 and 9": lambda blob: np.where(UNLABELED, -1, np.array([5, 9])[blob]),
    "floats, nan": lambda blob: np.where(UNLABELED, np.nan, np.array([5.0, 9.0])[blob]),
    "floats, -1": lambda blob: np.where(UNLABELED, -1.0, np.array([5.0, 9.0])[blob]),
    "negative": lambda blob: np.where(UNLABELED, -1, np.array([-3, -2])[blob]),
    "strings, '-1'": lambda blob: np.where(UNLABELED, "-1", np.array(["dog", "cat"])[blob]),
    "strings, 'nan'": lambda blob: np.array(
        ["nan" if u else "ab"[b] for u, b in zip(UNLABELED, blob, strict=True)]
    ),
    "objects, None": lambda blob: masked(np.array(["dog", "cat"])[blob], None),
    "objects, nan": lambda blob: masked(np.array(["dog", "cat"])[blob], np.nan),
    "objects, -1": lambda blob: masked(np.array(["dog", "cat"])[blob], -1),
    "strings, ''": lambda blob: np.where(UNLABELED, "", np.array(["dog", "cat"])[blob]),
    "pandas' NA": lambda blob: masked(np.array(["dog", "cat"])[blob], NAType()),
    "whole numbers, None": lambda blob: masked(np.array([5, 9])[blob], None),
    "list": lambda blob: masked(np.array([True, False])[blob], None).tolist(),
    "numpy's mask": lambda blob: np.ma.array(np.array([5, 9])[blob], mask=UNLABELED),
    "numpy's mask of strings": lambda blob: np.ma.array(
        np.array(["dog", "cat"])[blob], mask=UNLABELED
    ),
    "all labeled": lambda blob: np.array(["b", "a"])[blob],
}


@pytest.mark.parametrize("make", LABELS.values(), ids=LABELS)
def test_any_labels(blobs, make):
    x, blob = blobs
    y = make(blob)
    known = ~UNLABELED if np.ma.is_masked(y) or len(set(y)) > 2 else np.ones(40, bool)
    truth = np.array([next(y[i] for i in np.flatnonzero(known) if blob[i] == b) for b in (0, 1)])[
        blob
    ]
    model = tiny().fit(x, y)
    probs = model.predict_proba(x)
    assert model.classes_.tolist() == sorted(set(truth.tolist()))
    assert (
        model.class_count_.sum() + model.n_unlabeled_ == 40 and model.n_unlabeled_ == (~known).sum()
    )
    assert model.class_count_.tolist() == [(truth[known] == c).sum() for c in model.classes_]
    assert probs.shape == (40, 2)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    assert model.predict(x).tolist() == truth.tolist()
    assert (model.classes_[probs.argmax(1)] == truth).all()
    assert model.score(x, truth) == 1
    assert len(model.history_["loss"]) == model.n_iter_
    assert np.isfinite(model.history_["loss"]).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "bool", "object", ">f8"])
def test_any_numbers(blobs, dtype):
    x, blob = blobs
    x = (x > 0).astype(dtype) if dtype == "bool" else (10 * x).astype(dtype)
    assert tiny().fit(x, blob).score(x, blob) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": False},
        {"batch_size": 10_000},
        {"method": "vae", "min_steps": 300},
        {"random_state": None},
    ],
)
@pytest.mark.filterwarnings("ignore:method vae is not for columns")
def test_any_settings(blobs, arguments):
    x, blob = blobs
    assert tiny(**arguments).fit(x, np.where(UNLABELED, -1, blob)).score(x, blob) > 0.9


@pytest.mark.parametrize("shape", [(40, 1), (40, 1, 2, 2)])
def test_one_feature_and_images(blobs, shape):
    _, blob = blobs
    rows = (blob + 0.01 * np.arange(40)).reshape(-1, *[1] * (len(shape) - 1)) / 2
    x = np.broadcast_to(rows, shape)
    assert tiny().fit(x, blob).predict_proba(x).shape == (40, 2)


def test_images_are_taken_as_they_are(blobs):
    x, y = np.random.default_rng(0).uniform(size=(40, 1, 4, 4)), blobs[1]
    fitted = lambda x, **arguments: SemiSupervisedClassifier(  # noqa: E731
        options={"hidden": (4,)}, epochs=1, min_steps=1, **arguments
    ).fit(x, y)
    model = fitted(x)
    assert model.mean_.max() == 0 and model.std_.min() == model.std_.max() == 1
    assert "sigma" not in model.options_ and "noise" not in model.options_
    np.testing.assert_allclose(fitted(x, scale=True).mean_, x.mean(0))
    with pytest.raises(
        ValueError,
        match=r"X, as images, should be in \[0, 1\], got 0.\d+ to 25\d; divide 0 .. 255 by 255",
    ):
        fitted(255 * x)
    assert fitted(255 * x, scale=True).predict_proba(255 * x).shape == (40, 2)
    with pytest.raises(ValueError, match="divide 0 .. 255 by 255"):
        model.predict_proba(255 * x)


def test_learns_two_moons_from_six_labels():
    moons = data.two_moons(n=300, n_test=300)
    y = data.draw_labels(moons.y, 6).masked_labels(moons.y)
    model = SemiSupervisedClassifier(min_steps=250, options={"hidden": (32, 32)}, random_state=0)
    assert model.fit(moons.x, y).score(moons.x_test.numpy(), moons.y_test.numpy()) > 0.8


def test_same_seed_same_result(blobs):
    x, blob = blobs
    one, again, other = (tiny(random_state=s).fit(x, blob).predict_proba(x) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("labels", ["5 and 9", "floats, nan", "objects, None", "list"])
def test_saved_and_loaded(blobs, tmp_path, monkeypatch, labels):
    x, blob = blobs
    model = tiny(epochs=np.int64(2), training={"ema": 0.9}).fit(x, LABELS[labels](blob))
    tiny(method="classifier", options={"hidden": (3,)}).fit(x, blob).save(tmp_path / "m")
    model.save(tmp_path / "m")  # over another model
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(torch, "load", None)
    again = SemiSupervisedClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert again.classes_.dtype == model.classes_.dtype
    assert (
        again.class_count_.tolist() == model.class_count_.tolist()
        and again.n_unlabeled_ == model.n_unlabeled_
    )
    assert again.predict(x).tolist() == model.predict(x).tolist()
    assert again.history_ == model.history_
    without_options = [m.get_params(deep=False) | {"options": None} for m in (again, model)]
    assert without_options[0] == without_options[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    with pytest.raises(ValueError, match="features"):
        again.predict(x[:, :1])


def test_a_save_is_read_by_its_own_class(blobs, tmp_path):
    x, blob = blobs
    tiny(min_steps=1).fit(x, blob).save(tmp_path / "classes")
    tiny_regressor(min_steps=1).fit(x, x[:, 0]).save(tmp_path / "real")
    said = "holds a {0}, not a {1}; read it with {0}.load"
    for name, right, wrong in (
        ("classes", SemiSupervisedClassifier, SemiSupervisedRegressor),
        ("real", SemiSupervisedRegressor, SemiSupervisedClassifier),
    ):
        with pytest.raises(CheckpointError, match=said.format(right.__name__, wrong.__name__)):
            wrong.load(tmp_path / name)
        assert type(right.load(tmp_path / name)) is right


def test_damaged_or_missing_save_is_said(blobs, tmp_path):
    model = tiny().fit(*blobs)
    model.save(tmp_path / "m")
    file = tmp_path / "m" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged"):
        SemiSupervisedClassifier.load(tmp_path / "m")
    with pytest.raises(FileNotFoundError, match="nothing here"):
        SemiSupervisedClassifier.load(tmp_path / "nothing here")
    assert json.loads((tmp_path / "m" / "state.json").read_text())["format"] == "pyro-ssl"


def test_classes_are_as_frequent_as_their_labels(tmp_path):
    rng = np.random.default_rng(0)
    y = (rng.random(1500) < 0.1).astype(int)
    x = rng.normal(size=(1500, 3)) + 1.2 * y[:, None]
    labels = np.where(np.arange(1500) < 200, y, -1)
    few, even = (tiny(min_steps=100, options=o).fit(x, labels) for o in ({}, {"class_probs": None}))
    counts = np.bincount(y[:200]) + 3
    np.testing.assert_allclose(
        few.objective_.model.p_y().probs.numpy(), counts / counts.sum(), rtol=1e-6
    )
    assert even.predict(x).mean() > few.predict(x).mean()
    assert few.score(x, y) > max(even.score(x, y), 0.9)
    of_array = tiny(min_steps=100, options={"class_probs": counts / counts.sum()}).fit(x, labels)
    np.testing.assert_allclose(of_array.predict_proba(x), few.predict_proba(x), rtol=1e-5)
    of_array.save(tmp_path / "array")
    few.save(tmp_path / "m")
    np.testing.assert_array_equal(
        SemiSupervisedClassifier.load(tmp_path / "m").predict_proba(x), few.predict_proba(x)
    )


def test_what_needs_pickling_is_left_out(blobs, tmp_path):
    training = {
        "optimizer": torch.optim.SGD,
        "ema": np.float32(0.5),
        "transform": torch.sign,
        "callbacks": (print,),
    }
    model = tiny(lr=1e-5, training=training).fit(*blobs)
    model.save(tmp_path / "m")
    again = SemiSupervisedClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(blobs[0]), model.predict_proba(blobs[0]))
    assert again.training == {"ema": 0.5} and model.training is training


def test_leaves_random_states_and_parameter_store(blobs):
    pyro.param("mine", torch.ones(1))
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate())
    model = tiny().fit(*blobs)
    model.predict_proba(blobs[0])
    assert before == (
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        random.getstate(),
    )
    assert list(pyro.get_param_store()) == ["mine"]


def test_labels_found_are_said(blobs, capsys):
    x, blob = blobs
    tiny(verbose=True).fit(x, np.where(UNLABELED, "", np.array(["dog", "cat"])[blob]))
    assert capsys.readouterr().out == "labels: 4 of 'cat', 4 of 'dog'; 32 rows without a label\n"
    tiny_regressor(verbose=True).fit(x, np.where(UNLABELED, np.nan, x[:, 0]))
    assert capsys.readouterr().out == "labels: 8 rows; 32 rows without a label\n"


def test_no_array_is_misread(blobs):
    x, blob = blobs
    wrong = {
        "X has 1 masked entries, first in row 3": np.ma.array(
            x, mask=spoiled(np.zeros(x.shape), 1)
        ),
        "X should be an array .* got PIL images": Image.new("L", (2, 40)),
        "X should be one array whose rows are data, got a tuple of 2": (x, x),
    }
    fitted = tiny().fit(x, blob)
    for message, X in wrong.items():
        for call in (lambda X: tiny().fit(X, blob), fitted.predict, fitted.predict_proba):
            with pytest.raises((ValueError, TypeError), match=message):
                call(X)
    np.testing.assert_array_equal(fitted.predict_proba(np.ma.array(x)), fitted.predict_proba(x))


def test_unfitted(blobs, tmp_path):
    for call in (
        lambda m: m.predict(blobs[0]),
        lambda m: m.predict_proba(blobs[0]),
        lambda m: m.save(tmp_path / "m"),
    ):
        with pytest.raises(NotFittedError):
            call(tiny())


def spoiled(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x[3, 1] = value
    return x


REFUSED = {  # what is given, and what the message says
    "no label": (lambda x, y: (x, np.full(40, -1)), {}, "y has no label"),
    "no label, None": (lambda x, y: (x, [None] * 40), {}, "y has no label"),
    "one class": (lambda x, y: (x, np.where(UNLABELED, -1, 3)), {}, "one class only"),
    "-1 and 1": (
        lambda x, y: (x, 2 * y - 1),
        {},
        "one class only, 1; .* write classes -1 and 1 as 0 and 1",
    ),
    "-1 without a sign": (
        lambda x, y: (x, np.where(UNLABELED, -1, y).astype("u1")),
        {},
        "uint8 and holds 255",
    ),
    "no y": (lambda x, y: (x, None), {}, "y should hold labels"),
    "short y": (lambda x, y: (x, y[:-1]), {}, r"per row of X, 40; got 39"),
    "two columns": (lambda x, y: (x, np.stack([y, y], 1)), {}, "y should be a 1d array"),
    "fractions": (lambda x, y: (x, y + 0.5), {}, "whole numbers or strings"),
    "fractions, None": (lambda x, y: (x, masked(y + 0.5, None)), {}, "whole numbers or strings"),
    "infinite y": (lambda x, y: (x, np.where(y, np.inf, 0)), {}, "y holds infinity"),
    "mixed y": (lambda x, y: (x, np.array([1, "a"] * 20, object)), {}, "strings or numbers"),
    "dates": (lambda x, y: (x, y.astype("datetime64[D]")), {}, "whole numbers or strings"),
    "NaN": (lambda x, y: (spoiled(x, np.nan), y), {}, "X contains NaN"),
    "infinity": (lambda x, y: (spoiled(x, np.inf), y), {}, "X contains infinity"),
    "too large": (lambda x, y: (spoiled(x, 1e200), y), {}, "X is too large"),
    "too large, unscaled": (
        lambda x, y: (spoiled(x, 1e200), y),
        {"scale": False},
        "NaN or infinity",
    ),
    "empty": (lambda x, y: (x[:0], y[:0]), {}, "0 sample"),
    "no feature": (lambda x, y: (x[:, :0], y), {}, "0 feature"),
    "one row": (lambda x, y: (x[:1], y[:1]), {}, "1 sample"),
    "one dimension": (lambda x, y: (x[:, 0], y), {}, "Expected 2D array"),
    "words": (lambda x, y: (np.full((40, 2), "word", object), y), {}, "could not convert"),
    "complex": (lambda x, y: (x + 1j, y), {}, "Complex data"),
    "method": (
        lambda x, y: (x, y),
        {"method": "m7"},
        "method should be one of classifier, vae, m2.*'m7'",
    ),
    "option": (lambda x, y: (x, y), {"options": {"zdim": 3}}, "no option zdim"),
    "activation": (
        lambda x, y: (x, y),
        {"options": {"activation": "sinus"}},
        "activation should be one of",
    ),
    "network": (
        lambda x, y: (x, y),
        {"options": {"network": "transformer"}},
        "network should be one of",
    ),
    "hidden": (lambda x, y: (x, y), {"options": {"hidden": 8}}, "hidden should be"),
    "z_dim": (
        lambda x, y: (x, y),
        {"options": {"z_dim": 0}},
        "z_dim should be a whole number above 0",
    ),
    "likelihood": (
        lambda x, y: (x, y),
        {"options": {"likelihood": "bernoulli"}},
        "choose a Gaussian likelihood",
    ),
    "training": (lambda x, y: (x, y), {"training": {"speed": 3}}, "speed"),
    "epochs": (
        lambda x, y: (x, y),
        {"epochs": 2.5},
        "epochs should be a whole number above 0, got 2.5",
    ),
    "batch_size": (
        lambda x, y: (x, y),
        {"batch_size": 0},
        "batch_size should be a whole number above 0",
    ),
    "lr": (lambda x, y: (x, y), {"lr": -1}, "lr should be above 0"),
    "options": (
        lambda x, y: (x, y),
        {"options": [1]},
        r"options should be a dictionary .* got \[1\]",
    ),
    "options by number": (
        lambda x, y: (x, y),
        {"options": {1: 2}},
        r"options should be a dictionary .* got \{1: 2\}",
    ),
    "training, list": (
        lambda x, y: (x, y),
        {"training": ["ema"]},
        "training should be a dictionary .*'ema'",
    ),
    "training's name": (
        lambda x, y: (x, y),
        {"training": {"emma": 0.9}},
        "no argument 'emma'; it has batch_size.*ema",
    ),
    "training's seed": (
        lambda x, y: (x, y),
        {"training": {"seed": 3}},
        "training should not hold 'seed'",
    ),
    "scale": (
        lambda x, y: (x, y),
        {"scale": "yes"},
        "scale should be True or False or None, got 'yes'",
    ),
    "min_steps": (
        lambda x, y: (x, y),
        {"min_steps": "x"},
        "min_steps should be a whole number, got 'x'",
    ),
    "min_steps below 0": (
        lambda x, y: (x, y),
        {"min_steps": -1},
        "min_steps should be 0 or above, got -1",
    ),
    "verbose": (
        lambda x, y: (x, y),
        {"verbose": "no"},
        "verbose should be True or False or a whole number, got 'no'",
    ),
    "lr, word": (lambda x, y: (x, y), {"lr": "x"}, "lr should be a finite number, got 'x'"),
    "method, list": (
        lambda x, y: (x, y),
        {"method": ["m2"]},
        r"method should be a name .* got \['m2'\]",
    ),
    "random_state": (
        lambda x, y: (x, y),
        {"random_state": 2**70},
        f"random_state should be None, .* got {2**70}",
    ),
    "random_state, word": (
        lambda x, y: (x, y),
        {"random_state": "a"},
        "random_state should be None, .* got 'a'",
    ),
    "real y": (
        lambda x, y: (x, y),
        {"method": "sslpe", "options": {"regression": True}},
        "SemiSupervisedRegressor is",
    ),
    "channels last": (
        lambda x, y: (np.zeros((40, 8, 6, 3)), y),
        {},
        r"\(N, C, H, W\), got \(40, 8, 6, 3\), which looks like channels last; "
        r"give X.transpose\(0, 3, 1, 2\)",
    ),
    "too small": (
        lambda x, y: (x * 1e-200, y),
        {},
        "X is too small to standardise: .*; multiply it by a constant",
    ),
    "diverges": (lambda x, y: (x, y), {"lr": 1e12}, "step .* not finite"),
}


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 3)), np.array(["p", "q", "r"] * 10)
    return tiny().fit(x, y), x


@pytest.mark.parametrize(("make", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_and_nothing_changed(blobs, fitted, make, arguments, message):
    model, x = fitted
    before, kept, old = dict(vars(model)), model.predict_proba(x), model.get_params()
    with pytest.raises((ValueError, TypeError, FloatingPointError), match=message):
        model.set_params(**arguments).fit(*make(*blobs))
    model.set_params(**old)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[k] is before[k] for k in before)
    np.testing.assert_array_equal(model.predict_proba(x), kept)


PIXELS = np.random.default_rng(0).random((40, 1, 6, 6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: x.reshape(40, -1),
            r"X should have shape \(N, 1, 6, 6\), .*\(40, 36\).*X.reshape\(-1, 1, 6, 6\)",
        ),
        (lambda x: x[:, 0], r"X should have shape \(N, 1, 6, 6\), .*\(40, 6, 6\); add the channel"),
        (
            lambda x: x.transpose(0, 2, 3, 1),
            r"X should have shape \(N, 1, 6, 6\), .*; move the channels to the front",
        ),
        (
            lambda x: x[0],
            r"X should have shape \(N, 1, 6, 6\), .*; for a single row give X\[None\]",
        ),
    ],
)
def test_images_of_another_shape_are_refused(make, message):
    model = tiny(min_steps=1, method="classifier", options={"hidden": (8,)}).fit(
        PIXELS, np.arange(40) % 2
    )
    for call in (model.predict, model.predict_proba):
        with pytest.raises(ValueError, match=message):
            call(make(PIXELS))


def test_other_units_are_told_in_those_of_fit(blobs):
    x, blob = blobs
    model = tiny(min_steps=1).fit(100 * x + 500, blob)
    low, high = 100 * x.min(0) + 500, 100 * x.max(0) + 500
    with pytest.raises(
        ValueError, match="X is in other units than in fit: column .* give it in the units"
    ) as error:
        model.predict(x)
    column = int(str(error.value).split("column ")[1].split()[0])
    assert f"in fit from {low[column]:.4g} to {high[column]:.4g};" in str(error.value)
    model.objective_.extent = None
    model.predict(x)


def test_much_smaller_numbers_than_in_fit_are_warned_of(blobs):
    x, blob = blobs
    model = tiny().fit(1000 * x, blob)
    with pytest.warns(
        UserWarning,
        match="x varies less, in every column, than a fiftieth of its range in training",
    ):
        model.predict(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(1000 * x[blob == 0])  # one class
        model.predict(1000 * x[:5])
        model.predict(np.repeat(1000 * x[:1], 30, 0))  # one row, again and again


def test_images_for_a_model_of_columns_are_refused(fitted):
    model, _ = fitted
    with pytest.raises(
        ValueError, match=r"X should have shape \(N, 3\), rows of shape \(3,\), got \(40, 1, 6, 6\)"
    ):
        model.predict(PIXELS)


@pytest.mark.parametrize("unit", [1e-13, 1e-100, 1e13])
def test_columns_are_scaled_in_any_unit(blobs, unit):
    x, blob = blobs
    one, same = tiny().fit(x, blob), tiny().fit(x * unit, blob)
    np.testing.assert_allclose(same.std_ / unit, one.std_)
    np.testing.assert_allclose(same.predict_proba(x * unit), one.predict_proba(x), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1, -1e-9])
def test_a_constant_column_is_not_scaled(value):
    x = np.concatenate(
        [np.random.default_rng(0).normal(size=(400, 1)), np.full((400, 1), value)], 1
    )
    model = tiny(method="classifier", options={"hidden": (8,)}, min_steps=1).fit(
        x, np.arange(400) % 2
    )
    assert model.std_[1] == 1.0
    np.testing.assert_allclose(model.std_[0], x[:, 0].std())


def test_few_columns_are_not_noisy():
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 2
    for columns, noise, sigma in ((3, 0.0, 0.3), (4, 0.3, 1.0)):
        model = SemiSupervisedClassifier(options={"hidden": (4,)}, epochs=1, min_steps=1).fit(
            x[:, :columns], y
        )
        assert (model.options_["noise"], model.options_["dropout"], model.options_["sigma"]) == (
            noise,
            noise,
            sigma,
        )
    given = SemiSupervisedClassifier(
        options={"hidden": (4,), "noise": 0.1}, epochs=1, min_steps=1
    ).fit(x, y)
    assert given.options_["noise"] == 0.1


# --- regression -----------------------------------------------------------------------------------


def wave(n: int = 400, labeled: int = 60):
    """y = sin 2x + noise, of which some are known."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (n, 1))
    y = np.sin(2 * x[:, 0]) + 0.05 * rng.normal(size=n)
    known = np.full(n, np.nan)
    known[:labeled] = y[:labeled]
    return x, y, known


def test_regression_learns_from_rows_with_and_without_a_label(tmp_path):
    x, y, known = wave()
    model = SemiSupervisedRegressor(
        options={"hidden": (64,), "z_dim": 2},
        epochs=1,
        min_steps=300,
        batch_size=100,
        lr=2e-2,
        random_state=0,
    ).fit(x, known)
    assert model.score(x, y) > 0.85
    mean, std = model.predict(x, return_std=True)
    assert mean.shape == std.shape == (400,) and (std > 0).all()
    model.save(tmp_path / "m")
    again = SemiSupervisedRegressor.load(tmp_path / "m")
    assert np.array_equal(again.predict(x), mean)
    both = tiny_regressor().fit(x, np.stack([known, -known], 1))
    assert both.predict(x).shape == (400, 2)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (lambda y: y[:5], "one label per row of X"),
        (lambda y: np.full_like(y, np.nan), "y has no label"),
        (lambda y: np.where(np.isnan(y), y, np.inf), "infinity"),
        (
            lambda y: np.where(np.isnan(y), "", "high"),
            "real numbers, got '.*'; for classes use SemiSupervisedClassifier",
        ),
    ],
)
def test_regression_refuses_labels_by_name(y, message):
    x, _, known = wave()
    with pytest.raises(ValueError, match=message):
        tiny_regressor().fit(x, y(known))


def test_regression_takes_masked_labels_as_missing(blobs):
    x, _ = blobs
    y = np.where(UNLABELED, 1e6, x[:, 0])
    model = tiny_regressor().fit(x, np.ma.array(y, mask=UNLABELED))
    same = tiny_regressor().fit(x, np.where(UNLABELED, np.nan, y))
    assert model.n_unlabeled_ == 32 and model.objective_.sizes == (8, 32)
    np.testing.assert_array_equal(model.predict(x), same.predict(x))


def test_regression_wants_a_method_of_real_labels():
    x, _, known = wave()
    with pytest.raises(ValueError, match="method m2 takes no real labels; take sslpe"):
        SemiSupervisedRegressor(method="m2").fit(x, known)


def test_regression_in_any_unit():
    x, y, known = wave(200)
    one = tiny_regressor().fit(x, known).predict(x)
    for unit in (1e-14, 1e14):
        np.testing.assert_allclose(
            tiny_regressor().fit(x, known * unit).predict(x) / unit, one, atol=1e-3
        )


@pytest.mark.parametrize("mark", [-1, -999, 9999])
def test_regression_warns_of_a_number_for_no_label(mark):
    x, _, known = wave()
    with pytest.warns(UserWarning, match=f"y is {mark} in more than half of its rows.*NaN"):
        tiny_regressor(min_steps=1).fit(x, np.nan_to_num(known, nan=mark))


def test_regression_is_no_option_of_the_regressor():
    x, _, known = wave()
    with pytest.raises(
        ValueError, match="options should not have regression=False in a SemiSupervisedRegressor"
    ):
        tiny_regressor(options={"regression": False}).fit(x, known)
    assert tiny_regressor(min_steps=1, options={"regression": True}).fit(x, known).predict(
        x
    ).shape == (400,)


# --- defaults -------------------------------------------------------------------------------------


def far_blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two blobs, four deviations apart in eight columns; their classes; 20 labels of 400 rows."""
    y = np.arange(400) % 2
    x = np.random.default_rng(1).normal(size=(400, 8))
    x[:, 0] += 4 * y
    return x, y, np.where(np.arange(400) < 20, y, -1)


@pytest.fixture(scope="module")
def by_labels_alone() -> float:
    """Accuracy of the classifier by the labels alone."""
    x, y, labels = far_blobs()
    return SemiSupervisedClassifier("classifier", random_state=0).fit(x, labels).score(x, y)


STEPS = {
    "m1_m2": (250, 3e-3),
    "sdgm": (250, 3e-3),
    "adgm": (100, 1e-2),
    "m2_adversarial": (150, 3e-3),
    "latent_classifier_exact": (150, 3e-3),
    "latent_classifier_simplified": (75, 3e-3),
    "latent_classifier_split": (150, 3e-3),
}
"""Of the methods that need more than 60 steps at a rate of 0.01, or a lower rate."""


@pytest.mark.parametrize(
    "method", [name for name, row in zoo.METHODS.items() if row.unlabeled and row.columns]
)
def test_every_methods_defaults_beat_the_labels_alone(by_labels_alone, method):
    x, y, labels = far_blobs()
    steps, lr = STEPS.get(method, (60, 1e-2))
    model = SemiSupervisedClassifier(method, epochs=1, min_steps=steps, lr=lr, random_state=0).fit(
        x, labels
    )
    assert model.score(x, y) > max(by_labels_alone, 0.85)


def test_a_method_that_is_not_for_columns_says_so():
    assert [name for name, row in zoo.METHODS.items() if not row.columns] == ["vae"]
    x, y, labels = far_blobs()
    with pytest.warns(UserWarning, match="method vae is not for columns"):
        SemiSupervisedClassifier("vae", epochs=1, min_steps=1, options={"hidden": (4,)}).fit(
            x, labels
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SemiSupervisedClassifier("vae", epochs=1, min_steps=1, options={"hidden": (4,)}).fit(
            PIXELS, np.arange(40) % 2
        )


def test_defaults_of_methods_are_their_options_and_give_way_to_the_callers():
    for method, defaults in presets.TABULAR_DEFAULTS_BY_METHOD.items():
        assert defaults.keys() <= zoo.options_of(method).keys()
        assert column_defaults(method, 4).items() >= defaults.items()
    assert column_defaults("classifier", 4).keys() == {"hidden", "activation", "noise", "dropout"}
    x, y, labels = far_blobs()
    given = {"sigma": 0.7, "m1_epochs": 1, "hidden": (4,), "m1_hidden": (4,), "z1_dim": 2}
    one = SemiSupervisedClassifier("m1_m2", epochs=1, min_steps=3, options=given).fit(x, labels)
    assert one.options_["sigma"] == 0.7 and one.options_["m1_epochs"] == 1
    enough = SemiSupervisedClassifier(
        "m1_m2", epochs=1, min_steps=90, options=given | {"z1_dim": 3}
    )
    del enough.options["m1_epochs"]
    assert enough.fit(x, labels).options_["m1_epochs"] == 45  # of two steps each


# --- pixels and memory maps -----------------------------------------------------------------------


def small_images():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)
    return pixels, np.where(np.arange(30) < 10, np.arange(30) % 2, -1)


def test_images_of_uint8_are_pixels():
    pixels, y = small_images()
    how = {"epochs": 1, "min_steps": 1, "random_state": 0, "options": {"hidden": (4,)}}
    expected = SemiSupervisedClassifier(**how).fit(pixels / 255, y)
    model = SemiSupervisedClassifier(**how).fit(pixels, y)
    for x in (pixels, torch.as_tensor(pixels), pixels / 255):
        np.testing.assert_array_equal(model.predict_proba(x), expected.predict_proba(pixels / 255))


def test_a_memory_map_is_read_where_it_fits(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 3))
    _, y = small_images()
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    how = {"epochs": 1, "min_steps": 1, "random_state": 0}
    model = SemiSupervisedClassifier(**how).fit(mapped, y)
    expected = SemiSupervisedClassifier(**how).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(mapped), expected)
    monkeypatch.setattr("pyro_ssl.estimator.physical_memory", lambda: 1000)
    for call in (lambda: model.fit(mapped, y), lambda: model.predict_proba(mapped)):
        with pytest.raises(ValueError, match=r"X is a memory map.*pyro_ssl\.fit.*batch by batch"):
            call()


def test_a_torch_dataset_is_refused_with_the_way_out():
    X = torch.utils.data.TensorDataset(torch.zeros(30, 3))
    with pytest.raises(TypeError, match=r"got a TensorDataset.*from_torch.*pyro_ssl\.fit"):
        SemiSupervisedClassifier().fit(X, np.zeros(30))
