"""Bounds with flows, VampPriors and priors by class, written out in float64."""

import math

import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same
from programs.latents import EYE, FAMILIES, B, K, Z, build, log_q, log_vamp, traces
from programs.pairs import data
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl import (
    Objective,
    guides,
    zoo,
)
from pyro_ssl.distributions.flows import Flow
from pyro_ssl.distributions.priors import VampPrior
from pyro_ssl.infer.closed_form import closed_form_kl


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


@pytest.fixture
def noise(monkeypatch, seeded):
    """Standard normal noise that depends on the class alone, the same for every datum."""
    pool = torch.randn(K, 1, Z, generator=torch.Generator().manual_seed(2))

    def drawn(shape, **_) -> Tensor:
        return (pool if len(shape) > 2 else pool[0]).expand(shape)

    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", drawn)
    monkeypatch.setattr(
        torch, "randn_like", lambda t: drawn(t.shape)
    )  # what classes share, see EnumerateMessenger
    return pool


def f_by_hand(o: Objective, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """log p(x, y, z) - log q(z|x,y), with the KL in closed form where both are Gaussians."""
    p_z, q_z, flow = o.model.p_z, o.guide.q_z, isinstance(o.guide.q_z, Flow)
    q = (q_z.base if flow else q_z)(x, y)
    z = q.mean + q.stddev * noise
    z = q_z.transform()(z) if flow else z
    log_px = math.log(1 / K) + o.model.p_x(y, z).log_prob(x)
    if isinstance(p_z, VampPrior):
        return log_px + log_vamp(p_z, y, z) - log_q(q_z, x, y, z)
    return log_px + (
        p_z(y).log_prob(z) - log_q(q_z, x, y, z) if flow else -kl_divergence(q, p_z(y))
    )


def by_hand(o: Objective, x: Tensor, y: Tensor | None, pool: Tensor, shared: bool = True) -> Tensor:
    if y is not None:
        return f_by_hand(o, x, y, pool[0])
    q = o.guide.q_y(x).probs
    every = [f_by_hand(o, x, EYE[k].expand(len(x), K), pool[0 if shared else k]) for k in range(K)]
    return sum(q[:, k] * (every[k] - q[:, k].log()) for k in range(K))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_bounds_are_the_sums_written_out(family, shared, noise):
    """Without y, with it, and with the labels of the first rows.

    There K copies of each stand for it, of one noise each.
    """
    o, (x, y) = build(common_random_numbers=shared, **family), data()
    of, vamp, by_class = (
        list(o.parameters()),
        family.get("prior") == "vamp",
        "class_prior" in family,
    )
    assert (isinstance(o.model.p_z, VampPrior), isinstance(o.guide.q_z, Flow)) == (
        vamp,
        "flow" in family,
    )
    assert torch.equal(*(o.model.p_z(e).log_prob(torch.zeros(Z)) for e in EYE[:2])) != by_class
    assert_same(o.bound(x), by_hand(o, x, None, noise, shared), of)
    assert_same(o.bound(x, y), by_hand(o, x, y, noise), of)
    if shared:
        parts = by_hand(o, x[:2], y[:2], noise), by_hand(o, x[2:], None, noise)
        assert_same(o.elbo.bound(o.model, o.guide, x, labels=y[:2]).value, torch.cat(parts), of)


def ladder_by_hand(o: Objective, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """The same of two latents, of which the top_k one has the families."""
    m, g = o.model, o.guide
    of_top, flow, vamp = g.q_z[-1], isinstance(g.q_z[-1], Flow), isinstance(m.p_z_top, VampPrior)
    top_k = guides.LadderTop(g.up, of_top.base if flow else of_top)
    q = top_k(x, y)
    z_2 = q.mean + q.stddev * noise
    z_2 = of_top.transform()(z_2) if flow else z_2
    p_1, seen = m.p_z[0](z_2), g.q_z[0](g.up[0](x, y))
    precision = 1 / p_1.variance + 1 / seen.variance
    mean = (p_1.mean / p_1.variance + seen.mean / seen.variance) / precision
    q_1 = dist.Normal(mean, precision.rsqrt()).to_event(1)
    rest = (
        m.p_x(y, mean + precision.rsqrt() * noise).log_prob(x)
        - kl_divergence(q_1, p_1)
        + math.log(1 / K)
    )
    if not (flow or vamp):
        return rest - kl_divergence(q, m.p_z_top(y))
    log_p = log_vamp(m.p_z_top, y, z_2) if vamp else m.p_z_top(y).log_prob(z_2)
    return rest + log_p - log_q(Flow(top_k, of_top.transform) if flow else top_k, x, y, z_2)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_top_of_a_ladder_may_be_of_any_family(family, noise):
    o, (x, y) = build("lvae", common_random_numbers=False, **family, z_dims=(Z, Z)), data()
    of = list(o.parameters())
    assert_same(o.bound(x, y), ladder_by_hand(o, x, y, noise[0]), of)
    q = o.guide.q_y(x).probs
    every = [ladder_by_hand(o, x, EYE[k].expand(B, K), noise[k]) for k in range(K)]
    assert_same(o.bound(x), sum(q[:, k] * (every[k] - q[:, k].log()) for k in range(K)), of)


@pytest.mark.parametrize("method", ["m2", "adgm", "sdgm", "sslpe"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_kl_of_two_gaussians_alone_is_closed(family, method):
    family = {k: v for k, v in family.items() if k in zoo.options_of(method)}
    closed = closed_form_kl(*traces(build(method, **family), data()[0]))
    assert ("z" in closed) == (not family.keys() & {"prior", "flow"})
