"""A pretrained encoder: the latents of a first model are the data of a second model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_ssl.objectives.objective import Objective
from pyro_ssl.utils.context import eval_mode

ROWS_AT_ONCE = 4096
"""Number of rows that `moments` encodes at once."""


class PretrainedEncoder(nn.Module):
    r"""The latent of x under a trained encoder, :math:`z_1 \sim q(z_1 \mid x)`.

    In training it is a new sample at each call, in evaluation the mean; it has no gradient.
    Dimensions that the encoder does not use are set to 0, unless it uses none.

    Arguments:
        objective: Objective of the first model, whose guide has a Gaussian `q_z`. `fit` of the
            second model trains it first.
        size: Size Z of the latent.
        training: Arguments of `fit` for the first model.
        least: A dimension counts as used if its mean has at least this standard deviation over
            the data.

    References:
        Kingma et al. 2014, M1+M2.

    >>> from pyro_ssl import zoo
    >>> m1 = zoo.build("vae", (4,), 3, hidden=(8,), z_dim=2)
    >>> PretrainedEncoder(m1, 2)(torch.rand(5, 4)).shape
    torch.Size([5, 2])
    """

    used: Tensor
    trained: Tensor

    def __init__(
        self,
        objective: Objective,
        size: int,
        training: dict[str, Any] | None = None,
        least: float = 0.1,
    ) -> None:
        super().__init__()
        self.objective = objective.requires_grad_(False)
        self.arguments = training or {}
        self.least = least
        self.register_buffer("used", torch.ones(size))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Switch between samples and means; the first model stays in eval mode."""
        super().train(mode)
        self.objective.eval()
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.sample(self._moments(x))

    def sample(self, moments: Tensor) -> Tensor:
        """Latents `(N, Z)` from moments `(N, 2, Z)`: samples in training, means in evaluation."""
        mean, std = moments.unbind(-2)
        latents = torch.normal(mean, std) if self.training else mean
        return self.used * latents

    @torch.no_grad()
    def moments(self, x: Tensor) -> Tensor:
        """Means and standard deviations of the latents of x, `(N, 2, Z)`.

        Training computes them once for each datum.
        """
        with eval_mode(self.objective):
            chunks = [self._moments(chunk.to(self.used)) for chunk in x.split(ROWS_AT_ONCE)]
        return torch.cat(chunks)

    def _moments(self, x: Tensor) -> Tensor:
        q = self.objective.guide.q_z(x)
        return torch.stack([q.mean, q.stddev], -2)

    @torch.no_grad()
    def finish_training(self, x: Tensor) -> None:
        """Find the used dimensions from all training data `(N, *event)`, and set `trained`."""
        self._set_used(self.moments(x)[:, 0].std(0, correction=0))

    @torch.no_grad()
    def finish_training_on(self, chunks: Iterable[Tensor]) -> None:
        """Find the used dimensions from training data that come in chunks `(n, *event)`."""
        count = 0
        total = torch.zeros_like(self.used, dtype=torch.float64)
        squares = total.clone()
        for chunk in chunks:
            mean = self.moments(chunk)[:, 0].double()
            count += len(mean)
            total += mean.sum(0)
            squares += mean.square().sum(0)
        variance = squares / count - (total / count).square()
        self._set_used(variance.clamp_min(0).sqrt())

    def _set_used(self, spread: Tensor) -> None:
        used = spread >= self.least
        self.used.copy_(used if used.any() else torch.ones_like(used))
        self.trained.fill_(True)
