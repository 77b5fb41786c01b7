"""Scores of data from elsewhere, and how they separate."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
)

from pyro_ssl import zoo
from pyro_ssl.evaluation import ood
from pyro_ssl.evaluation.attacks import fgsm
from pyro_ssl.nn.layers import Linear, SplitLinear
from pyro_ssl.prediction.predict import predict_proba


@pytest.mark.slow
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
ENCODERS = ("ce", "gm", "vc")
BY_LATENT = (*ENCODERS, *(name for name in zoo.METHODS if name.startswith("latent_classifier")))
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
    by_layer = method not in (*DRAWN, *BY_LATENT)
    expected = {"max p", "entropy"} | ({"log p(z)"} if method in ENCODERS else set())
    expected |= {"energy"} if by_layer or method == "ce" else set()
    expected |= {"log p(z), refitted"} if method not in DRAWN else set()
    assert found.keys() == expected | (
        {"log p(x)"} if method not in (*ENCODERS, "classifier") else set()
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
    if method in ENCODERS:
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
