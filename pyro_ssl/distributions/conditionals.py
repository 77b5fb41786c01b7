"""Conditionals: modules that map tensors to a distribution, such as `p_x(y, z)`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn
from torch.distributions import Independent, register_kl

from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.utils.private_names import validate_value


class Conditional(nn.Module, ABC):
    """p(.|inputs): a network, and the family of distributions that its output parametrises.

    A conditional of your own overrides `family`:

    >>> class Poisson(Conditional):
    ...     def family(self, parameters):
    ...         return dist.Poisson(nn.functional.softplus(parameters))
    >>> Poisson(nn.Linear(4, 3))(torch.randn(5, 4)).log_prob(torch.ones(5, 3)).shape
    torch.Size([5])

    Arguments:
        network: Any module that maps the inputs, each `(*, event)`, to `(*, parameters)`.
        event_dim: Number of event dimensions of the distribution.
    """

    def __init__(self, network: nn.Module, event_dim: int = 1) -> None:
        super().__init__()
        self.network = network
        self.event_dim = event_dim

    @abstractmethod
    def family(self, parameters: Tensor) -> TorchDistribution:
        """The distribution; `forward` turns its last batch dimensions into event dimensions."""

    def parameters_of(self, *inputs: Tensor) -> Tensor:
        """The output of the network in at least float32, since densities need it under autocast."""
        parameters: Tensor = self.network(*inputs)
        if parameters.dtype in (torch.bfloat16, torch.float16):
            return parameters.float()
        return parameters

    def forward(self, *inputs: Tensor) -> TorchDistribution:
        distribution = self.family(self.parameters_of(*inputs))
        rest = self.event_dim - len(distribution.event_shape)
        if rest == 0:  # to_event(0) would unwrap an Independent
            return distribution
        return distribution.to_event(rest)


class Normal(Conditional):
    r"""A diagonal Gaussian whose mean and scale are the two halves of the network's output.

    .. math:: \mathcal N(\mu, \mathrm{softplus}(\rho) + s_{\min})

    Arguments:
        network: Output `(*, 2 Z)`: the means, then the raw scales.
        min_scale: Lower bound s_min of the scale, which bounds the density from above.

    >>> Normal(nn.Linear(4, 6))(torch.randn(5, 4)).sample().shape
    torch.Size([5, 3])
    """

    def __init__(self, network: nn.Module, min_scale: float = 1e-3) -> None:
        super().__init__(network)
        self.min_scale = min_scale

    def family(self, parameters: Tensor) -> TorchDistribution:
        loc, raw = parameters.chunk(2, dim=-1)
        return dist.Normal(loc, nn.functional.softplus(raw) + self.min_scale)


class GreyBernoulli(dist.Bernoulli):
    """A Bernoulli that also allows grey values in [0, 1] as observations.

    Its `log_prob` is minus the cross-entropy, the reconstruction term of most papers on MNIST. For
    grey values it is not a normalised density.

    >>> GreyBernoulli(logits=torch.zeros(())).log_prob(torch.tensor(0.5)).exp()
    tensor(0.5000)
    """

    support = constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        validate_value(self, value)
        log_sigmoid = nn.functional.logsigmoid(self.logits)
        return torch.addcmul(log_sigmoid, 1 - value, self.logits, value=-1)


class Bernoulli(Conditional):
    """Independent Bernoullis, such as pixels, with the network's output as logits.

    Arguments:
        network: Output `(*, event)`: logits.
        event_dim: Number of event dimensions: 1 for vectors, 3 for images.
        binary: Allow only 0 and 1; by default grey values in [0, 1] are also allowed.

    >>> Bernoulli(nn.Identity())(torch.zeros(5, 3)).log_prob(torch.full((5, 3), 0.5)).shape
    torch.Size([5])
    """

    def __init__(self, network: nn.Module, event_dim: int = 1, *, binary: bool = False) -> None:
        super().__init__(network, event_dim)
        self.binary = binary

    def family(self, parameters: Tensor) -> TorchDistribution:
        if self.binary:
            return dist.Bernoulli(logits=parameters)
        return GreyBernoulli(logits=parameters)


class IsotropicNormal(dist.Independent):
    r"""`Normal(mu, sigma).to_event(n)` with the same sigma everywhere and a faster `log_prob`.

    .. math:: \log \mathcal N(x; \mu, \sigma^2 I)
              = -\frac{\lVert x - \mu \rVert^2}{2 \sigma^2} - \frac D2 \log 2 \pi \sigma^2

    It reads the data, often the largest tensor of a step, once, where `Normal` reads or writes
    tensors of that size ten times.

    Arguments:
        base_distribution: A Normal whose scale is one number.
        reinterpreted_batch_ndims: Number of event dimensions.

    >>> IsotropicNormal(dist.Normal(torch.zeros(5, 3), 0.7), 1).log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        validate_value(self, value)
        sigma = _one_number(self.base_dist.scale)
        loc, value = torch.broadcast_tensors(self.base_dist.loc, value)
        error = nn.functional.mse_loss(loc, value, reduction="none")
        squares: Tensor = sum_rightmost(error, self.reinterpreted_batch_ndims)
        constant = self.event_shape.numel() * (sigma.log() + 0.5 * math.log(2 * math.pi))
        return -0.5 * squares / sigma.square() - constant


