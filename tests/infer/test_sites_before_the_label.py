"""Guides that draw before y, against the sum by hand."""

import pytest
import torch
from comparisons import assert_same, gradients, parameters, seeded
from programs.pairs import B, InPlate, Z, adgm, data
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl import (
    Batch,
    ClassBalance,
    Entropy,
    MutualInformation,
    Objective,
    TraceTopKEnum_ELBO,
)
from pyro_ssl.infer import elbo

pytestmark = pytest.mark.usefixtures("float64")


def adgm_by_hand(
    model: InPlate, guide: InPlate, x: Tensor, bound: elbo.Bound, closed_form: bool
) -> Tensor:
    """Mean over particles of the sum over classes, at the values of a and z and of the classes in
    the guide's trace.
    """
    a, y, z = (bound.guide_trace.nodes[name]["value"] for name in ("a", "y", "z"))
    classes = y.shape[-1]
    q = guide.q_y(a, x).probs.reshape(-1, B, classes)
    index = y.argmax(-1).expand(len(y), B)
    weights = torch.stack([q_s.gather(-1, index.T).T for q_s in q])  # (S, V, B)
    if len(y) < classes:
        marginal = q.mean(0).gather(-1, index.T).T.detach()
        assert (marginal[:1] >= marginal).all()
        last = weights[:, -1:] / (marginal[-1] / (1 - marginal[:-1].sum(0)))
        weights = torch.cat([weights[:, :-1], last], 1)
    f = model.p_x(y, z).log_prob(x) + model.p_a(x, y, z).log_prob(a) - guide.q_a(x).log_prob(a)
    q_z, p_z = guide.q_z(a, x, y), model.p_z()
    f = f - kl_divergence(q_z, p_z) if closed_form else f + p_z.log_prob(z) - q_z.log_prob(z)
    log_p = model.p_y().logits.log_softmax(-1)
    rest = -(q * q.log()).sum(-1)
    if closed_form:
        rest = rest + (q * log_p).sum(-1)
    else:
        f = f + y @ log_p
    f = f.reshape(-1, len(y), B)
    surrogate = (weights - weights.detach()) * (f - f[:, :1]).detach()
    return ((weights.detach() * f).sum(1) + surrogate.sum(1) + rest).mean(0)


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize("top_k", [None, 1, 2, "auto"])
@pytest.mark.parametrize("particles", [1, 5])
def test_a_guide_that_draws_before_y(particles, top_k, closed_form):
    (model, guide), (x, y) = adgm(4), data(classes=4)
    bound = TraceTopKEnum_ELBO(
        top_k, num_particles=particles, closed_form="auto" if closed_form else ()
    )
    of = parameters(model, guide)
    ours = bound.bound(model, guide, x)
    assert len(ours.guide_trace.nodes["y"]["value"]) == {None: 4, 1: 2, 2: 3, "auto": 4}[top_k]
    assert ours.guide_trace.nodes["z"]["value"].shape[:-3] == ((5,) if particles > 1 else ())
    assert_same(ours.value, adgm_by_hand(model, guide, x, ours, closed_form), of, 1e-10)
    assert all(g.isfinite().all() and g.any() for g in gradients(ours.value.sum(), of))
    labeled = seeded(bound.bound, model, guide, x, y)
    a, z = (labeled.guide_trace.nodes[name]["value"] for name in ("a", "z"))
    q_z, p_z = guide.q_z(a, x, y), model.p_z()
    f = (
        model.p_y().log_prob(y)
        + model.p_x(y, z).log_prob(x)
        + model.p_a(x, y, z).log_prob(a)
        - guide.q_a(x).log_prob(a)
    )
    f = f - kl_divergence(q_z, p_z) if closed_form else f + p_z.log_prob(z) - q_z.log_prob(z)
    assert_same(labeled.value, f.reshape(-1, B).mean(0), of, 1e-10)


@pytest.mark.parametrize("shared", [False, True])
def test_the_particles_are_independent_also_where_classes_share_their_noise(shared):
    (model, guide), (x, _) = adgm(), data()
    nodes = (
        TraceTopKEnum_ELBO(None, num_particles=400, common_random_numbers=shared)
        .bound(model, guide, x)
        .guide_trace.nodes
    )
    q_z = nodes["z"]["fn"].base_dist
    noise = (nodes["z"]["value"] - q_z.loc) / q_z.scale
    assert nodes["a"]["value"].shape == (400, 1, B, 1) and noise.shape == (400, 3, B, Z)
    assert torch.allclose(noise, noise[:, :1], atol=1e-9) == shared
    assert (torch.corrcoef(noise[:, 0].flatten(1).T) - torch.eye(B * Z)).abs().max() < 0.2


@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize("term", [Entropy, MutualInformation, ClassBalance])
def test_terms_of_a_guide_that_draws_before_y_are_of_what_it_classifies_by(term, particles):
    (model, guide), (x, _) = adgm(), data()
    guide.classifier = lambda q, x: q.q_y(torch.zeros(len(x), 1), x)
    o = Objective(model, guide, [term()], elbo=TraceTopKEnum_ELBO(None, num_particles=particles))
    apart = Objective(None, guide, [term()])
    batch, name = Batch(x_unlabeled=x), term.__name__
    assert_same(o.parts(batch)[name], apart.parts(batch)[name], parameters(guide))
