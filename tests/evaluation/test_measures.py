"""Calibration, foreign data, corruptions and attacks, against scikit-learn and torchmetrics."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.stats import multivariate_normal

from pyro_ssl import data, zoo
from pyro_ssl.evaluation import calibration, metrics, ood
from pyro_ssl.evaluation.attacks import fgsm, pgd, under_attack
from pyro_ssl.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupted, under_corruption
from pyro_ssl.nn.layers import Linear, SplitLinear
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import fit
from pyro_ssl.utils.torchvision_repair import torchvision

torchvision()  # torchmetrics imports it
from torchmetrics.functional.classification import (  # noqa: E402
    binary_auroc,
    binary_average_precision,
)


def problem(n=4000, k=6, sharp=1.0, seed=0):
    """Logits of a classifier, `sharp` times too sure, and labels that follow the right ones."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, k, generator=g, dtype=torch.float64)
    y = logits.softmax(-1).multinomial(1, generator=g).squeeze(1)
    return sharp * logits, y


def test_a_reliability_diagram_holds_the_calibration_error():
    logits, y = problem(sharp=2.0)
    probs = logits.softmax(-1)
    bins = calibration.reliability(probs, y, 20)
    gap = (bins.share * (bins.accuracy - bins.confidence).abs()).nansum()
    assert float(gap) == pytest.approx(metrics.ece(probs, y, 20), abs=1e-12)
    assert float(bins.share.sum()) == pytest.approx(1)
    for seed in range(1000):  # in float32, and on the edges
        g = torch.Generator().manual_seed(seed)
        confidence = torch.randint(11, 20, (8,), generator=g) / 20
        probs, y = torch.stack([confidence, 1 - confidence], 1), torch.randint(2, (8,), generator=g)
        bins = calibration.reliability(probs, y, 5)
        gap = (bins.share * (bins.accuracy - bins.confidence).abs()).nansum()
        assert float(gap) == pytest.approx(metrics.ece(probs, y, 5), abs=1e-9)


def test_temperature_undoes_a_scale_and_is_at_the_minimum():
    logits, y = problem(20_000, sharp=1.7)
    assert calibration.temperature(logits, y) == pytest.approx(1.7, rel=0.03)
    for seed in range(100):
        logits, y = problem(200, sharp=1.5, seed=seed)
        t = torch.tensor(
            calibration.temperature(logits, y), dtype=torch.float64, requires_grad=True
        )
        torch.nn.functional.cross_entropy(logits / t, y).backward()
        assert abs(float(t.grad)) < 1e-4


@pytest.mark.parametrize(
    "call",
    [
        lambda p, y: calibration.reliability(p, y[:-1]),
        lambda p, y: calibration.reliability(p, y, bins=0),
        lambda p, y: metrics.ece(p, y, bins=0),
        lambda p, y: metrics.ece(p, y, bins=0, adaptive=True),
        lambda p, y: calibration.calibration_test(p[:0], y[:0]),
        lambda p, y: calibration.temperature(p, y - 1),
        lambda p, y: metrics.evaluate(p, y + 2),
    ],
)
def test_bad_probabilities_and_classes_are_named(call):
    with pytest.raises(ValueError, match="should"):
        call(torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1]))


def test_the_test_of_calibration_holds_its_level_and_finds_what_is_too_sure():
    values = []
    for seed in range(200):
        logits, y = problem(1000, seed=seed)
        values.append(calibration.calibration_test(logits.softmax(-1), y, draws=100, seed=seed))
    values = torch.tensor(values)
    assert 0.4 < float(values.mean()) < 0.6 and 0.04 < float((values < 0.1).float().mean()) < 0.17
    logits, y = problem(1000, sharp=1.5)
    assert calibration.calibration_test(logits.softmax(-1), y, draws=100) < 0.02


