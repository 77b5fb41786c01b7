"""A model with random weights."""

from contextlib import AbstractContextManager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import IsotropicNormal
from pyro_ssl.nn.random_weights import RandomWeights


class Bayesian(PyroModule):
    r"""A model with a prior over the weights of some of its networks, drawn once for all data.

    .. math:: p(W) = \mathcal N(W; 0, s^2 I), \qquad
              p(\mathrm{data}) = \int p(W) \prod_i p(x_i, y_i \mid W)\, dW

    Arguments:
        model: The model.
        slots: The weights of the model's networks that are parts of W.
        scale: Standard deviation s of the prior.

    Raises:
        ValueError: scale is not above 0.

    References:
        Paper 002, eq. 4.16; Blundell et al. 2015.

    >>> from pyro_ssl import MLP, Bernoulli, StandardNormal, models
    >>> p_x = Bernoulli(MLP(2, 4, hidden=()))
    >>> model = Bayesian(models.VAE(StandardNormal(2), p_x), RandomWeights(p_x))
    >>> model.p_w().event_shape
    torch.Size([12])
    """

    def __init__(self, model: nn.Module, slots: RandomWeights, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"prior_scale should be above 0, got {scale}")
        self.program: Any = model
        self.slots = slots
        self.register_buffer("loc", torch.zeros_like(slots.initial))
        self.scale = scale

    def p_w(self) -> TorchDistribution:
        """p(W), over `(P,)`."""
        scale = self.loc.new_full((), self.scale)  # made on its device, not copied to it
        normal = dist.Normal(self.loc, scale, validate_args=False)
        return IsotropicNormal(normal, 1, validate_args=False)

    def given(self, w: Tensor) -> AbstractContextManager[None]:
        """Give the networks of the model the weights w inside the block."""
        return self.slots.substituted(w)

    def predict(self, x: Tensor, z: Tensor) -> TorchDistribution:
        """p(y|x,z,W), for the W of the surrounding block of `given`."""
        p: TorchDistribution = self.program.predict(x, z)
        return p

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        w = pyro.sample("W", self.p_w())
        with self.given(w):
            return self.program(x, y)
