"""Estimators on disk."""

import json
import pickle

import numpy as np
import pytest
import torch
from programs.estimators import LABELS, tiny, tiny_regressor

from pyro_ssl import SemiSupervisedClassifier, SemiSupervisedRegressor
from pyro_ssl.utils.files import CheckpointError


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
