"""Models with a right checksum and wrong content load unchanged, or are refused in words."""

import hashlib
import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from programs.forged import OPTIONS, ROUND, X, Y, changed, read, write

from pyro_ssl import (
    fit,
    zoo,
)
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.saved_model import SavedModel


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "m"
    objective = zoo.build("m2", 4, 2, seed=3, **OPTIONS)
    fit(objective, X, Y, epochs=1)
    SavedModel("m2", (4,), ["a", "b"], OPTIONS, objective).save(directory)
    return directory


def test_a_forged_model_is_what_it_was_or_is_refused(model, tmp_path):
    expected = SavedModel.load(model).objective.classify(X).mean
    (tmp_path / "m").mkdir()
    refused = 0
    for case in range(7 * ROUND):
        said = changed(model, tmp_path / "m", case)
        try:
            loaded = SavedModel.load(tmp_path / "m")
        except CheckpointError as error:
            refused += 1
            assert str(tmp_path) in str(error), said
        else:
            assert torch.equal(loaded.objective.classify(X).mean, expected), said
    assert refused > 3.5 * ROUND


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": [2**15, 2**15]},
        {"hidden": [2**12] * 40},
        {"z_dim": 10**9},
        {"flow": 10**9},
        {"hidden": [10**18]},
        {"prior": "vamp", "pseudo_inputs": 10**9},
        {"classifier_hidden": [2**14, 2**14]},
    ],
    ids=str,
)
def test_options_that_ask_for_much_memory_are_refused_before_it_is_given(model, tmp_path, options):
    tensors, data = read(model)
    data["options"] |= options
    (tmp_path / "m").mkdir()
    write(tmp_path / "m", tensors, data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        CheckpointError, match="its options ask for larger networks than it has weights for"
    ):
        SavedModel.load(tmp_path / "m")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("data", ["[]", "7", "null", "[" * 100_000, "9" * 5000, '{"kind": "model"'])
def test_data_that_are_no_object_are_refused(model, tmp_path, data):
    path = Path(shutil.copytree(model, tmp_path / "m")) / "state.json"
    header = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            header | {"data": data, "sha256_data": hashlib.sha256(data.encode()).hexdigest()}
        )
    )
    with pytest.raises(CheckpointError, match="state.json is damaged"):
        SavedModel.load(tmp_path / "m")
