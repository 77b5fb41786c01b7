"""Data in other units than the training data are refused, unusual data are not."""

import numpy as np
import pytest
import torch

from pyro_ssl import (
    SemiSupervisedClassifier,
    bounds,
    class_bounds,
    fit,
    gibbs,
    log_evidence,
    predict_proba,
    zoo,
)
from pyro_ssl.active.acquisition import acquire
from pyro_ssl.active.learner import ActiveLearner
from pyro_ssl.active.prediction_draws import label_draws
from pyro_ssl.data.extent import Extent
from pyro_ssl.evaluation.attacks import pgd
from pyro_ssl.evaluation.ood import fit_densities, scores
from pyro_ssl.prediction.generate import reconstruct
from pyro_ssl.training import checkpoints
from pyro_ssl.utils import files
from pyro_ssl.zoo.saved_model import SavedModel

D, K, N = 4, 3, 50


UNITS = "in other units than"


def raw_and_scaled(n=200, d=D):
    """Columns in their own units, and standardised: age, height, income, share."""
    g = torch.Generator().manual_seed(0)
    raw = torch.randn(n, d, generator=g) * torch.tensor([12.0, 9.0, 9000.0, 0.1]) + torch.tensor(
        [40.0, 170.0, 5e4, 0.5]
    )
    return raw, (raw - raw.mean(0)) / raw.std(0)


@pytest.fixture(scope="module")
def trained(build):
    raw, x = raw_and_scaled()
    o = {m: build(m, likelihood="gaussian", sigma=1.0) for m in ("m2", "sslpe")}
    for objective in o.values():
        fit(
            objective,
            x,
            torch.where(torch.arange(200) < 30, torch.arange(200) % K, -1),
            epochs=1,
            progress=False,
        )
    return o, raw, x


FUNCTIONS = {
    "predict_proba": predict_proba,
    "gibbs": lambda o, x: gibbs(o, x, steps=1).mean,
    "bounds": bounds,
    "class_bounds": class_bounds,
    "log_evidence": lambda o, x: log_evidence(o, x, num_particles=1),
    "reconstruct": reconstruct,
    "acquire": lambda o, x: acquire(o, x, 3),
    "label_draws": lambda o, x: label_draws(o, x, 2),
    "fitted": lambda o, x: fit_densities(o, x, torch.arange(len(x)) % K),
    "pgd": lambda o, x: pgd(o, x, torch.ones(len(x)).long(), 0.1, steps=1, bounds=None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_data_in_other_units_are_refused_everywhere(name, trained):
    objectives, raw, x = trained
    o = objectives["sslpe" if name in ("gibbs", "label_draws") else "m2"]
    FUNCTIONS[name](o, x)
    with pytest.raises(
        ValueError,
        match=rf"x is {UNITS} the training data: column 2 from .* in training from -.*; scale",
    ):
        FUNCTIONS[name](o, raw)
    with pytest.raises(
        ValueError, match=r"x should have shape \(N, 4\), rows of shape \(4,\), got \(200, 3\)"
    ):
        FUNCTIONS[name](o, raw[:, :3])


def test_foreign_data_may_be_far_out_but_have_the_models_shape(trained):
    o, _, x = trained
    with pytest.raises(ValueError, match=UNITS):
        bounds(o["m2"], x + 30)
    assert scores(o["m2"], x + 30)["log p(x)"].shape == (200,)
    with pytest.raises(ValueError, match=r"rows of shape \(4,\), got \(200, 2\)"):
        scores(o["m2"], x[:, :2])


def test_data_that_are_unusual_are_not_refused(trained):
    """Outliers, one class, a trend, a few rows, constant columns, noise, sparse columns."""
    extent = trained[0]["m2"].extent
    x = trained[2]
    outlier, trend = x.clone(), x.clone()
    outlier[:40, 1] = 1e4
    trend[:, 0] += 3 * trend[:, 0].std()
    for data in (
        outlier,
        trend,
        x[x[:, 0] > 1.5],
        x + 0.5 * torch.randn(x.shape),
        3 * x,
        x[:1] + 5,
    ):
        extent.check(data)
    constant = torch.cat([torch.randn(50, 3), torch.full((50, 1), 7.0)], 1)
    Extent.of(constant).check(constant + torch.tensor([0.0, 0.0, 0.0, 100.0]))
    sparse = (torch.rand(1000, 200) < 0.02) * torch.rand(1000, 200)
    Extent.of(sparse[:100]).check(sparse[100:])
    few = Extent.of(x[:5])
    few.check(100 * x)
    with pytest.raises(ValueError, match=r"got \(200, 3\)"):
        few.check(x[:, :3])


def test_images_in_other_units_are_refused():
    pixels = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0)).square()
    extent = Extent.of(pixels)
    assert len(extent.low) == 1 and Extent.read(extent.plain()) == extent
    for data in (pixels, pixels[:1], (pixels + 0.1 * torch.randn(pixels.shape)), 1 - pixels):
        extent.check(data)
    for data in (255 * pixels, 255 * pixels[:1], 2 * pixels - 2, 16 * pixels):
        with pytest.raises(
            ValueError,
            match=f"x is {UNITS} the training data: numbers from .* in training .*divide pixels",
        ):
            extent.check(data)


