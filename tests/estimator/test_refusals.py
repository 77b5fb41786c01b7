"""Refused input, and state after a refusal."""

import numpy as np
import pytest
from PIL import Image
from programs.estimators import UNLABELED, masked, tiny
from sklearn.exceptions import NotFittedError


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
    "preset": (
        lambda x, y: (x, y),
        {"method": "sdgm", "preset": "paper-004"},
        "preset paper-004 is of m2, adgm, lvae, not of sdgm; the presets of sdgm: paper-002-moons",
    ),
    "preset, number": (lambda x, y: (x, y), {"preset": 4}, "preset should be .*got 4"),
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
