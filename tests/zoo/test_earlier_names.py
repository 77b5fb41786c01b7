"""Saved models, estimators and runs of the version before options were renamed."""

import json

import numpy as np
import pytest
import torch

from pyro_ssl import SavedModel, SemiSupervisedClassifier, predict_proba, zoo
from pyro_ssl.cli.app import main
from pyro_ssl.training import checkpoints
from pyro_ssl.zoo.earlier_names import OPTIONS, VALUES, current_options

EARLIER_NAMES = {current: earlier for earlier, current in OPTIONS.items()}
EARLIER_VALUES = {"squared": "squares", "quadratic": "products"}
METHODS = {
    "m2": {"hidden": (5,), "z_dim": 2, "labeled_weight": 2.0, "top_k": 1},
    "sslapd": {"hidden": (5,), "z_dim": 2, "common_random_numbers": False},
    "vc": {"hidden": (5,), "z_dim": 2, "discriminator_inputs": "quadratic", "backpropagate": False},
}


def earlier(options: dict) -> dict:
    """Options as the earlier version wrote them."""
    options = dict(options)
    if "discriminator_inputs" in options:
        options["discriminator_inputs"] = EARLIER_VALUES[options["discriminator_inputs"]]
    return {EARLIER_NAMES.get(name, name): value for name, value in options.items()}


def rewrite(directory, change) -> None:
    """Write a file again with another description and the same weights."""
    tensors, description = checkpoints.load(directory)
    change(description)
    checkpoints.save(directory, tensors, description, keep_previous=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_the_earlier_version_loads(method, tmp_path):
    options = zoo.options_of(method) | METHODS[method]
    objective = zoo.build(method, (4,), 3, seed=3, **options)
    SavedModel(method, (4,), ["a", "b", "c"], options, objective).save(tmp_path / "model")

    def change(description):
        description["options"] = earlier(description["options"])
        assert "labeled" in description["options"]

    rewrite(tmp_path / "model", change)
    saved = SavedModel.load(tmp_path / "model")
    assert saved.options.keys() == options.keys()
    assert current_options(saved.options) == saved.options
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(predict_proba(saved.objective, x), predict_proba(objective.eval(), x))


def test_an_estimator_of_the_earlier_version_loads(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 2))
    y = np.where(np.arange(30) < 12, np.arange(30) % 2, -1)
    options = {"hidden": (5,), "z_dim": 2, "labeled_weight": 2.0, "top_k": 1}
    before = SemiSupervisedClassifier(epochs=1, min_steps=1, options=options, random_state=0)
    before.fit(x, y).save(tmp_path / "model")

    def change(description):
        description["options"] = earlier(description["options"])
        parameters = description["extra"]["parameters"]
        parameters["options"] = earlier(parameters["options"])

    rewrite(tmp_path / "model", change)
    after = SemiSupervisedClassifier.load(tmp_path / "model")
    assert after.options == {"hidden": [5], "z_dim": 2, "labeled_weight": 2.0, "top_k": 1}
    assert np.array_equal(after.predict_proba(x), before.predict_proba(x))
    after.fit(x, y)


def test_a_run_of_the_earlier_version_is_not_resumed_and_says_why(tmp_path, capsys):
    config = {
        "method": "m2",
        "options": earlier(zoo.options_of("m2")),
        "training": {"epochs": 1, "ema": 0.999},
        "data": "moons",
        "data_root": None,
        "labels": 10,
        "how": "balanced",
        "label_file": None,
        "seed": 0,
        "binarise": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "is a run of an earlier version" in capsys.readouterr().err


@pytest.mark.parametrize("name", OPTIONS)
def test_an_earlier_name_is_refused_with_todays(name):
    method = next(m for m in reversed(zoo.METHODS) if OPTIONS[name] in zoo.options_of(m))
    with pytest.raises(ValueError, match=f"{method}: {name} is now called {OPTIONS[name]}"):
        zoo.build(method, 4, 2, **{name: None})


def test_todays_names_are_options_of_the_zoo():
    known = {name for method in zoo.METHODS for name in zoo.options_of(method)}
    assert set(OPTIONS.values()) <= known
    assert not OPTIONS.keys() & known
    assert VALUES.keys() <= known
