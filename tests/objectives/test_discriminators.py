"""Discriminators against known ratios, and the gradients of both players."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pyro_ssl import zoo
from pyro_ssl.distributions.priors import ClassNormal
from pyro_ssl.objectives.adversarial import Discrimination, Discriminators, LogRatio
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.terms import Term

N, K, Z = 7, 3, 4


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(N, 5, generator=g), torch.eye(K)[torch.randint(K, (N,), generator=g)])


def built(name, **options):
    objective = zoo.build(name, (5,), K, seed=1, z_dim=Z, hidden=(8,), **options).double()
    with torch.no_grad():
        objective.model.p_y.logits.copy_(torch.tensor([0.2, -0.1, 0.4]))
        objective.model.p_z.raw_scale.add_(torch.rand_like(objective.model.p_z.raw_scale))
    objective.sizes = (N, 0)
    return objective.train()


def test_a_discriminator_for_each_class_by_hand():
    """Each class has its own hidden layer; spectral norm limits each layer's slope to 1."""
    t, z = Discriminators(Z, K, hidden=6, inputs="linear").double(), torch.randn(N, Z)
    first, last = t.first.weight.view(K, 6, Z), t.last.weight
    for k in range(K):
        by_hand = torch.tanh(z @ first[k].T + t.first.bias.view(K, 6)[k]) @ last[k] + t.last.bias[k]
        assert torch.allclose(t(z)[:, k], by_hand, atol=1e-12)
    for hidden in (0, 6):
        t = Discriminators(Z, K, hidden=hidden, inputs="linear", spectral_norm=True).double()
        given, layers = z.clone().requires_grad_(), [t.first.weight.view(K, -1, Z)]
        slopes = torch.stack(
            [torch.autograd.grad(t(given)[:, k].sum(), given)[0] for k in range(K)]
        )
        assert (slopes.norm(dim=-1) <= 1 + 1e-9).all()
        if not hidden:
            assert torch.allclose(
                slopes[:, 0], (layers[0] / layers[0].norm(dim=-1, keepdim=True))[:, 0], atol=1e-9
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "hidden", "error"),
    [
        ("linear", 0, None),
        ("squared", 0, 0.15),
        ("quadratic", 0, 0.15),
        ("squared", 16, 0.15),
        ("linear", 16, 0.2),
    ],
)
def test_discriminators_recover_the_ratio_of_two_gaussians(inputs, hidden, error):
    torch.manual_seed(0)
    p_z = ClassNormal(
        1, 2, spread=0.0
    ).double()  # N(0, I), against N(0, diag(.25, 4)): means are equal
    scale = torch.tensor([0.5, 2.0])
    ratio = LogRatio(Discriminators(2, 1, inputs=inputs, hidden=hidden).double(), p_z)
    term = Discrimination(ratio)
    slow = inputs == "linear" and hidden > 0  # it has to build the squares itself
    optimizer = torch.optim.Adam(term.parameters(), lr=2e-2 if slow else 4e-2)
    for _ in range(1500 if slow else 600):
        optimizer.zero_grad()
        z = scale * torch.randn(500, 2)
        term.loss(torch.ones(500, 1), z).backward()
        optimizer.step()
    z = scale * torch.randn(2000, 2)
    true = torch.distributions.Normal(torch.zeros(2), scale).log_prob(z).sum(
        -1
    ) - torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    found = ratio(torch.ones(2000, 1), z).detach()
    away = float((found - true).abs().median())
    if error is None:  # the negative control: a linear one sees nothing
        assert away > 0.4 and float(found.abs().median()) < 0.2
    else:
        assert away < error


