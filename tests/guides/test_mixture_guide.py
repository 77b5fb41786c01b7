"""The guide that draws z first, from a mixture."""

import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same, assert_unbiased
from programs.latents import EYE, PLAIN, SMALL, B, D, Z, build, mixture, nodes, rows, traces
from programs.pairs import data

from pyro_ssl import (
    Objective,
    TraceTopKEnum_ELBO,
    guides,
    zoo,
)
from pyro_ssl.distributions.mixture import MixtureOfNormals


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("guide", "top_k"), [(guides.Mixture, None), (guides.M2, 1), (guides.M2, None)]
)
@pytest.mark.parametrize("classes", [3, 10])
def test_the_mixture_guide_has_the_bound_of_the_sum(classes, guide, top_k):
    """Value and gradient against quadrature.

    P(x|z) of one code for each datum, where a sum has one for each class.
    """
    n, counted, o = 20_000, [], zoo.build("sslpe", D, classes, **SMALL | PLAIN).double()
    x, eye, start = data(1)[0].expand(n, D), torch.eye(classes), mixture(classes, Z, seed=5)
    places, weights = nodes(*start[1:])
    log_y = o.model.p_y(x[0], places).log_prob(eye[:, None]) + o.model.p_x(places).log_prob(x[0])
    parts, log_q = (
        dist.Normal(*(p[:, None] for p in start[1:])).to_event(1),
        start[0].log_softmax(-1),
    )
    f = log_y + o.model.p_z().log_prob(places) - parts.log_prob(places)
    bound = log_q.exp() @ (f @ weights - log_q)
    exact = torch.cat(
        [bound.view(1), *(g.flatten() for g in torch.autograd.grad(bound, start))]
    ).detach()
    logits, *gaussians = own = rows(
        start, n
    )  # q(y|x) and q(z|x,y) are parameters, of each row its own
    q_z = lambda x, y: dist.Normal(*((y.unsqueeze(-1) * p).sum(-2) for p in gaussians)).to_event(1)  # noqa: E731
    program = guide(lambda x: dist.OneHotCategorical(logits=logits), q_z)
    o.model.p_x.register_forward_pre_hook(
        lambda m, inputs: counted.append(inputs[0].shape[:-1].numel())
    )
    value = TraceTopKEnum_ELBO(top_k, common_random_numbers=True).bound(o.model, program, x).value
    found = torch.autograd.grad(value.sum(), own)
    assert_unbiased(
        torch.cat([value[:, None], *(g.reshape(n, -1) for g in found)], -1).detach(), exact
    )
    copies = 1 if guide is guides.Mixture else classes if top_k is None else top_k + 1
    assert counted == [copies * n]
    cost = f"{copies} rows of p(x|z), variance of q(y|x)'s gradient {found[0].var(0).sum():.3f}"
    print(f"K = {classes}, {guide.__name__}, top_k={top_k}: {cost}")


def test_the_mixture_guide_factorises_as_m2s():
    """q(z|x) q(y|x,z) = q(y|x) q(z|x,y), as traced; with y it is M2's guide."""
    o, (x, y) = build("sslpe", mixture=True), data()
    trace = traces(o, x)[0]
    z, q_z, q_y = trace.nodes["z"]["value"], trace.nodes["z"]["fn"], trace.nodes["y"]["fn"]
    joint = o.guide.classify(x).logits + o.guide.encode(x, EYE[:, None]).log_prob(z).T
    assert z.shape == (B, Z) and isinstance(q_z, MixtureOfNormals)
    assert torch.allclose(q_z.log_prob(z)[:, None] + q_y.logits, joint, rtol=0, atol=1e-10)
    torch.manual_seed(0)
    ours = o.bound(x, y)
    torch.manual_seed(0)
    assert_same(
        ours,
        Objective(o.model, guides.M2(o.guide.q_y, o.guide.q_z)).bound(x, y),
        list(o.parameters()),
    )
