"""Bounds, bounds per class and evidence over whole data sets, in bounded memory."""

import subprocess
import sys

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from zuko.flows import MAF

from pyro_ssl import (
    GibbsPredictor,
    SemiSupervisedClassifier,
    bounds,
    class_bounds,
    fit,
    gibbs,
    log_evidence,
    one_hot,
    predict_proba,
    zoo,
)
from pyro_ssl.active.acquisition import acquire
from pyro_ssl.active.draws import label_draws
from pyro_ssl.active.learner import ActiveLearner
from pyro_ssl.data.extent import Extent
from pyro_ssl.distributions.flows import Flow
from pyro_ssl.distributions.mixture import MixtureOfNormals
from pyro_ssl.distributions.row_noise import RowNoise, draw
from pyro_ssl.evaluation.attacks import pgd
from pyro_ssl.evaluation.ood import fitted, scores
from pyro_ssl.prediction import chunks
from pyro_ssl.prediction.generate import reconstruct
from pyro_ssl.training import checkpoints
from pyro_ssl.utils import files
from pyro_ssl.zoo.saved_model import SavedModel

D, K, N = 4, 3, 50


@pytest.fixture
def m2():
    options = {"z_dim": 1, "hidden": (6,), "noise": 0.0, "dropout": 0.0, "sigma": 2.0}
    objective = zoo.build("m2", D, K, **options)
    head = objective.guide.q_z.network.rest[-1]  # q(z|x,y) near the prior, so that no weight is much above the others
    with torch.no_grad():
        head.weight.mul_(0.1)
        head.bias.copy_(torch.tensor([0.0, 0.6]))
    return objective


@pytest.fixture
def x():
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


def test_more_samples_tighten_the_bound_and_the_evidence_is_above(m2, x):
    elbo = bounds(m2, x, num_particles=20).mean()
    weighted = bounds(m2, x, num_particles=20, importance_weighted=True).mean()
    evidence = log_evidence(m2, x, num_particles=2000).mean()
    assert elbo < weighted < evidence


def test_evidence_is_the_sum_of_the_joint_over_classes(m2, x):
    """log p(x) = log sum_y p(x, y): two estimates by different samples, close where there are many."""
    every = [log_evidence(m2, x, one_hot(torch.full((N,), k), K), num_particles=20_000) for k in range(K)]
    assert torch.allclose(log_evidence(m2, x, num_particles=20_000), torch.stack(every).logsumexp(0), atol=0.1)


def test_samples_come_in_blocks(m2, x, monkeypatch):
    """Blocks of samples, the last one short, give the same estimate as all at once, but for their noise."""
    whole = log_evidence(m2, x, num_particles=5000)
    monkeypatch.setattr(chunks, "AT_ONCE", K * 300)
    assert torch.allclose(log_evidence(m2, x, num_particles=5000), whole, atol=0.15)
    one = log_evidence(m2, x[:1], num_particles=1, seed=3)
    assert torch.equal(one, log_evidence(m2, x[:1], num_particles=1, seed=3))


def test_bounds_per_class(m2, x):
    q = m2.classify(x).probs
    u = bounds(m2, x, num_particles=1000)
    every = class_bounds(m2, x, num_particles=1000)
    assert torch.allclose((q * every).sum(-1) - (q * q.log()).sum(-1), u, atol=0.2)
    reconstruction = class_bounds(m2, x, only=("x",), num_particles=1000)
    assert reconstruction.shape == every.shape == (N, K) and (reconstruction > every).all()
    with pytest.raises(ValueError, match="the model has no site w"):
        class_bounds(m2, x, only=("w",))
    with pytest.raises(ValueError, match="no site is enumerated"):
        class_bounds(zoo.build("vae", D, K, likelihood="gaussian"), x)


@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (3, 64, 64), (3, 512, 512)])
@pytest.mark.parametrize("times", [1, 10, 10**6])
def test_large_data_are_fewer_at_once(shape, times):
    x = torch.zeros(1).expand(2, *shape)
    rows = chunks.rows_at_once(x, times)
    assert rows == 1 or rows * times * max(784, x[0].numel()) <= 2**15 * 784


def test_one_datum_outside_the_support_is_found(x):
    m2 = zoo.build("m2", D, K, likelihood="bernoulli", z_dim=1, hidden=(6,))
    within = x.repeat(10, 1).sigmoid()
    assert bounds(m2, within).isfinite().all()
    within[321, 1] = 3.0
    for function in (bounds, class_bounds, log_evidence):
        with pytest.raises(ValueError, match="'x' is observed outside"):
            function(m2, within)


