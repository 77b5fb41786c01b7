"""Methods of the zoo with other families of latents, their data and their training."""

import math

import numpy as np
import torch
from torch import Tensor

from pyro_ssl import (
    Objective,
    zoo,
)
from pyro_ssl.distributions.flows import Flow
from pyro_ssl.distributions.priors import VampPrior

D, K, B, Z, P = 4, 3, 6, 2, 4
SMALL = {"hidden": (5,), "z_dim": Z, "activation": "tanh", "pseudo_inputs": P, "top_k": None}
PLAIN = {"noise": 0.0, "dropout": 0.0, "balance": 0.0, "alpha": 0.0}
EYE = torch.eye(K, dtype=torch.float64)


def build(method: str = "m2", spread: float = 0.4, **options) -> Objective:
    """A method with weights and biases in general position."""
    known = zoo.options_of(method)
    o = zoo.build(
        method, D, K, **{k: v for k, v in (SMALL | PLAIN).items() if k in known} | options
    ).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in o.parameters():
            p.add_(spread * torch.randn(p.shape, generator=g))
    return o


def traces(o: Objective, x: Tensor) -> tuple:
    return o.elbo.bound(o.model, o.guide, x)[1:3]


FAMILIES = {
    "flow": {"flow": 2},
    "vamp": {"prior": "vamp"},
    "vamp by class": {"prior": "vamp", "class_prior": True},
    "vamp and flow": {"prior": "vamp", "flow": 1},
    "vamp by class and flow": {"prior": "vamp", "class_prior": True, "flow": 2},
    "class prior": {"class_prior": True},
    "class prior and flow": {"class_prior": True, "flow": 1},
}


def log_q(q_z, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """log q(z|x,y) of a given z, which a flow has to be inverted for."""
    if not isinstance(q_z, Flow):
        return q_z(x, y).log_prob(z)
    u = q_z.transform().inv(z)
    return q_z.base(x, y).log_prob(u) - q_z.transform().call_and_ladj(u)[1]


def log_vamp(p_z: VampPrior, y: Tensor, z: Tensor) -> Tensor:
    x, *others = p_z.inputs
    each = [log_q(p_z.q_z, x[p], others[0][p] if others else y, z) for p in range(P)]
    return torch.stack(each).logsumexp(0) - math.log(P)


def integral(log_prob, half: float = 20.0) -> float:
    line = torch.linspace(-half, half, 401)
    with torch.no_grad():
        return (
            log_prob(torch.cartesian_prod(line, line)).exp().sum() * (line[1] - line[0]) ** 2
        ).item()


def mixture(k: int, z: int, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits, loc, raw = (torch.randn(*s, generator=g) for s in ((k,), (k, z), (k, z)))
    return [p.requires_grad_() for p in (logits, loc, (0.3 * raw).exp())]


def rows(parameters: list[Tensor], n: int) -> list[Tensor]:
    """A copy for each draw, so that one backward pass gives the gradient of each."""
    return [p.detach().expand(n, *p.shape).clone().requires_grad_() for p in parameters]


def nodes(loc: Tensor, scale: Tensor, degree: int = 24) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite quadrature of diagonal Gaussians `(K, Z)`.

    Places `(K, M, Z)` and weights `(M,)`.
    """
    t, w = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(degree))
    t, w = (
        torch.stack(torch.meshgrid(*[a] * loc.shape[-1], indexing="ij"), -1).flatten(0, -2)
        for a in (t, w)
    )
    return loc.unsqueeze(-2) + scale.unsqueeze(-2) * t, w.prod(-1) / math.sqrt(
        2 * math.pi
    ) ** loc.shape[-1]


def state(o: Objective) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in o.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


RESUMED = {
    "m2_adversarial": {"flow": 1, "prior": "vamp"},
    "m1_m2": {"z1_dim": 3, "m1_hidden": (5,), "m1_epochs": 2},
}