def _one_number(scale: Tensor) -> Tensor:
    """The scale as a scalar; `expand` may have repeated it."""
    return scale[(0,) * scale.dim()]


@register_kl(Independent, IsotropicNormal)  # type: ignore[untyped-decorator]
def _kl_to_isotropic_normal(q: Independent[Any], p: IsotropicNormal) -> Tensor:
    """KL with few passes over the entries, of which there are as many as weights in a network."""
    n = p.reinterpreted_batch_ndims
    has_same_event = (q.reinterpreted_batch_ndims, q.event_shape) == (n, p.event_shape)
    if not isinstance(q.base_dist, dist.Normal) or not has_same_event:
        raise NotImplementedError
    sigma = _one_number(p.base_dist.scale)
    squares = torch.zeros(())
    squares = squares + _squared_error(q.base_dist.loc, p.base_dist.loc, n)
    squares = squares + _squared_error(q.base_dist.scale, torch.zeros_like(sigma), n)
    entropy = sum_rightmost(q.base_dist.scale.log(), n)
    constant = p.event_shape.numel() * (sigma.log() - 0.5)
    return 0.5 * squares / sigma.square() - entropy + constant


def _squared_error(a: Tensor, b: Tensor, event_dim: int) -> Tensor:
    a, b = torch.broadcast_tensors(a, b)
    error: Tensor = sum_rightmost(nn.functional.mse_loss(a, b, reduction="none"), event_dim)
    return error


