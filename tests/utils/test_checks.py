"""Refusals before training, by name, which change nothing."""

import numpy as np
import pyro
import pytest
import torch

from pyro_ssl import (
    fit,
    predict_proba,
    zoo,
)
from pyro_ssl.data.missing_labels import LabelWarning, describe_labels, warn_of_missing_classes

X = np.linspace(0, 1, 24).reshape(8, 3)


Y = np.array([0, 1, 2, -1, -1, 0, 1, 2])


def spoiled(value: float) -> np.ndarray:
    x = X.copy()
    x[5, 1] = value
    return x


def test_fit_takes_masked_labels_as_missing():
    objective = m2()
    fit(objective, X, np.ma.array(np.abs(Y), mask=Y < 0), epochs=1)
    assert objective.sizes == (6, 2)


def test_a_class_without_a_label_is_named():
    with pytest.warns(
        LabelWarning, match="no row of class 2 has a label; label at least one of each class$"
    ):
        fit(m2(), X, np.where(Y == 2, -1, Y), epochs=1)
    with pytest.warns(
        LabelWarning,
        match=r"class 0 has a label.*\(-1 means that there is no label: write .* as 0 and 1",
    ):
        fit(zoo.build("m2", 3, 2, hidden=(5,), z_dim=2), X, np.where(Y == 1, 1, -1), epochs=1)
    with pytest.warns(LabelWarning) as told:
        warn_of_missing_classes([0], [f"c{k}" for k in range(1000)])
    assert "no row of classes 'c1', 'c2'," in str(told[0].message) and "and 989 more" in str(
        told[0].message
    )
    assert len(str(told[0].message)) < 300
    warn_of_missing_classes(Y, "abc")  # each has one


def test_what_was_found_is_said_in_one_line():
    assert (
        describe_labels(Y, ["cat", "dog", "owl"])
        == "labels: 2 of 'cat', 2 of 'dog', 2 of 'owl'; 2 rows without a label"
    )
    many = describe_labels(torch.tensor([0, 0, -1]), range(1000))
    assert many == "labels: 2, 0 to 2 of each of 1000 classes; 1 rows without a label"


def m2(**options):
    return zoo.build(
        "m2",
        3,
        3,
        **{"hidden": (5,), "z_dim": 2, "batch_norm": True, "likelihood": "bernoulli"} | options,
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
    "one pixel beyond": (
        spoiled(1.5),
        Y,
        {"labeled_batch_size": 2},
        "site 'x' is observed outside",
    ),
    "pixels 0..255, no labels": (255 * X, None, {}, "site 'x' is observed outside"),
    "NaN": (spoiled(np.nan), Y, {}, "x holds NaN"),
    "too large": (X * 1e300, Y, {}, "x holds NaN or infinity"),
    "epochs": (X, Y, {"epochs": 0}, "epochs should be a whole number above 0, got 0"),
    "batch_size": (
        X,
        Y,
        {"batch_size": 1.5},
        "batch_size should be a whole number above 0, got 1.5",
    ),
    "labeled_batch_size": (
        X,
        Y,
        {"labeled_batch_size": -1},
        "labeled_batch_size should be a whole number",
    ),
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
    before, random = (
        {k: v.clone() for k, v in objective.state_dict().items()},
        torch.get_rng_state(),
    )
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
    "adversary_lr": (
        ("m2_adversarial", 3, 3),
        {"adversary_lr": -1.0},
        "adversary_lr should be above 0",
    ),
    "class_probs": (
        ("m2", 3, 3),
        {"class_probs": (0.5, 0.5)},
        "class_probs should be 3 probabilities above 0",
    ),
    "class_probs of 0": (
        ("sslpe", 3, 3),
        {"class_probs": (0.5, 0.5, 0.0)},
        "class_probs should be 3 probabilities",
    ),
    "class_probs, words": (
        ("vc", 3, 3),
        {"class_probs": "abc"},
        "class_probs should be 3 probabilities",
    ),
    "sigma1": (("m1_m2", 3, 3), {"sigma1": -1.0}, "sigma1 should be above 0"),
    "m1_hidden": (("m1_m2", 3, 3), {"m1_hidden": (0,)}, "m1_hidden should be"),
    "probe_hidden": (("vae", 3, 3), {"probe_hidden": (0,)}, "probe_hidden should be"),
    "prior_scale": (("sslpe", 3, 3), {"prior_scale": 0.0}, "prior_scale should be above 0"),
    "norm_from_mean_weights": (
        ("sslapd", 3, 3),
        {"norm_from_mean_weights": False},
        "norm_from_mean_weights=False needs local_reparameterisation=False",
    ),
    "free bits of a flow": (("m2", 3, 3), {"free_bits": 1.0, "flow": 1}, "free_bits needs a KL"),
    "free bits of a vamp prior": (
        ("adgm", 3, 3),
        {"free_bits": 1.0, "prior": "vamp"},
        "free_bits needs a KL",
    ),
    "free bits of a mixture": (
        ("sslpe", 3, 3),
        {"free_bits": 1.0, "mixture": True},
        "cannot be combined with .*free_bits",
    ),
}


@pytest.mark.parametrize(("where", "options", "message"), BAD_ZOO.values(), ids=BAD_ZOO)
def test_a_method_refuses_options_by_name(where, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(*where, **options)


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
