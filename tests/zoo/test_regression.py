"""SSLPE and SSLAPD with a real y: bounds written out, labels of any shape, a learned function."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pyro_ssl import (
    Objective,
    SemiSupervisedRegressor,
    TraceTopKEnum_ELBO,
    fit,
    gibbs,
    zoo,
)
from pyro_ssl.estimator import base
from pyro_ssl.infer.gibbs_chain import gibbs as sample
from pyro_ssl.nn.tensor_marks import mark_normal
from pyro_ssl.utils.arguments import as_values

METHODS = ("sslpe", "sslapd")
D, B = 3, 6
SMALL = {
    "hidden": (5,),
    "z_dim": 2,
    "activation": "tanh",
    "balance": 0.0,
    "noise": 0.0,
    "dropout": 0.0,
}


def build(method: str, size: int = 2, **options) -> Objective:
    return zoo.build(method, D, size, regression=True, **SMALL | options)


@pytest.fixture
def seeded(float64):
    torch.manual_seed(0)


def by_hand(o: Objective, x: Tensor, y: Tensor | None, closed: bool) -> tuple[Tensor, Tensor]:
    """L(x, y) or U(x), paper 002, eq. 4.5 and 4.9, and log q(W) - log p(W), by one sample each.

    Samples are drawn in the guide's order. With weights W the KL is in closed form, too; y, which
    the model draws after z and the guide before it, is always sampled.
    """
    bayesian = hasattr(o.guide, "q_w")
    model, guide = (getattr(p, "program", p) for p in (o.model, o.guide))
    w = o.guide.q_w().rsample() if bayesian else torch.zeros(0)
    value = torch.zeros(len(x))
    if y is None:
        q_y = guide.q_y(x)
        y = q_y.rsample()
        value = value - q_y.log_prob(y)
    q_z, p_z = guide.q_z(x, y), Normal(torch.zeros(2), 1.0)
    z = q_z.rsample()
    log_ratio = p_z.log_prob(z).sum(-1) - q_z.log_prob(z)
    value = value + (-kl_divergence(q_z.base_dist, p_z).sum(-1) if closed else log_ratio)
    value = value + model.p_x(z).log_prob(x)
    if not bayesian:
        return value + model.p_y(x, z).log_prob(y), torch.zeros(())
    q_w, p_w = (
        Normal(o.guide.loc, (0.5 * o.guide.log_variance).exp()),
        Normal(torch.zeros_like(w), o.model.scale),
    )
    mark_normal(w, q_w.mean, q_w.stddev if o.guide.local_reparameterisation else None)
    with o.model.given(w):
        value = value + model.p_y(x, z).log_prob(y)
    kl = kl_divergence(q_w, p_w).sum() if closed else (q_w.log_prob(w) - p_w.log_prob(w)).sum()
    return value, kl


def test_the_regressor_averages_the_chains_that_are_asked_for(monkeypatch):
    x, y = (
        np.random.default_rng(0).normal(size=(40, 2)),
        np.r_[np.arange(20.0), np.full(20, np.nan)],
    )
    called = []
    prediction = import_module("pyro_ssl.prediction.gibbs")
    sample = prediction.gibbs
    monkeypatch.setattr(
        prediction,
        "gibbs",
        lambda *a, **k: called.append((k["steps"], k["chains"])) or sample(*a, **k),
    )
    for options in ({}, {"gibbs_chains": 9, "gibbs_steps": 3}):
        small = {"hidden": (5,), "z_dim": 2} | options
        wave = SemiSupervisedRegressor(epochs=1, min_steps=1, options=small, random_state=0).fit(
            x, y
        )
        assert wave.predict(x).shape == (40,)
    assert called == [(10, 4), (3, 9)]
    with pytest.raises(ValueError, match="gibbs_steps should be above 0 for a real y"):
        SemiSupervisedRegressor(epochs=1, options={"gibbs_steps": 0}).fit(x, y)
    with pytest.raises(ValueError, match="y is too large to standardise"):
        SemiSupervisedRegressor(epochs=1).fit(x, 8e306 * y)


def test_predictions_are_in_the_units_of_y(monkeypatch):
    """For y far from mean 0 and scale 1: the chains' moments, scaled back by the labeled rows'."""
    trained = []
    monkeypatch.setattr(base, "fit", lambda o, x, y, **k: trained.append(y) or fit(o, x, y, **k))
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (200, 1))
    y = np.c_[100 + 5 * np.sin(2 * x[:, 0]), -3 + 0.2 * x[:, 0]]
    y[30:] = np.nan
    small = {"hidden": (16,), "z_dim": 2, "gibbs_steps": 3, "gibbs_chains": 5}
    wave = SemiSupervisedRegressor(epochs=3, min_steps=200, options=small, random_state=0).fit(x, y)
    mean, std = wave.predict(x, return_std=True)
    found = gibbs(wave.objective_, (x - wave.mean_) / wave.std_, steps=3, chains=5)
    center, scale = y[:30].mean(0), y[:30].std(0)
    assert np.allclose(mean, found.mean.double().numpy() * scale + center, rtol=1e-5)
    assert np.allclose(std, found.variance.sqrt().double().numpy() * scale, rtol=1e-5)
    assert np.allclose(trained[0], (y - center) / scale, equal_nan=True)


def test_the_predicted_distribution_has_the_moments_of_the_chains(seeded):
    o, x = build("sslpe", gibbs_steps=3, gibbs_chains=4).double().eval(), torch.randn(5, D)
    torch.manual_seed(2)
    predicted = o.classify(x)
    torch.manual_seed(2)
    found = sample(o.model, o.guide, x, steps=3, chains=4)
    assert torch.equal(predicted.mean, found.mean)
    assert torch.allclose(predicted.variance, found.variance, rtol=1e-12)


OPTIONS = [
    ("sslpe", {}),
    ("sslapd", {"local_reparameterisation": True}),
    ("sslapd", {"local_reparameterisation": False}),
]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(("method", "options"), OPTIONS)
def test_bounds_are_those_written_out(method, options, closed, given, seeded):
    o = build(method, closed_form=closed, **options).double()
    with torch.no_grad():
        for p in o.parameters():
            p.add_(0.4 * torch.randn(p.shape))
    x, y = torch.randn(B, D), torch.randn(B, 2) if given else None
    torch.manual_seed(1)
    bound = o.elbo.bound(o.model, o.guide, x, y)
    torch.manual_seed(1)
    value, shared = by_hand(o, x, y, closed)
    assert torch.allclose(bound.value, value, rtol=0, atol=1e-10)
    assert torch.allclose(
        torch.zeros(()) if bound.shared is None else bound.shared, shared, rtol=0, atol=1e-8
    )
    of = list(o.parameters())
    for ours, theirs in ((bound.value.sum(), value.sum()), (bound.shared, shared)):
        if ours is not None:
            found = (
                torch.autograd.grad(v, of, allow_unused=True, retain_graph=True)
                for v in (ours, theirs)
            )
            for a, b in zip(*found, strict=True):
                assert (a is None) == (b is None) and (
                    a is None or torch.allclose(a, b, rtol=0, atol=1e-8)
                )


def test_more_samples_have_the_same_mean_and_a_tighter_bound(seeded):
    """There is nothing to sum over: `top_k` says nothing."""
    n, x, means = 20_000, torch.randn(1, D), {}
    for options in (
        {},
        {"top_k": 1},
        {"num_particles": 5},
        {"num_particles": 5, "importance_weighted": True},
    ):
        o = build("sslpe", **options).double().eval()
        with torch.no_grad():
            draws = o.bound(x.expand(n, D))
        assert draws.shape == (n,)
        means[len(means)] = draws.mean().item(), draws.std().item() / math.sqrt(n)
    with torch.no_grad():
        evidence = TraceTopKEnum_ELBO(num_particles=n).log_evidence(o.model, o.guide, x).item()
    for k in (1, 2):
        assert abs(means[k][0] - means[0][0]) < 4 * math.hypot(means[k][1], means[0][1])
    assert means[0][0] < means[3][0] - 0.1 and means[3][0] < evidence + 0.05


# --- labels ---------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
GOOD = {
    "a list": ([0.5, NAN, 2.0, NAN], [[0.5], [2.0]]),
    "an array": (np.array([0.5, NAN, 2.0, NAN], dtype=">f4"), [[0.5], [2.0]]),
    "a column": (torch.tensor([[0.5], [NAN], [2.0], [NAN]], dtype=torch.float64), [[0.5], [2.0]]),
    "whole numbers": ([1, 2, 3, 4], [[1.0], [2.0], [3.0], [4.0]]),
    "two columns": ([[1.0, -1.0], [NAN, NAN], [2.0, 0.0], [NAN, NAN]], [[1.0, -1.0], [2.0, 0.0]]),
    "none at all": ([NAN] * 4, torch.zeros(0, 1).tolist()),
}
BAD = {
    "infinity": ([0.5, INF, 1.0, NAN], 1, ValueError, "y should be finite"),
    "infinity in float32": (np.array([0.5, 1e300, 1.0, NAN]), 1, ValueError, "y should be finite"),
    "a row in part": (
        [[1.0, NAN]] * 4,
        2,
        ValueError,
        "y should be finite, or NaN in all of a row",
    ),
    "too few": ([1.0, 2.0], 1, ValueError, r"y should have shape \(4, 1\).*got \(2,\)"),
    "too wide": ([[1.0, 2.0]] * 4, 1, ValueError, r"y should have shape \(4, 1\).*got \(4, 2\)"),
    "too narrow": ([1.0] * 4, 2, ValueError, r"y should have shape \(4, 2\).*got \(4,\)"),
    "strings": (["a", "b", "c", "d"], 1, TypeError, "y should hold real numbers"),
    "numbers as strings": (["1", "2", "3", "4"], 1, TypeError, "y should hold real numbers"),
    "None": ([0.5, None, 1.0, 2.0], 1, TypeError, "y should hold real numbers"),
    "complex": ([1j, 0, 1, 2], 1, TypeError, "y should hold real numbers"),
    "bools": ([True, False, True, False], 1, TypeError, "y should hold real numbers"),
}
ROWS = torch.randn(4, D, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("y", "known"), GOOD.values(), ids=GOOD)
def test_labels_of_any_shape_with_nan_for_missing(y, known):
    size, before = len(known[0]) if known else 1, np.array(y, copy=True)
    values, rows = as_values(y, 4, size)
    assert values.dtype == torch.float32 and values.shape == (4, size) and values.isfinite().all()
    assert values[rows].tolist() == known
    history = fit(build("sslpe", size), ROWS, y, epochs=2, batch_size=2)
    assert ("labeled" in history) == bool(known) and ("unlabeled" in history) == (len(known) < 4)
    assert all(math.isfinite(v) for v in history["loss"])
    assert np.array_equal(before, np.array(y), equal_nan=True)


@pytest.mark.parametrize(("y", "size", "error", "message"), BAD.values(), ids=BAD)
def test_bad_labels_are_refused_by_name(y, size, error, message):
    o = build("sslpe", size)
    before = {k: v.clone() for k, v in o.state_dict().items()}
    with pytest.raises(error, match=message):
        fit(o, ROWS, y, epochs=1)
    assert all(torch.equal(v, before[k]) for k, v in o.state_dict().items())


# --- a function of few labels ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_wave_is_learned_from_thirty_labels(method):
    """Better than the mean of the labels; the predictive deviation covers most errors; seeded."""
    g = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(1000, 1, generator=g) - 2
    y = torch.sin(2 * x[:, 0]) + 0.1 * torch.randn(1000, generator=g)
    labels, rest = y.where(torch.arange(1000) < 30, NAN), slice(30, None)
    o = zoo.build(
        method,
        1,
        1,
        regression=True,
        **SMALL | {"hidden": (32,), "noise": 0.05, "activation": "relu"},
    )
    history = fit(o, x, labels, epochs=30, batch_size=100, labeled_batch_size=30, lr=2e-2)
    assert history["loss"][-1] < history["loss"][0] - 2
    assert history["LabelLogProb"][-1] < history["LabelLogProb"][0] - 0.5
    found = gibbs(o, x[rest], steps=5, chains=2)
    assert found.mean.shape == found.variance.shape == (970, 1) and found.z.shape == (970, 2)
    error, std = found.mean[:, 0] - y[rest], found.variance[:, 0].sqrt()
    baseline = (y[rest] - y[:30].mean()).square().mean().sqrt()
    assert error.square().mean().sqrt() < 0.4 * baseline
    assert std.isfinite().all() and (std > 0).all()
    assert (error.abs() < 3 * std).float().mean() > 0.7
    assert torch.equal(gibbs(o, x[rest], steps=5, chains=2).mean, found.mean)
    assert not torch.equal(gibbs(o, x[rest], steps=5, chains=2, seed=1).mean, found.mean)


def test_warm_up_is_of_the_codes_kl_and_not_of_a_real_labels(seeded):
    """Paper 002, eq. 5.1: beta stands before KL(q(z|x,y) || p(z)) alone."""
    o, x = build("sslpe", closed_form=True).double(), torch.randn(B, D)
    torch.manual_seed(3)
    q_y = o.guide.q_y(x)
    kl = kl_divergence(o.guide.q_z(x, q_y.rsample()).base_dist, Normal(torch.zeros(2), 1.0)).sum(-1)
    full, quarter = (torch.manual_seed(3) and o.bound(x, kl_weight=w) for w in (1.0, 0.25))
    assert torch.allclose(quarter - full, 0.75 * kl, rtol=1e-10)
