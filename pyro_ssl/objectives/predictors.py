"""How an objective predicts: by its guide's q(y|x), or by Gibbs sampling in its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pyro.distributions import Normal, OneHotCategorical, TorchDistribution
from torch import Tensor

from pyro_ssl.infer.checks.pair import q_y_of
from pyro_ssl.infer.gibbs_chain import gibbs
from pyro_ssl.utils.arguments import check_kind, check_positive


class LabelPredictor(Protocol):
    """Protocol of predictors: functions that predict labels by a model and a guide.

    >>> isinstance(GuidePredictor().chains, int)
    True
    """

    @property
    def chains(self) -> int:
        """Number of evaluations per datum at once; prediction divides its chunk size by it."""

    def __call__(self, model: Any, guide: Any, x: Tensor) -> TorchDistribution:
        """Predict p(y|x), over one-hot labels `(B, K)` or real labels `(B, D)`.

        Arguments:
            model: The model, or None for a discriminative method.
            guide: Its guide.
            x: Encoded data `(B, *event)`.
        """


@dataclass(frozen=True)
class GuidePredictor:
    """Predict by the guide's q(y|x).

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (2,), 3, hidden=(8,), z_dim=2)
    >>> GuidePredictor()(m2.model, m2.guide, torch.zeros(5, 2)).mean.shape
    torch.Size([5, 3])
    """

    chains: ClassVar[int] = 1

    def __call__(self, model: Any, guide: Any, x: Tensor) -> TorchDistribution:
        q: TorchDistribution = q_y_of(guide, x)
        return q


@dataclass(frozen=True)
class GibbsPredictor:
    """Predict by Gibbs sampling the model's own p(y|x,z); see `pyro_ssl.infer.gibbs_chain.gibbs`.

    The prediction of a real y is a Gaussian with the mean and the variance of the chains.

    Arguments:
        steps: Number of steps of each chain.
        chains: Number of independent chains for each datum, whose mean is taken.
        hard: Average the drawn labels instead of their probabilities, as in paper 002, eq. 4.24.

    Raises:
        ValueError: steps or chains is not a whole number above 0, or hard is not a bool.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (2,), 3, hidden=(8,), z_dim=2)
    >>> GibbsPredictor(steps=3, chains=2)(sslpe.model, sslpe.guide, torch.zeros(5, 2)).mean.shape
    torch.Size([5, 3])
    """

    steps: int = 10
    chains: int = 1
    hard: bool = False

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, chains=self.chains)
        check_kind("hard", self.hard, bool)

    def __call__(self, model: Any, guide: Any, x: Tensor) -> TorchDistribution:
        sampled = gibbs(model, guide, x, steps=self.steps, chains=self.chains, hard=self.hard)
        if q_y_of(guide, x[:1]).has_enumerate_support:
            return OneHotCategorical(probs=sampled.mean)
        return Normal(sampled.mean, sampled.variance.sqrt()).to_event(1)