def test_every_fit_sets_the_extent_before_callbacks_see_the_objective(trained, build):
    raw, x = trained[1:]
    o = build("classifier")
    o.extent = Extent.of(1e6 * x)
    seen = []
    fit(
        o,
        x,
        torch.arange(200) % K,
        epochs=1,
        ema=0.9,
        callbacks=(lambda e: seen.append(predict_proba(e.objective, x)),),
    )
    assert len(seen) == 1 and o.extent == Extent.of(x)
    with pytest.raises(ValueError, match=UNITS):
        predict_proba(o, raw)
    o.extent = None
    assert predict_proba(o, raw).shape == (200, K)


def test_a_saved_model_keeps_its_extent(trained, tmp_path):
    objectives, raw, x = trained
    options = {"z_dim": 2, "hidden": (9,), "noise": 0.0, "likelihood": "gaussian", "sigma": 1.0}
    SavedModel("m2", (D,), [0, 1, 2], options, objectives["m2"]).save(tmp_path / "model")
    o = SavedModel.load(tmp_path / "model").objective
    assert o.extent == objectives["m2"].extent and torch.equal(
        predict_proba(o, x), predict_proba(objectives["m2"], x)
    )
    with pytest.raises(ValueError, match=UNITS):
        predict_proba(o, raw)
    tensors, data = checkpoints.load(tmp_path / "model")
    for damaged in (
        [[4], [0.0], []],
        [[4], ["a"] * 4, [1.0] * 4],
        [[4], [0.0] * 3, [1.0] * 3],
        5,
        "abc",
    ):
        checkpoints.save(
            tmp_path / "model", tensors, data | {"extent": damaged}, keep_previous=False
        )
        with pytest.raises(files.CheckpointError):
            SavedModel.load(tmp_path / "model")


def test_files_of_earlier_versions_tell_the_shape_and_of_images_the_range(tmp_path):
    image = zoo.build("classifier", (1, 4, 4), 2, hidden=(3,))
    SavedModel(
        "classifier", (1, 4, 4), [0, 1], {"hidden": [3]}, image, {"extent": [0.0, 1.0]}
    ).save(tmp_path / "model")
    tensors, data = checkpoints.load(tmp_path / "model")
    del data["extent"]
    checkpoints.save(tmp_path / "model", tensors, data, keep_previous=False)
    o = SavedModel.load(tmp_path / "model").objective
    assert predict_proba(o, torch.rand(20, 1, 4, 4)).shape == (20, 2)
    for x, message in (
        (200 * torch.rand(20, 1, 4, 4), UNITS),
        (torch.rand(20, 16), r"rows of shape \(1, 4, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_proba(o, x)


def test_the_estimator_keeps_its_scaling_and_its_units(trained, tmp_path):
    raw, x = trained[1:]
    y = np.where(np.arange(200) < 50, np.arange(200) % 2, -1)
    m = SemiSupervisedClassifier("classifier", epochs=1, min_steps=1).fit(raw.numpy(), y)
    m.save(tmp_path / "m")
    again = SemiSupervisedClassifier.load(tmp_path / "m")
    for estimator in (m, again):
        assert estimator.predict(raw.numpy()).shape == (200,)
        with pytest.raises(ValueError, match=UNITS):
            estimator.predict(x.numpy())
    with pytest.raises(ValueError, match=UNITS):
        predict_proba(SavedModel.load(tmp_path / "m").objective, raw)


def test_an_active_learner_keeps_its_units(trained, tmp_path, build):
    raw, x = trained[1:]
    make = lambda: ActiveLearner(  # noqa: E731
        lambda seed: build("classifier"), training={"epochs": 1}, directory=tmp_path / "learner"
    )
    learner = make()
    learner.teach(range(6), [0, 1, 2] * 2, pool=x)
    for one in (learner, make()):
        assert one.predict_proba(x).shape == (200, K)
        with pytest.raises(ValueError, match=UNITS):
            one.predict_proba(raw)
