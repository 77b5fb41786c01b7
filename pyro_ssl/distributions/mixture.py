"""Mixtures of diagonal Gaussians with reparameterised samples."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Categorical, Normal, TorchDistribution, constraints
from torch import Tensor

from pyro_ssl.distributions.row_noise import draw


class MixtureOfNormals(TorchDistribution):
    r"""A mixture of diagonal Gaussians with reparameterised samples.

    .. math:: p(z) = \sum_k \gamma_k \prod_d \mathcal N(z_d; \mu_{kd}, \sigma_{kd}^2)

    A component is drawn, and a sample from it. The sample's gradient is that of inverse-CDF
    sampling, one dimension after another: u in :math:`F_d(z_d \mid z_{<d}) = u_d` is held constant,

    .. math:: \frac{\partial z}{\partial \phi} =
              -\Big(\frac{\partial F}{\partial z}\Big)^{-1} \frac{\partial F}{\partial \phi},
              \qquad F_d = \sum_k \pi_d^k\, \Phi\Big(\frac{z_d - \mu_{kd}}{\sigma_{kd}}\Big), \quad
              \pi_d^k \propto \gamma_k \prod_{j<d} \mathcal N(z_j; \mu_{kj}, \sigma_{kj}^2)

    The gradient with respect to gamma is unbiased, but its variance grows without bound as
    components move apart: the gradient comes from the rare samples between them. Components six
    standard deviations apart work well. With 100 classes and an uncertain q(y|x), the option
    `mixture` of SSLPE has a seventieth of the gradient variance of `top_k=1`. With few classes or a
    nearly certain q(y|x), `top_k` is as good and faster; see `experiments/gradient_variance.py`.

    Arguments:
        logits: log gamma, up to a constant, `(*, K)`.
        loc: Means `(*, K, Z)`.
        scale: Standard deviations `(*, K, Z)`.

    References:
        Graves 2016; paper 002, appendix B.

    >>> mixture = MixtureOfNormals(torch.zeros(3), torch.randn(3, 2), torch.ones(3, 2))
    >>> mixture.rsample((5,)).shape, mixture.component_logits(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.logits = logits.log_softmax(-1)
        self.loc = loc
        self.scale = scale
        super().__init__(loc.shape[:-2], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (self.logits.exp().unsqueeze(-1) * self.loc).sum(-2)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MixtureOfNormals:
        shape = torch.Size(batch_shape)
        loc = self.loc.expand(*shape, *self.loc.shape[-2:])
        return MixtureOfNormals(
            self.logits.expand(*shape, self.logits.shape[-1]), loc, self.scale.expand_as(loc)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        return (self.logits + self._log_components(value).sum(-1)).logsumexp(-1)

    def component_logits(self, value: Tensor) -> Tensor:
        """log p(k|z), `(*, K)`: log-probabilities of the components given z."""
        return (self.logits + self._log_components(value).sum(-1)).log_softmax(-1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        wide = self.expand(torch.Size(sample_shape) + self.batch_shape)
        with torch.no_grad():
            k = draw(Categorical(logits=wide.logits))
            index = k[..., None, None].expand(*k.shape, 1, wide.loc.shape[-1])
            loc, scale = (t.gather(-2, index).squeeze(-2) for t in (wide.loc, wide.scale))
            z = draw(Normal(loc, scale, validate_args=False).to_event(1))
        return _Pathwise.apply(wide.logits, wide.loc, wide.scale, z)

    def _log_components(self, value: Tensor) -> Tensor:
        return _log_normal(value.unsqueeze(-2), self.loc, self.scale)


class _Pathwise(torch.autograd.Function):
    """Return the sample as it is; its gradient is the implicit derivative of the inverse CDFs."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, loc: Tensor, scale: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(logits, loc, scale, z)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *parameters, z = ctx.saved_tensors
        logits, loc, scale = (p.detach().requires_grad_() for p in parameters)
        with torch.enable_grad():
            # each (*, K, Z)
            log_p = _log_normal(z.unsqueeze(-2), loc, scale)
            log_pi = (logits.unsqueeze(-1) + log_p.cumsum(-1) - log_p).log_softmax(-2)
            below = torch.special.ndtr((z.unsqueeze(-2) - loc) / scale)
            cdf = (log_pi.exp() * below).sum(-2)
        with torch.no_grad():
            pi = log_pi.exp()
            slope = -(z.unsqueeze(-2) - loc) / scale.square()
            jacobian = torch.einsum("...kd,...kj->...dj", pi * below, slope)
            jacobian -= cdf.unsqueeze(-1) * torch.einsum("...kd,...kj->...dj", pi, slope)
            density = (pi * log_p.exp()).sum(-2).clamp_min(torch.finfo(z.dtype).tiny)
            jacobian = jacobian.tril(-1) + torch.diag_embed(density)
            back = torch.linalg.solve_triangular(jacobian.mT, grad.unsqueeze(-1), upper=True)
        gradients = torch.autograd.grad(cdf, (logits, loc, scale), -back.squeeze(-1))
        return *gradients, None


def _log_normal(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((z - loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