def test_torchmetrics_agrees_on_separation():
    for seed in range(300):
        g = torch.Generator().manual_seed(seed)
        n, m = (int(v) for v in torch.randint(1, 60, (2,), generator=g))
        own, foreign = torch.randn(n, generator=g) + seed % 5, torch.randn(m, generator=g)
        if seed % 2:  # ties
            own, foreign = own.round(), foreign.round()
        found, truth = ood.separation(own, foreign), torch.tensor([0] * n + [1] * m)
        scores = -torch.cat([own, foreign])
        ranks = (scores[:, None] >= scores).sum(1) / (
            n + m
        )  # within [0, 1], where torchmetrics leaves them
        assert found["auroc"] == pytest.approx(float(binary_auroc(ranks, truth)), abs=1e-6)
        assert found["aupr"] == pytest.approx(
            float(binary_average_precision(ranks, truth)), abs=1e-6
        )
        threshold = own.sort().values[n - math.ceil(0.95 * n)]  # 95 % of the own reach it
        assert found["fpr95"] == pytest.approx(
            float((foreign >= threshold).double().mean()), abs=1e-12
        )


def test_class_densities_are_those_of_a_mixture():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (500,), generator=g)
    z = torch.randn(500, 2, generator=g) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]) + y[:, None]
    ours = ood.ClassDensities(z, y, ridge=0.0).log_prob(z)
    density = torch.zeros(500, dtype=torch.float64)
    for k in range(3):
        own = z[y == k].double().numpy()
        covariance = torch.from_numpy(own).T.cov(correction=0).numpy()
        density += (
            len(own)
            / 500
            * torch.as_tensor(multivariate_normal(own.mean(0), covariance).pdf(z.double().numpy()))
        )
    assert torch.allclose(ours, density.log(), atol=1e-9)
    with pytest.raises(ValueError, match="class 1 has 0 data"):
        ood.ClassDensities(z, torch.where(y == 1, 0, y))
    with pytest.raises(ValueError, match="class 3 has 0 data"):
        ood.ClassDensities(z, y, 4)
    with pytest.raises(ValueError, match="y should be below 2, the number of classes; got 2"):
        ood.ClassDensities(z, y, 2)


@pytest.mark.parametrize("bayesian", ["p_x", "p_y"])
def test_features_of_a_method_with_random_weights(bayesian):
    o = zoo.build(
        "latent_classifier_simplified", (4,), 3, z_dim=2, hidden=(5,), bayesian=(bayesian,)
    ).eval()
    x = torch.randn(6, 4)
    with torch.no_grad(), o.programs() as (_, guide):
        assert torch.allclose(ood.features(o, x), guide.q_z(x).mean)


SMALL = {"hidden": (7,), "z_dim": 3}


DRAWN = (
    "adgm",
    "sdgm",
    "sslpe",
    "sslapd",
)  # what is classified is drawn, or Gibbs sampling predicts
CODES = ("ce", "gm", "vc")
BY_CODE = (*CODES, *(name for name in zoo.METHODS if name.startswith("latent_classifier")))
WITHOUT_GRADIENT = ("vae", "m1_m2", "sslpe", "sslapd")


@pytest.mark.parametrize("method", zoo.METHODS)
def test_every_method_has_its_scores_and_attacks(method):
    torch.manual_seed(0)
    x, y = torch.rand(9, 1, 4, 4), torch.arange(9) % 3
    o = zoo.build(
        method, (1, 4, 4), 3, **{k: v for k, v in SMALL.items() if k in zoo.options_of(method)}
    ).eval()
    densities = ood.fit_densities(o, x, y)
    found = ood.scores(o, x, densities)
    p = predict_proba(o, x)
    assert torch.allclose(found["max p"].exp(), p.amax(-1), atol=1e-5)
    assert torch.allclose(found["entropy"], (p * p.log()).sum(-1), atol=1e-5)
    by_layer = method not in (*DRAWN, *BY_CODE)
    expected = {"max p", "entropy"} | ({"log p(z)"} if method in CODES else set())
    expected |= {"energy"} if by_layer or method == "ce" else set()
    expected |= {"log p(z), refitted"} if method not in DRAWN else set()
    assert found.keys() == expected | (
        {"log p(x)"} if method not in (*CODES, "classifier") else set()
    )
    assert all(s.shape == (9,) for s in found.values())
    h = ood.features(o, x)
    if method in DRAWN:
        assert h is None and densities is None
    elif by_layer:
        with torch.no_grad():
            q = o.guide.q_y
            logits = q.parameters_of(o.guide.embed(x) if method == "vae" else o.encode(x))
        assert torch.allclose(found["energy"], logits.logsumexp(-1), atol=1e-5)
        layer = [m for m in q.network.modules() if isinstance(m, Linear | SplitLinear)][-1]
        assert torch.allclose(layer(h), logits, atol=1e-5)
    else:
        with torch.no_grad():
            assert torch.equal(h, o.guide.code(x).mean)
    if method in CODES:
        with torch.no_grad():
            log_p = torch.stack([o.model.p_z(y).log_prob(h) for y in torch.eye(3)], -1) - math.log(
                3
            )
        assert torch.allclose(found["log p(z)"], log_p.logsumexp(-1), atol=1e-4)
    if method == "ce":
        scale = o.model.p_z.scale[0].detach()
        w = o.model.p_z.loc.detach() / scale**2
        layer = h @ w.T - 0.5 * (o.model.p_z.loc.detach() * w).sum(-1) - math.log(3)
        assert torch.allclose(found["energy"], layer.logsumexp(-1), atol=1e-4)
    if method in WITHOUT_GRADIENT:
        with pytest.raises(ValueError, match="no gradient in x"):
            fgsm(o, x, y, 0.1)
    else:
        assert float((fgsm(o, x, y, 0.1) - x).abs().max()) == pytest.approx(0.1, abs=1e-6)


