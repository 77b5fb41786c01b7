"""Terms: functions that add to the loss, each one formula with a weight.

A new term reaches the zoo by a field and a line in `zoo/options.py` (`LossOptions`), an export in
`pyro_ssl/__init__.py` and a title in `evaluation/style.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from pyro_ssl.distributions.priors import Prior
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.utils.arguments import check_probs
from pyro_ssl.utils.ranks import Rows, batch_mean
from pyro_ssl.utils.sharding import sharded


class Term(nn.Module, ABC):
    """`weight` times a formula, added to the loss.

    A term of your own overrides `formula`, and `needs` where it reads unlabeled data:

    >>> from pyro_ssl import Batch, Objective, zoo
    >>> class Confidence(Term):
    ...     needs = "unlabeled"
    ...     def formula(self, context):
    ...         return -context.q_unlabeled.mean.amax(-1).mean()
    >>> guide = zoo.build("classifier", (4,), 3, hidden=(8,)).guide
    >>> objective = Objective(None, guide, [Confidence(0.5)])
    >>> list(objective.parts(Batch(x_unlabeled=torch.randn(5, 4))))
    ['Confidence']

    Arguments:
        weight: Factor of the formula, in the loss per datum; 0 switches the term off.

    Attributes:
        needs: The part of the batch that the formula reads: `labeled`, `unlabeled` or `nothing`.
        lr_scale: Learning rate of the term's own parameters relative to the pair's; None if they
            are not adversarial.
        divisible: Whether several processes can each evaluate the formula on their part of a batch:
            it is a mean over rows, does not depend on the data, or takes the means inside it by
            `pyro_ssl.utils.ranks.batch_mean`. `fit` refuses other terms in several processes.

    Raises:
        ValueError: The weight is not finite.
    """

    needs: str = "labeled"
    lr_scale: float | None = None
    divisible: bool = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if not math.isfinite(weight):
            name = type(self).__name__
            raise ValueError(f"{name}: weight should be a finite number, got {weight}")
        self.weight = weight

    @abstractmethod
    def formula(self, context: LossContext) -> Tensor:
        """The formula, a scalar in nats."""

    def forward(self, context: LossContext) -> Tensor | None:
        """weight * formula, or None where the batch lacks the part that the formula reads."""
        if self.weight == 0:
            return None
        if self.needs == "labeled" and context.batch.x is None:
            return None
        if self.needs == "unlabeled" and context.batch.x_unlabeled is None:
            return None
        rows = self.rows_of(context)
        with sharded(rows):
            value = self.formula(context)
        if rows is not None:
            value = rows.share * value
        return self.weight * value

    def rows_of(self, context: LossContext) -> Rows | None:
        """The rows that the formula is a mean of; None if there is one process."""
        if self.needs == "labeled":
            return context.batch.rows
        if self.needs == "unlabeled":
            return context.batch.rows_unlabeled
        return context.batch.all_rows


class LabelLogProb(Term):
    r"""The classification loss, the mean over labeled data.

    .. math:: -\alpha\, \frac{1}{B_l} \sum_i \log q(y_i \mid x_i)

    The papers' alpha multiplies a sum over the data set beside sums of bounds. With the bounds
    averaged, as here, Kingma's objective divided by N_u corresponds to
    `labeled_weight = N_l / N_u` and, as his alpha is 0.1 N, to `weight = 0.1 N / N_u`.

    References:
        Kingma et al. 2014, eq. 9; paper 004, eq. 4.
    """

    divisible = True

    def formula(self, context: LossContext) -> Tensor:
        y = context.batch.y
        assert y is not None
        return -context.q_labeled.log_prob(y).mean()


class Entropy(Term):
    r"""The classifier's entropy on unlabeled data: minimised with a positive weight.

    .. math:: \beta\, \frac{1}{B_u} \sum_i \mathrm H(q(y \mid x_i))

    References:
        Paper 004, eq. 9.
    """

    needs = "unlabeled"
    divisible = True

    def formula(self, context: LossContext) -> Tensor:
        return context.q_unlabeled.entropy().mean()


class MutualInformation(Term):
    r"""Minus the mutual information of label and datum under q, with the batch's marginal.

    .. math:: -\gamma\, I(y; x), \qquad
              I(y; x) = \mathrm H\Big(\frac{1}{B_u} \sum_i q(y \mid x_i)\Big)
                        - \frac{1}{B_u} \sum_i \mathrm H(q(y \mid x_i))

    The entropy of a batch's mean is biased downwards, by about (K - 1) / (2 B_u) nats.

    References:
        Paper 004, eq. 6 and 9.
    """

    needs = "unlabeled"
    divisible = True

    def formula(self, context: LossContext) -> Tensor:
        q = context.q_unlabeled
        return q.entropy().mean() - entropy(batch_mean(q.mean))


class Consistency(Term):
    r"""FixMatch: confident predictions on clean inputs are targets for their noisy versions.

    .. math:: \frac{1}{B_u} \sum_i \mathbb 1[\max_y \bar q(y \mid x_i) \geq \tau]\,
              \big(-\log q(\hat y_i \mid x_i')\big),
              \qquad \hat y_i = \arg\max_y \bar q(y \mid x_i)

    q-bar is the classifier with its networks in eval mode, without gradient, at one draw of
    whatever the guide samples before y; x' is x with the noise, warp and dropout of training. For a
    classifier without noise or dropout the term only sharpens confident predictions.

    Arguments:
        weight: Factor of the formula.
        threshold: Confidence tau, in (0, 1].

    Raises:
        ValueError: threshold is out of range.

    References:
        Sohn et al. 2020, FixMatch.
    """

    needs = "unlabeled"
    divisible = True

    def __init__(self, weight: float = 1.0, threshold: float = 0.95) -> None:
        super().__init__(weight)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold should be in (0, 1], got {threshold}")
        self.threshold = threshold

    def formula(self, context: LossContext) -> Tensor:
        confidence, target = context.q_without_noise.max(-1)
        log_q = context.q_unlabeled.logits
        log_q_of_target = log_q.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return -(log_q_of_target * (confidence >= self.threshold)).mean()


class ClassBalance(Term):
    r"""KL divergence of the batch mean of q(y|x) from the class prior p(y).

    .. math:: \mathrm{KL}\Big(\frac{1}{B_u} \sum_i q(y \mid x_i) \,\Big\|\, p(y)\Big) - \log K,
              \quad \text{with a uniform } p(y): \;
              -\mathrm H\Big(\frac{1}{B_u} \sum_i q(y \mid x_i)\Big)

    The literature calls it distribution alignment. It is the part of the bound's
    KL(q(y|x) || p(y)) that is not mutual information, with a weight of its own.
    With a uniform p(y) it equals `MutualInformation` without the mean-entropy term.

    Arguments:
        weight: Factor of the formula.
        class_probs: p(y), K numbers above 0 that sum to 1; None is uniform.

    Raises:
        ValueError: class_probs are not such numbers.

    References:
        Paper 004, eq. 6 to 8, for the decomposition.
    """

    needs = "unlabeled"
    divisible = True
    log_ratio: Tensor | None

    def __init__(self, weight: float = 1.0, class_probs: Sequence[float] | None = None) -> None:
        super().__init__(weight)
        log_ratio = None
        if class_probs is not None:
            p = torch.as_tensor(check_probs(class_probs))
            log_ratio = p.log() + math.log(len(p))
        self.register_buffer("log_ratio", log_ratio)

    def formula(self, context: LossContext) -> Tensor:
        marginal = batch_mean(context.q_unlabeled.mean)
        if self.log_ratio is None:
            return -entropy(marginal)
        return -entropy(marginal) - (marginal * self.log_ratio).sum()


class L2(Term):
    r"""Squared norm of a module's weights, without biases and priors' parameters.

    .. math:: \frac{\mathrm{weight}}{2} \sum_w w^2

    Arguments:
        module: The module whose parameters of two or more dimensions are penalised, each once;
            those of priors, such as means and pseudo-inputs, are not.
        weight: Factor of the formula.
        without: Modules whose parameters are not penalised, such as discriminators.

    Raises:
        ValueError: The weight is below 0, or no parameter is left.
    """

    needs = "nothing"
    divisible = True

    def __init__(
        self, module: nn.Module, weight: float = 1e-4, without: Iterable[nn.Module] = ()
    ) -> None:
        super().__init__(weight)
        if weight < 0:
            raise ValueError(f"l2 should be 0 or above, got {weight}")
        exempt = {id(p) for p in _parameters_of_priors(module)}
        for other in without:
            exempt |= {id(p) for p in other.parameters()}
        self.weights = [p for p in module.parameters() if p.dim() > 1 and id(p) not in exempt]
        if not self.weights:
            raise ValueError("module has no weights of two or more dimensions to penalise")

    def formula(self, context: LossContext) -> Tensor:
        return 0.5 * torch.stack([w.square().sum() for w in self.weights]).sum()


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats of probabilities over the last dimension, where 0 log 0 = 0.

    >>> entropy(torch.tensor([0.0, 1.0]))
    tensor(0.)
    """
    return torch.special.entr(p).sum(-1)


def _parameters_of_priors(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of the priors within a module, without those of networks that a prior holds."""
    for prior in module.modules():
        if not isinstance(prior, Prior):
            continue
        yield from prior.parameters(recurse=False)
        for child in prior.children():
            if isinstance(child, nn.ParameterList):
                yield from child.parameters(recurse=False)
