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
from pyro_ssl.nn.tensor_notes import mark_normal

WEIGHT_DRAWS = 10
"""Draws of W that a prediction by a shared network averages."""


class MeanField(PyroModule):
    r"""Any guide, with a mean-field Gaussian over the model's random weights.

    .. math:: q(W) = \prod_j \mathcal N(W_j; \mu_j, \sigma_j^2)

    Arguments:
        guide: The guide of the model's other latents.
        initial: The start of mu, `(P,)`.
        log_variance: The start of log sigma^2: low, so that the data are found before the prior is.
        norm_from_mean_weights: Batch norm takes its statistics from the weights' means; without, from the draws, which the paper shows to
            be wrong.
        slots: The places of W in networks that the guide shares with the model, such as its p(y|z); None if it shares none.
        local_reparameterisation: In training, draw what the weights make, for each datum, in place of the weights (local reparameterisation):
            the same mean of a log-density, of less variance. Not of a logarithm of a mean, such as an importance-weighted bound.

    References:
        Paper 002, eq. 4.19, sections 5.1.3 and 5.3; Kingma et al. 2015.
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
                "local_reparameterisation: a network that model and guide share needs one draw of W for both, not one a datum"
            )
        self.local_reparameterisation, self.norm_from_mean_weights, self.slots = (
            local_reparameterisation,
            norm_from_mean_weights,
            slots,
        )
        self.classifies_by_one_draw = getattr(guide, "classifies_by_one_draw", False)
        self.loc = nn.Parameter(initial.clone())
        self.log_variance = nn.Parameter(torch.full_like(initial, log_variance))

    def q_w(self) -> TorchDistribution:
        """q(W), over `(P,)`."""
        normal = dist.Normal(self.loc, (0.5 * self.log_variance).exp(), validate_args=False)
        return dist.Independent(normal, 1, validate_args=False)

    def draw_weights(self, draws: int) -> Tensor:
        """Draws of W for as many chains, `(draws, 1, P)`."""
        return self.q_w().sample(torch.Size([draws, 1]))

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), of the guide; where it is by W, the mean over `WEIGHT_DRAWS` draws, or one in training."""
        if self.slots is None:
            return self.program.classify(x)
        draws = []
        for _ in range(1 if self.training else WEIGHT_DRAWS):
            with self.slots.substituted(self.q_w().rsample()):
                draws.append(self.program.classify(x))
        if len(draws) == 1:
            return draws[0]
        return dist.OneHotCategorical(probs=torch.stack([q.mean for q in draws]).mean(0))

    def encode(self, *inputs: Tensor) -> Any:
        """q(z|x,y), of the guide."""
        return self.program.encode(*inputs)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        q_w = self.q_w()
        w = pyro.sample("W", q_w)
        local = self.local_reparameterisation and self.training
        if local or self.norm_from_mean_weights:
            mark_normal(w, self.loc, q_w.base_dist.scale if local else None)
        with nullcontext() if self.slots is None else self.slots.substituted(w):
            self.program(x, y)