def test_a_code_that_is_classified_by_one_layer_has_an_energy():
    found = [
        ood.scores(
            zoo.build("latent_classifier_simplified", (5,), 3, hidden=(8,), z_dim=2, draws=n),
            torch.rand(20, 5),
        )
        for n in (1, 100)
    ]
    assert "energy" in found[0] and "energy" not in found[1]  # a mean of softmaxes is none


def test_how_sure_is_told_apart_where_a_difference_would_be_zero():
    logits = torch.tensor([[40.0, 0.0], [30.0, 0.0], [0.0, 5.0]])
    found = ood._log_max(logits.log_softmax(-1))
    assert found.tolist() == pytest.approx(
        [-math.exp(-40), -math.exp(-30), -math.log1p(math.exp(-5))], rel=1e-5
    )
    assert found[0] > found[1] > found[2]


def test_separations_name_a_set_of_another_shape():
    o = zoo.build("gm", (1, 4, 4), 3, hidden=(7,), z_dim=3)
    own, foreign = (
        torch.rand(9, 1, 4, 4),
        {"ones": torch.ones(5, 1, 4, 4), "noise": torch.rand(5, 1, 4, 4)},
    )
    found = ood.ood_metrics(
        ood.score_sets(o, {"own": own, **foreign}, ood.fit_densities(o, own, torch.arange(9) % 3))
    )
    assert found.keys() == foreign.keys()
    assert set(found["ones"]) == {"max p", "entropy", "log p(z)", "log p(z), refitted"}
    assert found["ones"]["log p(z), refitted"]["auroc"] > 0.9
    with pytest.raises(ValueError, match="wide.*(1, 4, 5)"):
        ood.score_sets(o, {"own": own, "wide": torch.rand(5, 1, 4, 5)})
    with pytest.raises(ValueError, match="without NaN"):
        ood.separation(torch.rand(3, 2), torch.rand(3))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_corruption_grows_with_its_severity_and_is_reproducible(name, shape):
    g = torch.Generator().manual_seed(0)
    rough = torch.nn.functional.interpolate(
        torch.rand(20, shape[0], 9, 9, generator=g), shape[1:], mode="bicubic"
    )
    x = rough.clamp(0, 1)
    state = torch.random.get_rng_state()
    far = [float((corrupted(x, name, s) - x).square().sum()) for s in SEVERITIES]
    assert far == sorted(far) and far[0] > 0
    again = corrupted(x, name, 5)
    assert (
        torch.equal(again, corrupted(x, name, 5))
        and 0 <= float(again.min())
        and float(again.max()) <= 1
    )
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"), [(("haze", 1), "haze"), (("fog", 6), "6"), (("fog", 0), "0")]
)
def test_bad_corruptions(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupted(torch.rand(2, 1, 8, 8), *arguments)
    with pytest.raises(ValueError, match="images.*within 1"):
        corrupted(2 * torch.rand(2, 1, 8, 8) + 1, "fog", 1)


def test_blurs_repeat_the_outermost_pixels():
    x = torch.rand(2, 3, 9, 7)
    at = np.arange(-4, 5)
    kernel = np.exp(-(at**2) / (2 * 0.8**2))  # of severity 3
    expected = x.numpy()
    for axis in (-2, -1):
        expected = correlate1d(expected, kernel / kernel.sum(), axis, mode="nearest")
    np.testing.assert_allclose(corrupted(x, "gaussian_blur", 3), expected, atol=1e-6)
    expected = correlate1d(x.numpy(), np.full(7, 1 / 7), -1, mode="nearest")
    np.testing.assert_allclose(corrupted(x, "motion_blur", 3), expected, atol=1e-6)


def test_fog_has_a_texture_and_each_severity_is_measured(trained):
    assert float(corrupted(torch.full((1, 1, 28, 28), 0.5), "fog", 3).std()) > 0.01
    objective, x, y = trained
    found = under_corruption(objective, x, y, ["contrast"])["contrast"]
    for severity, row in zip(SEVERITIES, found, strict=True):
        assert row == metrics.evaluate(
            predict_proba(objective, corrupted(x, "contrast", severity)), y
        )


@pytest.fixture(scope="module")
def trained():
    digits = data.load("digits")
    objective = zoo.build(
        "classifier", digits.x_shape, 10, seed=0, hidden=(32,), noise=0.0, dropout=0.0
    )
    fit(objective, digits.x, digits.y, epochs=20, batch_size=64, lr=3e-3, progress=False)
    return objective, digits.x_test[:300], digits.y_test[:300]


def mean_loss(objective, x, y):
    return float(-predict_proba(objective, x).gather(1, y[:, None]).log().mean())


def test_fgsm_moves_exactly_epsilon_up_the_loss(trained):
    objective, x, y = trained
    before = [None if p.grad is None else p.grad.clone() for p in objective.parameters()]
    moved = fgsm(objective, x, y, 0.05, bounds=(-9.0, 9.0))
    for p, grad in zip(objective.parameters(), before, strict=True):
        assert (p.grad is None) == (grad is None) and (grad is None or torch.equal(p.grad, grad))
    z = x.clone().requires_grad_()
    loss = -objective.classify(z).log_prob(torch.eye(10)[y]).sum()
    (slope,) = torch.autograd.grad(loss, z)
    assert torch.allclose(moved, x + 0.05 * slope.sign(), atol=1e-7)
    changed = (moved - x).abs()
    assert torch.allclose(changed[slope != 0], torch.tensor(0.05), atol=1e-6)
    assert mean_loss(objective, moved, y) > mean_loss(objective, x, y)


def test_pgd_stays_within_epsilon_and_does_worse_than_one_step(trained):
    objective, x, y = trained
    one = fgsm(objective, x, y, 0.1)
    many = pgd(objective, x, y, 0.1, restarts=2)
    for moved in (one, many):
        assert (
            float((moved - x).abs().max()) <= 0.1 + 1e-6
            and 0 <= float(moved.min())
            and float(moved.max()) <= 1
        )
    assert mean_loss(objective, many, y) > mean_loss(objective, one, y)
    assert torch.equal(many, pgd(objective, x, y, 0.1, restarts=2))


def losses(objective, x, y):
    return -predict_proba(objective, x).double().gather(1, y[:, None]).log().squeeze(1)


def test_pgd_keeps_of_each_datum_the_worst_of_random_starts(trained):
    objective, x, y = trained
    start = pgd(objective, x, y, 0.1, steps=1, step_size=0.0)
    assert 0.03 < float((start - x).abs().mean()) <= 0.1
    once, often = (  # in one chunk, so that the first start is the same
        losses(objective, pgd(objective, x, y, 0.1, steps=3, restarts=n, chunk=len(x)), y)
        for n in (1, 4)
    )
    assert (often >= once - 1e-6).all() and (often > once + 1e-3).any()


def test_a_code_that_is_drawn_is_drawn_anew_in_each_step(monkeypatch):
    o, x, seen = (
        zoo.build("vc", (1, 4, 4), 3, z_dim=2, hidden=(8,), stochastic=True),
        torch.rand(5, 1, 4, 4),
        [],
    )
    classify = type(o).classify
    monkeypatch.setattr(type(o), "classify", lambda *a: seen.append(classify(*a)) or seen[-1])
    pgd(o, x, torch.arange(5) % 3, 0.0, steps=3)
    of_steps = [p.logits.detach() for p in seen if len(p.logits) == 5]
    assert len(of_steps) == 4 and all(not torch.equal(a, b) for a, b in pairwise(of_steps))


def test_under_attack_counts_what_neither_aim_turns(trained):
    objective, x, y = trained
    (row,) = under_attack(objective, x, y, [0.1])
    right = [
        predict_proba(objective, fgsm(objective, x, y, 0.1, aim=aim)).argmax(-1) == y
        for aim in ("loss", "logits")
    ]
    expected = [float(part.double().mean()) for part in (*right, right[0] & right[1])]
    assert [row["loss"], row["logits"], row["either"]] == pytest.approx(expected)
    (row,) = under_attack(objective, x, y.tolist(), [0.0])
    assert row["either"] == pytest.approx(metrics.accuracy(predict_proba(objective, x), y))


def test_data_beyond_their_bounds_are_not_clipped_in_silence(trained):
    objective, x, y = trained
    with pytest.raises(ValueError, match=r"x should be within bounds \(0.0, 1.0\), got 0 .. 2"):
        fgsm(objective, 2 * x, y, 0.0)
    assert torch.equal(fgsm(objective, 2 * x, y, 0.0, bounds=None), 2 * x)


def test_the_difference_of_logits_does_not_saturate(trained):
    objective, x, y = trained
    sure = zoo.build("classifier", x.shape[1:], 10, seed=0, hidden=(32,), noise=0.0, dropout=0.0)
    sure.load_state_dict(objective.state_dict())
    with torch.no_grad():
        last = [p for name, p in sure.named_parameters() if "rest" in name][-2:]
        for p in last:
            p.mul_(200)
    right = predict_proba(sure, x).argmax(-1) == y
    x, y = x[right], y[right]
    by_loss, by_logits = (fgsm(sure, x, y, 0.1, aim=aim) for aim in ("loss", "logits"))
    accuracy = [metrics.accuracy(predict_proba(sure, moved), y) for moved in (by_loss, by_logits)]
    assert (
        accuracy[1] < accuracy[0] - 0.1
    )  # the loss has lost its gradient, not the classifier its weakness


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": -0.1}, "epsilon"),
        ({"aim": "labels"}, "aim"),
        ({"y": torch.zeros(3, dtype=torch.long)}, "y should"),
        ({"y": torch.full((300,), -1)}, "y should be in 0 .. 9"),
        ({"y": torch.full((300,), 10)}, "y should be in 0 .. 9"),
    ],
)
def test_bad_attacks(trained, changes, message):
    objective, x, y = trained
    arguments = {"y": y, "epsilon": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        fgsm(objective, x, **arguments)


def test_arrays_are_as_good_as_tensors():
    g = torch.Generator().manual_seed(0)
    own, foreign, z = (
        torch.rand(50, generator=g) + 0.5,
        torch.rand(40, generator=g),
        torch.randn(60, 3, generator=g),
    )
    y = torch.arange(60) % 2
    assert ood.separation(own.numpy(), foreign.tolist()) == ood.separation(own, foreign)
    of_arrays, of_tensors = (
        ood.ClassDensities(z.numpy(), y.numpy().astype(np.uint8)),
        ood.ClassDensities(z, y),
    )
    torch.testing.assert_close(of_arrays.log_prob(z.numpy()), of_tensors.log_prob(z))
    with pytest.raises(ValueError, match=r"z should have shape \(N, 3\)"):
        of_tensors.log_prob(z[:, :2])
    with pytest.raises(ValueError, match="z holds NaN"):
        of_tensors.log_prob(z.index_fill(0, torch.tensor([4]), math.nan))
    images = torch.rand(5, 1, 8, 8, generator=g)
    torch.testing.assert_close(
        corrupted(images.numpy(), "contrast", 2), corrupted(images, "contrast", 2)
    )
