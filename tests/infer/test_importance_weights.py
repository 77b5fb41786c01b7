"""Importance-weighted bounds and the evidence, where the evidence is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same, parameters, seeded
from programs.pairs import PARALLEL, D, InPlate, adgm, data, m2, sslpe
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_ssl import (
    Batch,
    TraceTopKEnum_ELBO,
)

pytestmark = pytest.mark.usefixtures("float64")
SAMPLED = TraceTopKEnum_ELBO(None, closed_form=())
"""The sum over all classes with one sample of everything else.

Pyro's own, as test_bound_values.py shows.
"""
W = torch.tensor([[1.0, 0.5], [0.8, -0.4], [0.0, 0.0], [-0.5, 1.025]], dtype=torch.float64)
W[:, 1] -= W[:, 0] * (W[:, 0] @ W[:, 1]) / W[:, 0].square().sum()
MEANS = torch.tensor(
    [[0.0, 1.0, 0.0, -1.0], [1.5, 0.0, 0.0, 0.0], [0.0, -1.0, 1.0, 0.5]], dtype=torch.float64
)
PRIOR, S2 = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 0.6


def joint(x: Tensor) -> Tensor:
    """log p(x, y) of every class, `(B, K)`: z is integrated out."""
    return MultivariateNormal(MEANS, W @ W.T + S2 * torch.eye(D)).log_prob(x[:, None]) + PRIOR.log()


def linear(p, x, y):
    y = pyro.sample("y", dist.OneHotCategorical(PRIOR), obs=y)
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    if p.auxiliary:
        pyro.sample("a", dist.Normal(z[..., 0] + x[:, 0], 1.0))
    pyro.sample("x", dist.Normal(y @ MEANS + z @ W.T, S2**0.5).to_event(1), obs=x)


def inference(q, x, y):
    """The posterior, W's columns being orthogonal; moved away from it by the parameter `off`."""
    logits = (1 - q.off) * joint(x)
    if q.auxiliary:
        logits = logits + 0.3 * pyro.sample("a", dist.Normal(x[:, 0] + 0.3, 1.5))[
            ..., None
        ] * torch.arange(3)
    if y is None:
        y = pyro.sample("y", dist.OneHotCategorical(logits=logits), infer=PARALLEL)
    variance = 1 / (1 + W.square().sum(0) / S2)
    loc = variance * ((x - y @ MEANS) @ W) / S2
    pyro.sample("z", dist.Normal(loc + q.off, (1 + q.off) * variance.sqrt()).to_event(1))


def linear_gaussian(off: float, auxiliary: bool = False) -> tuple[InPlate, InPlate]:
    pair = InPlate(linear), InPlate(inference, off=nn.Parameter(torch.tensor(off)))
    for program in pair:
        program.auxiliary = auxiliary
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_an_importance_weighted_bound_rises_with_its_samples_to_the_evidence(given):
    n, pair, (x, y) = 4000, linear_gaussian(0.4), data(3)
    x, y = x.repeat_interleave(n, 0), y.repeat_interleave(n, 0) if given else None
    with torch.no_grad():
        values = [
            TraceTopKEnum_ELBO(None, num_particles=s, importance_weighted=True)
            .bound(*pair, x, y)
            .value
            for s in (1, 5, 50)
        ]
        mean, plain = (
            TraceTopKEnum_ELBO(None, num_particles=s).bound(*pair, x, y).value for s in (5, 1)
        )
    values = [v.reshape(3, n) for v in [*values, mean, plain]]
    means, errors = [v.mean(1) for v in values], [v.std(1) / math.sqrt(n) for v in values]
    one, five, fifty, averaged, elbo_ = range(5)
    for low, high in ((one, five), (five, fifty)):
        assert (means[high] - means[low] > 4 * (errors[high] ** 2 + errors[low] ** 2).sqrt()).all()
    for a, b in ((one, elbo_), (averaged, elbo_)):  # a mean of logarithms is no tighter
        assert ((means[a] - means[b]).abs() < 4 * (errors[a] ** 2 + errors[b] ** 2).sqrt()).all()
    log_p = joint(x[::n])
    q = (0.6 * log_p).softmax(-1)
    limit = log_p.diagonal() if given else (q * (log_p - q.log())).sum(-1)
    assert (means[fifty] < limit + 4 * errors[fifty]).all() and (limit - means[fifty] < 0.1).all()


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_log_evidence_is_unbiased_for_the_evidence(given, auxiliary, shared):
    n, pair, (x, y) = 1000, linear_gaussian(0.3, auxiliary), data(3)
    exact = joint(x).diagonal() if given else joint(x).logsumexp(-1)

    def estimate(s, x, y):
        return TraceTopKEnum_ELBO(1, num_particles=s, common_random_numbers=shared).log_evidence(
            *pair, x, y
        )

    torch.manual_seed(0)
    with torch.no_grad():
        for s in (1, 20):
            draws = estimate(
                s, x.repeat_interleave(n, 0), y.repeat_interleave(n, 0) if given else None
            )
            ratio = (draws.reshape(3, n) - exact[:, None]).exp()
            assert (
                (ratio.mean(1) - 1).abs() < 5 * ratio.std(1) / math.sqrt(n)
            ).all()  # its tails are heavy
        assert torch.allclose(estimate(20_000, x, y if given else None), exact, atol=0.1)


@pytest.mark.parametrize("given", [True, False])
def test_one_sample_is_the_elbo(given):
    (x, y), y_given = data(), None
    for pair in (linear_gaussian(0.4), linear_gaussian(0.4, auxiliary=True), adgm(), sslpe()):
        y_given = y if given else None
        weighted = seeded(
            TraceTopKEnum_ELBO(None, importance_weighted=True).bound, *pair, x, y_given
        ).value
        assert_same(weighted, seeded(SAMPLED.bound, *pair, x, y_given).value, parameters(*pair))


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("samples", [1, 2, 7])
def test_every_bound_is_the_evidence_where_the_guide_is_the_posterior(samples, given):
    pair, (x, y) = linear_gaussian(0.0), data()
    exact = (joint(x) * y).sum(-1) if given else joint(x).logsumexp(-1)
    for options in ({"importance_weighted": True}, {"closed_form": ()}):
        bound = TraceTopKEnum_ELBO(None, num_particles=samples, **options)
        assert torch.allclose(
            bound.bound(*pair, x, y if given else None).value, exact, rtol=0, atol=1e-10
        )
        assert torch.allclose(
            bound.log_evidence(*pair, x, y if given else None), exact, rtol=0, atol=1e-10
        )
        assert torch.allclose(bound.class_bounds(*pair, x), joint(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("given", [True, False])
def test_a_weight_multiplies_an_importance_weighted_bound(given):
    o, (x, y) = m2(), data()
    o.elbo = TraceTopKEnum_ELBO(None, num_particles=5, importance_weighted=True)
    batch = Batch(x, y) if given else Batch(x_unlabeled=x)
    part = "labeled" if given else "unlabeled"
    whole = seeded(o.parts, batch)[part]
    o.labeled_weight = o.unlabeled_weight = 0.3
    assert_same(seeded(o.parts, batch)[part], 0.3 * whole, parameters(o))
