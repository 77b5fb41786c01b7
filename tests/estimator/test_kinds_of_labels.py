"""Labels of any kind, and numbers of any type."""

import numpy as np
import pytest
from programs.estimators import LABELS, UNLABELED, tiny, tiny_regressor


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


def test_labels_found_are_said(blobs, capsys):
    x, blob = blobs
    tiny(verbose=True).fit(x, np.where(UNLABELED, "", np.array(["dog", "cat"])[blob]))
    assert capsys.readouterr().out == "labels: 4 of 'cat', 4 of 'dog'; 32 rows without a label\n"
    tiny_regressor(verbose=True).fit(x, np.where(UNLABELED, np.nan, x[:, 0]))
    assert capsys.readouterr().out == "labels: 8 rows; 32 rows without a label\n"
