"""Files with a right checksum and wrong content load unchanged, or are refused in words.

Each case changes one thing at random in the JSON or in the tensors of a small model, or of a
checkpoint in the middle of a run, and writes checksums that fit, as an editor or an attacker would.
"""

import copy
import hashlib
import json
import random
import resource
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pyro_ssl import (
    EarlyStopping,
    SemiSupervisedClassifier,
    SemiSupervisedRegressor,
    fit,
    zoo,
)
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.saved_model import SavedModel

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.where(torch.arange(60) < 20, torch.arange(60) % 2, -1)
OPTIONS = {"hidden": [5], "z_dim": 2, "sigma": 1.0, "batch_norm": True, "noise": 0.1}
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    7,
    2**40,
    2**70,
    -1.5,
    0.25,
    "x",
    "",
    "float64",
    "sgd",
    [],
    {},
    [[]],
    {"a": 1},
    "INFINITE",
    "DEEP",
    "NAN",
]
WORDS = {'"INFINITE"': "1e999", '"DEEP"': "[" * 3000 + "]" * 3000, '"NAN"': "NaN"}


def write(directory: Path, tensors: dict, data) -> None:
    """Both files, with checksums that fit."""
    body, blob = json.dumps(data), safetensors.torch.save(tensors)
    for word, text in WORDS.items():
        body = body.replace(word, text)
    sums = {
        "sha256": hashlib.sha256(blob).hexdigest(),
        "sha256_data": hashlib.sha256(body.encode()).hexdigest(),
    }
    (directory / "state.safetensors").write_bytes(blob)
    (directory / "state.json").write_text(
        json.dumps({"format": "pyro-ssl", "version": 1, **sums, "data": body})
    )


def read(directory: Path) -> tuple[dict, dict]:
    tensors = safetensors.torch.load((directory / "state.safetensors").read_bytes())
    return tensors, json.loads(json.loads((directory / "state.json").read_text())["data"])


DATA_CHANGES = ["replace"] * 7 + ["delete"] * 2 + ["add"] * 2 + ["copy"] * 3
TENSOR_CHANGES = ["delete", "rename", "shape", "dtype", "more", "swap", "empty", "grown"]
CHANGES = [("data", how) for how in DATA_CHANGES] + [("tensors", how) for how in TENSOR_CHANGES]
ROUND = len(CHANGES)
"""Cases of a round, which has each kind of change; two thirds of them change plain data."""


def places(data, names=()):
    """Every dictionary and list in the data with each of its keys, and the path of names to it."""
    for key in data if isinstance(data, dict) else range(len(data)):
        here = (*names, key) if isinstance(data, dict) else names
        yield data, key, here
        if isinstance(data[key], (dict, list)):
            yield from places(data[key], here)


def drawn_place(data: dict, draw: random.Random, wanted=lambda value: True) -> tuple:
    """A dictionary or list and a key, drawn with equal probability for every path of names."""
    by_names: dict = {}
    for parent, key, names in places(data):
        if wanted(parent[key]):
            by_names.setdefault(names, []).append((parent, key))
    return draw.choice(by_names[draw.choice(sorted(by_names))])


def is_number(value) -> bool:
    return isinstance(value, (int, float))


def change_data(data: dict, how: str, value, draw: random.Random) -> str:
    """Change one thing in plain data, and return a description of the change."""
    parent, key = drawn_place(data, draw, is_number) if how == "add" else drawn_place(data, draw)
    said = f"{how} {key!r} of {str(parent)[:200]}"
    if how == "delete":
        del parent[key]
    elif how == "add":
        parent[key] += draw.choice([1, -1, 0.5, 1e3])
    elif how == "copy" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif how == "copy":
        parent[key + "_"] = parent.pop(key)
    else:
        parent[key] = value
    return said


def change_tensors(tensors: dict, how: str, draw: random.Random) -> str:
    """Change one thing about tensors that is not a value; what was changed, in words."""
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    if how == "delete":
        del tensors[name]
    elif how == "rename":
        tensors[name + "x"] = tensors.pop(name)
    elif how == "shape":
        tensors[name] = tensor[None].clone()
    elif how == "dtype":
        tensors[name] = tensor.to(torch.float16 if tensor.dtype != torch.float16 else torch.float32)
    elif how == "more":
        tensors["more"] = torch.zeros(3)
    elif how == "swap":
        other = draw.choice(
            sorted(k for k in tensors if tensors[k].shape != tensor.shape) or [name]
        )
        tensors[name], tensors[other] = tensors[other], tensor
    elif how == "empty":
        tensors[name] = tensor.new_zeros(0)
    else:
        tensors[name] = torch.cat([tensor.reshape(-1), tensor.reshape(-1)])
    return f"{how} {name}"


def value_of(case: int):
    """The value of a replacement: the cases of a kind take the values in turn."""
    nth = case // ROUND * DATA_CHANGES.count("replace") + case % ROUND
    return copy.deepcopy(VALUES[nth % len(VALUES)])


def changed(directory: Path, to: Path, case: int) -> str:
    """Write a copy of a checkpoint directory with one change, and return its description."""
    draw, (tensors, data) = random.Random(case), read(directory)
    what, how = CHANGES[case % ROUND]
    if what == "data":
        said = change_data(data, how, value_of(case), draw)
    else:
        said = change_tensors(tensors, how, draw)
    write(to, tensors, data)
    return said


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


