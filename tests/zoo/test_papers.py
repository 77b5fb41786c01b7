"""Identities of the papers."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same, gradients
from programs.zoo_pairs import LATENT, P_Y, B, D, K, build, classes_by_hand, data
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl import (
    Batch,
    Objective,
    TraceTopKEnum_ELBO,
    guides,
    models,
    zoo,
)
from pyro_ssl.distributions.conditionals import OneHotCategorical
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.objectives.terms import MutualInformation, entropy

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("closed_form", ["auto", ()])
def test_sslpe_guided_by_its_own_classifier_is_a_vae(closed_form, noise):
    """Paper 002, appendix A: all terms in y cancel for each datum; p(y|x,z) gets no gradient."""
    o, other, (x, _) = build("sslpe"), build("latent_classifier"), data()
    p_y, q_z, bound = (
        o.model.p_y,
        other.guide.q_z,
        TraceTopKEnum_ELBO(None, closed_form=closed_form).bound,
    )

    def guide(x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", q_z(x))
            pyro.sample("y", p_y(x, z), infer={"enumerate": "parallel"})

    ours = bound(o.model, guide, x).value
    vae = (
        models.VAE(o.model.p_z, o.model.p_x),
        guides.VAE(q_z, OneHotCategorical(torch.nn.Identity())),
    )
    assert_same(ours, bound(*vae, x).value, torch.nn.ModuleList([o, other]))
    assert all(g.abs().max() < 1e-12 for g in gradients(ours, p_y))
    assert any(
        g.abs().max() > 1e-3 for g in gradients(o.bound(x), p_y)
    )  # SSLPE's own guide does teach it


def test_ours_is_below_the_exact_bound_at_every_z(noise):
    """Paper 003, propositions 1 and 2: by Jensen's inequality over p(y|z)."""
    ours, exact, (x, y) = build("latent_classifier"), build("latent_classifier_exact"), data()
    exact.load_state_dict(ours.state_dict())
    q, m = ours.guide.q_z(x), ours.model
    z = q.mean + q.stddev * noise[2][0, :B]
    log_px = torch.stack([m.p_x(torch.eye(K)[k].expand(B, K), z).log_prob(x) for k in range(K)], -1)
    assert_same(ours.bound(x), (m.p_y(z).probs * log_px).sum(-1) - kl_divergence(q, m.p_z()), ours)
    gap = exact.bound(x) - ours.bound(x)
    assert (gap >= 0).all() and gap.max() > 1e-3
    assert torch.allclose(ours.bound(x, y), exact.bound(x, y), rtol=0, atol=1e-12)  # L is the same


def log_evidence(method: str, m, x, y=None) -> Tensor:
    """log p(x) or log p(x, y), by a sum over a grid of each code, of size 1."""
    sizes = (1, 801) if method != "latent_classifier_split" else (2, 161)
    line = torch.linspace(-8, 8, sizes[1])
    latents = [c.reshape(-1, 1, 1) for c in torch.meshgrid(*[line] * sizes[0], indexing="ij")]
    f = (
        dist.Normal(0.0, 1.0).log_prob(torch.cat(latents, -1)).sum(-1)
        + len(latents) * (line[1] - line[0]).log()
    )
    p_y = m.p_y(latents[0])
    if method in LATENT[2:]:
        f = f + m.p_x(*latents).log_prob(x)
        return (f if y is None else f + p_y.log_prob(y)).logsumexp(0)
    every = torch.eye(K)[:, None, None] if y is None else y[None]
    return (
        (f + p_y.log_prob(every) + m.p_x(every, *latents).log_prob(x)).flatten(0, -2).logsumexp(0)
    )


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("method", LATENT)
def test_bounds_are_below_the_evidence(method, given):
    o, (x, y), n = build(method, z_dim=1, z_y_dim=1), data(), 4000
    y = y if given else None
    torch.manual_seed(0)
    with torch.no_grad():
        for q in (
            q for name, q in o.guide.named_children() if name.startswith("q_z")
        ):  # wider than any posterior
            for p in q.parameters():
                p.mul_(0.1)
            q.network.rest[-1].bias.copy_(torch.tensor([0.0, 1.0]))
        evidence = log_evidence(method, o.model, x, y)
        draws = o.bound(
            x.repeat_interleave(n, 0), None if y is None else y.repeat_interleave(n, 0)
        ).reshape(B, n)
        assert (draws.mean(1) - 4 * draws.std(1) / math.sqrt(n) < evidence).all()
        sampled = TraceTopKEnum_ELBO(None, num_particles=20_000).log_evidence(
            o.model, o.guide, x, y
        )
    assert torch.allclose(sampled, evidence, atol=0.1) and (draws.mean(1) < evidence - 0.05).any()