@pytest.mark.parametrize("function", [bounds, log_evidence])
def test_bad_arguments_are_named(function, m2, x):
    one_each = torch.eye(K)[torch.arange(N) % K]
    assert torch.equal(function(m2, x, one_each.numpy()), function(m2, x, one_each))
    for y in (one_each[1:], one_each[:, 1:], 0.5 * one_each, one_each.argmax(-1)):
        with pytest.raises(ValueError, match=r"y should be one-hot with shape \(50, 3\), got"):
            function(m2, x, y)
    for name in ("num_particles", "chunk"):
        for value in (0, -1, 2.5):
            with pytest.raises(ValueError, match=name):
                function(m2, x, **{name: value})
    with pytest.raises(ValueError, match="a method without a model has no bound"):
        function(zoo.build("classifier", D, K), x)
    pixels = zoo.build("m2", D, K, likelihood="bernoulli")
    with pytest.raises(ValueError, match="divide by 255"):
        function(pixels, 255 * x.abs())


SCRIPT = """
import torch
from pyro_ssl import bounds, class_bounds, gibbs, log_evidence, zoo
m2 = zoo.build("m2", 2, 3, z_dim=2, hidden=(32,), noise=0.0, dropout=0.0, sigma=0.5)
x = torch.randn(400_000, 2)
for values in (log_evidence(m2, x, num_particles=4), bounds(m2, x), class_bounds(m2, x)):
    assert len(values) == len(x) and values.isfinite().all()
sslapd = zoo.build("sslapd", 2, 3, z_dim=2, hidden=(32,))
for values in gibbs(sslapd, x, steps=2, chains=2):
    assert len(values) == len(x) and values.isfinite().all()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def test_rows_by_the_hundred_thousand_fit_in_900_megabytes():
    """The hidden layer of one network for every row, class and particle at once would take 600 more."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) / 1024 < 900


# --- noise of a row ---------------------------------------------------------------------------------------------------

SMALL = {"z_dim": 2, "a_dim": 2, "z_dims": (3, 2), "z_y_dim": 2, "z1_dim": 3, "m1_hidden": (9,), "hidden": (9,)}
SMALL |= {"gibbs_steps": 3, "draws": 30, "noise": 0.0}


def build(method, **options):
    known = zoo.options_of(method)
    return zoo.build(method, D, K, **{k: v for k, v in SMALL.items() if k in known} | options)


def in_any_place(function, x, atol=1e-4):
    """Raise unless a function of rows gives each what it gives it in another order, chunk or company, and alone."""
    whole, place = function(x, chunk=len(x)), torch.arange(len(x))
    order = place.flip(0)
    for rows, chunk in ((place, 7), (order, 11), (place[::3], 5), (place[17:18], 5)):
        torch.testing.assert_close(function(x[rows], chunk=chunk), whole[rows], atol=atol, rtol=1e-4)


VARIANTS = {
    "random latent classifier": ("latent_classifier", {"bayesian": ("p_y",)}),
    "mixture": ("sslpe", {"mixture": True}),
}


@pytest.mark.parametrize("name", [*zoo.METHODS, "random latent classifier", "mixture"])
def test_a_rows_results_do_not_depend_on_its_place(name, x):
    method, options = VARIANTS.get(name, (name, {}))
    o = build(method, **options)
    in_any_place(lambda x, chunk: predict_proba(o, x, chunk=chunk, seed=1), x)
    if o.model is None:
        return
    if "likelihood" in zoo.options_of(method):
        o = build(method, **options, likelihood="gaussian", sigma=1.0)
    in_any_place(lambda x, chunk: bounds(o, x, num_particles=3, chunk=chunk), x, 1e-3)
    in_any_place(lambda x, chunk: bounds(o, x, one_hot(torch.ones(len(x)), K), chunk=chunk), x, 1e-3)
    in_any_place(lambda x, chunk: log_evidence(o, x, num_particles=5, chunk=chunk), x, 1e-3)
    if isinstance(o.predictor, GibbsPredictor):
        in_any_place(lambda x, chunk: torch.cat(gibbs(o, x, steps=3, chains=2, hard=True, chunk=chunk), -1), x)


def test_neither_do_bounds_of_classes_scores_draws_and_attacks(x):
    m2, latent = build("m2", likelihood="gaussian", sigma=1.0), build("latent_classifier")
    in_any_place(lambda x, chunk: class_bounds(m2, x, num_particles=2, chunk=chunk), x, 1e-3)
    in_any_place(lambda x, chunk: torch.stack([*scores(latent, x, chunk=chunk).values()], -1), x, 1e-3)
    in_any_place(lambda x, chunk: label_draws(latent, x, 3).movedim(0, 1), x)
    in_any_place(lambda x, chunk: reconstruct(build("adgm"), x), x)
    attack = lambda x, chunk: pgd(latent, x, torch.ones(len(x)).long(), 0.1, steps=2, bounds=None, chunk=chunk)  # noqa: E731
    in_any_place(attack, x)


