"""Flows as changes of variables."""

import pyro.distributions as dist
import pytest
import torch
import zuko
from comparisons import assert_same, gradients
from programs.latents import EYE, B, D, K, Z, build, integral, traces
from programs.pairs import data
from torch import Tensor

from pyro_ssl import (
    TraceTopKEnum_ELBO,
)
from pyro_ssl.distributions.flows import FlowDistribution


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


def flowing(transforms: int, *lead: int) -> tuple[FlowDistribution, list[Tensor]]:
    maf = zuko.flows.MAF(Z, transforms=transforms, hidden_features=(8,)).transform
    with torch.no_grad():
        for p in maf.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    loc, scale = (
        torch.randn(*lead, Z).requires_grad_(),
        torch.rand(*lead, Z).add(0.5).requires_grad_(),
    )
    return FlowDistribution(dist.Normal(loc, scale).to_event(1), maf()), [
        loc,
        scale,
        *maf.parameters(),
    ]


@pytest.mark.parametrize("lead", [(B,), (K, B), ()])
@pytest.mark.parametrize("transforms", [1, 3])
def test_a_flow_is_a_change_of_variables(transforms, lead):
    """Against a Jacobian of each row.

    What is kept of the drawing, and what an inverse finds, in value and gradient.
    """
    q, of = flowing(transforms, *lead)
    u = q.base.rsample()
    z = q.transform_base(u)
    jacobians = [torch.autograd.functional.jacobian(q.transform, row) for row in u.reshape(-1, Z)]
    ladj = torch.linalg.slogdet(torch.stack(jacobians))[1].reshape(lead)
    kept, found = q.log_prob(z), q.log_prob(z.clone())
    assert torch.allclose(kept, q.base.log_prob(u) - ladj, rtol=0, atol=1e-10)
    assert_same(kept, found, of)
    assert all(g.abs().max() > 0 for g in gradients(kept, of))
    q.rsample()
    assert torch.allclose(
        q.log_prob(z), kept, rtol=0, atol=1e-10
    )  # it is not the last draw any more
    if not lead:
        assert integral(q.log_prob) == pytest.approx(1, abs=5e-3)


def test_expansions_of_a_flow_share_what_was_drawn(monkeypatch):
    q, _ = flowing(2, B)
    wide = q.expand(torch.Size([K, B]))
    z = wide.rsample()
    assert z.shape == (K, B, Z)
    expected = q.log_prob(z.clone())
    monkeypatch.setattr(type(q.transform), "inv", None)  # whoever inverts fails
    assert torch.allclose(q.log_prob(z), expected, rtol=0, atol=1e-10) and wide.log_prob(
        z
    ) is q.log_prob(z)
    with pytest.raises(TypeError):
        q.log_prob(z.clone())


@pytest.mark.parametrize("shared", [True, False])
def test_shared_noise_is_one_noise_in_the_base(shared):
    o, x = build(flow=2, common_random_numbers=shared), data()[0]
    z = traces(o, x)[0].nodes["z"]["value"]
    base = o.guide.q_z.base(x, EYE[:, None])
    u = (o.guide.q_z.transform().inv(z) - base.mean) / base.stddev
    assert z.shape == (K, B, Z) and torch.allclose(u, u[:1].expand_as(u), atol=1e-8) == shared


def test_the_likeliest_and_one_are_unbiased_for_a_flow():
    """Value and gradient, in q(y|x)'s and q(z|x,y)'s last biases, of which each row of data has its
    own.
    """
    o, n = build(flow=1), 20_000
    x, draws = data(1)[0].expand(n, D), {}
    last = [o.guide.q_y.network.rest[-1], o.guide.q_z.base.network.rest[-1]]
    for top_k in (1, None):
        own = [layer.bias.detach().expand(n, -1).clone().requires_grad_() for layer in last]
        hooks = [
            m.register_forward_hook(lambda m, i, h, b=b: h - m.bias + b)
            for m, b in zip(last, own, strict=True)
        ]
        bound = (
            TraceTopKEnum_ELBO(top_k, common_random_numbers=True).bound(o.model, o.guide, x).value
        )
        draws[top_k] = torch.cat(
            [bound[:, None], *torch.autograd.grad(bound.sum(), own)], -1
        ).detach()
        for hook in hooks:
            hook.remove()
    error = (draws[1].mean(0) - draws[None].mean(0)) / (
        (draws[1].var(0) + draws[None].var(0)) / n
    ).sqrt()
    assert error.abs().max() < 4 and (draws[1].std(0) > draws[None].std(0)).any()
