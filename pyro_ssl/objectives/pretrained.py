"""What a first model, trained on all data beforehand, makes of x: the data of a second one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_ssl.objectives.objective import Objective
from pyro_ssl.utils.context import eval_mode


class PretrainedEncoder(nn.Module):
    r"""The code of x under a trained encoder, :math:`z_1 \sim q(z_1 \mid x)`.

    A fresh sample each time in training, the mean in evaluation; without gradient. Latents that the encoder does not use are
    set to 0, but for an encoder that uses none.

    Arguments:
        objective: The first model's, whose guide has a Gaussian `q_z`; `fit` of the second model trains it first.
        size: Z of its code.
        training: Arguments of that `fit`.
        least: Standard deviation, over data, of a used latent's mean, at least.

    References:
        Kingma et al. 2014, M1+M2.
    """

    used: Tensor
    trained: Tensor

    def __init__(
        self, objective: Objective, size: int, training: dict[str, Any] | None = None, least: float = 0.1
    ) -> None:
        super().__init__()
        self.objective, self.arguments, self.least = objective.requires_grad_(False), training or {}, least
        self.register_buffer("used", torch.ones(size))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Whether codes are sampled; the first model stays as in evaluation."""
        super().train(mode)
        self.objective.eval()
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.sample(self._moments(x))

    @torch.no_grad()
    def moments(self, x: Tensor) -> Tensor:
        """Means and standard deviations of the codes of x, `(N, 2, Z)`, so that training need not encode a datum twice."""
        with eval_mode(self.objective):
            return torch.cat([self._moments(part.to(self.used)) for part in x.split(4096)])

    def sample(self, moments: Tensor) -> Tensor:
        """Codes `(N, Z)` from their moments: samples in training, means in evaluation."""
        mean, std = moments.unbind(-2)
        return self.used * (torch.normal(mean, std) if self.training else mean)

    def _moments(self, x: Tensor) -> Tensor:
        q = self.objective.guide.q_z(x)
        return torch.stack([q.mean, q.stddev], -2)

    @torch.no_grad()
    def finish_training(self, x: Tensor) -> None:
        """Find which latents the trained encoder uses, on all data `(N, *event)`, and set `trained`."""
        used = self.moments(x)[:, 0].std(0, correction=0) >= self.least
        self.used.copy_(used if used.any() else torch.ones_like(used))
        self.trained.fill_(True)
