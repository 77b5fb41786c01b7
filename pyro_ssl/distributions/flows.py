"""Richer posteriors and priors over codes: normalizing flows and VampPrior, for any program that takes a conditional."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, Prior
from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.nn.layers import Shape, as_shape
from pyro_ssl.nn.tensor_notes import one_hot_index
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.context import parts_in_eval_mode


class FlowDistribution(TorchDistribution):
    r"""What a transform makes of a base distribution.

    .. math:: z = T(u), \quad u \sim \mathrm{base}, \qquad \log q(z) = \log \mathrm{base}(u) - \log |\det \partial T / \partial u|

    The log-density of a sample is kept from its drawing, so a transform that is slow to invert costs nothing in training.

    Arguments:
        base: Over `(*, Z)`, reparameterised.
        transform: With `call_and_ladj(u)` and `inv(z)`, as zuko's have them.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(
        self, base: TorchDistribution, transform: Any, drawn: dict[str, tuple[Tensor, Tensor, bool]] | None = None
    ) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.base, self.transform = base, transform
        self._drawn = {} if drawn is None else drawn  # one for all expansions

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base.has_rsample

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean, which stands for the mean where a single code is wanted."""
        return self.transform(self.base.mean)

    def push(self, u: Tensor) -> Tensor:
        """T(u), of draws u of the base."""
        with torch.autocast(u.device.type, enabled=False):  # of densities in half precision nothing is left
            z, ladj = self.transform.call_and_ladj(u)
        self._drawn["last"] = z, self.base.log_prob(u) - ladj, torch.is_grad_enabled()
        return z

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.transform(draw(self.base, sample_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.push(draw(self.base, sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        z, log_prob, with_gradient = self._drawn.get("last", (None, None, False))
        if z is value and log_prob is not None and (with_gradient or not torch.is_grad_enabled()):
            return log_prob
        u = self.transform.inv(value)
        return self.base.log_prob(u) - self.transform.call_and_ladj(u)[1]

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        return FlowDistribution(self.base.expand(batch_shape), self.transform, self._drawn)


class Flow(nn.Module):
    """A conditional and a chain of transforms after it.

    Arguments:
        base: The conditional, over `(*, Z)`.
        transform: A zuko transform without context, such as `zuko.flows.MAF(z_dim, transforms=2).transform`: its forward pass
            is the sampling one, which makes masked autoregressive transforms inverse autoregressive flows.

    References:
        Rezende & Mohamed 2015; Kingma et al. 2016; paper 003, section 4.1, which proposes them.
    """

    def __init__(self, base: Conditional | nn.Module, transform: Callable[[], Any]) -> None:
        super().__init__()
        self.base, self.transform = base, transform

    def forward(self, *inputs: Tensor) -> TorchDistribution:
        return FlowDistribution(self.base(*inputs), self.transform())


class VampPrior(Prior):
    r"""The mean of the guide's posteriors at pseudo-inputs, which are trained with everything else.

    .. math:: p(z) = \frac 1 P \sum_{p=1}^P q(z \mid u_p), \qquad p(z \mid y) = \frac 1 P \sum_{p=1}^P q(z \mid u_p, y)

    They pass through q_z as in evaluation, without noise or dropout, and with batch norm's running statistics. What the
    posterior is given beside x, a class or a code, has pseudo-values too; with `by_class`, its last input is the
    class that the prior is asked for.

    Arguments:
        q_z: The guide's q(z|x, ...).
        shapes: Event shapes of its inputs, x first.
        count: P.
        by_class: The prior is over z given y, one-hot `(*, K)`.

    Raises:
        ValueError: count is below 1.

    References:
        Tomczak & Welling 2018; paper 003, section 4.1.
    """

    eye: Tensor

    def __init__(self, q_z: nn.Module, shapes: Sequence[Shape], count: int = 50, *, by_class: bool = False) -> None:
        super().__init__()
        check_positive(count=count)
        self.q_z, self.by_class = q_z, by_class
        if by_class:
            *shapes, classes = shapes
            self.register_buffer("eye", torch.eye(*as_shape(classes)))
        self.inputs = nn.ParameterList(0.5 + 0.1 * torch.randn(count, *as_shape(s)) for s in shapes)

    def forward(self, *given: Tensor) -> TorchDistribution:
        inputs = list(self.inputs)
        with parts_in_eval_mode(self.q_z.modules()):
            q = self.q_z(*inputs, self.eye.unsqueeze(-2)) if self.by_class else self.q_z(*inputs)  # ([K,] P, Z)
        if not self.by_class:
            return _mixture(q)
        index = one_hot_index(given[0])
        return _mixture(q, given[0].argmax(-1) if index is None else index)


def _mixture(q: Any, index: Tensor | None = None) -> TorchDistribution:
    """The mixture over dimension -1 of a batch of Gaussians, `(P,)` or `(K, P)`; in the latter the components of a class.

    Gaussians that one transform follows are mixed before it.
    """
    if isinstance(q, FlowDistribution):
        return FlowDistribution(_mixture(q.base, index), q.transform)
    loc, scale = q.base_dist.loc, q.base_dist.scale
    if index is not None:
        loc, scale = loc[index], scale[index]
    return dist.MixtureSameFamily(
        dist.Categorical(logits=torch.zeros_like(loc[..., 0])), dist.Normal(loc, scale).to_event(1)
    )
