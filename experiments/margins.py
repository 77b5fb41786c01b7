"""Losses that paper 000 names as earlier work in section 4, as terms of an objective.

Each replaces the classification loss of `ce` or `gm`, or stands beside it; predictions stay p(y|z)
by Bayes' rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_ssl import Objective, zoo
from pyro_ssl.distributions.priors import Bayes, ClassNormal
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.objectives.terms import Term


def angular(cosine: Tensor, margin: int) -> Tensor:
    r"""The function psi that replaces the cosine of an angle to its own class, elementwise.

    .. math:: \psi(\theta) = (-1)^k \cos(m \theta) - 2 k, \qquad
              \theta \in \Big[\frac{k \pi}{m}, \frac{(k + 1) \pi}{m}\Big]

    It falls from 1 to 1 - 2 m, and is below the cosine in between.

    Arguments:
        cosine: cos(theta).
        margin: m.

    References:
        Liu et al. 2016, eq. 6.

    >>> angular(torch.tensor([1.0, 0.0, -1.0]), 2)
    tensor([ 1., -1., -3.])
    """
    before = torch.ones_like(cosine)
    multiple = cosine
    for _ in range(margin - 1):  # Chebyshev's recursion of cos(m theta)
        before, multiple = multiple, 2 * cosine * multiple - before
    k = torch.zeros_like(cosine)
    for j in range(1, margin):
        k = k + (cosine < math.cos(j * math.pi / margin))
    return (1 - 2 * (k % 2)) * multiple - 2 * k


class LargeMargin(Term):
    r"""Large-margin softmax: cross-entropy in which the own class's angle is multiplied by m.

    In a softmax layer with weights w, the own class's :math:`w_y^\top z = |w_y|\,|z| \cos\theta`
    is replaced by :math:`|w_y|\,|z|\, \psi(\theta)`, see `angular`. The biases of the layer stay;
    the reference leaves them out.

    Arguments:
        bayes: p(y|z) with one variance for all classes, which is a softmax layer.
        margin: m, 1 and above; with 1 it is the cross-entropy.

    Raises:
        ValueError: The margin is below 1; the classes have variances of their own.

    References:
        Liu et al. 2016.

    >>> ce = zoo.build("ce", (4,), 3, z_dim=2)
    >>> term = LargeMargin(ce.guide.p_y, 2)
    >>> term.loss(torch.eye(3), torch.zeros(3, 2)).shape
    torch.Size([])
    """

    def __init__(self, bayes: Bayes, margin: int) -> None:
        super().__init__()
        if margin < 1:
            raise ValueError(f"margin should be 1 or above, got {margin}")
        if not bayes.is_softmax:
            raise ValueError("bayes should have one variance for all classes: a softmax layer")
        self.margin = margin
        self._bayes = (bayes,)  # in a tuple, so that its parameters are not those of this term

    def formula(self, context: LossContext) -> Tensor:
        return self.loss(*context.classes_and_latents())

    def loss(self, y: Tensor, z: Tensor) -> Tensor:
        """The mean over rows, for one-hot classes `(B, K)` and their latents `(B, Z)`."""
        (bayes,) = self._bayes
        p_z = bayes.p_z
        assert isinstance(p_z, ClassNormal)
        own = y @ (p_z.loc / p_z.scale.square())
        product = (own * z).sum(-1)
        norms = own.norm(dim=-1) * z.norm(dim=-1)
        cosine = (product / norms.clamp_min(1e-12)).clamp(-1, 1)
        change = norms * angular(cosine, self.margin) - product
        logits = bayes.layer(z) + y * change.unsqueeze(-1)
        return -(y * logits.log_softmax(-1)).sum(-1).mean()


class CentreLoss(Term):
    r"""Centre loss: half the squared distance of each code from its class's centre.

    .. math:: \frac{\lambda}{2}\, \mathrm E\, |z - c_y|^2, \qquad
              c_k \leftarrow c_k - \alpha \frac{\sum_{i: y_i = k} (c_k - z_i)}{1 + \#\{i: y_i = k\}}

    The centres move after each evaluation in training; they have no gradient.

    Arguments:
        dim: Size Z of the code.
        classes: K.
        weight: lambda; 0.003 in the reference.
        rate: alpha; 0.5 in the reference.

    References:
        Wen et al. 2016, eq. 2 to 5.

    >>> CentreLoss(2, 3, 0.003).centres.shape
    torch.Size([3, 2])
    """

    centres: Tensor

    def __init__(self, dim: int, classes: int, weight: float, rate: float = 0.5) -> None:
        super().__init__(weight)
        self.rate = rate
        self.register_buffer("centres", torch.zeros(classes, dim))

    def formula(self, context: LossContext) -> Tensor:
        y, z = context.classes_and_latents()
        distance = 0.5 * (z - y @ self.centres).square().sum(-1).mean()
        if self.training:
            self.move(y, z.detach())
        return distance

    def move(self, y: Tensor, z: Tensor) -> None:
        """Move the centres towards the codes `(B, Z)` of one-hot classes `(B, K)`."""
        counts = y.sum(0).unsqueeze(-1)
        change = (counts * self.centres - y.T @ z) / (1 + counts)
        self.centres = self.centres - self.rate * change


class MixtureMargin(Term):
    r"""Large-margin Gaussian mixture: cross-entropy with a margin on the own class's distance.

    .. math:: \log p(z \mid y) \;\text{is lowered by}\; \alpha d_y, \qquad
              d_y = \frac 1 2 \sum_j \frac{(z_j - \mu_{yj})^2}{\sigma_{yj}^2}

    in p(y|z) of the own class. With gm's density term, it is the loss of the reference.

    Arguments:
        bayes: p(y|z).
        margin: alpha, 0 and above; with 0 it is the cross-entropy.

    Raises:
        ValueError: The margin is below 0.

    References:
        Wan et al. 2018, eq. 14 to 16.

    >>> gm = zoo.build("gm", (4,), 3, z_dim=2)
    >>> MixtureMargin(gm.guide.p_y, 0.3).loss(torch.eye(3), torch.zeros(3, 2)).shape
    torch.Size([])
    """

    def __init__(self, bayes: Bayes, margin: float) -> None:
        super().__init__()
        if not margin >= 0:
            raise ValueError(f"margin should be 0 or above, got {margin}")
        self.margin = margin
        self._bayes = (bayes,)

    def formula(self, context: LossContext) -> Tensor:
        return self.loss(*context.classes_and_latents())

    def loss(self, y: Tensor, z: Tensor) -> Tensor:
        """The mean over rows, for one-hot classes `(B, K)` and their latents `(B, Z)`."""
        (bayes,) = self._bayes
        p_z: Any = bayes.p_z(y)
        distance = 0.5 * ((z - p_z.base_dist.loc) / p_z.base_dist.scale).square().sum(-1)
        logits = bayes.joint(z) - self.margin * y * distance.unsqueeze(-1)
        return -(y * logits.log_softmax(-1)).sum(-1).mean()


def _large_margin(objective: Objective, margin: int) -> Term:
    return LargeMargin(objective.guide.p_y, margin)


def _centre(objective: Objective, weight: float, rate: float) -> Term:
    classes, dim = objective.model.p_z.loc.shape
    return CentreLoss(dim, classes, weight, rate)


def _mixture_margin(objective: Objective, margin: float) -> Term:
    return MixtureMargin(objective.guide.p_y, margin)


@dataclass(frozen=True)
class Comparator:
    """An earlier loss: a method of ours, with options, and the term that is added to it."""

    title: str
    method: str
    make: Callable[..., Term]
    arguments: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


COMPARATORS = {
    "large_margin": Comparator(
        "large-margin softmax (Liu et al. 2016), m = 2",
        "ce",
        _large_margin,
        {"margin": 2},
        {"alpha": 0.0},  # the term replaces the cross-entropy
    ),
    "centre": Comparator(
        "centre loss (Wen et al. 2016), weight 0.003",
        "ce",
        _centre,
        {"weight": 0.003, "rate": 0.5},
    ),
    "mixture_margin": Comparator(
        "large-margin Gaussian mixture (Wan et al. 2018), margin 0.3, density 0.1",
        "gm",
        _mixture_margin,
        {"margin": 0.3},
        {"alpha": 0.0, "density": 0.1},
    ),
}


def build(
    name: str,
    x_shape: tuple[int, ...],
    classes: int,
    *,
    arguments: dict[str, Any],
    seed: int,
    options: dict[str, Any],
) -> Objective:
    """Build the objective of a comparator.

    Arguments:
        name: Key of `COMPARATORS`.
        x_shape: Event shape of x.
        classes: K.
        arguments: Arguments of its term.
        seed: Seed of the weights.
        options: Options of its method.
    """
    comparator = COMPARATORS[name]
    objective = zoo.build(comparator.method, x_shape, classes, seed=seed, **options)
    objective.terms.append(comparator.make(objective, **arguments))
    return objective