@pytest.mark.parametrize("method", LATENT[2:])
def test_a_label_adds_its_log_probability_given_the_code(method, noise):
    """Paper 003, where p(x,y|z) = p(x|z) p(y|z): L(x, y) - U(x) = log p(y|z)."""
    o, (x, y) = build(method), data()
    q, size = (o.guide.q_z(x), 2) if method == LATENT[2] else (o.guide.q_z_y(x), 3)
    z = q.mean + q.stddev * noise[size][0, :B]
    assert_same(o.bound(x, y) - o.bound(x), o.model.p_y(z).log_prob(y), o)


@pytest.mark.parametrize("seed", range(5))
def test_the_labels_kl_is_mutual_information_and_balance(seed):
    """Paper 004, eq. 6 to 8: E KL(q(y|x) || p(y)) - I(y;x) = KL(q(y) || p(y)).

    It is 0 where q(y), the mean, is p(y).
    """
    logits = 3 * torch.randn(7, K, generator=torch.Generator().manual_seed(seed))
    q, known = logits.softmax(-1), {"unlabeled": dist.OneHotCategorical(logits=logits)}
    information = -MutualInformation().formula(LossContext(Batch(x_unlabeled=logits), None, known))
    assert torch.allclose(information, entropy(q.mean(0)) - entropy(q).mean(), rtol=0, atol=1e-12)
    for p in (torch.tensor(P_Y), q.mean(0)):
        excess = (q * (q / p).log()).sum(-1).mean() - information
        assert torch.allclose(excess, (q.mean(0) * (q.mean(0) / p).log()).sum(), rtol=0, atol=1e-12)
        assert (excess > 1e-3) != torch.allclose(p, q.mean(0))


@pytest.mark.parametrize("method", ["m2", "adgm", "sdgm", "lvae"])
def test_mier_leaves_five_entropies_net(method, noise):
    """Paper 004, eq. 9: the bound's -1, beta = 5 and gamma = 1 make 5 H(q(y|x)) - H(q(y)).

    q is evaluated at the bound's own sample of a.
    """
    o, x = build(method, p_y=None, entropy=5.0, mutual_information=1.0), data()[0]
    plain, batch, calls = Objective(o.model, o.guide, elbo=o.elbo), Batch(x_unlabeled=x), []
    f, q = classes_by_hand(method, o, x, None, noise)
    conditional, marginal = -(q.probs * q.probs.log()).sum(-1).mean(), entropy(q.probs.mean(0))
    o.guide.q_y.register_forward_hook(lambda *_: calls.append(1))
    loss = o(batch)
    assert len(calls) == 1
    assert_same(loss - plain(batch), 6 * conditional - marginal, o)
    assert_same(loss, 5 * conditional - marginal - (q.probs.T * f).sum(0).mean(), o)


def test_a_vae_weighs_all_data_alike():
    o, (x, y) = zoo.build("vae", (D,), K, likelihood="gaussian", sigma=0.7).double(), data()
    batch = Batch(x[:2], y[:2], x[2:])
    torch.manual_seed(0)
    parts = o.parts(batch)
    torch.manual_seed(0)
    bound = torch.cat([o.bound(x[:2], y[:2]), o.bound(x[2:])])
    ours = (parts["labeled"] + parts["unlabeled"]) * (len(x) - 2)
    assert torch.allclose(ours, -bound.sum(), rtol=1e-12)
