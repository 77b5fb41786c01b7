"""Normalizing flows: more flexible posteriors for any program that takes a conditional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from pyro_ssl.distributions.row_noise import draw


class Flow(nn.Module):
    """A conditional, followed by a chain of invertible transforms of its samples.

    Arguments:
        base: The conditional, over `(*, Z)`.
        transform: A zuko transform without context, such as `zuko.flows.MAF(z_dim,
            transforms=2).transform`. Its forward pass draws samples, so a masked autoregressive
            transform makes an inverse autoregressive flow.

    References:
        Rezende & Mohamed 2015; Kingma et al. 2016; paper 003, section 4.1, which proposes them.

    >>> import zuko
    >>> from pyro_ssl.distributions.conditionals import Normal
    >>> q_z = Flow(Normal(nn.Linear(4, 6)), zuko.flows.MAF(3, transforms=2).transform)
    >>> q_z(torch.randn(5, 4)).rsample().shape
    torch.Size([5, 3])
    """

    def __init__(self, base: nn.Module, transform: Callable[[], Any]) -> None:
        super().__init__()
        self.base = base
        self.transform = transform

    def forward(self, *inputs: Tensor) -> TorchDistribution:
        return FlowDistribution(self.base(*inputs), self.transform())


class FlowDistribution(TorchDistribution):
    r"""The distribution of a transformed sample of a base distribution.

    .. math:: z = T(u), \quad u \sim \mathrm{base}, \qquad
              \log q(z) = \log \mathrm{base}(u) - \log |\det \partial T / \partial u|

    The log-density of the last sample is stored when it is drawn, so training never inverts the
    transform, which may be slow.

    Arguments:
        base: A reparameterised distribution over `(*, Z)`.
        transform: A transform of zuko, with `call_and_ladj(u)` and `inv(z)`.
        last: A dictionary with the last sample, its log-density and whether that has a gradient,
            under the key "last". It is shared with all distributions that `expand` returns.

    >>> import pyro.distributions as dist
    >>> import zuko
    >>> base = dist.Normal(torch.zeros(5, 3), 1.0).to_event(1)
    >>> flow = FlowDistribution(base, zuko.flows.MAF(3, transforms=2).transform())
    >>> flow.log_prob(flow.rsample()).shape
    torch.Size([5])
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(
        self,
        base: TorchDistribution,
        transform: Any,
        last: dict[str, tuple[Tensor, Tensor, bool]] | None = None,
    ) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.base = base
        self.transform = transform
        self._last = {} if last is None else last

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base.has_rsample)

    @property
    def mean(self) -> Tensor:
        """T of the base's mean, which represents a datum by one value; it is not the mean of z."""
        image: Tensor = self.transform(self.base.mean)
        return image

    def transform_base(self, u: Tensor) -> Tensor:
        """Transform samples u of the base to z = T(u), and store their log-density."""
        with torch.autocast(u.device.type, enabled=False):  # densities need full precision
            z, ladj = self.transform.call_and_ladj(u)
        log_prob = self.base.log_prob(u) - ladj
        self._last["last"] = (z, log_prob, torch.is_grad_enabled())
        return z

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        z: Tensor = self.transform(draw(self.base, sample_shape))
        return z

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.transform_base(draw(self.base, sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if "last" in self._last:
            z, log_prob, has_gradient = self._last["last"]
            if z is value and (has_gradient or not torch.is_grad_enabled()):
                return log_prob
        u = self.transform.inv(value)
        ladj: Tensor = self.transform.call_and_ladj(u)[1]
        return self.base.log_prob(u) - ladj

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        return FlowDistribution(self.base.expand(batch_shape), self.transform, self._last)
