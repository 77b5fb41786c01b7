"""Methods of the zoo with weights in general position, and their bounds by hand."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl import (
    Objective,
    one_hot,
    zoo,
)
from pyro_ssl.distributions.priors import ClassPrior

D, K, B, P_Y = 4, 3, 6, (0.5, 0.3, 0.2)
SMALL = {
    "hidden": (5,),
    "z_dim": 2,
    "a_dim": 3,
    "z_dims": (4, 3, 2),
    "z_y_dim": 3,
    "top_k": None,
    "activation": "tanh",
}
PLAIN = {"noise": 0.0, "dropout": 0.0, "balance": 0.0, "alpha": 0.0, "labeled_weight": 1.0}
ROWS = {B: slice(B), 8: slice(8), 16: slice(8, 24), 24: slice(24)}
LATENT = (
    "latent_classifier",
    "latent_classifier_exact",
    "latent_classifier_simplified",
    "latent_classifier_split",
)


def build(method: str, p_y: tuple[float, ...] | None = P_Y, **options) -> Objective:
    """A method with weights and biases in general position, and a p(y) that is not uniform."""
    known = zoo.options_of(method)
    o = zoo.build(
        method, D, K, **{k: v for k, v in (SMALL | PLAIN | options).items() if k in known}
    ).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in o.parameters():
            p.add_(0.4 * torch.randn(p.shape, generator=g))
    if p_y and isinstance(o.model.p_y, ClassPrior):
        o.model.p_y = ClassPrior(p_y).double()
    return o


def data(n: int = B) -> tuple[Tensor, Tensor]:
    x = torch.randn(24, D, generator=torch.Generator().manual_seed(0))
    return x[ROWS[n]], one_hot(torch.arange(24) % K, K, torch.float64)[ROWS[n]]


# Each function below gives log p - log q of everything but q(y|.), for one y, and q(y|.). `draw` is
# z = mean + scale * noise, its second argument saying that the site comes after y; `mc` is
# log p - log q at the sample; `kl` stands where the KL is exact: all that the model conditions the
# site on has been drawn in the guide before it.


def m2(m, g, x, y, draw, kl, mc):
    q_z = g.q_z(x, y)
    z = draw(q_z, True)
    return m.p_y().log_prob(y) + kl(q_z, m.p_z(), z) + m.p_x(y, z).log_prob(x), g.q_y(x)


def adgm(m, g, x, y, draw, kl, mc):
    q_a = g.q_a(x)
    a = draw(q_a, False)
    q_z = g.q_z(x, a, y)
    z = draw(q_z, True)
    f = m.p_y().log_prob(y) + kl(q_z, m.p_z(), z) + m.p_x(y, z).log_prob(x)
    return f + mc(q_a, m.p_a(x, y, z), a), g.q_y(x, a)


def sdgm(m, g, x, y, draw, kl, mc):
    q_a = g.q_a(x)
    a = draw(q_a, False)
    q_z = g.q_z(x, a, y)
    z = draw(q_z, True)
    f = m.p_y().log_prob(y) + kl(q_z, m.p_z(), z) + m.p_x(a, y, z).log_prob(x)
    return f + mc(q_a, m.p_a(y, z), a), g.q_y(x, a)


def product(a, b):
    """Of two Gaussians, by variances."""
    loc = (a.mean * b.variance + b.mean * a.variance) / (a.variance + b.variance)
    return dist.Normal(loc, (a.variance * b.variance / (a.variance + b.variance)).sqrt()).to_event(
        1
    )


def lvae(m, g, x, y, draw, kl, mc):
    d_1 = g.up[0](x, y)
    d_2 = g.up[1](d_1)
    d_3 = g.up[2](d_2)
    q_3 = g.q_z[2](d_3)
    z_3 = draw(q_3, True)
    p_2 = m.p_z[1](z_3)
    q_2 = product(g.q_z[1](d_2), p_2)
    z_2 = draw(q_2, True)
    p_1 = m.p_z[0](z_2)
    q_1 = product(g.q_z[0](d_1), p_1)
    z_1 = draw(q_1, True)
    f = m.p_y().log_prob(y) + kl(q_3, m.p_z_top(), z_3) + kl(q_2, p_2, z_2) + kl(q_1, p_1, z_1)
    return f + m.p_x(y, z_1).log_prob(x), g.q_y(x)


def sslpe(m, g, x, y, draw, kl, mc):
    q_z = g.q_z(x, y)
    z = draw(q_z, True)
    return kl(q_z, m.p_z(), z) + m.p_x(z).log_prob(x) + m.p_y(x, z).log_prob(y), g.q_y(x)


def latent_classifier(m, g, x, y, draw, kl, mc):
    q_z = g.q_z(x)
    z = draw(q_z, False)
    return kl(q_z, m.p_z(), z) + m.p_y(z).log_prob(y) + m.p_x(y, z).log_prob(x), m.p_y(z)


def latent_classifier_simplified(m, g, x, y, draw, kl, mc):
    q_z = g.q_z(x)
    z = draw(q_z, False)
    f = kl(q_z, m.p_z(), z) + m.p_x(z).log_prob(x)
    return f if y is None else f + m.p_y(z).log_prob(y), None


def latent_classifier_split(m, g, x, y, draw, kl, mc):
    q_y = g.q_z_y(x)
    z_y = draw(q_y, False)
    q_u = g.q_z_u(x, z_y)
    z_u = draw(q_u, False)
    f = kl(q_y, m.p_z_y(), z_y) + kl(q_u, m.p_z_u(), z_u) + m.p_x(z_y, z_u).log_prob(x)
    return f if y is None else f + m.p_y(z_y).log_prob(y), None


SUMMED = {
    "m2": m2,
    "adgm": adgm,
    "sdgm": sdgm,
    "lvae": lvae,
    "sslpe": sslpe,
    "latent_classifier": latent_classifier,
}
BY_HAND = SUMMED | {
    "latent_classifier_exact": latent_classifier,
    "latent_classifier_simplified": latent_classifier_simplified,
    "latent_classifier_split": latent_classifier_split,
}


def classes_by_hand(
    method: str,
    o: Objective,
    x,
    y,
    pool,
    *,
    closed_form=True,
    shared=True,
    beta=1.0,
    free=0.0,
    slip=None,
):
    """log p - log q and q(y|.) of the y given, or of each class in turn, `(K, B)`.

    `slip` is an error on purpose: the size of a site that is left out, or "detached" samples.
    """

    def mc(q, p, value):
        return 0.0 if slip == q.event_shape[0] else beta * (p.log_prob(value) - q.log_prob(value))

    def kl(q, p, value):
        exact = closed_form and slip != q.event_shape[0]
        return -beta * kl_divergence(q, p).clamp_min(free) if exact else mc(q, p, value)

    def one(y, k):
        def draw(q, after_y):
            z = q.mean + q.stddev * pool[q.event_shape[0]][k if after_y else 0, ROWS[len(x)]]
            return z.detach() if slip == "detached" else z

        return BY_HAND[method](o.model, o.guide, x, y, draw, kl, mc)

    if y is not None or method.endswith(("simplified", "split")):
        return one(y, 0)
    every = [one(torch.eye(K)[k].expand(len(x), K), 0 if shared else k) for k in range(K)]
    return torch.stack([f for f, _ in every]), every[0][1]


def by_hand(method: str, o: Objective, x, y, pool, **options) -> Tensor:
    """L(x, y), or U(x)."""
    f, q = classes_by_hand(method, o, x, y, pool, **options)
    if f.dim() == 1:
        return f
    if method == "latent_classifier_exact":
        return f.exp().sum(0).log()
    return sum(q.probs[:, k] * (f[k] - q.probs[:, k].log()) for k in range(K))
