"""Priors over latents and classes, and the class of a latent by Bayes' rule."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_ssl.distributions.flows import FlowDistribution
from pyro_ssl.nn.layers import Shape, as_shape
from pyro_ssl.nn.tensor_marks import one_hot_index
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.context import parts_in_eval_mode


class Prior(nn.Module, ABC):
    """A prior: a conditional without inputs, or given the class.

    Models pass the class to priors over latents; a prior that does not depend on it ignores it.

    >>> class UnitUniform(Prior):
    ...     def forward(self, *given):
    ...         return dist.Uniform(torch.zeros(2), 1.0).to_event(1)
    >>> UnitUniform()().event_shape
    torch.Size([2])
    """

    @abstractmethod
    def forward(self, *given: Tensor) -> TorchDistribution:
        """The prior; `given` is empty or the one-hot class, `(*, K)`."""


class StandardNormal(Prior):
    """N(0, I) over `(Z,)`.

    Arguments:
        dim: Z.

    Raises:
        ValueError: Z is below 1.

    >>> StandardNormal(3)().event_shape
    torch.Size([3])
    """

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"z_dim should be above 0, got {dim}")
        self.register_buffer("loc", torch.zeros(dim))

    def forward(self, *given: Tensor) -> TorchDistribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)


class ClassPrior(Prior):
    """p(y) over one-hot `(K,)`: uniform, or with given probabilities.

    Arguments:
        classes: Number of classes K for a uniform prior, or the K probabilities.
        learn: Learn the probabilities, from `classes` as initial values.

    Raises:
        ValueError: The number is below 1, a probability is not above 0, or they do not sum to 1.

    >>> ClassPrior([0.25, 0.75])().mean
    tensor([0.2500, 0.7500])
    """

    logits: Tensor

    def __init__(self, classes: int | Sequence[float], *, learn: bool = False) -> None:
        super().__init__()
        if isinstance(classes, Integral):
            if classes < 1:
                raise ValueError(f"classes: their number should be above 0, got {classes}")
            p = torch.full((int(classes),), 1.0 / int(classes))
        else:
            p = torch.as_tensor(classes)
        if not (p > 0).all() or abs(float(p.sum()) - 1) > 1e-5:
            raise ValueError(
                "classes: prior probabilities should be above 0 and sum to 1, got "
                f"{reprlib.repr(p.tolist())}"
            )
        if learn:
            self.logits = nn.Parameter(p.log())
        else:
            self.register_buffer("logits", p.log())

    def forward(self, *given: Tensor) -> TorchDistribution:
        return dist.OneHotCategorical(logits=self.logits)


class ClassNormal(Prior):
    r"""z given one-hot y, with a learned mean and variance of each class.

    .. math:: p(z \mid y) = \mathcal N(\mu_y, \mathrm{diag}\, \sigma_y^2)

    Arguments:
        classes: K.
        dim: Z.
        shared: Use the same variance for all classes, which makes `Bayes` a softmax layer.
        spread: Standard deviation of the initial means; the initial scales are 1.
        min_scale: Lower bound of the scales, in (0, 1).

    Raises:
        ValueError: A size or a bound is out of range.

    References:
        Paper 000, section 5.

    >>> ClassNormal(3, 2)(torch.eye(3)).sample().shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        *,
        shared: bool = False,
        spread: float = 1.0,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__()
        if classes < 1 or dim < 1:
            raise ValueError(f"classes and dim should be above 0, got {classes} and {dim}")
        if not 0 < min_scale < 1 or not spread >= 0:
            raise ValueError(
                f"min_scale should be in (0, 1) and spread 0 or above, got {min_scale} and {spread}"
            )
        scales = 1 if shared else classes
        self.loc = nn.Parameter(spread * torch.randn(classes, dim))
        self.raw_scale = nn.Parameter(torch.full((scales, dim), 1 - min_scale).expm1().log())
        self.min_scale = min_scale

    @property
    def scale(self) -> Tensor:
        """Standard deviations, `(K, Z)`, or `(1, Z)` if shared."""
        return nn.functional.softplus(self.raw_scale) + self.min_scale

    def forward(self, *given: Tensor) -> TorchDistribution:
        y = given[-1]
        scale = self.scale
        with torch.autocast(y.device.type, enabled=False):  # half precision would round the means
            loc = y @ self.loc
            scale = scale[0] if len(scale) == 1 else y @ scale
        return dist.Normal(loc, scale).to_event(1)


