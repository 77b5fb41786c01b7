"""Trained models on disk."""

from pathlib import Path

import pytest
import torch
from programs.checkpoints import same

from pyro_ssl import zoo
from pyro_ssl.training.checkpoints import (
    load,
    save,
)
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.saved_model import SavedModel


def trained(**options) -> SavedModel:
    options = {"hidden": [5], "z_dim": 2, "batch_norm": True} | options
    return SavedModel(
        "m2",
        (4,),
        ["a", "b", "c"],
        options,
        zoo.build("m2", 4, 3, seed=3, **options),
        {"note": [1.5]},
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"likelihood": "gaussian"}, {"likelihood": "gaussian", "sigma": 0.3}]
)
def test_a_model_goes_round(dtype, options, tmp_path):
    one = trained(**options)
    one.objective.to(dtype)
    torch.manual_seed(4)
    one.save(tmp_path / "m")
    state = torch.get_rng_state()
    two = SavedModel.load(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert (two.method, two.x_shape, two.classes, two.options, two.extra) == (
        "m2",
        (4,),
        ["a", "b", "c"],
        one.options,
        one.extra,
    )
    assert same(dict(two.objective.state_dict()), dict(one.objective.state_dict()))
    assert not two.objective.training
    x = torch.rand(5, 4, dtype=dtype)
    assert torch.equal(two.objective.classify(x).probs, one.objective.eval().classify(x).probs)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def forge(directory: Path, change) -> None:
    """The model's file with other content and a right checksum, as from another version."""
    tensors, data = load(directory)
    change(tensors, data)
    save(directory, tensors, data, keep_previous=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, d: d.update(kind="checkpoint"), "holds no trained model"),
        (lambda t, d: d.pop("kind"), "holds no trained model"),
        (lambda t, d: d.update(method="m3"), "method should be one of"),
        (lambda t, d: d["options"].update(depth=3), "m2 has no option depth"),
        (lambda t, d: d["options"].update(network="transformer"), "does not fit.*transformer"),
        (lambda t, d: d["options"].update(activation="unheard"), "does not fit.*unheard"),
        (lambda t, d: d["options"].update(hidden=[6]), "size mismatch"),
        (lambda t, d: d.update(classes=["a", "b"]), "does not fit"),
        (lambda t, d: d.update(dtype="float17"), "does not fit.*float17"),
        (lambda t, d: d.update(dtype="save"), "does not fit"),
        (lambda t, d: d.pop("options"), "does not fit.*options"),
        (lambda t, d: t.pop("model.p_z.loc"), "Missing key"),
        (lambda t, d: t.update(more=torch.zeros(1)), "Unexpected key"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(change, message, tmp_path):
    trained().save(tmp_path / "m")
    forge(tmp_path / "m", change)
    with pytest.raises(CheckpointError, match=rf"(?s){message}"):
        SavedModel.load(tmp_path / "m")


def test_a_missing_model_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        SavedModel.load(tmp_path / "m")
