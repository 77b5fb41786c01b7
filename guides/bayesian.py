"""The guide of a model with random weights."""

from contextlib import nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.nn.tensor_marks import mark_normal
from pyro_ssl.types import classifies_by_one_draw
from pyro_ssl.utils.process_noise import drawing_what_all_share

WEIGHT_DRAWS = 10
"""Number of draws of W that a prediction by networks with random weights averages over."""


class MeanField(PyroModule):
    r"""A guide with a mean-field Gaussian over the random weights of the model.

    .. math:: q(W) = \prod_j \mathcal N(W_j; \mu_j, \sigma_j^2)

    Arguments:
        guide: The guide of the model's other latents.
        initial: Initial mu, `(P,)`.
        log_variance: Initial log sigma^2. A low one lets training fit the data before the prior.
        slots: The weights of networks that guide and model share, such as p(y|z); None if they
            share none.
        local_reparameterisation: In training, draw the outputs of random layers for each datum, not
            the weights. The bound has the same mean and less variance. An importance-weighted
            bound, which is a logarithm of a mean, would change.
        norm_from_mean_weights: Take the statistics of batch norm from the outputs for the mean
            weights. False takes them from the draws, which paper 002 shows to be wrong.

    Raises:
        ValueError: local_reparameterisation is used with shared networks.

    References:
        Paper 002, eq. 4.19, sections 5.1.3 and 5.3; Kingma et al. 2015.

    >>> from pyro_ssl import MLP, OneHotCategorical, guides
    >>> q_y = OneHotCategorical(MLP(4, 3))
    >>> guide = MeanField(guides.Classifier(q_y), torch.zeros(12))
    >>> guide.draw_weights(2).shape
    torch.Size([2, 1, 12])
    """

    def __init__(
        self,
        guide: nn.Module,
        initial: Tensor,
        log_variance: float = -10.0,
        *,
        slots: RandomWeights | None = None,
        local_reparameterisation: bool = False,
        norm_from_mean_weights: bool = True,
    ) -> None:
        super().__init__()
        self.program: Any = guide
        if slots is not None and local_reparameterisation:
            raise ValueError(
                "local_reparameterisation: a network that model and guide share needs one draw of "
                "W for both, not one for each datum"
            )
        self.local_reparameterisation = local_reparameterisation
        self.norm_from_mean_weights = norm_from_mean_weights
        self.slots = slots
        self.classifies_by_one_draw = classifies_by_one_draw(guide)
        self.loc = nn.Parameter(initial.clone())
        self.log_variance = nn.Parameter(torch.full_like(initial, log_variance))

    def q_w(self) -> TorchDistribution:
        """q(W), over `(P,)`."""
        normal = dist.Normal(self.loc, (0.5 * self.log_variance).exp(), validate_args=False)
        return dist.Independent(normal, 1, validate_args=False)

    def draw_weights(self, draws: int) -> Tensor:
        """Independent draws of W, `(draws, 1, P)`."""
        return self.q_w().sample(torch.Size([draws, 1]))

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x) of the guide; averaged over draws of W if it depends on W, one in training."""
        if self.slots is None:
            return self._classify(x)
        draws: list[TorchDistribution] = []
        for _ in range(1 if self.training else WEIGHT_DRAWS):
            with drawing_what_all_share():
                w = self.q_w().rsample()
            with self.slots.substituted(w):
                draws.append(self._classify(x))
        if len(draws) == 1:
            return draws[0]
        return dist.OneHotCategorical(probs=torch.stack([q.mean for q in draws]).mean(0))

    def _classify(self, x: Tensor) -> TorchDistribution:
        q: TorchDistribution = self.program.classify(x)
        return q

    def encode(self, x: Tensor, y: Tensor) -> TorchDistribution:
        """q(z|x,y) of the guide."""
        q: TorchDistribution = self.program.encode(x, y)
        return q

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        q_w = self.q_w()
        w = pyro.sample("W", q_w)
        if self.local_reparameterisation and self.training:
            mark_normal(w, self.loc, q_w.base_dist.scale)
        elif self.norm_from_mean_weights:
            mark_normal(w, self.loc, None)
        with nullcontext() if self.slots is None else self.slots.substituted(w):
            self.program(x, y)
