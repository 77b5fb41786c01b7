"""Calibration, foreign data, corruptions and attacks, against scikit-learn, torchmetrics, loops and what they promise."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal

from pyro_ssl import calibration, data, metrics, ood, zoo
from pyro_ssl.attacks import fgsm, pgd
from pyro_ssl.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from pyro_ssl.prediction import predict_proba
from pyro_ssl.training import fit
from pyro_ssl.vision import torchvision

torchvision()  # torchmetrics imports it
from torchmetrics.functional.classification import binary_auroc, binary_average_precision  # noqa: E402


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


def test_temperature_undoes_a_scale():
    logits, y = problem(20_000, sharp=1.7)
    assert calibration.temperature(logits, y) == pytest.approx(1.7, rel=0.03)


def test_the_test_of_calibration_holds_its_level_and_finds_what_is_too_sure():
    values = []
    for seed in range(60):
        logits, y = problem(1000, seed=seed)
        values.append(calibration.calibration_test(logits.softmax(-1), y, draws=100, seed=seed))
    values = torch.tensor(values)
    assert 0.35 < float(values.mean()) < 0.65 and float((values < 0.1).float().mean()) < 0.25
    logits, y = problem(1000, sharp=1.5)
    assert calibration.calibration_test(logits.softmax(-1), y, draws=100) < 0.02


def test_torchmetrics_agrees_on_separation():
    for seed in range(1000):
        g = torch.Generator().manual_seed(seed)
        n, m = (int(v) for v in torch.randint(1, 60, (2,), generator=g))
        own, foreign = torch.randn(n, generator=g) + seed % 5, torch.randn(m, generator=g)
        if seed % 2:  # ties
            own, foreign = own.round(), foreign.round()
        found, truth = ood.separation(own, foreign), torch.tensor([0] * n + [1] * m)
        scores = -torch.cat([own, foreign])
        ranks = (scores[:, None] >= scores).sum(1) / (n + m)  # within [0, 1], where torchmetrics leaves them
        assert found["auroc"] == pytest.approx(float(binary_auroc(ranks, truth)), abs=1e-6)
        assert found["aupr"] == pytest.approx(float(binary_average_precision(ranks, truth)), abs=1e-6)
        threshold = own.sort().values[n - math.ceil(0.95 * n)]  # 95 % of the own reach it
        assert found["fpr95"] == pytest.approx(float((foreign >= threshold).double().mean()), abs=1e-12)


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
            len(own) / 500 * torch.as_tensor(multivariate_normal(own.mean(0), covariance).pdf(z.double().numpy()))
        )
    assert torch.allclose(ours, density.log(), atol=1e-9)
    with pytest.raises(ValueError, match="class 1"):
        ood.ClassDensities(z, torch.where(y == 1, 0, y))


SMALL = {"hidden": (7,), "z_dim": 3}


@pytest.mark.parametrize("method", ["classifier", "m2", "adgm", "latent_classifier", "m1_m2", "ce", "gm", "vc"])
def test_every_method_has_its_scores(method):
    torch.manual_seed(0)
    x = torch.rand(9, 1, 4, 4)
    o = zoo.build(method, (1, 4, 4), 3, **{k: v for k, v in SMALL.items() if k in zoo.options_of(method)}).eval()
    found = ood.scores(o, x)
    p = predict_proba(o, x)
    assert torch.allclose(found["max p"].exp(), p.amax(-1), atol=1e-5)
    assert torch.allclose(found["entropy"], (p * p.log()).sum(-1), atol=1e-5)
    generates = method not in ("classifier", "ce", "gm", "vc")
    code = method in ("ce", "gm", "vc")
    by_layer = method in ("classifier", "m2", "m1_m2")
    expected = {"max p", "entropy"} | ({"log p(z)"} if code else set()) | ({"energy"} if by_layer else set())
    assert found.keys() == expected | ({"log p(x)"} if generates else set())
    assert all(s.shape == (9,) for s in found.values())
    if by_layer:
        with torch.no_grad():
            logits = o.guide.q_y.parameters_of(o.seen(x))
        assert torch.allclose(found["energy"], logits.logsumexp(-1), atol=1e-5)
        h = ood.features(o, x)
        layer = o.guide.q_y.network.rest[-1]
        assert torch.allclose(h @ layer.weight.T + layer.bias, logits, atol=1e-5)
    if code:
        with torch.no_grad():
            z = o.guide.q_z(x).mean
            log_p = torch.stack([o.model.p_z(y).log_prob(z) for y in torch.eye(3)], -1) - math.log(3)
        assert torch.allclose(found["log p(z)"], log_p.logsumexp(-1), atol=1e-4)
        assert torch.equal(ood.features(o, x), z)
    if method == "adgm":
        with pytest.raises(ValueError, match="features"):
            ood.features(o, x)


def test_separations_name_a_set_of_another_shape():
    o = zoo.build("gm", (1, 4, 4), 3, hidden=(7,), z_dim=3)
    own, foreign = torch.rand(9, 1, 4, 4), {"ones": torch.ones(5, 1, 4, 4), "noise": torch.rand(5, 1, 4, 4)}
    densities = ood.ClassDensities(ood.features(o, own), torch.arange(9) % 3)
    found = ood.separations(o, own, foreign, densities)
    assert found.keys() == foreign.keys() and set(found["ones"]) == {
        "max p",
        "entropy",
        "log p(z)",
        "log p(z), refitted",
    }
    assert found["ones"]["log p(z), refitted"]["auroc"] > 0.9
    with pytest.raises(ValueError, match="wide.*(1, 4, 5)"):
        ood.separations(o, own, {"wide": torch.rand(5, 1, 4, 5)})


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_corruption_grows_with_its_severity_and_is_reproducible(name, shape):
    g = torch.Generator().manual_seed(0)
    rough = torch.nn.functional.interpolate(torch.rand(20, shape[0], 9, 9, generator=g), shape[1:], mode="bicubic")
    x = rough.clamp(0, 1)
    state = torch.random.get_rng_state()
    far = [float((corrupted(x, name, s) - x).square().sum()) for s in SEVERITIES]
    assert far == sorted(far) and far[0] > 0
    again = corrupted(x, name, 5)
    assert torch.equal(again, corrupted(x, name, 5)) and 0 <= float(again.min()) and float(again.max()) <= 1
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("arguments", "message"), [(("haze", 1), "haze"), (("fog", 6), "6"), (("fog", 0), "0")])
def test_bad_corruptions(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupted(torch.rand(2, 1, 8, 8), *arguments)
    with pytest.raises(ValueError, match="images"):
        corrupted(2 * torch.rand(2, 1, 8, 8) + 1, "fog", 1)


@pytest.fixture(scope="module")
def trained():
    digits = data.load("digits")
    objective = zoo.build("classifier", digits.x_shape, 10, seed=0, hidden=(32,), noise=0.0, dropout=0.0)
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
        assert float((moved - x).abs().max()) <= 0.1 + 1e-6 and 0 <= float(moved.min()) and float(moved.max()) <= 1
    assert mean_loss(objective, many, y) > mean_loss(objective, one, y)
    assert torch.equal(many, pgd(objective, x, y, 0.1, restarts=2))


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
    assert accuracy[1] < accuracy[0] - 0.1  # the loss has lost its gradient, not the classifier its weakness


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"epsilon": -0.1}, "epsilon"), ({"aim": "labels"}, "aim"), ({"y": torch.zeros(3)}, "y should")],
)
def test_bad_attacks(trained, changes, message):
    objective, x, y = trained
    arguments = {"y": y, "epsilon": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        fgsm(objective, x, **arguments)
