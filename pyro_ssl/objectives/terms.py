"""Terms: functions that add to the loss, each one formula with a weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from pyro.distributions import OneHotCategorical, TorchDistribution
from torch import Tensor, nn

from pyro_ssl.distributions.priors import Prior
from pyro_ssl.infer.sites import data_plates, is_per_datum, sample_sites
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.utils.arguments import check_probs
from pyro_ssl.utils.context import parts_in_eval_mode


class Guide(Protocol):
    """A guide program that also classifies."""

    training: bool

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Any: ...

    def classify(self, x: Tensor) -> TorchDistribution: ...


@dataclass
class LossContext:
    """A batch together with q(y|x) on both of its parts, computed at most once per step.

    Where the bound has already evaluated q(y|x), the terms are given that very distribution.
    """

    batch: Batch
    guide: Guide
    known: dict[str, TorchDistribution] = field(default_factory=dict)
    trace: Any = None
    labeled: int | None = None

    @cached_property
    def q_labeled(self) -> TorchDistribution:
        """q(y|x) on labeled data, over one-hot `(B_l, K)`."""
        assert self.batch.x is not None
        return self.known.get("labeled") or self.guide.classify(self.batch.x)

    @cached_property
    def q_unlabeled(self) -> TorchDistribution:
        """q(y|x) on unlabeled data, over one-hot `(B_u, K)`."""
        assert self.batch.x_unlabeled is not None
        return self.known.get("unlabeled") or self.guide.classify(self.batch.x_unlabeled)

    @cached_property
    def q_without_noise(self) -> Tensor:
        """q(y|x) on unlabeled data with all networks as in evaluation, without gradient, `(B_u, K)`."""
        assert self.batch.x_unlabeled is not None and isinstance(self.guide, nn.Module)
        networks = [m for m in self.guide.modules() if not hasattr(m, "classify")]
        with torch.no_grad(), parts_in_eval_mode(networks):
            return self.guide.classify(self.batch.x_unlabeled).mean

    def record_trace(self, guide_trace: Any, labeled: int | None = None) -> None:
        """Take q(y|x) from the site `y` of a guide's trace: of the unlabeled part, or of both, `labeled` rows first.

        Where the guide draws something before y, its q(y|x,a) is not q(y|x), but a guide may say, by an attribute
        `classifies_by_one_draw`, that its `classify` is no more than that in training.
        """
        self.trace, self.labeled = guide_trace, labeled
        if "y" not in guide_trace.nodes:
            return
        rows = next((plate.size for plate in data_plates(guide_trace.nodes["y"])), None)
        drawn = [n for n, site in sample_sites(guide_trace) if not site["is_observed"] and is_per_datum(site, rows)]
        one_draw = "y" in drawn and self.guide.training and getattr(self.guide, "classifies_by_one_draw", False)
        if drawn[:1] != ["y"] and not one_draw:
            return
        q = guide_trace.nodes["y"]["fn"]
        if not isinstance(q, OneHotCategorical):
            return
        logits = q.logits.flatten(0, -3)[0] if q.logits.dim() > 2 else q.logits  # the first of several draws
        if labeled is None:
            self.known["unlabeled"] = q if logits is q.logits else OneHotCategorical(logits=logits)
        else:
            parts = {"labeled": logits[:labeled], "unlabeled": logits[labeled:]}
            self.known |= {name: OneHotCategorical(logits=part) for name, part in parts.items() if len(part)}

    def codes(self) -> tuple[Tensor, Tensor]:
        """One-hot classes `(B, K)` and the codes z `(B, Z)` that the guide drew: labeled data first, the others' from q(y|x).

        Raises:
            ValueError: The bound was not of labeled and unlabeled data in one call.
        """
        labeled = 0 if self.batch.y is None else self.labeled
        if self.trace is None or labeled is None:
            raise ValueError(
                "objective: discriminators learn from labeled data and others in one call; give Objective(joint_pass=True) and a "
                "weight `labeled` above 0"
            )
        z = self.trace.nodes["z"]["value"]
        z = z.flatten(0, -3)[0] if z.dim() > 2 else z  # the first of several draws
        known = [] if self.batch.y is None else [self.batch.y]
        others = [self.q_unlabeled.sample()] if len(z) > labeled else []
        return torch.cat([*known, *others]).detach(), z


class Term(nn.Module, ABC):
    """Adds `weight` times a formula to the loss.

    Arguments:
        weight: Factor of the formula, in the loss per datum; 0 switches the term off.
    """

    needs: str = "labeled"  # the part of the batch that the formula reads: labeled, unlabeled or nothing
    lr_scale: float | None = None  # of a player against the pair: its learning rate's factor

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if not math.isfinite(weight):
            raise ValueError(f"{type(self).__name__}: weight should be a finite number, got {weight}")
        self.weight = weight

    @abstractmethod
    def formula(self, step: LossContext) -> Tensor:
        """The formula, a scalar in nats."""

    def forward(self, step: LossContext) -> Tensor | None:
        """weight * formula, or None where the batch has not the part that it reads."""
        missing = {"labeled": step.batch.x is None, "unlabeled": step.batch.x_unlabeled is None}
        return None if missing.get(self.needs, False) or self.weight == 0 else self.weight * self.formula(step)


class LabelLogProb(Term):
    r"""The classification loss, the mean over labeled data.

    .. math:: -\alpha\, \frac{1}{B_l} \sum_i \log q(y_i \mid x_i)

    The papers' alpha multiplies a sum over the data set beside sums of bounds; with the bounds averaged, as here,
    Kingma's J, divided by N_u, has `labeled = N_l / N_u` and, for his alpha = 0.1 N, `weight = 0.1 N / N_u`.

    References:
        Kingma et al. 2014, eq. 9; paper 004, eq. 4.
    """

    def formula(self, step: LossContext) -> Tensor:
        y = step.batch.y
        assert y is not None
        return -step.q_labeled.log_prob(y).mean()


class Entropy(Term):
    r"""The entropy of the classifier on unlabeled data: minimised with a weight above 0, raised with one below.

    .. math:: \beta\, \frac{1}{B_u} \sum_i \mathrm H(q(y \mid x_i))

    References:
        Paper 004, eq. 9.
    """

    needs = "unlabeled"

    def formula(self, step: LossContext) -> Tensor:
        return step.q_unlabeled.entropy().mean()


class MutualInformation(Term):
    r"""Minus the mutual information of label and datum under q, its marginal estimated on the batch.

    .. math:: -\gamma\, I(y; x), \qquad
              I(y; x) = \mathrm H\Big(\frac{1}{B_u} \sum_i q(y \mid x_i)\Big) - \frac{1}{B_u} \sum_i \mathrm H(q(y \mid x_i))

    The entropy of a batch's mean is biased downwards, by about (K - 1) / (2 B_u) nats.

    References:
        Paper 004, eq. 6 and 9.
    """

    needs = "unlabeled"

    def formula(self, step: LossContext) -> Tensor:
        q = step.q_unlabeled
        return q.entropy().mean() - entropy(q.mean.mean(0))


class Consistency(Term):
    r"""What the classifier is sure of without noise, it should say of the noisy x too: noise, warp and dropout in training.

    .. math:: \frac{1}{B_u} \sum_i \mathbb 1[\max_y \bar q(y \mid x_i) \geq \tau]\, \big(-\log q(\hat y_i \mid x_i')\big),
              \qquad \hat y_i = \arg\max_y \bar q(y \mid x_i)

    q-bar is the classifier with its networks as in evaluation, without gradient, at one draw of what the guide draws before y;
    x' is what it sees in training. Where the classifier has neither noise nor dropout it only sharpens what is certain.

    Arguments:
        weight: Factor of the formula.
        threshold: tau, in (0, 1].

    References:
        Sohn et al. 2020, FixMatch.
    """

    needs = "unlabeled"

    def __init__(self, weight: float = 1.0, threshold: float = 0.95) -> None:
        super().__init__(weight)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold should be in (0, 1], got {threshold}")
        self.threshold = threshold

    def formula(self, step: LossContext) -> Tensor:
        sure, best = step.q_without_noise.max(-1)
        log_q = step.q_unlabeled.logits
        return -(log_q.gather(-1, best.unsqueeze(-1)).squeeze(-1) * (sure >= self.threshold)).mean()


class ClassBalance(Term):
    r"""The classifier's marginal against p(y): classes are as frequent as it says, equally where it is uniform.

    .. math:: \mathrm{KL}\Big(\frac{1}{B_u} \sum_i q(y \mid x_i) \,\Big\|\, p(y)\Big) - \log K,
              \quad \text{with a uniform } p(y): \; -\mathrm H\Big(\frac{1}{B_u} \sum_i q(y \mid x_i)\Big)

    It is the part of the bound's KL(q(y|x) || p(y)) that is not mutual information, with a weight of its own; and what is
    left of `MutualInformation` without its pull on the single q(y|x).

    Arguments:
        weight: Of the term.
        class_probs: p(y), K numbers above 0 that sum to 1; None is uniform.

    References:
        Paper 004, eq. 6 to 8, for the decomposition.
    """

    needs = "unlabeled"
    log_ratio: Tensor | None

    def __init__(self, weight: float = 1.0, class_probs: Sequence[float] | None = None) -> None:
        super().__init__(weight)
        p = None if class_probs is None else torch.as_tensor(check_probs(class_probs))
        self.register_buffer("log_ratio", None if p is None else p.log() + math.log(len(p)))

    def formula(self, step: LossContext) -> Tensor:
        marginal = step.q_unlabeled.mean.mean(0)
        if self.log_ratio is None:
            return -entropy(marginal)
        return -entropy(marginal) - (marginal * self.log_ratio).sum()


class L2(Term):
    r"""Squared norm of a module's weights, biases left out.

    .. math:: \frac{\mathrm{weight}}{2} \sum_w w^2

    Arguments:
        module: Its parameters of two or more dimensions are penalised, each once, but for those that are a prior's own, such
            as means and pseudo-inputs.
        weight: Of the term.
        without: Modules within it, such as other parameter_groups, whose parameters are not.
    """

    needs = "nothing"

    def __init__(self, module: nn.Module, weight: float = 1e-4, without: Iterable[nn.Module] = ()) -> None:
        super().__init__(weight)
        if weight < 0:
            raise ValueError(f"l2 should be 0 or above, got {weight}")
        priors = [part for part in module.modules() if isinstance(part, Prior)]
        holders = [
            p for prior in priors for p in (prior, *prior.children()) if p is prior or isinstance(p, nn.ParameterList)
        ]
        own = [p for holder in holders for p in holder.parameters(recurse=False)]
        exempt = {id(p) for p in [*own, *(p for other in without for p in other.parameters())]}
        self.weights = [p for p in module.parameters() if p.dim() > 1 and id(p) not in exempt]
        if not self.weights:
            raise ValueError("module has no weights of two or more dimensions to penalise")

    def formula(self, step: LossContext) -> Tensor:
        return 0.5 * torch.stack([w.square().sum() for w in self.weights]).sum()


class Adversary(Term):
    r"""A classifier of the code, f(y|z), that the pair plays against: z shall not tell the class. With J the loss,

    .. math:: \min_{\theta, \phi} \max_\psi\; J + w\, \mathrm E_{q(z|x,y)}[\log f_\psi(y \mid z)]

    On labeled data. The value is the pair's part, w E[log f]; the adversary's own gradient, of -E[log f], adds nothing to
    it. Each is constant in the other's parameters, so that one step on the sum is one step of each.

    Arguments:
        f: One-hot y given z.
        weight: w.
        lr_scale: The adversary's learning rate over the pair's.

    References:
        Paper 003, appendix E.
    """

    def __init__(self, f: nn.Module, weight: float = 1.0, lr_scale: float = 1.0) -> None:
        super().__init__(weight)
        if not lr_scale > 0:
            raise ValueError(f"lr_scale should be above 0, got {lr_scale}")
        self.f, self.lr_scale = f, lr_scale

    def formula(self, step: LossContext) -> Tensor:
        x, y = step.batch.x, step.batch.y
        assert x is not None and y is not None
        guide: Any = step.guide
        z = guide.encode(x, y).rsample()
        frozen = {name: p.detach() for name, p in self.f.named_parameters()}
        against = torch.func.functional_call(self.f, frozen, z).log_prob(y).mean()
        own = -self.f(z.detach()).log_prob(y).mean()
        return against + (own - own.detach()) / self.weight


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats of probabilities over the last dimension; 0 log 0 = 0."""
    return torch.special.entr(p).sum(-1)