def test_the_bounded_ratio_has_the_gradient_of_its_divergence():
    """2 (KL - 2 JS) of q = N(m, s) and p = N(mu, sigma) on a grid, with the true log-ratio as T.

    For p it is the gradient of -E_q[log p].
    """
    m, s, n = torch.tensor(0.4, requires_grad=True), torch.tensor(0.8, requires_grad=True), 200_001
    p_z = ClassNormal(1, 1).double()
    unit = torch.linspace(-8, 8, n)
    weight = torch.distributions.Normal(0.0, 1.0).log_prob(unit).exp() * (unit[1] - unit[0])
    z = m + s * unit
    p = torch.distributions.Normal(p_z.loc[0, 0], p_z.scale[0, 0])

    class LogRatioOfNormals(nn.Module):
        def forward(self, z):
            q = torch.distributions.Normal(m.detach(), s.detach())
            return q.log_prob(z) - torch.distributions.Normal(
                p.loc.detach(), p.scale.detach()
            ).log_prob(z)

    ours = (
        weight * LogRatio(LogRatioOfNormals(), p_z, bounded=True)(torch.ones(n, 1), z[:, None])
    ).sum()
    line = torch.linspace(-12, 12, n)
    log_q, log_p = torch.distributions.Normal(m, s).log_prob(line), p.log_prob(line).detach()
    mean = torch.logaddexp(log_q, log_p) - math.log(2)
    kl, to_q, to_p = (
        log_q.exp() * (log_q - log_p),
        log_q.exp() * (log_q - mean),
        log_p.exp() * (log_p - mean),
    )
    theirs = 2 * (kl - to_q - to_p).sum() * (line[1] - line[0])
    for a, b in zip(
        torch.autograd.grad(ours, [m, s], retain_graph=True),
        torch.autograd.grad(theirs, [m, s]),
        strict=True,
    ):
        assert a.item() == pytest.approx(b.item(), rel=1e-6)
    of_p = (p_z.loc, p_z.raw_scale)
    fitted = -(weight * p.log_prob(z.detach())).sum()
    for a, b in zip(
        torch.autograd.grad(ours, of_p), torch.autograd.grad(fitted, of_p), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-10)


def test_no_gradient_leaks_between_the_players():
    objective, b = built("vc", discriminator_hidden=5), batch()
    (player,) = [t for t in objective.terms if isinstance(t, Discrimination)]
    parts = objective.parts(b)
    assert parts["Discrimination"].item() == 0
    theirs = list(player.parameters())
    pairs = [p for p in objective.parameters() if all(p is not q for q in theirs)]
    of_pair = sum(v for name, v in parts.items() if name != "Discrimination")
    assert all(
        g is None
        for g in torch.autograd.grad(of_pair, theirs, retain_graph=True, allow_unused=True)
    )
    assert all(
        g is None
        for g in torch.autograd.grad(
            parts["Discrimination"], pairs, retain_graph=True, allow_unused=True
        )
    )
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(parts["Discrimination"], theirs))


def test_without_going_through_it_the_code_has_the_gradient_of_cross_entropy():
    b = batch()
    alike = {}
    for name, options in (("ce", {"shared_variance": False}), ("vc", {"backpropagate": False})):
        objective = built(name, **options)
        with torch.no_grad():
            objective.model.p_z.loc.copy_(torch.arange(K * Z).view(K, Z) / 10.0)
            objective.model.p_z.raw_scale.fill_(0.3)
            torch.manual_seed(0)
            for p in objective.guide.q_z.parameters():
                p.copy_(torch.randn_like(p))
        alike[name] = torch.autograd.grad(objective(b), list(objective.guide.q_z.parameters()))
    for a, t in zip(alike["ce"], alike["vc"], strict=True):
        assert torch.allclose(a, t, atol=1e-12)


class Spy(Term):
    """Keeps what a step gives its terms."""

    needs = "nothing"

    def formula(self, step):
        self.drawn, self.rows = step.classes_and_latents(), len(step.trace.nodes["y"]["value"])
        return torch.zeros(())


def test_discriminators_get_latents_of_labeled_data_and_then_of_unlabeled_ones():
    objective, b = built("vc"), batch()
    u = torch.randn(5, 5)
    with torch.no_grad():
        objective.model.p_z.loc.mul_(50)  # p(y|z) is certain
    spy = Spy()
    objective.terms.append(spy)
    for x_unlabeled in (None, u):
        objective(replace(b, x_unlabeled=x_unlabeled))
        y, z = spy.drawn
        x = b.x if x_unlabeled is None else torch.cat([b.x, u])
        assert torch.allclose(z, objective.guide.q_z.network(x)) and spy.rows == (
            1 if x_unlabeled is None else K
        )
        assert torch.equal(y[:N], b.y) and torch.equal(
            y.argmax(-1)[N:], objective.classify(x).logits.argmax(-1)[N:]
        )
    apart = built("vc")
    apart.joint_pass = False
    with pytest.raises(ValueError, match="in one call"):
        apart(b)