def test_noise_differs_between_rows_draws_and_seeds(x):
    d = dist.Normal(torch.zeros(N, 3), 1.0).to_event(1)
    with RowNoise(x, 0):
        first, second = draw(d), draw(d)
    with RowNoise(x, 0):
        assert torch.equal(draw(d, [2]), torch.stack([first, second]))  # blocks of samples are parts of one
    with RowNoise(x, 1):
        assert not torch.isclose(draw(d), first).any()
    assert not torch.isclose(first, second).any() and len(first.unique()) == first.numel()
    nearly = torch.nextafter(x, x + 1)
    with RowNoise(nearly, 0):
        assert not torch.isclose(draw(d), first).any()
    with RowNoise(x - x, 0), RowNoise(-(x - x), 0):  # equal rows, of 0 and of -0
        assert len(draw(d).unique(dim=0)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_law_of_a_generators(dtype):
    """Marginals, squared lengths, and correlations between rows and between draws, of rows on a coarse grid."""
    rows = torch.arange(2000.0, dtype=dtype)[:, None].expand(-1, 4) / 255
    d = dist.Normal(torch.tensor(0.0, dtype=dtype), 1.0).expand([2000, 5]).to_event(1)
    with RowNoise(rows, 3):
        z = draw(d, [10])
    assert z.dtype == dtype and z.isfinite().all()
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(z.square().sum((0, 2)).numpy(), stats.chi2(50).cdf).pvalue > 1e-3
    for m, n in ((z.movedim(1, 0).flatten(1), 50), (z.movedim(1, -1).flatten(0, 1), 2000)):
        correlation = torch.corrcoef(m).fill_diagonal_(0)
        assert correlation.abs().max() * n**0.5 < 6.5
        assert float(correlation.square().mean() * n) == pytest.approx(1, abs=0.15)


def test_every_family_is_drawn_from_its_law():
    g = torch.Generator().manual_seed(0)
    n, rows = 20_000, torch.arange(20_000.0)[:, None]
    p, scale = torch.tensor([0.0, 0.3, 0.5, 0.2, 0.0]), torch.randn(2, 2, generator=g).tril() + 2 * torch.eye(2)
    with RowNoise(rows, 0):
        one_hots = draw(dist.OneHotCategorical(p.expand(n, 5)))
        codes = draw(dist.Categorical(p.expand(n, 5)))
        coins = draw(dist.Bernoulli(torch.tensor([0.2, 0.9]).expand(n, 2)).to_event(1))
        normal = draw(dist.MultivariateNormal(torch.ones(n, 2), scale_tril=scale))
        logs = draw(dist.LogNormal(torch.full((n,), 0.5), 0.3))
        masked = draw(dist.Normal(torch.full((n,), 2.0), 0.5).mask(False))
        mixed = draw(MixtureOfNormals(p[1:4].log().expand(n, 3), torch.arange(3.0)[:, None].expand(n, 3, 1), torch.full((n, 3, 1), 0.2)))  # fmt: skip
    for found in (one_hots, torch.nn.functional.one_hot(codes, 5).float()):
        assert (found.sum(0)[p == 0] == 0).all() and (found.mean(0) - p).abs().max() < 0.015
    assert (coins.mean(0) - torch.tensor([0.2, 0.9])).abs().max() < 0.015
    torch.testing.assert_close(torch.cov(normal.T), scale @ scale.T, atol=0.2, rtol=0.05)
    assert stats.kstest(logs.log().numpy(), stats.norm(0.5, 0.3).cdf).pvalue > 1e-3
    assert stats.kstest(masked.numpy(), stats.norm(2, 0.5).cdf).pvalue > 1e-3
    cdf = lambda z: sum(float(w) * stats.norm(m, 0.2).cdf(z) for m, w in enumerate(p[1:4]))  # noqa: E731
    assert stats.kstest(mixed.flatten().numpy(), cdf).pvalue > 1e-3


def test_flows_and_what_rows_share(x):
    torch.manual_seed(0)
    flow = Flow(lambda x: dist.Normal(x, 1.0).to_event(1), MAF(D).transform)
    shared = dist.Normal(torch.zeros(7), 1.0).to_event(1)

    def sample(x):
        torch.manual_seed(1)
        with torch.no_grad(), RowNoise(x, 0):
            return draw(flow(x)), draw(shared)

    (z, w), (z_some, w_some) = sample(x), sample(x[5:9])
    torch.testing.assert_close(z_some, z[5:9])
    assert torch.equal(w, w_some)


def test_a_mean_over_rows_is_as_precise_as_by_a_generator(m2, x):
    """Over seeds, the mean bound of fifty rows varies as that of fifty independent estimates."""
    values = torch.stack([bounds(m2, x, seed=seed) for seed in range(200)])
    of_means, of_rows = values.mean(1).var(), values.var(0).mean() / N
    assert 0.6 < of_means / of_rows < 1.6


# --- units of the data ------------------------------------------------------------------------------------------------

UNITS = "in other units than"


def raw_and_scaled(n=200, d=D):
    """Columns in their own units, and standardised: age, height, income, share."""
    g = torch.Generator().manual_seed(0)
    raw = torch.randn(n, d, generator=g) * torch.tensor([12.0, 9.0, 9000.0, 0.1]) + torch.tensor(
        [40.0, 170.0, 5e4, 0.5]
    )
    return raw, (raw - raw.mean(0)) / raw.std(0)


@pytest.fixture(scope="module")
def trained():
    raw, x = raw_and_scaled()
    o = {m: build(m, likelihood="gaussian", sigma=1.0) for m in ("m2", "sslpe")}
    for objective in o.values():
        fit(objective, x, torch.where(torch.arange(200) < 30, torch.arange(200) % K, -1), epochs=1, progress=False)
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
    "fitted": lambda o, x: fitted(o, x, torch.arange(len(x)) % K),
    "pgd": lambda o, x: pgd(o, x, torch.ones(len(x)).long(), 0.1, steps=1, bounds=None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_data_in_other_units_are_refused_everywhere(name, trained):
    objectives, raw, x = trained
    o = objectives["sslpe" if name in ("gibbs", "label_draws") else "m2"]
    FUNCTIONS[name](o, x)
    with pytest.raises(
        ValueError,
        match=rf"x is {UNITS} the training data: column 2 from .* in training from -.*; scale it as for training",
    ):
        FUNCTIONS[name](o, raw)
    with pytest.raises(ValueError, match=r"x should have shape \(N, 4\), rows of shape \(4,\), got \(200, 3\)"):
        FUNCTIONS[name](o, raw[:, :3])


def test_foreign_data_may_be_far_out_but_have_the_models_shape(trained):
    o, _, x = trained
    with pytest.raises(ValueError, match=UNITS):
        bounds(o["m2"], x + 30)
    assert scores(o["m2"], x + 30)["log p(x)"].shape == (200,)
    with pytest.raises(ValueError, match=r"rows of shape \(4,\), got \(200, 2\)"):
        scores(o["m2"], x[:, :2])


def test_data_that_are_unusual_are_not_refused(trained):
    """Outliers, one class alone, a trend beyond training, a few rows, constant columns, noise, sparse columns."""
    extent = trained[0]["m2"].extent
    x = trained[2]
    outlier, trend = x.clone(), x.clone()
    outlier[:40, 1] = 1e4
    trend[:, 0] += 3 * trend[:, 0].std()
    for data in (outlier, trend, x[x[:, 0] > 1.5], x + 0.5 * torch.randn(x.shape), 3 * x, x[:1] + 5):
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
            ValueError, match=f"x is {UNITS} the training data: numbers from .* in training from .*divide pixels by 255"
        ):
            extent.check(data)


def test_every_fit_sets_the_extent_before_callbacks_see_the_objective(trained):
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
    assert o.extent == objectives["m2"].extent and torch.equal(predict_proba(o, x), predict_proba(objectives["m2"], x))
    with pytest.raises(ValueError, match=UNITS):
        predict_proba(o, raw)
    tensors, data = checkpoints.load(tmp_path / "model")
    for damaged in ([[4], [0.0], []], [[4], ["a"] * 4, [1.0] * 4], [[4], [0.0] * 3, [1.0] * 3], 5, "abc"):
        checkpoints.save(tmp_path / "model", tensors, data | {"extent": damaged}, keep_previous=False)
        with pytest.raises(files.CheckpointError):
            SavedModel.load(tmp_path / "model")


def test_files_of_earlier_versions_tell_the_shape_and_of_images_the_range(tmp_path):
    image = zoo.build("classifier", (1, 4, 4), 2, hidden=(3,))
    SavedModel("classifier", (1, 4, 4), [0, 1], {"hidden": [3]}, image, {"extent": [0.0, 1.0]}).save(tmp_path / "model")
    tensors, data = checkpoints.load(tmp_path / "model")
    del data["extent"]
    checkpoints.save(tmp_path / "model", tensors, data, keep_previous=False)
    o = SavedModel.load(tmp_path / "model").objective
    assert predict_proba(o, torch.rand(20, 1, 4, 4)).shape == (20, 2)
    for x, message in ((200 * torch.rand(20, 1, 4, 4), UNITS), (torch.rand(20, 16), r"rows of shape \(1, 4, 4\)")):
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


def test_an_active_learner_keeps_its_units(trained, tmp_path):
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
