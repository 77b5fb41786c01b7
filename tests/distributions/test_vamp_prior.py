"""VampPrior: a mean of posteriors, and pseudo-inputs that learn."""

import math

import pytest
import torch
from comparisons import assert_same
from programs.latents import EYE, PLAIN, SMALL, B, D, K, P, Z, build, integral, log_vamp
from programs.pairs import data

from pyro_ssl import (
    Batch,
    TraceTopKEnum_ELBO,
    fit,
    zoo,
)
from pyro_ssl.distributions.priors import VampPrior


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


@pytest.mark.slow
@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("flow", [0, 2])
def test_a_vamp_prior_is_the_mean_of_posteriors_and_normalised(flow, by_class):
    z, q_z = torch.randn(5, B, Z), build("sslpe", spread=0.1, flow=flow).guide.q_z
    p_z = VampPrior(q_z, [D, K], P, by_class=by_class)
    for y in EYE:
        assert_same(p_z(y).log_prob(z), log_vamp(p_z, y, z), list(p_z.parameters()))
    assert integral(p_z(y).log_prob) == pytest.approx(1, abs=5e-3)


def test_a_vamp_prior_reads_its_pseudo_inputs_without_noise():
    o, z = (
        build("latent_classifier", prior="vamp", noise=0.7, dropout=0.5).train(),
        torch.randn(5, Z),
    )
    assert not torch.equal(o.guide.q_z(data()[0]).mean, o.guide.q_z(data()[0]).mean)
    assert torch.equal(o.model.p_z().log_prob(z), o.model.p_z().log_prob(z))


def test_pseudo_inputs_are_no_weights():
    o = build("m2", prior="vamp", l2=0.1)
    weights = [p for name, p in o.named_parameters() if p.dim() > 1 and "inputs" not in name]
    found = o.parts(Batch(*data()))["L2"]
    assert len(weights) < sum(p.dim() > 1 for p in o.parameters())
    assert torch.allclose(found, 0.05 * sum(w.square().sum() for w in weights))


@pytest.mark.slow
@pytest.mark.parametrize("family", [{}, {"class_prior": True}, {"flow": 1}])
def test_pseudo_inputs_learn_and_the_bound_stays_below_the_evidence(family):
    """The evidence by a grid over latents, and by importance sampling."""
    o, n = zoo.build("m2", 2, K, **SMALL | PLAIN | family, prior="vamp").double(), 2000
    before = [p.detach().clone() for p in o.model.p_z.inputs]
    y = torch.arange(60) % K
    x = 2 * EYE[y][:, :2] + 0.4 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    history = fit(o, x, y.where(torch.arange(60) < 30, -1), epochs=40, batch_size=30, lr=2e-2)
    assert history["loss"][-1] < history["loss"][0] - 1
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(o.model.p_z.inputs, before, strict=True))
    line = torch.linspace(-9, 9, 121)
    z = torch.cartesian_prod(line, line)[:, None]
    with torch.no_grad():
        log_p = [
            o.model.p_z(e).log_prob(z) + o.model.p_x(e.expand(1, K), z).log_prob(x[:B]) for e in EYE
        ]
        evidence = torch.cat(log_p).logsumexp(0) + 2 * (line[1] - line[0]).log() - math.log(K)
        draws = o.bound(x[:B].repeat_interleave(n, 0)).reshape(B, n)
        sampled = TraceTopKEnum_ELBO(None, num_particles=n).log_evidence(o.model, o.guide, x[:B])
    assert torch.allclose(sampled, evidence, atol=0.1)
    assert (
        draws.mean(1) - 4 * draws.std(1) / math.sqrt(n) < evidence
    ).all() and draws.mean() < evidence.mean() - 0.01
