"""Log-ratios of a code's distribution within a class and the prior's, by classifiers that tell the two apart."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_ssl.distributions.priors import Prior
from pyro_ssl.objectives.terms import LossContext, Term
from pyro_ssl.utils.arguments import check_positive

DiscriminatorInputs = Literal["linear", "squared", "quadratic"]


class Discriminators(nn.Module):
    r"""One binary classifier for each class, T_y(z): `(*, Z)` -> `(*, K)`.

    The logarithm of a ratio of two Gaussians is quadratic in z: a linear T sees nothing but a difference of means, squares
    see one of variances, products one of covariances.

    Arguments:
        dim: Z.
        classes: K.
        hidden: Width of a hidden layer, of tanh, for each class; 0 for none.
        inputs: What T is a function of: `linear` z, `squared` z and z_i^2, `quadratic` z and all z_i z_j.
        spectral_norm: Divide each class's weights of a layer by their largest singular value.

    Raises:
        ValueError: A size is out of range; `inputs` is unknown.

    References:
        Paper 000, eq. 9.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        hidden: int = 0,
        inputs: DiscriminatorInputs = "squared",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        check_positive(dim=dim, classes=classes)
        sizes = {"linear": dim, "squared": 2 * dim, "quadratic": dim + dim * (dim + 1) // 2}
        if inputs not in sizes:
            raise ValueError(f"inputs should be one of {', '.join(sizes)}, got {inputs!r}")
        if hidden < 0:
            raise ValueError(f"hidden should be 0 or above, got {hidden}")
        self.inputs, self.classes, self.spectral_norm = inputs, classes, spectral_norm
        self.first = nn.Linear(sizes[inputs], classes * (hidden or 1))
        self.last = nn.Linear(hidden, classes) if hidden else None  # row y reads the hidden layer of class y

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):  # small layers, and differences of squares
            h = nn.functional.linear(self._features(z), self._weight(self.first), self.first.bias)
            if self.last is None:
                return h
            return (h.unflatten(-1, (self.classes, -1)).tanh() * self._weight(self.last)).sum(-1) + self.last.bias

    def _weight(self, layer: nn.Linear) -> Tensor:
        if not self.spectral_norm:
            return layer.weight
        by_class = layer.weight.unflatten(0, (self.classes, -1))
        return (by_class / torch.linalg.matrix_norm(by_class, 2, keepdim=True)).flatten(0, 1)

    def _features(self, z: Tensor) -> Tensor:
        if self.inputs == "linear":
            return z
        if self.inputs == "squared":
            return torch.cat([z, z.square()], -1)
        rows, columns = torch.triu_indices(z.shape[-1], z.shape[-1], device=z.device)
        return torch.cat([z, z[..., rows] * z[..., columns]], -1)


class LogRatio(nn.Module):
    r"""The log-ratio of the codes of class y and the prior, as discriminators have it, with gradients for the pair.

    .. math:: T_y(z) \approx \log \frac{q(z \mid y)}{p(z \mid y)}

    The gradient with respect to the parameters of p(z|y) is that of -log p(z|y), and not T's, which has them nowhere. That
    with respect to z is T's; none reaches the discriminators, which have an objective of their own.

    Arguments:
        discriminators: T, from z to a number for each class.
        p_z: z given y.
        backpropagate: Whether T's gradient reaches z, as in the authors' later code; section 3.2 of the paper says that no
            gradient of the discriminators is needed.
        bounded: :math:`2 \log(1 + e^T) - 2 \log 2`, the loss of a GAN's generator, in T's place, which is not the paper's: in
            z it has the gradient of :math:`2\,(\mathrm{KL}[q \| p] - 2\, \mathrm{JS}[q, p])`, which is KL's where q(z|y) is near
            p(z|y), and ends where T, far out, would drive z further.

    References:
        Arjovsky & Bottou 2017, theorem 2.5.
    """

    def __init__(
        self, discriminators: nn.Module, p_z: Prior, *, backpropagate: bool = True, bounded: bool = False
    ) -> None:
        super().__init__()
        self.discriminators, self.p_z, self.backpropagate, self.bounded = discriminators, p_z, backpropagate, bounded

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        frozen = {name: p.detach() for name, p in self.discriminators.named_parameters()}
        t = torch.func.functional_call(self.discriminators, frozen, z if self.backpropagate else z.detach())
        t, log_p = (y * t).sum(-1), self.p_z(y).log_prob(z.detach())
        if not self.bounded:
            return t - (log_p - log_p.detach())
        return 2 * (nn.functional.softplus(t) - math.log(2)) - (log_p - log_p.detach())


class Discrimination(Term):
    r"""The discriminators' own objective: codes of class y against samples of p(z|y), for them alone.

    .. math:: \max_\psi\; \mathrm E_{q(z|y)}[\log \sigma(T_y(z))] + \mathrm E_{p(z|y)}[\log(1 - \sigma(T_y(z)))]

    Data without a label count for a class drawn from q(y|x). Its value adds nothing to the pair's loss, and its gradient
    reaches neither codes nor prior.

    Arguments:
        ratio: Whose discriminators play.
        lr_scale: Their learning rate over the pair's.

    References:
        Paper 000, eq. 9.
    """

    needs = "nothing"

    def __init__(self, ratio: LogRatio, lr_scale: float = 1.0) -> None:
        super().__init__()
        if not lr_scale > 0:
            raise ValueError(f"lr_scale should be above 0, got {lr_scale}")
        self.discriminators, self.lr_scale = ratio.discriminators, lr_scale
        self._p_z = (ratio.p_z,)  # not a part of this player

    def formula(self, step: LossContext) -> Tensor:
        own = self.loss(*step.codes())
        return own - own.detach()

    def loss(self, y: Tensor, z: Tensor) -> Tensor:
        """Minus the formula, for codes `(B, Z)` of classes `(B, K)`."""
        (p_z,) = self._p_z
        real, prior = z.detach(), p_z(y).sample()
        t_q, t_p = ((y * self.discriminators(part)).sum(-1) for part in (real, prior))
        return (nn.functional.softplus(-t_q) + nn.functional.softplus(t_p)).mean()
