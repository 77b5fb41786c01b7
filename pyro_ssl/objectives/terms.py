"""Terms of the loss: each is a formula with a weight.

To use a term of your own in one objective, see `Term`. To add a term to the methods of the zoo:

1. Write the class here, with its formula.
2. Export it in `pyro_ssl/__init__.py`.
3. In `LossOptions` of `zoo/options.py`, add its weight as a field of type `float`, 0 by default, a
   line of the docstring, and a line in `LossOptions.objective`. The field becomes an option of
   every method, on the command line as well, and is checked to be 0 or above.
4. Give it a title in `evaluation/style.py`.
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
from pyro_ssl.utils.process_noise import sharded
from pyro_ssl.utils.process_rows import Rows, batch_mean


class Term(nn.Module, ABC):
    """A term of the loss, `weight` times a formula.

    A term of your own overrides `formula`, and `needs` if it reads unlabeled data:

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
        weight: Factor of the formula in the loss per datum; with 0 it is not evaluated.

    Attributes:
        needs: The part of the batch that the formula reads: `labeled`, `unlabeled` or `nothing`.
        lr_scale: Learning rate of the term's parameters relative to that of model and guide; None
            if the term is not adversarial.
        divisible: True if several processes can each evaluate the formula on their part of a batch:
            it is a mean over rows, does not depend on the data, or takes the means inside it by
            `pyro_ssl.utils.process_rows.batch_mean`. `fit` refuses other terms in several
            processes.

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
        """weight * formula, or None if the batch lacks the part that the formula reads."""
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
    r"""The classification loss: the mean of -log q(y|x) over labeled data.

    .. math:: -\alpha\, \frac{1}{B_l} \sum_i \log q(y_i \mid x_i)

    Kingma et al. add it with alpha = 0.1 N to sums of bounds. Here, the bounds are means: their
    objective divided by N_u is `labeled_weight = N_l / N_u` with `weight = 0.1 N / N_u`.

    References:
        Kingma et al. 2014, eq. 9; paper 004, eq. 4.

    >>> from pyro_ssl import Batch, zoo
    >>> guide = zoo.build("classifier", (4,), 3, hidden=(8,)).guide
    >>> context = LossContext(Batch(torch.randn(3, 4), torch.eye(3)), guide)
    >>> LabelLogProb()(context).shape
    torch.Size([])
    """

    divisible = True

    def formula(self, context: LossContext) -> Tensor:
        y = context.batch.y
        assert y is not None
        return -context.q_labeled.log_prob(y).mean()


class Entropy(Term):
    r"""Mean entropy of q(y|x) on unlabeled data; a positive weight makes predictions confident.

    .. math:: \beta\, \frac{1}{B_u} \sum_i \mathrm H(q(y \mid x_i))

    References:
        Paper 004, eq. 9.

    >>> from pyro_ssl import Batch, zoo
    >>> guide = zoo.build("classifier", (4,), 3, hidden=(8,)).guide
    >>> context = LossContext(Batch(x_unlabeled=torch.randn(5, 4)), guide)
    >>> Entropy()(context).shape
    torch.Size([])
    """

    needs = "unlabeled"
    divisible = True

    def formula(self, context: LossContext) -> Tensor:
        return context.q_unlabeled.entropy().mean()


class MutualInformation(Term):
    r"""Minus the mutual information of label and datum under q, estimated from the batch.

    .. math:: -\gamma\, I(y; x), \qquad
              I(y; x) = \mathrm H\Big(\frac{1}{B_u} \sum_i q(y \mid x_i)\Big)
                        - \frac{1}{B_u} \sum_i \mathrm H(q(y \mid x_i))

    The estimate of the first entropy is too low by about (K - 1) / (2 B_u) nats.

    References:
        Paper 004, eq. 6 and 9.

    >>> from pyro_ssl import Batch, zoo
    >>> guide = zoo.build("classifier", (4,), 3, hidden=(8,)).guide
    >>> context = LossContext(Batch(x_unlabeled=torch.randn(5, 4)), guide)
    >>> MutualInformation()(context).shape
    torch.Size([])
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

    q-bar is the classifier with its networks in eval mode, without gradient, and with one sample of
    the latents before y; x' is x with the noise, warp and dropout of training. Without noise and
    dropout, the term only makes confident predictions more confident.

    Arguments:
        weight: Factor of the formula.
        threshold: Confidence tau, in (0, 1].

    Raises:
        ValueError: threshold is out of range.

    References:
        Sohn et al. 2020, FixMatch.

    >>> from pyro_ssl import Batch, zoo
    >>> guide = zoo.build("classifier", (4,), 3, hidden=(8,)).guide
    >>> context = LossContext(Batch(x_unlabeled=torch.randn(5, 4)), guide)
    >>> Consistency()(context).shape
    torch.Size([])
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

    The literature calls it distribution alignment. The bound already contains this divergence: the
    mean of KL(q(y|x) || p(y)) is its sum with the mutual information. The term gives it a weight of
    its own. With a uniform p(y), the term is `MutualInformation` without the mean of entropies.

    Arguments:
        weight: Factor of the formula.
        class_probs: p(y), K numbers above 0 that sum to 1; None for a uniform p(y).

    Raises:
        ValueError: class_probs are not probabilities above 0.

    References:
        Paper 004, eq. 6 to 8, for the decomposition.

    >>> from pyro_ssl import Batch, zoo
    >>> guide = zoo.build("classifier", (4,), 3, hidden=(8,)).guide
    >>> context = LossContext(Batch(x_unlabeled=torch.randn(5, 4)), guide)
    >>> ClassBalance()(context).shape
    torch.Size([])
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
    r"""Half the squared norm of a module's weights, without biases and the parameters of priors.

    .. math:: \frac{\mathrm{weight}}{2} \sum_w w^2

    Arguments:
        module: The module. Its parameters of two or more dimensions are penalised, except for
            parameters of priors, such as means and pseudo-inputs.
        weight: Factor of the formula.
        without: Modules whose parameters are not penalised, such as discriminators.

    Raises:
        ValueError: The weight is below 0, or there is no parameter to penalise.

    >>> L2(nn.Linear(3, 2)).weights[0].shape
    torch.Size([2, 3])
    """

    needs = "nothing"
    divisible = True

    def __init__(
        self, module: nn.Module, weight: float = 1e-4, without: Iterable[nn.Module] = ()
    ) -> None:
        super().__init__(weight)
        if weight < 0:
            raise ValueError(f"L2: weight should be 0 or above, got {weight}")
        exempt = {id(p) for p in _parameters_of_priors(module)}
        for other in without:
            exempt |= {id(p) for p in other.parameters()}
        self.weights = [p for p in module.parameters() if p.dim() > 1 and id(p) not in exempt]
        if not self.weights:
            raise ValueError("module has no weights of two or more dimensions to penalise")

    def formula(self, context: LossContext) -> Tensor:
        return 0.5 * torch.stack([w.square().sum() for w in self.weights]).sum()


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats of probabilities along the last dimension, with 0 log 0 = 0.

    >>> entropy(torch.tensor([0.0, 1.0]))
    tensor(0.)
    """
    return torch.special.entr(p).sum(-1)


def _parameters_of_priors(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of the priors in a module, without those of networks inside a prior."""
    for prior in module.modules():
        if not isinstance(prior, Prior):
            continue
        yield from prior.parameters(recurse=False)
        for child in prior.children():
            if isinstance(child, nn.ParameterList):
                yield from child.parameters(recurse=False)
