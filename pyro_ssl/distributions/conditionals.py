"""Conditionals: modules that map tensors to a distribution, so that a program reads `self.p_x(y, z)`.

A conditional owns its network and nothing else. Priors are conditionals over no input: `self.p_z()`.
"""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn
from torch.distributions import Independent, register_kl

from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.utils.compat import validate_value


class Conditional(nn.Module, ABC):
    """p(.|inputs): a network and the family its output parametrises.

    Arguments:
        network: Maps the inputs, each `(*, event)`, to `(*, parameters)`; any module.
        event_dim: Number of event dimensions of the distribution.
    """

    def __init__(self, network: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        self.network, self.event_dim = network, event_dim

    @abstractmethod
    def family(self, parameters: Tensor) -> TorchDistribution:
        """The distribution with these parameters; what is left of its event is made of batch dimensions."""

    def parameters_of(self, *inputs: Tensor) -> Tensor:
        """What the network gives, in float32 at least: autocast reaches no density."""
        parameters = self.network(*inputs)
        return parameters.float() if parameters.dtype in (torch.bfloat16, torch.float16) else parameters

    def forward(self, *inputs: Tensor) -> TorchDistribution:
        distribution = self.family(self.parameters_of(*inputs))
        rest = self.event_dim - len(distribution.event_shape)
        return distribution.to_event(rest) if rest else distribution  # of nothing, it would unwrap an `Independent`


class Normal(Conditional):
    r"""A diagonal Gaussian whose mean and scale are the two halves of the network's output.

    .. math:: \mathcal N(\mu, \mathrm{softplus}(\rho) + s_{\min})

    Arguments:
        network: Output `(*, 2 Z)`: the means, then the raw scales.
        min_scale: Lower bound of the scale, so that a density cannot run away.
    """

    def __init__(self, network: nn.Module, min_scale: float = 1e-3) -> None:
        super().__init__(network)
        self.min_scale = min_scale

    def family(self, parameters: Tensor) -> TorchDistribution:
        loc, raw = parameters.chunk(2, dim=-1)
        return dist.Normal(loc, nn.functional.softplus(raw) + self.min_scale)


class GreyBernoulli(dist.Bernoulli):
    """A Bernoulli whose observations may be grey, in [0, 1]: minus the cross-entropy, as most papers report on MNIST."""

    support = constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        validate_value(self, value)
        return torch.addcmul(nn.functional.logsigmoid(self.logits), 1 - value, self.logits, value=-1)


class Bernoulli(Conditional):
    """Independent pixels with the network's output as logits; grey values in [0, 1] are allowed unless `binary`.

    Arguments:
        network: Output `(*, event)`: logits.
        event_dim: Number of event dimensions: 1 for vectors, 3 for images.
        binary: Refuse grey values.
    """

    def __init__(self, network: nn.Module, event_dim: int = 1, *, binary: bool = False) -> None:
        super().__init__(network, event_dim)
        self.binary = binary

    def family(self, parameters: Tensor) -> TorchDistribution:
        return (dist.Bernoulli if self.binary else GreyBernoulli)(logits=parameters)


class IsotropicNormal(dist.Independent):
    r"""`Normal(mu, sigma).to_event(n)` with one sigma: its density in one pass over what is a step's largest tensor, not ten.

    .. math:: \log \mathcal N(x; \mu, \sigma^2 I) = -\frac{\lVert x - \mu \rVert^2}{2 \sigma^2} - \frac D2 \log 2 \pi \sigma^2

    Arguments:
        base_distribution: A Normal whose scale is one number.
        reinterpreted_batch_ndims: Number of event dimensions.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        validate_value(self, value)
        loc, scale, n = self.base_dist.loc, self.base_dist.scale, self.reinterpreted_batch_ndims
        sigma = scale[(0,) * scale.dim()]
        loc, value = torch.broadcast_tensors(loc, value)
        error = nn.functional.mse_loss(loc, value, reduction="none")
        constant = self.event_shape.numel() * (sigma.log() + 0.5 * math.log(2 * math.pi))
        return -0.5 * sum_rightmost(error, n) / sigma.square() - constant


@register_kl(Independent, IsotropicNormal)
def _kl_to_isotropic_normal(q: Independent, p: IsotropicNormal) -> Tensor:
    """Few passes over it, for it may have as many entries as a network has weights."""
    n = p.reinterpreted_batch_ndims
    if not isinstance(q.base_dist, dist.Normal) or (q.reinterpreted_batch_ndims, q.event_shape) != (n, p.event_shape):
        raise NotImplementedError
    sigma = p.base_dist.scale[(0,) * p.base_dist.scale.dim()]
    squares = torch.zeros(())
    for a, b in ((q.base_dist.loc, p.base_dist.loc), (q.base_dist.scale, torch.zeros_like(sigma))):
        a, b = torch.broadcast_tensors(a, b)
        squares = squares + sum_rightmost(nn.functional.mse_loss(a, b, reduction="none"), n)
    entropy = sum_rightmost(q.base_dist.scale.log(), n)
    return 0.5 * squares / sigma.square() - entropy + p.event_shape.numel() * (sigma.log() - 0.5)


class Gaussian(Conditional):
    r"""A Gaussian likelihood with one standard deviation, fixed or learned.

    .. math:: \mathcal N(f(\cdot), \sigma^2 I)

    Arguments:
        network: Output `(*, event)`: means.
        event_dim: Number of event dimensions: 1 for vectors, 3 for images.
        sigma: Standard deviation, in the units of x; the start when it is learned.
        learn_sigma: Learn sigma.
        min_sigma: Lower bound of a learned sigma.

    Raises:
        ValueError: sigma is not above 0, or not above min_sigma while it is learned.
    """

    def __init__(
        self,
        network: nn.Module,
        event_dim: int = 1,
        *,
        sigma: float = 1.0,
        learn_sigma: bool = False,
        min_sigma: float = 1e-2,
    ) -> None:
        super().__init__(network, event_dim)
        floor = min_sigma if learn_sigma else 0.0
        if not sigma > floor:
            raise ValueError(f"sigma should be above {floor}, got {sigma}")
        self.floor = floor
        log_sigma = torch.tensor(sigma - floor).log()
        if learn_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    def family(self, parameters: Tensor) -> TorchDistribution:
        normal = dist.Normal(parameters, self.log_sigma.exp() + self.floor, validate_args=False)
        return IsotropicNormal(normal, self.event_dim)


class OneHotCategorical(Conditional):
    """A one-hot class with the network's output `(*, K)` as logits."""

    def family(self, parameters: Tensor) -> TorchDistribution:
        return dist.OneHotCategorical(logits=parameters)


class Delta(Conditional):
    """All mass at the network's output, `(*, Z)`: a code without noise. Its log-density there is 0."""

    def family(self, parameters: Tensor) -> TorchDistribution:
        return dist.Delta(parameters, event_dim=1)


class Bayes(nn.Module):
    r"""The class given its code, by Bayes' rule.

    .. math:: p(y \mid z) = \frac{p(z \mid y)\, p(y)}{\sum_{y'} p(z \mid y')\, p(y')}

    Its logits are log p(y) + log p(z|y), so that their log-sum-exp is log p(z). Where the densities have one covariance it
    is a softmax layer.

    Arguments:
        p_y: Prior over one-hot `(K,)`.
        p_z: Prior over z given one-hot y.

    References:
        Paper 000, eq. 8.
    """

    def __init__(self, p_y: Prior, p_z: Prior) -> None:
        super().__init__()
        self.p_y, self.p_z = p_y, p_z

    def joint(self, z: Tensor) -> Tensor:
        """log p(y) + log p(z|y) of every class: `(*, Z)` -> `(*, K)` nats."""
        log_prior = self.p_y().logits
        each = torch.eye(len(log_prior), dtype=log_prior.dtype, device=log_prior.device)
        return log_prior + self.p_z(each).log_prob(z.unsqueeze(-2))

    @property
    def is_softmax(self) -> bool:
        """Whether it is a softmax `layer`, the densities having one covariance."""
        return isinstance(self.p_z, ClassNormal) and len(self.p_z.scale) == 1

    def layer(self, z: Tensor) -> Tensor:
        """f(z) of that layer, `(*, Z)` -> `(*, K)`: log p(y) + log p(z|y), and log N(z; 0, sigma) taken off."""
        assert isinstance(self.p_z, ClassNormal) and self.is_softmax
        return self.joint(z) - dist.Normal(0.0, self.p_z.scale[0]).log_prob(z).sum(-1, keepdim=True)

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.OneHotCategorical(logits=self.joint(z))


def expected(p_y: Callable[[Tensor], TorchDistribution], given: TorchDistribution, draws: int) -> TorchDistribution:
    r"""The class, whatever the code: :math:`\mathrm E_{z \sim \mathrm{given}}[p(y \mid z)]`, over one-hot `(B, K)`.

    Arguments:
        p_y: One-hot y given z, `(*, B, Z)`.
        given: The distribution of z, `(B, Z)`.
        draws: Samples of z, in blocks of bounded memory; one alone keeps the gradient in the parameters of z. A `Delta`, whose
            samples are all the same, is given one.
    """
    if draws == 1 or isinstance(given, dist.Delta):
        return p_y(draw(given))
    block = min(draws, max(1, 2**14 // given.batch_shape[-1]))
    sizes = [block] * (draws // block) + ([draws % block] if draws % block else [])
    totals = [p_y(draw(given, [n])).logits.logsumexp(0) for n in sizes]  # as probabilities they saturate
    return dist.OneHotCategorical(logits=torch.stack(totals).logsumexp(0) - math.log(draws))


def merge(a: TorchDistribution, b: TorchDistribution) -> TorchDistribution:
    r"""The normalised product of two diagonal Gaussians over `(Z,)`: precisions add up, means are weighed by them."""
    precisions = a.variance.reciprocal(), b.variance.reciprocal()
    total = precisions[0] + precisions[1]
    return dist.Normal((a.mean * precisions[0] + b.mean * precisions[1]) / total, total.rsqrt()).to_event(1)


class Prior(nn.Module, ABC):
    """A conditional over no input; a prior over codes may be given the class, and need not look at it."""

    @abstractmethod
    def forward(self, *given: Tensor) -> TorchDistribution: ...


class ClassNormal(Prior):
    r"""z given one-hot y, with a learned mean and variance of each class.

    .. math:: p(z \mid y) = \mathcal N(\mu_y, \mathrm{diag}\, \sigma_y^2)

    Arguments:
        classes: K.
        dim: Z.
        shared: One variance for all classes, which makes of `Bayes` a softmax layer.
        spread: Standard deviation of the means at the start, where the scales are 1.
        min_scale: Lower bound of the scales, below 1.

    Raises:
        ValueError: A size or a bound is out of range.

    References:
        Paper 000, section 5.
    """

    def __init__(
        self, classes: int, dim: int, *, shared: bool = False, spread: float = 1.0, min_scale: float = 1e-3
    ) -> None:
        super().__init__()
        if classes < 1 or dim < 1:
            raise ValueError(f"classes and dim should be above 0, got {classes} and {dim}")
        if not 0 < min_scale < 1 or not spread >= 0:
            raise ValueError(f"min_scale should be in (0, 1) and spread 0 or above, got {min_scale} and {spread}")
        self.loc = nn.Parameter(spread * torch.randn(classes, dim))
        self.raw_scale = nn.Parameter(torch.full((1 if shared else classes, dim), 1 - min_scale).expm1().log())
        self.min_scale = min_scale

    @property
    def scale(self) -> Tensor:
        """Standard deviations, `(K, Z)`, or `(1, Z)` if shared."""
        return nn.functional.softplus(self.raw_scale) + self.min_scale

    def forward(self, *given: Tensor) -> TorchDistribution:
        y, scale = given[-1], self.scale
        with torch.autocast(y.device.type, enabled=False):  # y picks rows, which half precision would round
            loc, scale = y @ self.loc, scale[0] if len(scale) == 1 else y @ scale
        return dist.Normal(loc, scale).to_event(1)


class StandardNormal(Prior):
    """N(0, I) over `(Z,)`.

    Raises:
        ValueError: Z is below 1.
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
    """p(y) over one-hot `(K,)`: uniform over `int` classes, or with the given probabilities.

    Arguments:
        classes: Their number, or their probabilities.
        learn: Learn them, from there.

    Raises:
        ValueError: There is no class, a probability is not above 0, or they do not sum to 1.
    """

    logits: Tensor

    def __init__(self, classes: int | Sequence[float], *, learn: bool = False) -> None:
        super().__init__()
        if isinstance(classes, Integral) and classes < 1:
            raise ValueError(f"classes: their number should be above 0, got {classes}")
        if isinstance(classes, Integral):
            p = torch.full((int(classes),), 1.0 / int(classes))
        else:
            p = torch.as_tensor(classes)
        if not (p > 0).all() or abs(float(p.sum()) - 1) > 1e-5:
            given = reprlib.repr(p.tolist())
            raise ValueError(f"classes: prior probabilities should be above 0 and sum to 1, got {given}")
        if learn:
            self.logits = nn.Parameter(p.log())
        else:
            self.register_buffer("logits", p.log())

    def forward(self, *given: Tensor) -> TorchDistribution:
        return dist.OneHotCategorical(logits=self.logits)