class Gaussian(Conditional):
    r"""A Gaussian likelihood with one standard deviation, fixed or learned.

    .. math:: \mathcal N(f(\cdot), \sigma^2 I)

    Arguments:
        network: Output `(*, event)`: means.
        event_dim: Number of event dimensions: 1 for vectors, 3 for images.
        sigma: Standard deviation, in the units of x; the initial value if it is learned.
        learn_sigma: Learn sigma.
        min_sigma: Lower bound of a learned sigma.

    Raises:
        ValueError: sigma is not above 0, or a learned sigma is not above min_sigma.

    >>> Gaussian(nn.Identity(), sigma=0.7)(torch.zeros(5, 3)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
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
        sigma = self.log_sigma.exp() + self.floor
        normal = dist.Normal(parameters, sigma, validate_args=False)
        return IsotropicNormal(normal, self.event_dim)


class HeteroscedasticGaussian(Conditional):
    r"""A Gaussian likelihood whose mean and log-variance are both outputs of the network.

    .. math:: \mathcal N(\mu, v + s_{\min}^2), \quad (\mu, \log v - \ell) = f(\cdot)

    Arguments:
        network: Output `(*, 2 C, ...)`: the means, then the log-variances less `log_variance`,
            halves of the first event dimension.
        event_dim: Number of event dimensions: 1 for vectors, 3 for images.
        log_variance: The log-variance l where the network's output is 0, from which training
            starts.
        min_scale: s_min, which bounds the density from above; 0 for no bound.

    Raises:
        ValueError: log_variance is not finite, or min_scale is below 0.

    References:
        Paper 002, eq. 4.3.

    >>> p_x = HeteroscedasticGaussian(nn.Linear(4, 6), log_variance=-2.0)
    >>> p_x(torch.randn(5, 4)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        network: nn.Module,
        event_dim: int = 1,
        *,
        log_variance: float = 0.0,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__(network, event_dim)
        if not math.isfinite(log_variance):
            raise ValueError(f"log_variance should be a finite number, got {log_variance}")
        if not min_scale >= 0:
            raise ValueError(f"min_scale should be 0 or above, got {min_scale}")
        self.log_variance = log_variance
        self.min_scale = min_scale

    def family(self, parameters: Tensor) -> TorchDistribution:
        loc, raw = parameters.chunk(2, dim=-self.event_dim)
        variance = (raw + self.log_variance).exp() + self.min_scale**2
        return dist.Normal(loc, variance.sqrt())


class OneHotCategorical(Conditional):
    """A one-hot class with the network's output `(*, K)` as logits.

    >>> OneHotCategorical(nn.Linear(4, 3))(torch.randn(5, 4)).mean.shape
    torch.Size([5, 3])
    """

    def family(self, parameters: Tensor) -> TorchDistribution:
        return dist.OneHotCategorical(logits=parameters)


class Delta(Conditional):
    """A point mass at the network's output `(*, Z)`, with log-density 0: a latent without noise.

    >>> Delta(nn.Identity())(torch.ones(5, 3)).sample().shape
    torch.Size([5, 3])
    """

    def family(self, parameters: Tensor) -> TorchDistribution:
        return dist.Delta(parameters, event_dim=1)


def expected(
    p_y: Callable[[Tensor], TorchDistribution], given: TorchDistribution, draws: int
) -> TorchDistribution:
    r"""Average p(y|z) over samples of z: :math:`\mathrm E_{z \sim \mathrm{given}}[p(y \mid z)]`.

    Arguments:
        p_y: One-hot y given z, `(*, B, Z)`.
        given: The distribution of z, `(B, Z)`.
        draws: Number of samples of z, drawn in blocks of bounded memory. Of a `Delta`, one is
            enough. With one sample, the result has a gradient in the parameters of z.

    Returns:
        The distribution of one-hot y, `(B, K)`.

    >>> z = Normal(nn.Linear(4, 6))(torch.randn(5, 4))
    >>> expected(OneHotCategorical(nn.Linear(3, 2)), z, draws=10).mean.shape
    torch.Size([5, 2])
    """
    if draws == 1 or isinstance(given, dist.Delta):
        return p_y(draw(given))
    block = min(draws, max(1, 2**14 // given.batch_shape[-1]))
    sizes = [block] * (draws // block)
    if draws % block:
        sizes.append(draws % block)
    # summed as logarithms, since probabilities would round to 0 and 1
    totals = [p_y(draw(given, [size])).logits.logsumexp(0) for size in sizes]
    return dist.OneHotCategorical(logits=torch.stack(totals).logsumexp(0) - math.log(draws))


def merge(a: TorchDistribution, b: TorchDistribution) -> TorchDistribution:
    r"""The normalised product of two diagonal Gaussians over `(Z,)`.

    Its precision is the sum of theirs, and its mean is their mean weighted by precision.

    >>> a = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    >>> b = dist.Normal(torch.ones(2), 1.0).to_event(1)
    >>> merge(a, b).mean
    tensor([0.5000, 0.5000])
    """
    a_precision = a.variance.reciprocal()
    b_precision = b.variance.reciprocal()
    total = a_precision + b_precision
    loc = (a.mean * a_precision + b.mean * b_precision) / total
    return dist.Normal(loc, total.rsqrt()).to_event(1)