class Bayes(nn.Module):
    r"""The class given its latent code, by Bayes' rule.

    .. math:: p(y \mid z) = \frac{p(z \mid y)\, p(y)}{\sum_{y'} p(z \mid y')\, p(y')}

    The logits are log p(y) + log p(z|y), so their log-sum-exp is log p(z). If all classes have the
    same covariance, p(y|z) is a linear layer with softmax.

    Arguments:
        p_y: Prior over one-hot `(K,)`.
        p_z: Prior over z given one-hot y.

    References:
        Paper 000, eq. 8.

    >>> Bayes(ClassPrior(3), ClassNormal(3, 2))(torch.randn(5, 2)).mean.shape
    torch.Size([5, 3])
    """

    def __init__(self, p_y: Prior, p_z: Prior) -> None:
        super().__init__()
        self.p_y = p_y
        self.p_z = p_z

    def joint(self, z: Tensor) -> Tensor:
        """log p(y) + log p(z|y) of every class: `(*, Z)` -> `(*, K)` nats."""
        log_prior = self.p_y().logits
        each = torch.eye(len(log_prior), dtype=log_prior.dtype, device=log_prior.device)
        log_joint: Tensor = log_prior + self.p_z(each).log_prob(z.unsqueeze(-2))
        return log_joint

    @property
    def is_softmax(self) -> bool:
        """True if all classes have one covariance, so that p(y|z) is the softmax of `layer`."""
        return isinstance(self.p_z, ClassNormal) and len(self.p_z.scale) == 1

    def layer(self, z: Tensor) -> Tensor:
        """The layer's output, `(*, Z)` -> `(*, K)`: log p(y) + log p(z|y) - log N(z; 0, sigma).

        It is linear in z, and its softmax is p(y|z). `is_softmax` must be true.
        """
        assert isinstance(self.p_z, ClassNormal) and self.is_softmax
        scale = self.p_z.scale[0]
        log_base: Tensor = dist.Normal(torch.zeros_like(scale), scale).log_prob(z)
        return self.joint(z) - log_base.sum(-1, keepdim=True)

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.OneHotCategorical(logits=self.joint(z))


class VampPrior(Prior):
    r"""The VampPrior: a mixture of the guide's posteriors at learned pseudo-inputs.

    .. math:: p(z) = \frac 1 P \sum_{p=1}^P q(z \mid u_p), \qquad
              p(z \mid y) = \frac 1 P \sum_{p=1}^P q(z \mid u_p, y)

    q_z is in eval mode for the pseudo-inputs: it has no noise or dropout, and batch norm uses its
    running statistics. If q_z has further inputs, such as a class or a latent, their pseudo-values
    are also learned. With `by_class`, the last input is the class given to the prior.

    Arguments:
        q_z: The guide's q(z|x, ...).
        shapes: Event shapes of the inputs of q_z, x first.
        count: Number of pseudo-inputs P.
        by_class: Make it a prior over z given y, one-hot `(*, K)`.

    Raises:
        ValueError: count is below 1.

    References:
        Tomczak & Welling 2018; paper 003, section 4.1.

    >>> from pyro_ssl.distributions.conditionals import Normal
    >>> VampPrior(Normal(nn.Linear(4, 6)), [4], count=10)().event_shape
    torch.Size([3])
    """

    eye: Tensor

    def __init__(
        self,
        q_z: nn.Module,
        shapes: Sequence[Shape],
        count: int = 50,
        *,
        by_class: bool = False,
    ) -> None:
        super().__init__()
        check_positive(count=count)
        self.q_z = q_z
        self.by_class = by_class
        if by_class:
            *shapes, classes = shapes
            self.register_buffer("eye", torch.eye(*as_shape(classes)))
        self.inputs = nn.ParameterList(
            0.5 + 0.1 * torch.randn(count, *as_shape(shape)) for shape in shapes
        )

    def forward(self, *given: Tensor) -> TorchDistribution:
        inputs = list(self.inputs)
        if self.by_class:
            inputs.append(self.eye.unsqueeze(-2))
        with parts_in_eval_mode(self.q_z.modules()):
            q = self.q_z(*inputs)  # ([K,] P, Z)
        if not self.by_class:
            return _mixture(q)
        y = given[0]
        index = one_hot_index(y)
        if index is None:
            index = y.argmax(-1)
        return _mixture(q, index)


def _mixture(q: Any, index: Tensor | None = None) -> TorchDistribution:
    """An equal mixture of a batch of Gaussians along batch dimension -1.

    Of flows with one transform, the base distributions are mixed.

    Arguments:
        q: Gaussians with batch shape `(P,)`, or `(K, P)` with an index.
        index: Class indices `(*,)` that select the components.
    """
    if isinstance(q, FlowDistribution):
        return FlowDistribution(_mixture(q.base, index), q.transform)
    loc = q.base_dist.loc
    scale = q.base_dist.scale
    if index is not None:
        loc = loc[index]
        scale = scale[index]
    equal = dist.Categorical(logits=torch.zeros_like(loc[..., 0]))
    return dist.MixtureSameFamily(equal, dist.Normal(loc, scale).to_event(1))