# --- models ---------------------------------------------------------------------------------------


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


def test_a_forged_estimator_is_what_it_was_or_is_refused(tmp_path):
    one = SemiSupervisedClassifier(
        epochs=1, min_steps=2, random_state=0, options={"hidden": [4], "z_dim": 2}
    )
    one.fit(X.numpy(), Y.numpy()).save(tmp_path / "whole")
    expected = one.predict_proba(X.numpy())
    (tmp_path / "m").mkdir()
    for case in range(8 * len(DATA_CHANGES)):
        draw, (tensors, data) = random.Random(case), read(tmp_path / "whole")
        place = data["extra"] if draw.random() < 0.6 else data
        how = DATA_CHANGES[case % len(DATA_CHANGES)]
        said = change_data(place, how, copy.deepcopy(draw.choice(VALUES)), draw)
        write(tmp_path / "m", tensors, data)
        try:
            two = SemiSupervisedClassifier.load(tmp_path / "m")
        except CheckpointError as error:
            assert str(tmp_path) in str(error), said
            continue
        if not said.startswith(
            ("replace", "add")
        ):  # another number among the means is another estimator, and a whole one
            assert (two.predict_proba(X.numpy()) == expected).all(), said


@pytest.mark.parametrize(
    ("name", "value"),
    [("y_mean", -0.5), ("y_mean", [1.0, 2.0]), ("y_std", [0.0]), ("y_std", [1e999]), ("flat", 1)]
    + [("n_features_in", 3), ("n_features_in", {})],
)
def test_a_forged_regressor_is_refused(name, value, tmp_path):
    one = SemiSupervisedRegressor(epochs=1, min_steps=2, options={"hidden": [4], "z_dim": 2})
    one.fit(X.numpy(), X[:, 0].numpy()).save(tmp_path / "whole")
    tensors, data = read(tmp_path / "whole")
    data["extra"][name] = value
    (tmp_path / "m").mkdir()
    write(tmp_path / "m", tensors, data)
    SemiSupervisedRegressor.load(tmp_path / "whole")
    with pytest.raises(CheckpointError, match=name):
        SemiSupervisedRegressor.load(tmp_path / "m")


# --- checkpoints ----------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def run(directory: Path, callbacks=()) -> tuple[dict, list]:
    """A run that is in the middle of its third epoch when a callback stops it."""
    objective = zoo.build("m2", 4, 2, seed=1, **OPTIONS)
    score = EarlyStopping(lambda o: -o.bound(X).mean().abs().item(), patience=50)
    history = fit(
        objective,
        X,
        Y,
        epochs=4,
        batch_size=10,
        ema=0.9,
        warmup=1,
        checkpoint_every=3,
        early_stopping=score,
        directory=directory,
        resume=True,
        callbacks=callbacks,
    )
    return {k: v.clone() for k, v in objective.state_dict().items()}, history["loss"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run that was stopped, and how it ends."""

    def stop(epoch):
        if epoch.epoch == 3:
            raise Stopped

    directory = tmp_path_factory.mktemp("runs") / "r"
    with pytest.raises(Stopped):
        run(directory, (stop,))
    assert read(directory / "checkpoint")[1]["position"]["step"] == 9  # of 4 in an epoch
    return directory, run(Path(shutil.copytree(directory, directory.with_name("whole"))))


def test_a_forged_checkpoint_ends_as_it_did_or_is_refused(broken, tmp_path):
    directory, (weights, losses) = broken
    refused = 0
    for case in range(6 * ROUND):
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        shutil.copytree(directory, tmp_path / "r")
        shutil.rmtree(tmp_path / "r" / "checkpoint.previous")
        said = changed(directory / "checkpoint", tmp_path / "r" / "checkpoint", case)
        try:
            found, history = run(tmp_path / "r")
        except CheckpointError as error:
            refused += 1
            assert str(tmp_path) in str(error), said
        except ValueError as error:
            refused += 1
            assert "the run to resume had" in str(error), said
        else:
            assert same(found, weights), said
            assert history == losses, said
    assert refused > 3 * ROUND


def test_a_refused_checkpoint_leaves_the_objective_as_it_was(broken, tmp_path):
    directory = Path(shutil.copytree(broken[0], tmp_path / "r"))
    tensors, data = read(directory / "checkpoint")
    data["position"]["step"] = 8
    write(directory / "checkpoint", tensors, data)
    objective = zoo.build("m2", 4, 2, seed=1, **OPTIONS).eval()
    objective.sizes = (1, 2)
    before, state = {k: v.clone() for k, v in objective.state_dict().items()}, torch.get_rng_state()
    score = EarlyStopping(lambda o: 0.0, patience=50)
    with pytest.raises(CheckpointError, match="the checkpoint was changed, or is not of this run"):
        fit(
            objective,
            X,
            Y,
            epochs=4,
            batch_size=10,
            ema=0.9,
            warmup=1,
            directory=directory,
            resume=True,
            early_stopping=score,
        )
    assert same(objective.state_dict(), before) and torch.equal(torch.get_rng_state(), state)
    assert objective.sizes == (1, 2) and not objective.training
